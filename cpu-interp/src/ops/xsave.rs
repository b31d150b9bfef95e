//! XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS. Intel SDM vol. 1, chapter 13.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::bits::{cr0, cr4};
use trivium_cpu::model::{Feature, Quirk};
use trivium_cpu::{Exception, Vector};
use trivium_host_fpu::V128;

use super::fxsave::{Head, ST, XMM, head, restore_x87, save_head, x87_register};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::Rights;
use crate::op::{GeneralFn, Op, Stop};

const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
/// The components that there are.
const ALL: u64 = X87 | SSE | AVX;
/// XCOMP_BV's bit for the compacted format.
const COMPACT: u64 = 1 << 63;

/// Where the header is, and the two words of it that mean something.
const XSTATE_BV: u64 = 512;
const XCOMP_BV: u64 = 520;
/// Where the upper halves of the YMM registers are, in either format.
const YMM: u64 = 576;
/// How many bytes they are.
const YMM_LEN: u64 = 256;
/// MXCSR after reset.
const MXCSR_RESET: u32 = 0x1f80;

/// How an instruction saves.
#[derive(Clone, Copy, PartialEq)]
enum Save {
    /// All components that are asked for.
    Plain,
    /// Those that are in use, in the standard format.
    Optimised,
    /// Those that are in use, in the compacted format.
    Compacted,
}

fn ready(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.control.cr4 & cr4::OSXSAVE == 0 {
        return Err(cpu.raise(Exception::ud()));
    }
    if cpu.control.cr0 & cr0::TS != 0 {
        return Err(cpu.raise(Exception::plain(Vector::NM)));
    }
    Ok(())
}

/// The address of the area, which must be a multiple of 64. The segment must have room for these
/// components.
fn area(cpu: &mut Cpu, op: &Op, components: u64, write: bool) -> Result<u64, Stop> {
    let offset = cpu.offset(op);
    let place = cpu.regs[usize::from(op.seg_base())].wrapping_add(offset);
    if place & 63 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let len = if components & AVX != 0 { YMM + YMM_LEN } else { YMM };
    cpu.linear(op.seg, offset, len, write)
}

/// The components that EDX:EAX asks for and that are enabled.
fn requested(cpu: &Cpu) -> u64 {
    let asked = cpu.regs[0] & 0xffff_ffff | cpu.regs[2] << 32;
    asked & cpu.control.xcr0 & ALL
}

/// How many vector registers the mode has.
fn registers(cpu: &Cpu) -> u8 {
    if cpu.code64() { 16 } else { 8 }
}

/// The components that are not as they are after XRSTOR has initialised them.
fn in_use(cpu: &Cpu) -> u64 {
    let xmm = cpu.vector.regs.iter().any(|r| r[0] | r[1] != 0);
    let upper = cpu.vector.regs.iter().any(|r| r[2] | r[3] != 0);
    let table = [(!x87_is_initial(cpu), X87), (xmm, SSE), (upper, AVX)];
    table.iter().filter(|(used, _)| *used).map(|(_, bit)| bit).sum()
}

/// Whether the x87 unit is as XRSTOR initialises it. Pointers that are not saved do not count.
fn x87_is_initial(cpu: &Cpu) -> bool {
    let x87 = &cpu.x87;
    let registers = x87.regs.iter().all(|r| r.mantissa == 0 && r.sign_exponent == 0);
    let pointers = x87.last_opcode == 0 && x87.last_ip == 0 && x87.last_dp == 0;
    let pointers = pointers || cpu.model.does(Quirk::PointersOfPendingExceptions);
    x87.control == 0x37f && x87.status == 0 && x87.tags == 0xffff && registers && pointers
}

fn put(cpu: &mut Cpu, at: u64, value: V128) -> Result<(), Stop> {
    cpu.store_linear(at, value, Rights::Unaligned)
}

