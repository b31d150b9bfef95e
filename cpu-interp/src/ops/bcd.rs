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
