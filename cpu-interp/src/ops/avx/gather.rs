//! Gathers: VGATHERDPS and the like. A fault leaves what was loaded before it, with the mask of
//! those lanes cleared, so that the instruction goes on where it stopped.

use iced_x86::{Code, Instruction};
use trivium_cpu::Exception;

use super::form::{general, get, put, ready};
use super::moves::{from_bytes, to_bytes};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{GeneralFn, Op, Stop, StopReason};
use crate::ops::string::stepped;

/// The lanes of `LANE` bytes, as many as there are in `COUNT`, at indices of `INDEX` bytes.
fn gather<const LANE: usize, const INDEX: usize, const COUNT: usize>(
    cpu: &mut Cpu,
    op: &Op,
) -> Result<(), Stop> {
    ready(cpu)?;
    let (destination, mask, indices) = (op.dst, op.aux2, op.index);
    if destination == mask || destination == indices || mask == indices {
        return Err(cpu.raise(Exception::ud()));
    }
    let indices = to_bytes(get(cpu, indices));
    let mut value = to_bytes(get(cpu, destination));
    let mut left = to_bytes(get(cpu, mask));
    let mut loaded = false;
    for n in 0..COUNT {
        let at = n * LANE..(n + 1) * LANE;
        if left[at.end - 1] & 0x80 != 0 {
            let index = signed(&indices[n * INDEX..(n + 1) * INDEX]);
            match lane::<LANE>(cpu, op, index) {
                Ok(bytes) => value[at.clone()].copy_from_slice(&bytes[..LANE]),
                // Begun again for a device's register, it asks for those before it again, too.
                Err(stop) if cpu.stop == StopReason::MmioRead => return Err(stop),
                Err(stop) => {
                    put(cpu, destination, from_bytes(&value));
                    put(cpu, mask, from_bytes(&left));
                    let traps = cpu.single_step || cpu.pending_debug != 0;
                    if loaded && traps {
                        // Traps of elements gathered before come instead of the exception (Intel
                        // SDM vol. 2, VGATHERDPS).
                        return stepped(cpu);
                    }
                    return Err(stop);
                }
            }
            loaded = true;
        }
        left[at].fill(0);
    }
    value[COUNT * LANE..].fill(0);
    put(cpu, destination, from_bytes(&value));
    put(cpu, mask, [[0; 2]; 2]);
    Ok(())
}

fn signed(bytes: &[u8]) -> u64 {
    match bytes.try_into() {
        Ok(four) => i64::from(i32::from_le_bytes(four)) as u64,
        Err(_) => bytes.try_into().map_or(0, u64::from_le_bytes),
    }
}

fn lane<const LANE: usize>(cpu: &mut Cpu, op: &Op, index: u64) -> Result<[u8; 8], Stop> {
    let base = cpu.regs[usize::from(op.base)];
    let offset = base.wrapping_add(index << op.scale).wrapping_add(op.disp);
    let offset = offset & address_mask(op.asize);
    let linear = cpu.linear(op.seg, offset, LANE as u64, false)?;
    if LANE == 4 {
        let value: u32 = cpu.load_linear(linear, Rights::Unaligned)?;
        Ok(u64::from(value).to_le_bytes())
    } else {
        let value: u64 = cpu.load_linear(linear, Rights::Unaligned)?;
        Ok(value.to_le_bytes())
    }
}

