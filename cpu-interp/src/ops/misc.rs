//! XLAT, SALC, ADCX, ADOX.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::bits::rflags::{CF, OF};

use crate::cpu::{Cpu, mask_of};
use crate::decode::{Context, Selection};
use crate::mem::address_mask;
use crate::op::{Op, Stop};

const RAX: u8 = 0;
const RBX: u8 = 3;

fn xlat(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let offset =
        cpu.regs[usize::from(RBX)].wrapping_add(cpu.reg(RAX, 0, 1)) & address_mask(op.asize);
    let value = cpu.load_sized(op.seg, offset, 1)?;
    cpu.set_reg(RAX, 0, 1, value);
    Ok(())
}

fn salc(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    let value = if cpu.flags.cf() { 0xff } else { 0 };
    cpu.set_reg(RAX, 0, 1, value);
    Ok(())
}

/// ADCX and ADOX: an addition with CF or OF as its only carry.
fn add_with<const FLAG: u64>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = match op.has_mem() {
        true => cpu.load_sized(op.seg, cpu.offset(op), op.size)?,
        false => cpu.reg(op.src, 0, op.size),
    };
    let carry = u128::from(cpu.flags.get() & FLAG != 0);
    let sum = u128::from(cpu.reg(op.dst, 0, op.size)) + u128::from(b) + carry;
    let bits = u32::from(op.size) * 8;
    cpu.set_reg(op.dst, 0, op.size, sum as u64 & mask_of(bits));
    cpu.flags.set_some(FLAG, if sum >> bits != 0 { FLAG } else { 0 });
    Ok(())
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function = match i.mnemonic() {
        M::Xlatb => xlat,
        M::Salc => salc,
        M::Adcx => add_with::<CF>,
        M::Adox => add_with::<OF>,
        _ => return None,
    };
    Some(Selection::general(context.op(i), function))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, TestMachine};
    use trivium_cpu::Vector;
    use trivium_cpu::bits::rflags::{STATUS, ZF};
    use trivium_cpu::state::{DS, FS};

    const RCX: usize = 1;

    fn with(mut machine: TestMachine, regs: &[(u8, u64)], flags: u64) -> TestMachine {
        machine.set(|state| {
            for &(number, value) in regs {
                state.general.regs[usize::from(number)] = value;
            }
            state.general.rflags |= flags;
        });
        machine
    }

    #[test]
    fn xlat_looks_al_up_in_the_table_at_rbx() {
        let regs = [(RAX, 0x1234_56f0), (RBX, DATA)];
        let mut m = with(TestMachine::long(&[0xd7]), &regs, 0);
        m.put(DATA + 0xf0, &[0x99]);
        m.run(1);
        assert_eq!(m.reg(0), 0x1234_5699);
        // EBX by prefix; the table in FS.
        let regs = [(RAX, 0xf0), (RBX, 7 << 32 | 0x10)];
        let mut m = with(TestMachine::long(&[0x64, 0x67, 0xd7]), &regs, 0);
        m.set(|state| state.segments.regs[FS].base = DATA - 0x10);
        m.put(DATA + 0xf0, &[0x98]);
        m.run(1);
        assert_eq!(m.reg(0), 0x98);
        // BX + AL wraps at 64 KiB.
        let mut m = with(TestMachine::real(&[0xd7]), &[(RAX, 0x20), (RBX, 0xfff0)], 0);
        m.set(|state| state.segments.regs[DS].base = DATA);
        m.put(DATA + 0x10, &[0x97]);
        m.run(1);
        assert_eq!(m.reg(0), 0x97);
    }

    #[test]
    fn salc_spreads_the_carry_over_al() {
        let mut m = with(TestMachine::protected(&[0xd6]), &[(RAX, 0x1234)], CF);
        m.run(1);
        assert_eq!(m.reg(0), 0x12ff);
        let mut m = with(TestMachine::protected(&[0xd6]), &[(RAX, 0x1234)], 0);
        m.run(1);
        assert_eq!(m.reg(0), 0x1200);
        TestMachine::long(&[0xd6]).raises(Vector::UD, None);
    }

    #[test]
    fn adcx_and_adox_have_carries_of_their_own() {
        // ADCX/ADOX EAX, ECX and RAX, [RBX].
        for (prefix, flag) in [(0x66, CF), (0xf3, OF)] {
            for carry in [0, flag] {
                let others = STATUS & !flag;
                let start = [(RAX, 5 << 32 | 0xffff_fffe), (RCX as u8, 1)];
                let code = [prefix, 0x0f, 0x38, 0xf6, 0xc1];
                let mut m = with(TestMachine::long(&code), &start, others | carry);
                m.run(1);
                let sum = if carry != 0 { 0 } else { 0xffff_ffff };
                assert_eq!(m.reg(0), sum, "the upper half is cleared");
                assert_eq!(m.state().general.rflags & STATUS, others | carry);
                let code = [prefix, 0x48, 0x0f, 0x38, 0xf6, 0x03];
                let start = [(RAX, !0), (RBX, DATA)];
                let mut m = with(TestMachine::long(&code), &start, ZF | carry);
                m.put_u64(DATA, !0);
                m.run(1);
                assert_eq!(m.reg(0), (!0_u64).wrapping_mul(2).wrapping_add(u64::from(carry != 0)));
                assert_eq!(m.state().general.rflags & STATUS, ZF | flag);
            }
        }
    }
}
