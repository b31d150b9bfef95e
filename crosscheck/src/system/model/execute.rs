//! What the instructions of privilege cases do, by the parts of the model.

use super::protection::{DS, GP, Mode, Processor, Stop, fault0, require};
use crate::system::instruction::Instruction;

/// The number of RCX.
const RCX: usize = 1;

impl Processor {
    /// Executes an instruction, of which a fault leaves nothing.
    ///
    /// # Errors
    /// The exception; the processor is then of no use.
    pub fn execute(&mut self, instruction: &Instruction) -> Result<(), Stop> {
        self.check_operand(instruction)?;
        let next = self.rip + self.length;
        match *instruction {
            Instruction::Jump { to, .. } => return self.jump(to),
            Instruction::Call { to, .. } => return self.call(to),
            Instruction::FarReturn { size, release } => {
                return self.far_return(size, release.into());
            }
            Instruction::InterruptReturn { size } => return self.interrupt_return(size),
            Instruction::Interrupt { vector } => return self.interrupt(vector),
            Instruction::MoveToSegment { register, selector } => {
                self.load_segment(register, selector)?;
            }
            Instruction::PopSegment { register, selector } => {
                let size = if self.mode() == Mode::Bits64 { 8 } else { 4 };
                self.load_segment(register, selector)?;
                self.regs[4] += size;
            }
            Instruction::LoadPointer { register, pointer } => {
                self.load_segment(register, pointer.selector)?;
                self.regs[RCX] = pointer.offset;
            }
            Instruction::Check { check, selector } => self.check(check, selector, RCX)?,
            Instruction::LoadLdt { selector } => self.load_ldt(selector)?,
            Instruction::LoadTask { selector } => self.load_task(selector)?,
        }
        self.rip = next;
        Ok(())
    }

    /// Memory operands are in the segment of DS, which may be null. Vol. 3A, 5.4.1.
    fn check_operand(&self, instruction: &Instruction) -> Result<(), Stop> {
        let memory = match *instruction {
            Instruction::LoadPointer { .. } => true,
            Instruction::Jump { memory, .. } | Instruction::Call { memory, .. } => memory,
            _ => false,
        };
        let usable = self.mode() == Mode::Bits64 || self.segments[DS].attributes != 0;
        require(usable || !memory, fault0(GP))
    }
}
