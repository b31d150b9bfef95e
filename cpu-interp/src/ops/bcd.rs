//! DAA, DAS, AAA, AAS, AAM, AAD.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::bits::rflags::{AF, CF};
use trivium_cpu::{Exception, Vector};

use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

const RAX: u8 = 0;

fn al(cpu: &Cpu) -> u64 {
    cpu.reg(RAX, 0, 1)
}

/// DAA and DAS. Intel SDM vol. 2, "operation" of each.
fn decimal<const SUBTRACTED: bool>(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    let (old, flags) = (al(cpu), cpu.flags.get());
    let by = |value: u64, n: u64| {
        if SUBTRACTED { value.wrapping_sub(n) } else { value.wrapping_add(n) }
    };
    let (mut value, mut after) = (old, 0);
    if old & 15 > 9 || flags & AF != 0 {
        value = by(value, 6);
        after |= AF;
        // DAS also carries when the low digit's correction borrows.
        if SUBTRACTED && old < 6 {
            after |= CF;
        }
    }
    if old > 0x99 || flags & CF != 0 {
        value = by(value, 0x60);
        after |= CF;
    }
    let value = value & 0xff;
    cpu.set_reg(RAX, 0, 1, value);
    // OF is undefined; processors clear it.
    cpu.flags.set_result(7, value, after);
    Ok(())
}

/// AAA and AAS.
fn ascii<const SUBTRACTED: bool>(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    let flags = cpu.flags.get();
    let mut ax = cpu.reg(RAX, 0, 2);
    let adjust = ax & 15 > 9 || flags & AF != 0;
    if adjust {
        ax = if SUBTRACTED { ax.wrapping_sub(0x106) } else { ax.wrapping_add(0x106) };
    }
    cpu.set_reg(RAX, 0, 2, ax & 0xff0f);
    cpu.flags.set_some(AF | CF, if adjust { AF | CF } else { 0 });
    Ok(())
}

fn aam(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let base = op.imm & 0xff;
    if base == 0 {
        return Err(cpu.raise(Exception::plain(Vector::DE)));
    }
    let (high, low) = (al(cpu) / base, al(cpu) % base);
    cpu.set_reg(RAX, 0, 2, high << 8 | low);
    cpu.flags.set_logic(7, low);
    Ok(())
}

