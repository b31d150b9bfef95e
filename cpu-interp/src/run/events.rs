//! Exceptions, interrupts, and what else others want of the CPU.

use trivium_cpu::bits::{debug, rflags};
use trivium_cpu::exception::{Combined, combine};
use trivium_cpu::state::Activity;
use trivium_cpu::{Exception, Exit, ResetKind, Vector};

use super::{Interpreter, Session};
use crate::op::StopReason;
use crate::system::interrupt::{self, Event, Source};

impl Interpreter {
    /// Looks at what others want, and delivers an interrupt if one may come.
    pub(super) fn look(&mut self, session: &mut Session<'_>) -> Option<Exit> {
        let cpu = &mut self.cpu;
        cpu.look = cpu.interrupt_shadow;
        if cpu.attention.take_kick() {
            return Some(Exit::Kicked);
        }
        let bus = session.bus();
        if let Some(kind) = bus.take_reset() {
            self.reset(kind);
        }
        let cpu = &mut self.cpu;
        if std::mem::take(&mut cpu.ferr_changed) {
            bus.set_ferr(cpu.ferr);
        }
        cpu.nmi_pending |= bus.take_nmi();
        if cpu.activity == Activity::Shutdown || cpu.activity == Activity::WaitForSipi {
            return self.waiting();
        }
        if let Some(injected) = cpu.injected.take() {
            self.deliver(interrupt::reinjected(&injected), session);
            self.cpu.look = true;
        } else if cpu.nmi_pending && !cpu.nmi_masked && !cpu.interrupt_shadow {
            cpu.nmi_pending = false;
            cpu.nmi_masked = true;
            cpu.activity = Activity::Running;
            self.deliver(Event::new(Vector::NMI as u8, None, Source::Nmi), session);
        } else if cpu.system_flags & rflags::IF != 0
            && !cpu.interrupt_shadow
            && bus.interrupt_pending()
            && let Some(vector) = bus.acknowledge_interrupt()
        {
            cpu.activity = Activity::Running;
            self.deliver(Event::new(vector, None, Source::External), session);
        }
        self.waiting()
    }

    /// INIT or a start-up IPI.
    fn reset(&mut self, kind: ResetKind) {
        match kind {
            ResetKind::Init => interrupt::init(&mut self.cpu),
            ResetKind::Sipi(vector) if self.cpu.activity == Activity::WaitForSipi => {
                interrupt::start(&mut self.cpu, vector);
            }
            ResetKind::Sipi(_) => {}
        }
    }

    /// Delivers `Cpu::exception`; RIP is that of the instruction that raised it.
    pub(super) fn raise(&mut self, session: &mut Session<'_>) {
        self.cpu.mmio.forget();
        #[cfg(feature = "planted-bugs")]
        crate::planted::exception(&mut self.cpu);
        let event = Event::from(self.cpu.exception);
        if let Some(linear) = self.cpu.exception.cr2 {
            self.cpu.control.cr2 = linear;
        }
        self.deliver(event, session);
    }

    /// #DB after an instruction with RFLAGS.TF set.
    pub(super) fn single_step_trap(&mut self, session: &mut Session<'_>) {
        if self.cpu.activity == Activity::Shutdown {
            return;
        }
        self.cpu.debug.dr6 |= debug::DR6_BS;
        self.deliver(Event::from(Exception::plain(Vector::DB)), session);
    }

    /// Delivers an event; exceptions on the way make double and triple faults of it.
    fn deliver(&mut self, event: Event, session: &mut Session<'_>) {
        let mut event = event;
        loop {
            self.cpu.mmio.rewind();
            self.cpu.stop = StopReason::Exception;
            session.bus().delivering(event.vector, event.error_code, self.cpu.rip);
            if interrupt::deliver(&mut self.cpu, &event).is_ok() {
                break;
            }
            if self.cpu.stop == StopReason::MmioRead {
                let _ = self.provide(session);
                continue;
            }
            self.cpu.mmio.forget();
            let second = self.cpu.exception;
            match event.exception().map_or(Combined::Second, |first| combine(first, second.vector))
            {
                Combined::Second => {
                    if let Some(linear) = second.cr2 {
                        self.cpu.control.cr2 = linear;
                    }
                    event = Event::from(second);
                }
                Combined::DoubleFault => {
                    if let Some(linear) = second.cr2 {
                        self.cpu.control.cr2 = linear;
                    }
                    event = Event::from(Exception::with_code(Vector::DF, 0));
                }
                Combined::TripleFault => {
                    self.cpu.activity = Activity::Shutdown;
                    self.cpu.look = true;
                    return;
                }
            }
        }
        self.flush_device_stores(session);
    }
}
