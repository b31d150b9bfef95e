//! RDRAND and RDSEED.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::CpuBus;
use trivium_cpu::bits::rflags::CF;

use crate::cpu::{Cpu, mask_of};
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

/// A random number is always at hand: CF says so. Intel SDM vol. 2, RDRAND.
fn random(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    let value = bus.random() & mask_of(u32::from(op.size) * 8);
    cpu.set_reg(op.dst, 0, op.size, value);
    cpu.flags.set_explicit(CF);
    Ok(())
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    match i.mnemonic() {
        Mnemonic::Rdrand | Mnemonic::Rdseed => Some(Selection::system(context.op(i), random)),
        _ => None,
    }
}
