//! Writes of the guest's that are told of by an event and have no other effect: the kernel matches
//! them without an exit (KVM_IOEVENTFD).

use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
pub use vmm_sys_util::eventfd::EventFd;

use crate::error::{KvmError, call};

/// Where a guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An I/O port.
    Port(u16),
    /// A guest-physical address.
    Memory(u64),
}

/// A value that alone rings, with its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// One byte.
    Byte(u8),
    /// Two.
    Word(u16),
    /// Four.
    Dword(u32),
    /// Eight.
    Qword(u64),
}

impl Value {
    /// The width in bytes, and the value.
    fn parts(self) -> (usize, u64) {
        match self {
            Self::Byte(value) => (1, value.into()),
            Self::Word(value) => (2, value.into()),
            Self::Dword(value) => (4, value.into()),
            Self::Qword(value) => (8, value),
        }
    }
}

/// A place to write to, and whom that tells.
#[derive(Debug)]
pub struct Doorbell {
    /// Where.
    pub place: Place,
    /// What; none for any value of any width.
    pub value: Option<Value>,
    /// Its counter grows by one each time.
    pub event: EventFd,
}

impl Doorbell {
    /// Whether a write rings.
    #[must_use]
    pub fn is_rung_by(&self, place: Place, width: usize, value: u64) -> bool {
        self.place == place && self.value.is_none_or(|wanted| wanted.parts() == (width, value))
    }
}

/// The kernel's side of doorbells, of one virtual machine.
pub struct Watcher {
    pub(crate) vm: Arc<VmFd>,
}

impl Watcher {
    /// From now on the kernel rings.
    ///
    /// # Errors
    /// The call fails.
    pub fn watch(&self, bell: &Doorbell) -> Result<(), KvmError> {
        let at = match bell.place {
            Place::Port(port) => IoEventAddress::Pio(port.into()),
            Place::Memory(gpa) => IoEventAddress::Mmio(gpa),
        };
        let (vm, event) = (&self.vm, &bell.event);
        let done = match bell.value {
            None => vm.register_ioevent(event, &at, NoDatamatch),
            Some(Value::Byte(value)) => vm.register_ioevent(event, &at, value),
            Some(Value::Word(value)) => vm.register_ioevent(event, &at, value),
            Some(Value::Dword(value)) => vm.register_ioevent(event, &at, value),
            Some(Value::Qword(value)) => vm.register_ioevent(event, &at, value),
        };
        done.map_err(|error| call("KVM_IOEVENTFD")(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_rings_with_its_width_only() {
        let event = || EventFd::new(0).unwrap();
        let any = Doorbell { place: Place::Port(0x80), value: None, event: event() };
        assert!(any.is_rung_by(Place::Port(0x80), 2, 7));
        assert!(!any.is_rung_by(Place::Port(0x81), 2, 7));
        assert!(!any.is_rung_by(Place::Memory(0x80), 2, 7));
        let value = Some(Value::Word(7));
        let one = Doorbell { place: Place::Memory(0xfee0), value, event: event() };
        let rung =
            [(2, 7), (2, 8), (4, 7)].map(|(w, v)| one.is_rung_by(Place::Memory(0xfee0), w, v));
        assert_eq!(rung, [true, false, false]);
    }
}
