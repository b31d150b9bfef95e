//! The interrupt router: which pins of the 8259As and of the I/O APIC each wire of the board drives.
//!
//! An input is high while any of its sources drives it. Inputs 0 to 15 are the ISA interrupts,
//! which go to the 8259As and to the same pin of the I/O APIC, but for the timer's, which goes to
//! pin 2 there. PIRQA# to PIRQD# go to pins 16 to 19 of the I/O APIC, and through the PIIX3 to ISA
//! interrupts of the 8259As. HPET timers may be routed to pins 20 to 23.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use trivium_chipset::{IrqLine, IrqSink, SaveRestore, Section, StateError};
use trivium_devices::apic::IoApic;
use trivium_devices::pci::PirqObserver;
use trivium_devices::pic::Pic;
use trivium_firmware::acpi::pc::{PIRQ_GSI, PIT_GSI};

use crate::config::TraceCategories;
use crate::control::lock;
use crate::kernel_chips::ChipSeat;
use crate::trace::Trace;

/// The inputs of the router.
pub(crate) mod input {
    /// The timer.
    pub const PIT: u32 = 0;
    /// The keyboard.
    pub const KEYBOARD: u32 = 1;
    /// The parallel port.
    pub const PARALLEL: u32 = 7;
    /// The real-time clock.
    pub const RTC: u32 = 8;
    /// The mouse.
    pub const MOUSE: u32 = 12;
    /// FERR#, by way of the board's latch.
    pub const FPU: u32 = 13;
    /// PIRQA#; the other three follow.
    pub const PIRQA: u32 = 16;
    /// Pin 20 of the I/O APIC; three more follow.
    pub const GSI20: u32 = 20;
    /// The HPET's timers 0 and 1 in the place of timer and real-time clock.
    pub const HPET_LEGACY: [u32; 2] = [24, 25];
    /// The HPET cuts timer and real-time clock off.
    pub const HPET_LEGACY_SELECT: u32 = 26;
    /// How many there are.
    pub const COUNT: usize = 27;
}

/// The wires that drive inputs, so that shared inputs can tell them apart: numbers below 64.
pub(crate) mod source {
    /// The only wire of its input.
    pub const ONLY: u32 = 0;
    /// COM1; COM2 to COM4 follow.
    pub const COM1: u32 = 1;
    /// SCI.
    pub const ACPI: u32 = 5;
    /// HPET.
    pub const HPET: u32 = 6;
    /// The SMBus host controller.
    pub const SMBUS: u32 = 7;
    /// An event of the host's.
    pub const EVENT: u32 = 8;
}

/// IRQ 2 is the slave's and no input.
const CASCADE: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The sources that drive each input, one bit each.
    driven: [u64; input::COUNT],
    /// The ISA interrupt that each PIRQ goes to.
    pirq: [Option<u8>; 4],
    /// The levels of the 8259As' inputs, as last driven.
    pic: u16,
    /// The levels of the I/O APIC's inputs, as last driven.
    ioapic: u32,
}

impl State {
    const RESET: Self = Self { driven: [0; input::COUNT], pirq: [None; 4], pic: 0, ioapic: 0 };

    /// The inputs that are high, one bit each.
    fn high(&self) -> u32 {
        let bits = self.driven.iter().zip(0..);
        bits.fold(0, |high, (sources, input)| high | u32::from(*sources != 0) << input)
    }

    fn is_hpet_legacy(high: u32) -> bool {
        high >> input::HPET_LEGACY_SELECT & 1 != 0
    }

    /// The ISA interrupts as the wires of their names and the HPET make them, without PIRQs.
    fn isa_levels(high: u32) -> u16 {
        let own = high as u16 & !(1 << CASCADE);
        if !Self::is_hpet_legacy(high) {
            return own;
        }
        let [pit, rtc] = input::HPET_LEGACY.map(|input| (high >> input & 1) as u16);
        own & !(1 << input::PIT | 1 << input::RTC) | pit << input::PIT | rtc << input::RTC
    }

    /// What the 8259As' inputs must be.
    fn pic_levels(&self, high: u32) -> u16 {
        let isa = Self::isa_levels(high);
        (input::PIRQA..).zip(self.pirq).fold(isa, |levels, (pirq, irq)| match irq {
            Some(irq) if high >> pirq & 1 != 0 => {
                levels | 1u16.checked_shl(irq.into()).unwrap_or(0)
            }
            _ => levels,
        })
    }

