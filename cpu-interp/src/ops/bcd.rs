//! DAA, DAS, AAA, AAS, AAM, AAD, XLAT, SALC, and ADCX, ADOX.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::rflags::{AF, CF, OF};
use trivium_cpu::{Exception, Vector};

use crate::cpu::{Cpu, mask_of};
use crate::decode::{Context, Selection};
use crate::mem::address_mask;
use crate::op::{Op, Stop};

const RAX: u8 = 0;
const RBX: u8 = 3;

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

fn xlat(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let offset = cpu.regs[usize::from(RBX)].wrapping_add(al(cpu)) & address_mask(op.asize);
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
    let op = context.op(i);
    Some(match i.mnemonic() {
        M::Daa => Selection::general(op, decimal::<false>),
        M::Das => Selection::general(op, decimal::<true>),
        M::Aaa => Selection::general(op, ascii::<false>),
        M::Aas => Selection::general(op, ascii::<true>),
        M::Aam => Selection::general(op, aam),
        M::Aad => Selection::general(op, aad),
        M::Salc => Selection::general(op, salc),
        M::Adcx => Selection::general(op, add_with::<CF>),
        M::Adox => Selection::general(op, add_with::<OF>),
        M::Xlatb => {
            let mut op = op;
            op.asize = match i.op0_kind() {
                OpKind::Memory => i.memory_base().size() as u8,
                _ => op.asize,
            };
            Selection::general(op, xlat)
        }
        _ => return None,
    })
}