fn aad(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let ax = cpu.reg(RAX, 0, 2);
    let value = (ax >> 8).wrapping_mul(op.imm & 0xff).wrapping_add(ax) & 0xff;
    cpu.set_reg(RAX, 0, 2, value);
    cpu.flags.set_logic(7, value);
    Ok(())
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function = match i.mnemonic() {
        M::Daa => decimal::<false>,
        M::Das => decimal::<true>,
        M::Aaa => ascii::<false>,
        M::Aas => ascii::<true>,
        M::Aam => aam,
        M::Aad => aad,
        _ => return None,
    };
    Some(Selection::general(context.op(i), function))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, TestMachine};
    use trivium_cpu::bits::rflags::{OF, PF, SF, STATUS, ZF};

    const RAX: usize = 0;
    const RBX: usize = 3;

    /// AX and the flags after an instruction that begins with these.
    fn after(m: &mut TestMachine, ax: u64, bx: u64, flags: u64, instructions: u64) -> (u64, u64) {
        m.set(|state| {
            state.general.rip = CODE;
            state.general.regs[RAX] = 0x5555_0000 | ax;
            state.general.regs[RBX] = bx;
            state.general.rflags = state.general.rflags & !STATUS | flags;
        });
        m.run(instructions);
        let general = m.state().general;
        assert_eq!(general.regs[RAX] >> 16, 0x5555);
        (general.regs[RAX] & 0xffff, general.rflags & STATUS)
    }

    /// Intel SDM vol. 2, the examples of DAA and DAS; their EFLAGS(OSZPAC), OF undefined.
    #[test]
    fn daa_and_das_do_as_in_their_examples() {
        let mut m = TestMachine::protected(&[0x27]);
        assert_eq!(after(&mut m, 0xae, 0x35, OF | SF, 1), (0x14, PF | AF | CF));
        assert_eq!(after(&mut m, 0x2e, 0x35, OF | SF, 1), (0x34, AF));
        let mut m = TestMachine::protected(&[0x2f]);
        let flags = SF | PF | AF | CF;
        assert_eq!(after(&mut m, 0xee, 0x47, flags, 1), (0x88, SF | PF | AF | CF));
    }

    fn packed(value: u64) -> u64 {
        value / 10 << 4 | value % 10
    }

    #[test]
    fn daa_and_das_make_sums_and_differences_decimal() {
        // ADD AL, BL; DAA and SUB AL, BL; DAS.
        let mut sum = TestMachine::protected(&[0x00, 0xd8, 0x27]);
        let mut difference = TestMachine::protected(&[0x28, 0xd8, 0x2f]);
        for a in (0..100).step_by(3) {
            for b in (0..100).step_by(7) {
                let (ax, flags) = after(&mut sum, packed(a), packed(b), 0, 2);
                assert_eq!(ax, packed((a + b) % 100), "{a} + {b}");
                assert_eq!(flags & CF != 0, a + b > 99);
                assert_eq!(flags & ZF != 0, (a + b) % 100 == 0);
                let (ax, flags) = after(&mut difference, packed(a), packed(b), 0, 2);
                assert_eq!(ax, packed((100 + a - b) % 100), "{a} - {b}");
                assert_eq!(flags & CF != 0, a < b);
            }
        }
    }

    #[test]
    fn aaa_and_aas_make_sums_and_differences_of_digits_decimal() {
        let mut sum = TestMachine::protected(&[0x00, 0xd8, 0x37]);
        let mut difference = TestMachine::protected(&[0x28, 0xd8, 0x3f]);
        for a in 0..10 {
            for b in 0..10 {
                let (ax, flags) = after(&mut sum, 0x200 | a, b, 0, 2);
                assert_eq!(ax, (2 + (a + b) / 10) << 8 | (a + b) % 10, "{a} + {b}");
                assert_eq!(flags & (AF | CF), if a + b > 9 { AF | CF } else { 0 });
                let (ax, flags) = after(&mut difference, 0x200 | a, b, 0, 2);
                let borrow = u64::from(a < b);
                assert_eq!(ax, (2 - borrow) << 8 | (10 + a - b) % 10, "{a} - {b}");
                assert_eq!(flags & (AF | CF), borrow * (AF | CF));
            }
        }
    }

    #[test]
    fn aaa_and_aas_clear_the_high_digit_of_al_in_any_case() {
        assert_eq!(after(&mut TestMachine::protected(&[0x37]), 0x1f3, 0, 0, 1).0, 0x103);
        assert_eq!(after(&mut TestMachine::protected(&[0x3f]), 0x1f3, 0, 0, 1).0, 0x103);
        // The carry out of AL goes to AH too: AX is one number.
        assert_eq!(after(&mut TestMachine::protected(&[0x37]), 0x0ff, 0, 0, 1).0, 0x205);
    }

    #[test]
    fn aam_divides_al_and_aad_multiplies_ah() {
        let mut aam = TestMachine::protected(&[0xd4, 10]);
        let mut aad = TestMachine::protected(&[0xd5, 10]);
        for value in 0..100 {
            let digits = value / 10 << 8 | value % 10;
            let (ax, flags) = after(&mut aam, 0xee00 | value, 0, 0, 1);
            assert_eq!((ax, flags & ZF != 0), (digits, value % 10 == 0));
            assert_eq!(after(&mut aad, digits, 0, 0, 1).0, value);
        }
        let (ax, flags) = after(&mut TestMachine::protected(&[0xd5, 16]), 0x0f0f, 0, 0, 1);
        assert_eq!((ax, flags & (SF | PF | ZF)), (0xff, SF | PF));
        assert_eq!(after(&mut TestMachine::protected(&[0xd4, 16]), 0xab, 0, 0, 1).0, 0x0a0b);
    }

    #[test]
    fn aam_by_0_raises_de() {
        TestMachine::protected(&[0xd4, 0]).raises(Vector::DE, None);
    }

    #[test]
    fn decimal_instructions_are_undefined_in_64_bit_mode() {
        for code in [&[0x27][..], &[0x2f], &[0x37], &[0x3f], &[0xd4, 10], &[0xd5, 10]] {
            TestMachine::long(code).raises(Vector::UD, None);
        }
    }
}
