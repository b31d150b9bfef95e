//! MONITOR and MWAIT.
//!
//! A store to the monitored line ends the wait. On a machine of one processor only devices store
//! while it waits, so it may halt, and looks at the line whenever it is woken. With other processors
//! about, MWAIT ends at once, as it may for any reason. Intel SDM vol. 2, MONITOR and MWAIT; vol.
//! 3A, 9.10.

use iced_x86::{Code, Instruction, Mnemonic, Register};
use trivium_cpu::Exception;
use trivium_cpu::model::Feature;
use trivium_cpu::state::{Activity, Monitored};
use trivium_memory::Backing;

use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{Op, Stop};

/// Bytes of a line, as CPUID leaf 5 says.
const LINE: usize = 64;

/// A line that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    /// Where it is in the arena.
    offset: usize,
    /// What it held when it was first watched.
    bytes: [u8; LINE],
}

/// What MONITOR has set up, and MWAIT waits for. Nothing of it is architectural: a wait may end at
/// any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Monitor {
    line: Option<Line>,
    /// MWAIT is waiting.
    waits: bool,
    /// Interrupts end the wait even if they are masked.
    masked_too: bool,
}

/// MWAIT's extension in ECX: masked interrupts end the wait.
const MASKED_TOO: u64 = 1;

impl Cpu {
    /// Whether the processor waits in MWAIT.
    pub(crate) fn in_mwait(&self) -> bool {
        self.monitor.waits && self.activity == Activity::Halted
    }

    /// Ends MWAIT if there is a reason; `interrupt` says whether one is pending.
    pub(crate) fn check_mwait(&mut self, interrupt: bool) {
        if !self.in_mwait() {
            self.monitor.waits = false;
        } else if self.monitor.masked_too && interrupt || self.line_has_changed() {
            self.activity = Activity::Running;
            self.monitor = Monitor::default();
        }
    }