/// Chooses functions for the instructions of this group.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Code::*;
    let function: GeneralFn = match i.code() {
        VEX_Vgatherdps_xmm_vm32x_xmm | VEX_Vpgatherdd_xmm_vm32x_xmm => gather::<4, 4, 4>,
        VEX_Vgatherdps_ymm_vm32y_ymm | VEX_Vpgatherdd_ymm_vm32y_ymm => gather::<4, 4, 8>,
        VEX_Vgatherdpd_xmm_vm32x_xmm | VEX_Vpgatherdq_xmm_vm32x_xmm => gather::<8, 4, 2>,
        VEX_Vgatherdpd_ymm_vm32x_ymm | VEX_Vpgatherdq_ymm_vm32x_ymm => gather::<8, 4, 4>,
        VEX_Vgatherqps_xmm_vm64x_xmm | VEX_Vpgatherqd_xmm_vm64x_xmm => gather::<4, 8, 2>,
        VEX_Vgatherqps_xmm_vm64y_xmm | VEX_Vpgatherqd_xmm_vm64y_xmm => gather::<4, 8, 4>,
        VEX_Vgatherqpd_xmm_vm64x_xmm | VEX_Vpgatherqq_xmm_vm64x_xmm => gather::<8, 8, 2>,
        VEX_Vgatherqpd_ymm_vm64y_ymm | VEX_Vpgatherqq_ymm_vm64y_ymm => gather::<8, 8, 4>,
        _ => return None,
    };
    let mut selection = general(i, context, function);
    // The index is a vector register, which tells nothing of the address size.
    let base = i.memory_base();
    selection.op.asize = match base {
        iced_x86::Register::None => i.memory_displ_size() as u8,
        _ => base.size() as u8,
    };
    Some(selection)
}

#[cfg(test)]
mod tests {
    use trivium_cpu::Vector;
    use trivium_cpu::bits::{cr4, rflags};

    use crate::testing::{CODE, DATA, DEVICE, TestMachine};

    /// VPGATHERDD xmm0, [rsi+xmm1], xmm2 with all of the mask set.
    fn machine(base: u64, indices: [u32; 4]) -> TestMachine {
        let mut machine = TestMachine::long(&[0xc4, 0xe2, 0x69, 0x90, 0x04, 0x0e, 0xf4]);
        machine.set(|state| {
            state.control.cr4 |= cr4::OSXSAVE;
            state.control.xcr0 = 7;
            state.general.regs[6] = base;
            let [a, b, c, d] = indices.map(u64::from);
            state.vector.regs[..3].copy_from_slice(&[
                [7, 7, 7, 7],
                [b << 32 | a, d << 32 | c, 0, 0],
                [!0, !0, 0, 0],
            ]);
        });
        machine
    }

    /// Where nothing is mapped.
    const NOWHERE: u32 = 0x100_0000;

    /// Intel SDM vol. 2, VPGATHERDD: a fault leaves what was gathered, and traps come before it. As
    /// a Zen 5 does it, a single step is one.
    #[test]
    fn a_single_step_traps_before_the_fault_of_a_later_element() {
        for (indices, flags, vector, gathered) in [
            ([4, NOWHERE, 4, 4], 0, Vector::PF, true),
            ([4, NOWHERE, 4, 4], rflags::TF, Vector::DB, true),
            ([NOWHERE, 4, 4, 4], rflags::TF, Vector::PF, false),
        ] {
            let mut machine = machine(DATA, indices);
            machine.put(DATA + 4, &0x1234_u32.to_le_bytes());
            machine.set(|state| state.general.rflags |= flags);
            assert_eq!(machine.run_to_handler(), vector as u8);
            let rsp = machine.reg(4) + if vector == Vector::PF { 8 } else { 0 };
            assert_eq!(machine.get_u64(rsp), CODE, "RIP");
            let regs = machine.state().vector.regs;
            let (value, mask) = if gathered { (0x1234, !0 << 32) } else { (7, !0) };
            assert_eq!((regs[0], regs[2]), ([value, 7, 7, 7], [mask, !0, 0, 0]), "{vector:?}");
        }
    }

    #[test]
    fn each_element_comes_from_its_own_device_register() {
        let mut machine = machine(DEVICE, [0, 4, 8, 12]);
        machine.run(1);
        let bytes: Vec<u8> = machine.state().vector.regs[0].map(u64::to_le_bytes).concat();
        let expected: Vec<u8> = (0..16).chain([0; 16]).collect();
        assert_eq!(bytes, expected);
    }
}
