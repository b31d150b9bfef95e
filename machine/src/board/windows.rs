//! Addresses that PCI functions decode where their base address registers say: they move while guests
//! run. Devices at fixed addresses come first; of functions in one another's way, the one that was
//! put on the board first answers.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use trivium_devices::pci::{AddressSpace, Window, WindowSink};

/// Ports of a PC.
const PORTS: usize = 0x1_0000;
/// Nobody answers.
const NOBODY: u8 = 0;

/// A window, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Slot on the board, and number among the function's windows.
    owner: (usize, usize),
    window: Window,
}

/// All windows of a board.
pub(crate) struct Windows {
    /// Which slot answers at each port, plus one.
    ports: Box<[AtomicU8]>,
    /// How many windows of memory there are.
    memory: AtomicUsize,
    /// In the order of their owners.
    places: RwLock<Vec<Place>>,
}

impl Windows {
    /// Nobody decodes anything.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ports: (0..PORTS).map(|_| AtomicU8::new(NOBODY)).collect(),
            memory: AtomicUsize::new(0),
            places: RwLock::default(),
        })
    }

    /// The far end of a function's windows, for the function in this slot.
    pub(crate) fn of_slot(self: &Arc<Self>, slot: usize) -> Arc<SlotWindows> {
        Arc::new(SlotWindows { windows: self.clone(), slot })
    }

    /// The slot that answers at a port.
    #[inline]
    pub(crate) fn port(&self, port: u16) -> Option<usize> {
        let slot = self.ports.get(usize::from(port))?.load(Ordering::Acquire);
        usize::from(slot).checked_sub(1)
    }

    /// The slot that answers at an address in memory, and the offset that its device sees.
    pub(crate) fn memory(&self, gpa: u64) -> Option<(usize, u64)> {
        if self.memory.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.read().iter().find_map(|place| {
            let window = &place.window;
            let within = window.locate(gpa).filter(|_| window.space == AddressSpace::Memory)?;
            Some((place.owner.0, window.offset.wrapping_add(within)))
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Place>> {
        self.places.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, owner: (usize, usize), window: Option<Window>) {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let at = places.partition_point(|place| place.owner < owner);
        let known = places.get(at).copied().filter(|place| place.owner == owner);
        if known.is_some() {
            places.remove(at);
        }
        if let Some(window) = window {
            places.insert(at, Place { owner, window });
        }
        let memory = places.iter().filter(|place| place.window.space == AddressSpace::Memory);
        self.memory.store(memory.count(), Ordering::Release);
        for changed in [known.map(|place| place.window), window].into_iter().flatten() {
            self.refill(&places, &changed);
        }
    }

    /// Looks again who answers at the ports of a window.
    fn refill(&self, places: &[Place], changed: &Window) {
        if changed.space != AddressSpace::Io {
            return;
        }
        let numbers = changed.base..changed.base.saturating_add(changed.size);
        let first = usize::try_from(changed.base).unwrap_or(PORTS);
        for (entry, port) in self.ports.iter().skip(first).zip(numbers) {
            let owner = places.iter().find(|place| {
                place.window.space == AddressSpace::Io && place.window.locate(port).is_some()
            });
            let slot = owner.and_then(|place| u8::try_from(place.owner.0 + 1).ok());
            entry.store(slot.unwrap_or(NOBODY), Ordering::Release);
        }
    }
}

/// The windows of the function in one slot.
pub(crate) struct SlotWindows {
    windows: Arc<Windows>,
    slot: usize,
}

impl WindowSink for SlotWindows {
    fn window_moved(&self, number: usize, window: Option<Window>) {
        self.windows.set((self.slot, number), window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(base: u64, size: u64) -> Option<Window> {
        Some(Window { space: AddressSpace::Io, base, size, offset: 0 })
    }

    #[test]
    fn ports_follow_their_window() {
        let windows = Windows::new();
        let function = windows.of_slot(3);
        function.window_moved(0, ports(0x600, 64));
        assert_eq!((windows.port(0x5ff), windows.port(0x600)), (None, Some(3)));
        assert_eq!((windows.port(0x63f), windows.port(0x640)), (Some(3), None));
        function.window_moved(0, ports(0x620, 64));
        assert_eq!((windows.port(0x61f), windows.port(0x65f)), (None, Some(3)));
        function.window_moved(0, None);
        assert_eq!(windows.port(0x620), None);
        function.window_moved(0, ports(0xfff0, 64));
        assert_eq!(windows.port(0xffff), Some(3));
    }

    #[test]
    fn of_two_functions_in_one_place_the_first_answers_until_it_moves() {
        let windows = Windows::new();
        let (first, second) = (windows.of_slot(1), windows.of_slot(2));
        second.window_moved(0, ports(0x1000, 16));
        first.window_moved(4, ports(0x1008, 16));
        assert_eq!((windows.port(0x1007), windows.port(0x1008)), (Some(2), Some(1)));
        first.window_moved(4, None);
        assert_eq!(windows.port(0x1008), Some(2));
        assert_eq!(windows.port(0x1010), None);
    }

    #[test]
    fn memory_windows_have_offsets_of_their_own() {
        let windows = Windows::new();
        let window =
            |base, offset| Some(Window { space: AddressSpace::Memory, base, size: 0x1000, offset });
        let function = windows.of_slot(7);
        assert_eq!(windows.memory(0xe000_0000), None);
        function.window_moved(0, window(0xe000_0000, 0));
        function.window_moved(1, window(0x10_0000_0000, 1 << 20));
        assert_eq!(windows.memory(0xe000_0fff), Some((7, 0xfff)));
        assert_eq!(windows.memory(0x10_0000_0004), Some((7, 1 << 20 | 4)));
        assert_eq!(windows.memory(0xe000_1000), None);
        assert_eq!(windows.port(0), None);
    }
}
