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

#[cfg(test)]
mod tests {
    use crate::testing::TestMachine;
    use trivium_cpu::bits::rflags::STATUS;

    use super::CF;

    /// Intel SDM vol. 2, RDRAND and RDSEED: CF is set; OF, SF, ZF, AF and PF are cleared.
    #[test]
    fn numbers_have_the_size_of_the_operand_and_cf_says_that_they_are_good() {
        let rows: [(&[u8], u64); 3] = [
            (&[0x66, 0x0f, 0xc7], 0xffff_ffff_ffff_cdef),
            (&[0x0f, 0xc7], 0x89ab_cdef),
            (&[0x48, 0x0f, 0xc7], 0x0123_4567_89ab_cdef),
        ];
        for (opcode, value) in rows {
            // RDRAND, RDSEED
            for form in [0xf0, 0xf8] {
                let mut m = TestMachine::long(&[opcode, &[form]].concat());
                m.set(|s| {
                    s.general.regs[0] = !0;
                    s.general.rflags |= STATUS & !CF;
                });
                m.run(1);
                assert_eq!(m.reg(0), value);
                assert_eq!(m.state().general.rflags & STATUS, CF);
            }
        }
    }
}
