//! Exceptions, interrupts, and what else others want of the CPU.

use trivium_cpu::bits::{debug, debugctl, rflags};
use trivium_cpu::exception::{Combined, combine};
use trivium_cpu::model::Quirk;
use trivium_cpu::state::{Activity, Injected};
use trivium_cpu::{Exception, Exit, ResetKind, Vector};

use super::{Interpreter, Session};
use crate::cpu::shadow;
use crate::op::StopReason;
use crate::system::interrupt::{self, Event, Source};
use crate::system::smm;

/// Exceptions in the delivery of others before a look at what others want. #AC on the stack of its
/// own handler follows itself for ever, as on real processors.
const ROUNDS: u32 = 8;

impl Interpreter {
    /// Looks at what others want, and delivers an interrupt if one may come.
    pub(super) fn look(&mut self, session: &mut Session<'_>) -> Option<Exit> {
        let cpu = &mut self.cpu;
        cpu.look = cpu.shadow != 0;
        cpu.native.held = 1;
        let bus = session.bus();
        // First, so that nobody who stops the CPU finds it untold.
        if std::mem::take(&mut cpu.ferr_changed) {
            bus.set_ferr(cpu.ferr);
        }
        if cpu.attention.take_kick() {
            return Some(Exit::Kicked);
        }
        cpu.smi_pending |= bus.take_smi();
        if cpu.takes_smi() {
            smm::enter(cpu, bus);
        }
        // INIT waits for the end of system-management mode.
        if !cpu.smm
            && let Some(kind) = bus.take_reset()
        {
            self.reset(kind);
        }
        let cpu = &mut self.cpu;
        cpu.nmi_pending |= bus.take_nmi();
        if cpu.in_mwait() {
            cpu.check_mwait(bus.interrupt_pending());
        }
        if cpu.activity == Activity::Shutdown || cpu.activity == Activity::WaitForSipi {
            return self.waiting();
        }
        if let Some(injected) = cpu.injected.take() {
            self.deliver(interrupt::reinjected(&injected), session);
            self.cpu.look = true;
        } else if cpu.nmi_pending && !cpu.nmi_masked && cpu.shadow == 0 {
            cpu.nmi_pending = false;
            cpu.nmi_masked = true;
            cpu.activity = Activity::Running;
            self.deliver(Event::new(Vector::NMI as u8, None, Source::Nmi), session);
        } else if cpu.system_flags & rflags::IF != 0
            && cpu.shadow == 0
            && bus.interrupt_pending()
            && let Some(vector) = bus.acknowledge_interrupt()
        {
            cpu.activity = Activity::Running;
            self.deliver(Event::new(vector, None, Source::External), session);
        }
        let waits = session.bus().interrupt_pending();
        let cpu = &mut self.cpu;
        cpu.native.held = u8::from(waits || cpu.smi_pending || cpu.nmi_pending);
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
        // Data breakpoints that it met are met again when it is.
        self.cpu.pending_debug = 0;
        let event = Event::from(self.cpu.exception);
        if let Some(linear) = self.cpu.exception.cr2 {
            self.cpu.control.cr2 = linear;
        }
        self.deliver(event, session);
    }

    /// #DB after an instruction, for what is pending; not yet after MOV SS.
    pub(super) fn debug_trap(&mut self, session: &mut Session<'_>) {
        if self.cpu.shadow & shadow::MOV_SS == 0 {
            let bits = std::mem::take(&mut self.cpu.pending_debug);
            if self.cpu.model.does(Quirk::DebugTrapClearsRf) {
                // Between the iterations of a REP too, as a Zen 5 shows; Intel's have it set there.
                self.cpu.system_flags &= !rflags::RF;
            }
            self.debug_fault(bits, session);
        }
    }

    /// #DB of the processor's own, for the conditions that these bits of DR6 tell of. B0 to B3 say
    /// what was met now, the others stay until they are cleared by software. Intel SDM vol. 3B,
    /// 18.2.3 and 18.4.4.
    pub(super) fn debug_fault(&mut self, bits: u64, session: &mut Session<'_>) {
        let cpu = &mut self.cpu;
        if cpu.activity == Activity::Shutdown {
            return;
        }
        cpu.debug.dr6 = cpu.debug.dr6 & !debug::DR6_B | bits;
        cpu.msrs.debugctl &= !(debugctl::LBR | debugctl::BTF);
        self.deliver(Event::debug(), session);
        // Nor does a breakpoint on the handler's stack lead there again.
        self.cpu.pending_debug = 0;
    }

    /// Leaves the delivery of an exception for the next look.
    fn put_off(&mut self, event: &Event) {
        let Event { vector, error_code, .. } = *event;
        self.cpu.injected = Some(Injected { vector, error_code, software_length: None });
        self.cpu.look = true;
    }

    /// Delivers an event; exceptions on the way make double and triple faults of it.
    fn deliver(&mut self, event: Event, session: &mut Session<'_>) {
        let (mut event, mut rounds) = (event, 0);
        self.cpu.native.count(|counts| counts.delivered += 1);
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
                    rounds += 1;
                    if rounds == ROUNDS {
                        // Others may want the CPU meanwhile.
                        return self.put_off(&event);
                    }
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