    /// What the I/O APIC's inputs must be.
    fn ioapic_levels(high: u32) -> u32 {
        let isa = u32::from(Self::isa_levels(high));
        let timer = isa & 1 << input::PIT;
        let isa = isa & !timer | timer << (PIT_GSI - input::PIT);
        let pirqs = (input::PIRQA..).zip(PIRQ_GSI);
        let direct = (input::GSI20..).zip(20..24);
        pirqs.chain(direct).fold(isa, |levels, (input, gsi)| levels | (high >> input & 1) << gsi)
    }
}

/// The bits that are set, from the lowest on.
fn bits(mut set: u32) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as u8)?;
        set &= set - 1;
        Some(bit)
    })
}

/// The router. Locked after the device that drives a wire and before the interrupt controllers.
pub(crate) struct IrqRouter {
    state: Mutex<State>,
    pic: Arc<Mutex<Pic>>,
    /// The board `isapc` has none.
    ioapic: Option<Arc<Mutex<IoApic>>>,
    trace: Arc<Trace>,
    /// Where the kernel's chips are, if they are in use instead.
    seat: Arc<ChipSeat>,
}

impl IrqRouter {
    pub(crate) fn new(
        pic: Arc<Mutex<Pic>>,
        ioapic: Option<Arc<Mutex<IoApic>>>,
        trace: Arc<Trace>,
        seat: Arc<ChipSeat>,
    ) -> Self {
        Self { state: Mutex::new(State::RESET), pic, ioapic, trace, seat }
    }

    /// The levels of the 8259As' and of the I/O APIC's inputs.
    pub(crate) fn levels(&self) -> (u16, u32) {
        let state = lock(&self.state);
        (state.pic, state.ioapic)
    }

    /// Whether the HPET stands in the place of timer and real-time clock.
    pub(crate) fn is_hpet_legacy(&self) -> bool {
        State::is_hpet_legacy(lock(&self.state).high())
    }

    /// The wire from `source` to an input.
    pub(crate) fn line(self: &Arc<Self>, input: u32, source: u32) -> IrqLine {
        IrqLine::new(self.clone(), input, source)
    }

    /// Makes the controllers' inputs follow. The state stays locked, so that two threads cannot
    /// overtake one another.
    fn drive(&self, state: &mut State) {
        let high = state.high();
        let (pic, ioapic) = (state.pic_levels(high), State::ioapic_levels(high));
        let pic_changes = std::mem::replace(&mut state.pic, pic) ^ pic;
        let ioapic_changes = std::mem::replace(&mut state.ioapic, ioapic) ^ ioapic;
        if let Some(chips) = self.seat.board() {
            for irq in bits(pic_changes.into()) {
                // The kernel's timer drives its line itself.
                let own = irq == 0 && !State::is_hpet_legacy(high);
                self.seat.tell(chips.set_pic_line(irq, pic >> irq & 1 != 0 && !own));
            }
            for pin in bits(ioapic_changes) {
                self.seat.tell(chips.set_ioapic_line(pin, ioapic >> pin & 1 != 0));
            }
            return;
        }
        if pic_changes != 0 {
            let mut chip = lock(&self.pic);
            for irq in bits(pic_changes.into()) {
                chip.set_irq(irq, pic >> irq & 1 != 0);
            }
        }
        if let Some(chip) = &self.ioapic
            && ioapic_changes != 0
        {
            let mut chip = lock(chip);
            for pin in bits(ioapic_changes) {
                chip.set_pin(pin, ioapic >> pin & 1 != 0);
            }
        }
    }
}

impl IrqSink for IrqRouter {
    fn set_level(&self, pin: u32, source: u32, high: bool) {
        let mut state = lock(&self.state);
        let Some(sources) = state.driven.get_mut(pin as usize) else { return };
        let bit = 1u64.checked_shl(source).unwrap_or(0);
        let new = if high { *sources | bit } else { *sources & !bit };
        let before = std::mem::replace(sources, new);
        if (before != 0) == (new != 0) {
            return;
        }
        if pin == input::HPET_LEGACY_SELECT
            && let Some(chips) = self.seat.board()
        {
            self.seat.tell(chips.set_hpet_legacy(high));
        }
        if self.trace.wants(TraceCategories::INT) {
            self.trace.line(format_args!("int: line {pin} {}", if high { "up" } else { "down" }));
        }
        self.drive(&mut state);
    }
}

impl PirqObserver for IrqRouter {
    fn pirq_routed(&self, pirq: u8, irq: Option<u8>) {
        let mut state = lock(&self.state);
        if let Some(route) = state.pirq.get_mut(usize::from(pirq)) {
            *route = irq;
        }
        self.drive(&mut state);
    }
}