    /// What is set up, as part of the CPU's state.
    pub(crate) fn monitor_state(&self) -> Option<Monitored> {
        let waits = self.in_mwait();
        let masked_too = self.monitor.masked_too;
        self.monitor.line.map(|Line { offset, bytes }| {
            let mut content = [0; LINE / 8];
            for (word, bytes) in content.iter_mut().zip(bytes.as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            Monitored { offset: offset as u64, content, waits, masked_too }
        })
    }

    /// Sets up what a state says.
    pub(crate) fn put_monitor_state(&mut self, state: Option<&Monitored>) {
        self.monitor = Monitor::default();
        let Some(&Monitored { offset, ref content, waits, masked_too }) = state else { return };
        let mut bytes = [0; LINE];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(content) {
            *bytes = word.to_le_bytes();
        }
        // What lies outside the arena reads as zeroes.
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.monitor = Monitor { line: Some(Line { offset, bytes }), waits, masked_too };
    }

    fn line_has_changed(&self) -> bool {
        self.monitor.line.is_none_or(|line| self.line_at(line.offset) != line)
    }

    fn line_at(&self, offset: usize) -> Line {
        let mut bytes = [0; LINE];
        self.ram.read_slice(offset, &mut bytes);
        Line { offset, bytes }
    }
}

fn require_monitor(cpu: &mut Cpu) -> Result<(), Stop> {
    match cpu.model.has(Feature::Monitor) && cpu.cpl() == 0 {
        true => Ok(()),
        false => Err(cpu.raise(Exception::ud())),
    }
}

/// The address is in RAX, in DS if no prefix says otherwise; it is checked like a load of a byte.
fn monitor(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    require_monitor(cpu)?;
    if cpu.reg(1, 0, 4) != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let offset = cpu.regs[0] & address_mask(op.asize);
    let linear = cpu.linear(op.seg, offset, 1, false)?;
    let gpa = cpu.physical(linear, Rights::Program)? & !(LINE as u64 - 1);
    let line = match cpu.view.lookup(gpa) {
        Backing::Ram(offset) => Some(cpu.line_at(offset)),
        _ => None,
    };
    cpu.monitor = Monitor { line, ..Monitor::default() };
    Ok(())
}

fn mwait(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_monitor(cpu)?;
    let extensions = cpu.reg(1, 0, 4);
    if extensions & !MASKED_TOO != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    if cpu.topology.cpus > 1 || cpu.line_has_changed() {
        cpu.monitor = Monitor::default();
        return Ok(());
    }
    cpu.monitor.waits = true;
    cpu.monitor.masked_too = extensions & MASKED_TOO != 0;
    cpu.activity = Activity::Halted;
    cpu.look = true;
    Ok(())
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let mut op = context.op(i);
    match i.mnemonic() {
        Mnemonic::Monitor => {
            op.asize = match i.code() {
                Code::Monitorw => 2,
                Code::Monitord => 4,
                _ => 8,
            };
            if i.segment_prefix() != Register::None {
                op.seg = crate::decode::context::segment_number(i.segment_prefix());
            }
            Some(Selection::general(op, monitor))
        }
        Mnemonic::Mwait => Some(Selection::general_end(op, mwait)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, DATA, TABLES, TestMachine};
    use trivium_cpu::{Exit, Vector};

    const MONITOR: [u8; 3] = [0x0f, 0x01, 0xc8];
    const MWAIT: [u8; 3] = [0x0f, 0x01, 0xc9];
    /// monitor; mwait; nop
    const BOTH: [u8; 7] = [0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9, 0x90];

    fn at(code: &[u8], address: u64) -> TestMachine {
        let mut m = TestMachine::long(code);
        m.set(|s| s.general.regs[0] = address);
        m
    }

    #[test]
    fn they_are_undefined_for_programs_and_where_cpuid_does_not_tell_of_them() {
        for code in [MONITOR, MWAIT] {
            at(&code, DATA).at_cpl3().raises(Vector::UD, None);
            let mut model = TestMachine::model();
            model.features.disable(Feature::Monitor);
            TestMachine::long_with(model, &code).raises(Vector::UD, None);
        }
    }

    #[test]
    fn extensions_that_do_not_exist_raise_gp() {
        for (code, ecx) in [(MONITOR, 1), (MWAIT, 2)] {
            let mut m = at(&code, DATA);
            m.set(|s| s.general.regs[1] = ecx);
            m.raises(Vector::GP, Some(0));
        }
    }

    #[test]
    fn the_address_is_checked_like_that_of_a_load() {
        at(&MONITOR, 0x8000_0000_0000).raises(Vector::GP, Some(0));
        let mut m = at(&MONITOR, 0x60_0000);
        m.put_u64(TABLES + 0x2018, 0);
        m.raises(Vector::PF, Some(0));
    }

    #[test]
    fn mwait_without_monitor_does_not_wait() {
        let mut m = at(&MWAIT, DATA);
        assert_eq!(m.run(1), Exit::Budget);
        assert_eq!(m.state().general.rip, CODE + 3);
    }

    #[test]
    fn a_store_to_the_line_ends_the_wait() {
        let mut m = at(&BOTH, DATA + 5);
        assert_eq!(m.run(10), Exit::Halted);
        assert_eq!(m.run(10), Exit::Halted);
        m.put(DATA + 64, &[1]);
        assert_eq!(m.run(1), Exit::Halted, "the next line is another");
        m.put(DATA + 63, &[1]);
        assert_eq!(m.run(1), Exit::Budget);
        assert_eq!(m.state().general.rip, CODE + 7);
        // One that comes before MWAIT keeps it from waiting: monitor; mov [rax], ecx; mwait
        let mut m = at(&[0x0f, 0x01, 0xc8, 0xc6, 0x00, 7, 0x0f, 0x01, 0xc9], DATA);
        assert_eq!(m.run(3), Exit::Budget);
    }

    #[test]
    fn a_wait_goes_on_in_a_cpu_that_takes_over_the_state() {
        let mut m = at(&BOTH, DATA + 5);
        assert_eq!(m.run(10), Exit::Halted);
        let state = m.state();
        assert_eq!(state.validate(), Ok(()));
        m.set(|s| *s = state);
        assert_eq!(m.run(10), Exit::Halted);
        m.put(DATA + 63, &[1]);
        assert_eq!(m.run(1), Exit::Budget);
        // The same before MWAIT: monitor; mwait
        let mut m = at(&BOTH, DATA);
        assert_eq!(m.run(1), Exit::Budget);
        let state = m.state();
        m.set(|s| *s = state);
        assert_eq!(m.run(1), Exit::Halted);
    }

    #[test]
    fn an_interrupt_ends_the_wait() {
        let mut m = at(&BOTH, DATA);
        m.set(|s| s.general.rflags |= 0x200);
        assert_eq!(m.run(10), Exit::Halted);
        *m.bus.interrupt.lock().unwrap() = Some(0x40);
        assert_eq!(m.run_to_handler(), 0x40);
    }

    #[test]
    fn a_masked_interrupt_ends_the_wait_if_ecx_says_so() {
        // monitor; inc ecx; mwait; nop
        let code = [0x0f, 0x01, 0xc8, 0xff, 0xc1, 0x0f, 0x01, 0xc9, 0x90];
        for (code, woken) in [(&code[..], true), (&BOTH, false)] {
            let mut m = at(code, DATA);
            assert_eq!(m.run(10), Exit::Halted);
            *m.bus.interrupt.lock().unwrap() = Some(0x40);
            assert_eq!(m.run(1) == Exit::Budget, woken);
            assert!(m.bus.interrupt.lock().unwrap().is_some(), "it is not taken");
        }
    }
}
