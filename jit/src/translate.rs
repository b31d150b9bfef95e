//! The translator: from blocks of the interpreter to code of the host, and how such code is chained
//! and given up.

use iced_x86::InstructionInfoFactory;
use trivium_interp::Cpu;
use trivium_interp::block::{Block, Dropped};
use trivium_interp::cpu::Mode;
use trivium_interp::decode::offered;
use trivium_interp::op::Op;
use trivium_interp::run::{Translated, Translator};

use crate::analyse::{End, instructions};
use crate::code::{CodeError, CodeMemory};
use crate::emit::{Assembler, Emitted, Emitter, Site};
use crate::enter::{self, MAX_OP};
use crate::simd_state::Routines;
use crate::x87::Notes;

/// Bytes of code memory.
const CODE_SIZE: usize = 64 << 20;

/// A block's code.
struct Code {
    /// Where it is jumped to from other blocks.
    chained: u64,
    /// The jumps at its end and the ways out that they lead to at first.
    sites: [Option<(u64, u64)>; 2],
    /// The jumps of others that lead here, and the ways out that they led to.
    incoming: Vec<(u64, u64)>,
}

/// The translator of one CPU.
pub struct Jit {
    memory: CodeMemory,
    /// Bytes that stay when everything is given up.
    routines: usize,
    enter: u64,
    leave: u64,
    simd: Routines,
    /// By the blocks' numbers.
    blocks: Vec<Option<Code>>,
    info: InstructionInfoFactory,
}

impl Jit {
    /// A translator with nothing translated.
    ///
    /// # Errors
    /// The host gives no memory that may be executed.
    pub fn new() -> Result<Self, CodeError> {
        let mut memory = CodeMemory::new(CODE_SIZE)?;
        let mut routine = |emit: fn(&mut Assembler)| {
            let address = memory.next();
            let mut asm = Assembler::new(address as usize);
            emit(&mut asm);
            let fits = memory.put(&asm.finalize().unwrap_or_default());
            debug_assert!(fits);
            address
        };
        let enter = routine(enter::emit_enter);
        let leave = routine(enter::emit_leave);
        let simd = Routines::emit(&mut routine);
        let routines = memory.used();
        let info = InstructionInfoFactory::new();
        Ok(Self { memory, routines, enter, leave, simd, blocks: Vec::new(), info })
    }

    fn code(&mut self, block: u32) -> Option<&mut Code> {
        self.blocks.get_mut(block as usize)?.as_mut()
    }

    /// Emits a block; nothing if it begins with what is not translated.
    fn emit(&mut self, cpu: &Cpu, block: &Block, ops: &[Op]) -> Option<crate::emit::Finished> {
        let (guests, end) = instructions(cpu, block, ops);
        let about = (block.target.index, block.mode, block.target.count);
        let mut emitter =
            Emitter::new(self.memory.next(), (self.leave, self.simd), &mut self.info, about);
        emitter.notes = Notes::new(&cpu.model);
        let mut emitted = Emitted::Done;
        for (number, guest) in guests.iter().enumerate() {
            let is_offered = offered::has(cpu.model.features, guest.instruction.code());
            let known = is_offered && !guest.instruction.is_invalid();
            emitter.notes.opcode = ops.get(usize::from(guest.op)).map_or(0, |op| op.imm as u16);
            emitted = match known {
                true => emitter.instruction(&guest.instruction, guest.op),
                false => Emitted::Not,
            };
            match emitted {
                Emitted::Done => {}
                Emitted::Ended => break,
                Emitted::Not if number == 0 => return None,
                Emitted::Not => {
                    emitter.leave_to_interpreter(guest.op);
                    break;
                }
            }
        }
        match (emitted, end) {
            (Emitted::Done, End::GoOn(rip)) => emitter.go_on(1, rip),
            (Emitted::Done, End::Instruction) => return None,
            _ => {}
        }
        emitter.finish()
    }
}

/// Whether blocks of a mode are translated: flat ones of 32 and 64 bits.
fn is_translated(block: &Block) -> bool {
    let mode = block.mode;
    let flat = mode.has(Mode::FLAT) && mode.has(Mode::PROTECTED) && block.key.limit == u32::MAX;
    let wide = mode.has(Mode::CODE32) && mode.has(Mode::STACK32);
    flat && (wide || mode.has(Mode::LONG)) && !mode.has(Mode::SINGLE)
}

impl Translator for Jit {
    fn translate(&mut self, cpu: &Cpu, block: &Block, ops: &[Op]) -> Translated {
        if !is_translated(block) || ops.len() > MAX_OP {
            return Translated::Not;
        }
        let Some(finished) = self.emit(cpu, block, ops) else { return Translated::Not };
        let start = self.memory.next();
        if !self.memory.put(&finished.code) {
            return Translated::Full;
        }
        let place = |site: Site| (start + site.operand as u64, start + site.stub as u64);
        let sites = finished.sites.map(|site| site.map(place));
        let index = block.target.index as usize;
        if self.blocks.len() <= index {
            self.blocks.resize_with(index + 1, || None);
        }
        self.blocks[index] = Some(Code { chained: start, sites, incoming: Vec::new() });
        let mut entry = Op::new(enter::enter);
        entry.imm = start + finished.entry as u64;
        entry.disp = self.enter;
        Translated::Entry(entry)
    }

    fn chain(&mut self, from: u32, slot: u8, to: u32) {
        let site = self.code(from).and_then(|code| *code.sites.get(usize::from(slot))?);
        let Some((operand, stub)) = site else { return };
        let Some(code) = self.code(to) else { return };
        let target = code.chained;
        code.incoming.push((operand, stub));
        self.memory.patch(operand, target);
    }

    fn forget(&mut self, dropped: Dropped) {
        match dropped {
            Dropped::None => {}
            Dropped::Some(list) => {
                for block in list {
                    let code = self.blocks.get_mut(block as usize).and_then(Option::take);
                    for (operand, stub) in code.into_iter().flat_map(|code| code.incoming) {
                        self.memory.patch(operand, stub);
                    }
                }
            }
            Dropped::All => {
                self.blocks.clear();
                self.memory.truncate(self.routines);
            }
        }
    }
}