const VERSION: u32 = 1;

impl SaveRestore for IrqRouter {
    fn save(&self) -> Section {
        Section::encode(VERSION, &*lock(&self.state))
    }

    /// The controllers have the levels of their inputs in their own state.
    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.restore_shared(section)
    }
}

impl IrqRouter {
    /// [`SaveRestore::restore`] for a router that devices hold already.
    pub(crate) fn restore_shared(&self, section: &Section) -> Result<(), StateError> {
        let state: State = section.decode(VERSION)?;
        *lock(&self.state) = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivium_chipset::{MsiMessage, MsiSink};

    struct Nowhere;
    impl MsiSink for Nowhere {
        fn deliver(&self, _: MsiMessage) {}
    }

    fn router() -> Arc<IrqRouter> {
        let pic = Arc::new(Mutex::new(Pic::new(IrqLine::unconnected())));
        let ioapic = Arc::new(Mutex::new(IoApic::new(Arc::new(Nowhere))));
        Arc::new(IrqRouter::new(pic, Some(ioapic), Arc::default(), Arc::default()))
    }

    fn levels(router: &IrqRouter) -> (u16, u32) {
        router.levels()
    }

    #[test]
    fn isa_interrupts_go_to_both_controllers_and_the_timer_to_pin_2() {
        let router = router();
        router.line(4, source::COM1).set(true);
        assert_eq!(levels(&router), (1 << 4, 1 << 4));
        router.line(input::PIT, source::ONLY).set(true);
        assert_eq!(levels(&router), (1 << 4 | 1, 1 << 4 | 1 << 2));
        router.line(2, source::ONLY).set(true);
        assert_eq!(levels(&router), (1 << 4 | 1, 1 << 4 | 1 << 2), "IRQ 2 is the cascade");
    }

    #[test]
    fn a_shared_line_is_high_while_any_source_drives_it() {
        let router = router();
        let (com1, com3) = (router.line(4, source::COM1), router.line(4, source::COM1 + 2));
        com1.set(true);
        com3.set(true);
        com1.set(false);
        assert_eq!(levels(&router), (1 << 4, 1 << 4));
        com3.set(false);
        assert_eq!(levels(&router), (0, 0));
    }

    #[test]
    fn pirqs_go_to_pins_16_to_19_and_to_the_isa_interrupt_that_the_piix3_says() {
        let router = router();
        let (a, b) = (router.line(input::PIRQA, 0), router.line(input::PIRQA + 1, 0));
        a.set(true);
        assert_eq!(levels(&router), (0, 1 << 16));
        router.pirq_routed(0, Some(10));
        router.pirq_routed(1, Some(10));
        assert_eq!(levels(&router), (1 << 10, 1 << 16));
        b.set(true);
        a.set(false);
        assert_eq!(levels(&router), (1 << 10, 1 << 17));
        router.pirq_routed(1, None);
        assert_eq!(levels(&router), (0, 1 << 17));
    }

    #[test]
    fn legacy_replacement_puts_the_hpet_in_the_place_of_timer_and_clock() {
        let router = router();
        let line = |input| router.line(input, source::HPET);
        line(input::HPET_LEGACY_SELECT).set(true);
        router.line(input::PIT, source::ONLY).set(true);
        router.line(input::RTC, source::ONLY).set(true);
        assert_eq!(levels(&router), (0, 0));
        line(input::HPET_LEGACY[0]).set(true);
        assert_eq!(levels(&router), (1, 1 << 2));
        line(input::HPET_LEGACY[1]).set(true);
        assert_eq!(levels(&router), (1 << 8 | 1, 1 << 8 | 1 << 2));
        line(input::HPET_LEGACY[0]).set(false);
        line(input::HPET_LEGACY_SELECT).set(false);
        assert_eq!(levels(&router), (1 << 8 | 1, 1 << 8 | 1 << 2), "the PIT's and the RTC's own");
    }

    #[test]
    fn levels_survive_in_the_routers_state() {
        let router = router();
        router.line(4, source::COM1).set(true);
        router.line(4, source::COM1 + 2).set(true);
        router.pirq_routed(3, Some(11));
        let other = self::router();
        other.restore_shared(&router.save()).unwrap();
        assert_eq!(levels(&other), levels(&router));
        other.line(4, source::COM1).set(false);
        assert_eq!(levels(&other), (1 << 4, 1 << 4), "COM3 still drives it");
        assert_eq!(
            other.restore_shared(&Section { version: 9, data: Vec::new() }),
            Err(StateError::Version { found: 9, known: 1 })
        );
    }
}
