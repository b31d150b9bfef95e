//! What sits on the bus, by the bytes that go over it. System Management Bus Specification 1.0,
//! chapter 5.

use std::collections::BTreeMap;

use trivium_chipset::{SaveRestore, Section, StateError};

/// The most bytes of a block.
pub(super) const BLOCK: usize = 32;

/// A device on the bus, as the bus's master drives it.
pub trait SmbusTarget: SaveRestore + Send {
    /// The device is addressed, to be read or to be written. Says whether it acknowledges.
    fn start(&mut self, read: bool) -> bool;

    /// Takes a byte. Says whether it acknowledges.
    fn write(&mut self, byte: u8) -> bool;

    /// Gives the next byte.
    fn read(&mut self) -> u8;
}

/// A transaction, by the bus protocol's name. Specification, 5.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Quick,
    Byte,
    ByteData,
    WordData,
    Block,
}

/// What a master wants.
pub(super) struct Request<'a> {
    /// Seven bits.
    pub address: u8,
    pub read: bool,
    pub protocol: Protocol,
    pub command: u8,
    /// What is written after the command: as many bytes as the protocol takes.
    pub data: &'a [u8],
}

/// The bus with its devices, by their addresses of seven bits.
#[derive(Default)]
pub struct SmbusBus {
    targets: BTreeMap<u8, Box<dyn SmbusTarget>>,
}

impl SmbusBus {
    /// Puts a device on the bus; another at its address is taken off.
    pub fn attach(&mut self, address: u8, target: impl SmbusTarget + 'static) {
        self.targets.insert(address & 0x7f, Box::new(target));
    }

    /// Carries a transaction out. Gives what was read, or nothing if a device that should have did
    /// not acknowledge.
    pub(super) fn transfer(&mut self, request: &Request<'_>) -> Option<Vec<u8>> {
        let target = &mut **self.targets.get_mut(&(request.address & 0x7f))?;
        match (request.protocol, request.read) {
            (Protocol::Quick, read) => target.start(read).then(Vec::new),
            (Protocol::Byte, true) => receive(target, 1),
            (Protocol::Byte, false) => send(target, &[request.command]),
            (_, false) => write_data(target, request),
            (protocol, true) => {
                send(target, &[request.command])?;
                match protocol {
                    Protocol::Block => receive_block(target),
                    Protocol::WordData => receive(target, 2),
                    _ => receive(target, 1),
                }
            }
        }
    }

    /// The devices' states by address.
    pub(super) fn save(&self) -> Vec<(u8, Section)> {
        self.targets.iter().map(|(address, target)| (*address, target.save())).collect()
    }

    /// Puts the devices' states back; of all or of none.
    pub(super) fn restore(&mut self, saved: &[(u8, Section)]) -> Result<(), StateError> {
        if !self.targets.keys().eq(saved.iter().map(|(address, _)| address)) {
            return Err(StateError::Impossible("Other devices on the SMBus"));
        }
        let before = self.save();
        let result = self.put(saved);
        if result.is_err() {
            self.put(&before)?;
        }
        result
    }

    fn put(&mut self, saved: &[(u8, Section)]) -> Result<(), StateError> {
        let mut pairs = self.targets.values_mut().zip(saved);
        pairs.try_for_each(|(target, (_, section))| target.restore(section))
    }
}

fn send(target: &mut dyn SmbusTarget, bytes: &[u8]) -> Option<Vec<u8>> {
    let taken = target.start(false) && bytes.iter().all(|byte| target.write(*byte));
    taken.then(Vec::new)
}

fn receive(target: &mut dyn SmbusTarget, count: usize) -> Option<Vec<u8>> {
    target.start(true).then(|| (0..count).map(|_| target.read()).collect())
}

/// A block: its length, and so many bytes. A length that is none (0, or more than 32) is an error.
fn receive_block(target: &mut dyn SmbusTarget) -> Option<Vec<u8>> {
    let count = usize::from(receive(target, 1)?.first().copied()?);
    (1..=BLOCK).contains(&count).then(|| (0..count).map(|_| target.read()).collect())
}

fn write_data(target: &mut dyn SmbusTarget, request: &Request<'_>) -> Option<Vec<u8>> {
    let count = u8::try_from(request.data.len()).ok()?;
    let mut bytes = vec![request.command];
    if request.protocol == Protocol::Block {
        bytes.push(count);
    }
    bytes.extend_from_slice(request.data);
    send(target, &bytes)
}