fn save(cpu: &mut Cpu, op: &Op, how: Save, wide: bool) -> Result<(), Stop> {
    ready(cpu)?;
    let asked = requested(cpu);
    // In use or not.
    let at = area(cpu, op, asked, true)?;
    let mut used = in_use(cpu);
    if how == Save::Compacted && cpu.vector.mxcsr != MXCSR_RESET {
        used |= SSE;
    }
    let saved = if how == Save::Plain { asked } else { asked & used };
    let end = if saved & AVX != 0 { YMM + YMM_LEN } else { YMM };
    // Nothing is written unless all can be.
    let last = at.wrapping_add(end - 1);
    cpu.probe(at, 1, true, Rights::Unaligned)?;
    cpu.probe(last, 1, true, Rights::Unaligned)?;
    let old: u64 = match how {
        Save::Compacted => 0,
        _ => cpu.load_linear(at.wrapping_add(XSTATE_BV), Rights::Unaligned)?,
    };
    save_legacy(cpu, at, saved, asked, how, wide)?;
    if saved & AVX != 0 {
        for n in 0..registers(cpu) {
            let [_, _, low, high] = cpu.vector.regs[usize::from(n)];
            put(cpu, at.wrapping_add(YMM + 16 * u64::from(n)), [low, high])?;
        }
    }
    let present = old & !asked | asked & used;
    cpu.store_linear(at.wrapping_add(XSTATE_BV), present, Rights::Unaligned)?;
    if how == Save::Compacted {
        cpu.store_linear(at.wrapping_add(XCOMP_BV), asked | COMPACT, Rights::Unaligned)?;
    }
    Ok(())
}

/// The first 512 bytes, as far as components are in them. MXCSR goes with SSE and AVX.
fn save_legacy(
    cpu: &mut Cpu,
    at: u64,
    saved: u64,
    asked: u64,
    how: Save,
    wide: bool,
) -> Result<(), Stop> {
    let [_, [_, mxcsr]] = head(cpu, wide);
    if saved & X87 != 0 {
        save_head(cpu, at, wide)?;
        for n in 0..8 {
            let value = x87_register(cpu, n);
            put(cpu, at.wrapping_add(16 * (ST + u64::from(n))), value)?;
        }
    }
    let with_mxcsr = match how {
        Save::Compacted => saved & SSE != 0,
        _ => asked & (SSE | AVX) != 0,
    };
    if with_mxcsr {
        cpu.store_linear(at.wrapping_add(24), mxcsr, Rights::Unaligned)?;
    }
    if saved & SSE != 0 {
        for n in 0..registers(cpu) {
            let [low, high, _, _] = cpu.vector.regs[usize::from(n)];
            put(cpu, at.wrapping_add(16 * (XMM + u64::from(n))), [low, high])?;
        }
    }
    Ok(())
}

/// The header's words, checked; what they say is loaded, and whether the area is compacted.
fn header(cpu: &mut Cpu, at: u64) -> Result<(u64, bool), Stop> {
    let mut words = [0_u64; 8];
    for (word, at) in words.iter_mut().zip((at.wrapping_add(XSTATE_BV)..).step_by(8)) {
        *word = cpu.load_linear(at, Rights::Unaligned)?;
    }
    let [present, components, rest @ ..] = words;
    let compact = components & COMPACT != 0;
    let enabled = cpu.control.xcr0;
    let good = if compact {
        cpu.model.has(Feature::Xsavec)
            && components & !COMPACT & !enabled == 0
            && present & !components == 0
            && rest == [0; 6]
    } else {
        components == 0 && rest[0] == 0 && present & !enabled == 0
    };
    if good { Ok((present, compact)) } else { Err(cpu.raise(Exception::gp(0))) }
}

