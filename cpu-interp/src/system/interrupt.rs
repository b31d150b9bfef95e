//! Delivery of exceptions and interrupts.

use trivium_cpu::state::Injected;
use trivium_cpu::{Exception, Vector};

use crate::cpu::Cpu;
use crate::op::Stop;

/// What raised an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The processor found an exception: a fault or trap. RIP is what is to be pushed.
    Exception,
    /// INT n, INT3, INTO: gates' privilege is checked, and `Cpu::next_rip` is pushed.
    Software,
    /// An external interrupt.
    External,
    /// A non-maskable interrupt.
    Nmi,
}

/// An exception or interrupt to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its vector.
    pub vector: u8,
    /// Its error code, if it pushes one.
    pub error_code: Option<u32>,
    /// What raised it.
    pub source: Source,
    /// It was raised while an external event was delivered: error codes have EXT set.
    pub external: bool,
    first: Option<Vector>,
}

impl Event {
    /// An event.
    #[must_use]
    pub fn new(vector: u8, error_code: Option<u32>, source: Source) -> Self {
        let external = matches!(source, Source::External | Source::Nmi);
        Self { vector, error_code, source, external, first: None }
    }

    /// The exception that it is, for the double-fault rules.
    #[must_use]
    pub fn exception(&self) -> Option<Vector> {
        self.first
    }

    /// The same, raised while `other` was being delivered.
    #[must_use]
    pub fn while_delivering(self, other: &Self) -> Self {
        Self { external: other.external || other.source == Source::Exception, ..self }
    }
}

impl From<Exception> for Event {
    fn from(exception: Exception) -> Self {
        Self {
            vector: exception.vector as u8,
            error_code: exception.error_code,
            source: Source::Exception,
            external: false,
            first: Some(exception.vector),
        }
    }
}

/// An event whose delivery another CPU had begun.
#[must_use]
pub fn reinjected(injected: &Injected) -> Event {
    let source =
        if injected.software_length.is_some() { Source::Software } else { Source::External };
    Event::new(injected.vector, injected.error_code, source)
}

/// INIT: most of the state is as after RESET#.
pub fn init(cpu: &mut Cpu) {
    let _ = cpu;
}

/// A start-up IPI: real mode at `vector << 12`.
pub fn start(cpu: &mut Cpu, vector: u8) {
    let _ = (cpu, vector);
}

/// Delivers an event through the interrupt table of the present mode.
///
/// # Errors
/// An exception on the way (`Cpu::exception`), with nothing changed that matters; or the value of
/// a device is to be fetched first.
pub fn deliver(cpu: &mut Cpu, event: &Event) -> Result<(), Stop> {
    let _ = event;
    Err(cpu.raise(Exception::gp(0)))
}
