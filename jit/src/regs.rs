//! Where guest registers live while translated code runs.
//!
//! Six registers and R12 and R13 keep their names; RCX lives in R10 and RSP in R15, as the host
//! needs RCX for tests that leave the flags alone and its RSP for its own stack. The rest are in
//! memory. R14 points into the CPU's state, R11 holds the quantum; RCX, R8 and R9 are free for glue.

use std::mem::offset_of;

use iced_x86::Register;
use trivium_interp::Cpu;
use trivium_interp::cpu::TLB_MASK;

/// Where the guest's RSP is.
pub(crate) const RSP_HOME: u8 = 15;
/// Where the guest's RCX is.
pub(crate) const RCX_HOME: u8 = 10;
/// The number of RCX.
pub(crate) const RCX: u8 = 1;

/// How far into the state R14 points: so that the registers there, and what comes after them, are
/// reached by displacements of 8 bits, and that its address is a shift count of 12 too.
pub(crate) const BIAS: i32 = offset_of!(Cpu, regs) as i32 + 128 + 12;
const _: () = assert!(offset_of!(Cpu, regs) % 64 == 0);
const _: () = assert!(slot(8) >= -128 && slot(TLB_MASK) < 128);

/// What R14 has to be moved by to reach a field.
pub(crate) const fn at(offset: usize) -> i32 {
    offset as i32 - BIAS
}

/// The place of a general register in the state.
pub(crate) const fn slot(number: u8) -> i32 {
    at(offset_of!(Cpu, regs)) + 8 * number as i32
}

/// The same of a register that is in memory, or that comes after these.
pub(crate) const fn near(number: u8) -> i8 {
    slot(number) as i8
}

/// Where a guest register is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the host's register of this number.
    Host(u8),
    /// In the state.
    Memory,
}

/// Where the guest register of a number is.
pub(crate) const fn home(number: u8) -> Home {
    match number {
        1 => Home::Host(RCX_HOME),
        4 => Home::Host(RSP_HOME),
        0..=7 | 12 | 13 => Home::Host(number),
        _ => Home::Memory,
    }
}

/// Where the guest's registers are in a piece of code.
#[derive(Debug, Clone)]
pub(crate) struct Homes {
    of: [Home; 16],
    /// Guest registers that are in the host's of others, which are in memory instead.
    moved: Vec<Lodger>,
}

/// A guest register in the home of another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lodger {
    pub(crate) guest: u8,
    pub(crate) host: u8,
    /// Whose home it is.
    pub(crate) owner: u8,
}

impl Default for Homes {
    fn default() -> Self {
        Self { of: std::array::from_fn(|number| home(number as u8)), moved: Vec::new() }
    }
}

impl Homes {
    /// Gives guest registers that are in memory, and used so often, the homes of those that are not
    /// used at all.
    pub(crate) fn for_uses(uses: &[u32; 16]) -> Self {
        let mut homes = Self::default();
        let mut wanting: Vec<u8> =
            (0..16).filter(|&n| home(n) == Home::Memory && uses[usize::from(n)] > 0).collect();
        wanting.sort_by_key(|&n| std::cmp::Reverse(uses[usize::from(n)]));
        let empty = (0..16).filter_map(|n| match home(n) {
            Home::Host(host) if uses[usize::from(n)] == 0 => Some((n, host)),
            _ => None,
        });
        for (guest, (owner, host)) in wanting.into_iter().zip(empty) {
            homes.of[usize::from(guest)] = Home::Host(host);
            homes.of[usize::from(owner)] = Home::Memory;
            homes.moved.push(Lodger { guest, host, owner });
        }
        homes
    }

    /// Where the guest register of a number is.
    pub(crate) fn of(&self, number: u8) -> Home {
        self.of[usize::from(number & 15)]
    }

    /// The guest registers that are elsewhere than mostly.
    pub(crate) fn moved(&self) -> &[Lodger] {
        &self.moved
    }
}

/// The 64-bit register of a number.
pub(crate) fn wide(number: u8) -> Register {
    Register::RAX + u32::from(number)
}

/// The register of a number, of as many bytes as another.
pub(crate) fn like(model: Register, number: u8) -> Register {
    let n = u32::from(number);
    match model.size() {
        8 => Register::RAX + n,
        4 => Register::EAX + n,
        2 => Register::AX + n,
        _ if number < 4 => Register::AL + n,
        _ => Register::SPL + (n - 4),
    }
}

/// Whether it is AH, CH, DH or BH.
pub(crate) fn is_high(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// The number of the register that one is, or is a part of.
pub(crate) fn number_of(register: Register) -> u8 {
    // iced numbers those of 8 bits otherwise.
    register.full_register().number() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_the_number_of_the_whole() {
        use Register as R;
        for (part, number) in [(R::DIL, 7), (R::SPL, 4), (R::R12L, 12), (R::CH, 1), (R::R9D, 9)] {
            assert_eq!(number_of(part), number, "{part:?}");
        }
    }
}
