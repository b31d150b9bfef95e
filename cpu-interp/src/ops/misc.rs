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
