//! Movement as a mouse counts it, and the packets that tell of it (IBM PS/2 Hardware Technical
//! Reference, "Mouse data report"; Microsoft's specification of the IntelliMouse's fourth byte).

use bitflags::bitflags;

bitflags! {
    /// The buttons that are down.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct MouseButtons: u8 {
        /// The left one.
        const LEFT = 1 << 0;
        /// The right one.
        const RIGHT = 1 << 1;
        /// The middle one: the wheel.
        const MIDDLE = 1 << 2;
        /// The fourth, which goes back.
        const SIDE = 1 << 3;
        /// The fifth, which goes forward.
        const EXTRA = 1 << 4;
    }

    /// The first byte of a packet, above the three buttons.
    struct Head: u8 {
        /// Always 1.
        const ONE = 1 << 3;
        /// The movement to the right is negative.
        const X_SIGN = 1 << 4;
        /// The movement away from the user is negative.
        const Y_SIGN = 1 << 5;
        /// There was more movement than the counter holds.
        const X_OVERFLOW = 1 << 6;
        /// The same for the other counter.
        const Y_OVERFLOW = 1 << 7;
    }
}

/// The three buttons that the first byte has.
const FIRST_THREE: MouseButtons =
    MouseButtons::LEFT.union(MouseButtons::RIGHT).union(MouseButtons::MIDDLE);

/// What kind of mouse it is, by the identity that it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in super::super) enum Kind {
    /// Three buttons.
    Standard = 0,
    /// With a wheel.
    IntelliMouse = 3,
    /// With a wheel and five buttons.
    Explorer = 4,
}

/// A movement counter: nine bits and whether they were too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Counter {
    pub(in super::super) value: i16,
    pub(in super::super) overflow: bool,
}

/// What a counter holds.
pub(in super::super) const COUNTS: std::ops::RangeInclusive<i32> = -256..=255;
/// What the four bits of the wheel hold.
const WHEEL: std::ops::RangeInclusive<i32> = -8..=7;
/// How many steps of the wheel are remembered either way.
pub(in super::super) const WHEEL_STEPS: i32 = 127;

impl Counter {
    fn set(value: i32, overflow: bool) -> Self {
        let held = value.clamp(*COUNTS.start(), *COUNTS.end());
        Self { value: i16::try_from(held).unwrap_or(0), overflow: overflow || held != value }
    }

    fn add(&mut self, counts: i32) {
        *self = Self::set(i32::from(self.value).saturating_add(counts), self.overflow);
    }

    /// Scaling 2:1: small movements become smaller, large ones twice as large.
    fn doubled(self) -> Self {
        let size = match self.value.unsigned_abs() {
            0 => 0,
            1 | 2 => 1,
            3 => 3,
            4 => 6,
            5 => 9,
            n => 2 * i32::from(n),
        };
        Self::set(size * i32::from(self.value.signum()), self.overflow)
    }

    /// The low eight of the nine bits.
    fn low(self) -> u8 {
        self.value.to_le_bytes()[0]
    }
}

/// Movement since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in super::super) struct Movement {
    pub(in super::super) x: Counter,
    pub(in super::super) y: Counter,
    /// Steps of the wheel towards the user.
    pub(in super::super) wheel: i32,
}

impl Movement {
    pub(super) fn add(&mut self, dx: i32, dy: i32, dz: i32) {
        self.x.add(dx);
        self.y.add(dy);
        self.wheel = self.wheel.saturating_add(dz).clamp(-WHEEL_STEPS, WHEEL_STEPS);
    }

    pub(super) fn is_none(&self, kind: Kind) -> bool {
        let Self { x, y, wheel } = *self;
        x == Counter::default() && y == Counter::default() && (kind == Kind::Standard || wheel == 0)
    }