fn restore(cpu: &mut Cpu, op: &Op, wide: bool, compact_only: bool) -> Result<(), Stop> {
    ready(cpu)?;
    let at = area(cpu, op, 0, false)?;
    let asked = requested(cpu);
    let (present, compact) = header(cpu, at)?;
    area(cpu, op, if compact { asked & present } else { asked }, false)?;
    if compact_only && !compact {
        return Err(cpu.raise(Exception::gp(0)));
    }
    // All is loaded and checked before anything is changed.
    let legacy = load_legacy(cpu, at)?;
    let mut upper = [[0; 2]; 16];
    if asked & present & AVX != 0 {
        for (n, value) in (0..registers(cpu)).zip(upper.iter_mut()) {
            let at = at.wrapping_add(YMM + 16 * u64::from(n));
            *value = cpu.load_linear(at, Rights::Unaligned)?;
        }
    }
    let with_mxcsr = match compact {
        true => asked & present & SSE != 0,
        false => asked & (SSE | AVX) != 0,
    };
    let mxcsr = legacy[1][1] as u32;
    if with_mxcsr && mxcsr & !cpu.model.mxcsr_mask() != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    if with_mxcsr {
        cpu.vector.mxcsr = mxcsr;
    } else if compact && asked & SSE != 0 {
        cpu.vector.mxcsr = MXCSR_RESET;
    }
    put_back(cpu, asked, present, &legacy, &upper, wide);
    Ok(())
}

/// The 26 parts of 16 bytes of the first 416.
type Legacy = [V128; 26];

fn load_legacy(cpu: &mut Cpu, at: u64) -> Result<Legacy, Stop> {
    let mut parts = [[0; 2]; 26];
    for (part, at) in parts.iter_mut().zip((at..).step_by(16)) {
        *part = cpu.load_linear(at, Rights::Unaligned)?;
    }
    Ok(parts)
}

/// What a component is where the area does not have it: FCW 037Fh, everything else zero.
const INITIAL: Head = [[0x37f, 0], [0, 0]];

fn put_back(
    cpu: &mut Cpu,
    asked: u64,
    present: u64,
    legacy: &Legacy,
    upper: &[V128; 16],
    wide: bool,
) {
    if asked & X87 != 0 {
        let [first, second, st @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = legacy;
        match present & X87 != 0 {
            true => restore_x87(cpu, [*first, *second], st, wide),
            false => {
                restore_x87(cpu, INITIAL, &[[0; 2]; 8], wide);
                (cpu.x87.last_opcode, cpu.x87.last_ip, cpu.x87.last_dp) = (0, 0, 0);
                (cpu.x87.last_cs, cpu.x87.last_ds) = (0, 0);
            }
        }
    }
    let xmm = legacy.iter().skip(XMM as usize);
    let count = usize::from(registers(cpu));
    for (n, ((reg, low), high)) in cpu.vector.regs.iter_mut().zip(xmm).zip(upper).enumerate() {
        if n >= count {
            break;
        }
        if asked & SSE != 0 {
            let [a, b] = if present & SSE != 0 { *low } else { [0; 2] };
            (reg[0], reg[1]) = (a, b);
        }
        if asked & AVX != 0 {
            (reg[2], reg[3]) = (high[0], high[1]);
        }
    }
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function: GeneralFn = match i.mnemonic() {
        M::Xsave => |cpu, op| save(cpu, op, Save::Plain, false),
        M::Xsave64 => |cpu, op| save(cpu, op, Save::Plain, true),
        M::Xsaveopt => |cpu, op| save(cpu, op, Save::Optimised, false),
        M::Xsaveopt64 => |cpu, op| save(cpu, op, Save::Optimised, true),
        M::Xsavec => |cpu, op| save(cpu, op, Save::Compacted, false),
        M::Xsavec64 => |cpu, op| save(cpu, op, Save::Compacted, true),
        M::Xsaves | M::Xsaves64 => |cpu, op| {
            ready(cpu)?;
            cpu.require_cpl0()?;
            save(cpu, op, Save::Compacted, op.aux != 0)
        },
        M::Xrstor => |cpu, op| restore(cpu, op, false, false),
        M::Xrstor64 => |cpu, op| restore(cpu, op, true, false),
        M::Xrstors | M::Xrstors64 => |cpu, op| {
            ready(cpu)?;
            cpu.require_cpl0()?;
            restore(cpu, op, op.aux != 0, true)
        },
        _ => return None,
    };
    let mut op = context.op(i);
    op.aux = u8::from(matches!(i.mnemonic(), M::Xsaves64 | M::Xrstors64));
    Some(Selection::general(op, function))
}
