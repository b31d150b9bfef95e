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
                Err(stop) => {
                    put(cpu, destination, from_bytes(&value));
                    put(cpu, mask, from_bytes(&left));
                    let traps = cpu.single_step || cpu.pending_debug != 0;
                    if loaded && traps && cpu.stop == StopReason::Exception {
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