    /// The packet for this movement, which is then told; steps of the wheel that do not fit remain.
    pub(super) fn report(&mut self, kind: Kind, buttons: MouseButtons, double: bool) -> Vec<u8> {
        let scale = |counter: Counter| if double { counter.doubled() } else { counter };
        let (x, y) = (scale(self.x), scale(self.y));
        let mut head = Head::ONE;
        head.set(Head::X_SIGN, x.value < 0);
        head.set(Head::Y_SIGN, y.value < 0);
        head.set(Head::X_OVERFLOW, x.overflow);
        head.set(Head::Y_OVERFLOW, y.overflow);
        let wheel = self.wheel.clamp(*WHEEL.start(), *WHEEL.end());
        let rest = if kind == Kind::Standard { 0 } else { self.wheel - wheel };
        *self = Self { wheel: rest, ..Self::default() };
        let mut packet = vec![head.bits() | (buttons & FIRST_THREE).bits(), x.low(), y.low()];
        let wheel = wheel.to_le_bytes()[0];
        match kind {
            Kind::Standard => {}
            Kind::IntelliMouse => packet.push(wheel),
            // Buttons four and five are bits 4 and 5.
            Kind::Explorer => packet.push((buttons - FIRST_THREE).bits() << 1 | wheel & 0x0f),
        }
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: Kind, [dx, dy, dz]: [i32; 3], buttons: u8) -> Vec<u8> {
        let mut movement = Movement::default();
        movement.add(dx, dy, dz);
        movement.report(kind, MouseButtons::from_bits_truncate(buttons), false)
    }

    #[test]
    fn a_packet_has_buttons_signs_and_nine_bits_of_movement() {
        let packet = |d, buttons| packet(Kind::Standard, d, buttons);
        assert_eq!(packet([0, 0, 0], 0), [0x08, 0, 0]);
        assert_eq!(packet([5, 7, 0], 0x01), [0x09, 5, 7]);
        assert_eq!(packet([-1, 1, 0], 0x02), [0x1a, 0xff, 1]);
        assert_eq!(packet([1, -256, 0], 0x04), [0x2c, 1, 0]);
        assert_eq!(packet([255, 255, 9], 0x1f), [0x0f, 255, 255]);
    }

    #[test]
    fn more_movement_than_the_counters_hold_sets_the_overflow_bits() {
        let packet = |d| packet(Kind::Standard, d, 0);
        assert_eq!(packet([256, 0, 0]), [0x48, 0xff, 0]);
        assert_eq!(packet([0, -257, 0]), [0xa8, 0, 0]);
        assert_eq!(packet([i32::MIN, i32::MAX, 0]), [0xd8, 0, 0xff]);
    }

    #[test]
    fn the_wheel_and_five_buttons_are_in_the_fourth_byte() {
        assert_eq!(packet(Kind::IntelliMouse, [0, 0, 1], 0x1f), [0x0f, 0, 0, 0x01]);
        assert_eq!(packet(Kind::IntelliMouse, [0, 0, -1], 0), [0x08, 0, 0, 0xff]);
        assert_eq!(packet(Kind::Explorer, [0, 0, -1], 0x08), [0x08, 0, 0, 0x1f]);
        assert_eq!(packet(Kind::Explorer, [0, 0, 7], 0x10), [0x08, 0, 0, 0x27]);
    }

    #[test]
    fn steps_of_the_wheel_that_do_not_fit_are_told_later() {
        let mut movement = Movement::default();
        movement.add(0, 0, 10);
        let mut told = || movement.report(Kind::IntelliMouse, MouseButtons::empty(), false)[3];
        assert_eq!([told(), told(), told()], [7, 3, 0]);
    }

    #[test]
    fn scaling_2_to_1_is_that_of_the_table() {
        for (counts, told) in [(0, 0), (1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (100, 200)]
        {
            for sign in [1, -1] {
                let counter = Counter::set(sign * counts, false).doubled();
                assert_eq!(i32::from(counter.value), sign * told, "{counts}");
            }
        }
        assert!(Counter::set(200, false).doubled().overflow);
    }
}
