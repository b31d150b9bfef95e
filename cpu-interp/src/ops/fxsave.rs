//! FXSAVE and FXRSTOR. Intel SDM vol. 1, 10.5, and vol. 2A, FXSAVE.

use iced_x86::{Code, Instruction};
use trivium_cpu::bits::{cr4, efer};
use trivium_cpu::model::{Feature, Quirk};
use trivium_cpu::state::X87Register;
use trivium_cpu::{Exception, Vector};
use trivium_host_fpu::V128;
use trivium_host_fpu::x87::{control, status};

use super::sse_form::{Place, Xmm};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::Rights;
use crate::op::{Op, Stop};

/// Size of the image in bytes.
const SIZE: u64 = 512;
/// Number of the 16-byte part of the image where the x87 registers begin.
pub(super) const ST: u64 = 2;
/// Number of the part where the XMM registers begin.
pub(super) const XMM: u64 = 10;
/// Place of MXCSR and its mask.
const MXCSR: u64 = 24;
/// Control, status and tag words among the first eight bytes.
const WORDS: u64 = (1 << 48) - 1;
/// Place of TOP in the status word.
const TOP_SHIFT: u16 = 11;
/// Bit of the status word that mirrors ES.
const BUSY: u16 = 1 << 15;
/// The bits of the control word that can be written.
const CONTROL_MASK: u16 = 0x1f3f;
/// A bit of the control word that is always set.
const CONTROL_FIXED: u16 = 0x0040;
/// The tag of an empty register.
const EMPTY: u16 = 3;

/// The parts of the image from byte 0: control, status, tags, opcode, pointers, MXCSR.
pub(super) type Head = [V128; 2];

/// Address of the image; #NM if the x87 unit is not to be used, #GP(0) if it is not aligned.
fn image(cpu: &mut Cpu, op: &Op, write: bool) -> Result<u64, Stop> {
    if cpu.x87_blocked {
        return Err(cpu.raise(Exception::plain(Vector::NM)));
    }
    let offset = cpu.offset(op);
    let linear = cpu.linear(op.seg, offset, SIZE, write)?;
    // AMD's processors look at the alignment of the double words first.
    cpu.check_alignment(linear, 4)?;
    if linear & 15 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    Ok(linear)
}

/// How many XMM registers are in the image.
fn xmm_count(cpu: &Cpu) -> u8 {
    let fast = cpu.control.efer & efer::FFXSR != 0 && cpu.code64() && cpu.cpl() == 0;
    match (cpu.control.cr4 & cr4::OSFXSR != 0 && !fast, cpu.code64()) {
        (false, _) => 0,
        (true, false) => 8,
        (true, true) => 16,
    }
}

/// The physical number of ST(n).
fn physical(top: u16, n: u8) -> u8 {
    (top as u8).wrapping_add(n) & 7
}

fn top(status: u16) -> u16 {
    status >> TOP_SHIFT & 7
}

/// One bit for each register that is not empty.
fn abridged(tags: u16) -> u8 {
    (0..8).map(|n| u8::from(tags >> (2 * n) & 3 != EMPTY) << n).sum()
}

/// The tag of a register that is not empty: 0 valid, 1 zero, 2 special.
fn tag(reg: &X87Register) -> u16 {
    match (reg.sign_exponent & 0x7fff, reg.mantissa) {
        (0, 0) => 1,
        (1..0x7fff, mantissa) if mantissa >> 63 != 0 => 0,
        _ => 2,
    }
}

/// An x87 pointer: whole with REX.W, else an offset and a selector.
fn pointer(wide: bool, offset: u64, selector: u16) -> u64 {
    if wide { offset } else { offset & 0xffff_ffff | u64::from(selector) << 32 }
}

fn split_pointer(cpu: &Cpu, wide: bool, value: u64) -> (u64, u16) {
    let unused = if cpu.model.does(Quirk::PointersHave57Bits) { 7 } else { 0 };
    if wide {
        (((value << unused) as i64 >> unused) as u64, 0)
    } else {
        (value & 0xffff_ffff, (value >> 32) as u16)
    }
}

pub(super) fn head(cpu: &Cpu, wide: bool) -> Head {
    let x87 = &cpu.x87;
    let busy = if x87.status & status::ES != 0 { BUSY } else { 0 };
    let words = u64::from(x87.control)
        | u64::from(x87.status & !BUSY | busy) << 16
        | u64::from(abridged(x87.tags)) << 32
        | u64::from(x87.last_opcode & 0x7ff) << 48;
    let mxcsr = u64::from(cpu.vector.mxcsr) | u64::from(cpu.model.mxcsr_mask()) << 32;
    [
        [words, pointer(wide, x87.last_ip, x87.last_cs)],
        [pointer(wide, x87.last_dp, x87.last_ds), mxcsr],
    ]
}

/// Stores control, status and tag words, the opcode and the pointers, the last three only as far
/// as processors do.
pub(super) fn save_head(cpu: &mut Cpu, at: u64, wide: bool) -> Result<(), Stop> {
    let [[words, ip], [dp, _]] = head(cpu, wide);
    let put = |cpu: &mut Cpu, at, value: u64| cpu.store_linear(at, value, Rights::Program);
    let [words, ip, dp] = match pointers(cpu, cpu.x87.status) {
        Pointers::All => [words, ip, dp],
        Pointers::Zeroed => [words & WORDS, 0, 0],
        Pointers::Kept => {
            cpu.store_linear(at, words as u32, Rights::Program)?;
            return cpu.store_linear(at.wrapping_add(4), (words >> 32) as u16, Rights::Program);
        }
    };
    put(cpu, at, words)?;
    put(cpu, at.wrapping_add(8), ip)?;
    put(cpu, at.wrapping_add(16), dp)
}

/// What becomes of the x87 unit's pointers and opcode.
#[derive(PartialEq)]
enum Pointers {
    /// They are saved and restored.
    All,
    /// Zeros are saved, and what is in the image is restored.
    Zeroed,
    /// Neither memory nor the unit change.
    Kept,
}

/// What becomes of the pointers when they are saved or restored with this status word.
fn pointers(cpu: &Cpu, status_word: u16) -> Pointers {
    if status_word & status::ES != 0 || !cpu.model.does(Quirk::PointersOfPendingExceptions) {
        Pointers::All
    } else if cpu.model.has(Feature::Xsaveerptr) {
        Pointers::Zeroed
    } else {
        Pointers::Kept
    }
}

/// ST(n), as the image has it.
pub(super) fn x87_register(cpu: &Cpu, n: u8) -> V128 {
    let reg = cpu.x87.regs[usize::from(physical(top(cpu.x87.status), n))];
    [reg.mantissa, reg.sign_exponent.into()]
}

fn save(cpu: &mut Cpu, op: &Op, wide: bool) -> Result<(), Stop> {
    let linear = image(cpu, op, true)?;
    cpu.probe(linear, SIZE, true, Rights::Program)?;
    let put = |cpu: &mut Cpu, part: u64, value: V128| {
        cpu.store_linear(linear.wrapping_add(part * 16), value, Rights::Program)
    };
    let [_, [_, mxcsr]] = head(cpu, wide);
    save_head(cpu, linear, wide)?;
    cpu.store_linear(linear.wrapping_add(MXCSR), mxcsr, Rights::Program)?;
    for n in 0..8 {
        let value = x87_register(cpu, n);
        put(cpu, ST + u64::from(n), value)?;
    }
    for n in 0..xmm_count(cpu) {
        let value = Xmm::get(cpu, n);
        put(cpu, XMM + u64::from(n), value)?;
    }
    Ok(())
}

/// Loads all of the image before anything is changed.
fn restore(cpu: &mut Cpu, op: &Op, wide: bool) -> Result<(), Stop> {
    let linear = image(cpu, op, false)?;
    // All of it, even what is reserved, must be there.
    cpu.probe(linear, SIZE, false, Rights::Program)?;
    let mut parts = [[0; 2]; 26];
    let xmm_count = xmm_count(cpu);
    let used = XMM as usize + usize::from(xmm_count);
    for (part, value) in (0_u64..).zip(parts.iter_mut().take(used)) {
        *value = cpu.load_linear(linear.wrapping_add(part * 16), Rights::Program)?;
    }
    let [first, second, st @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = &parts;
    let mxcsr = second[1] as u32;
    // A Pentium II has FXRSTOR and no MXCSR: its place is not looked at.
    let with_mxcsr = cpu.control.cr4 & cr4::OSFXSR != 0 && cpu.model.has(Feature::Sse);
    if with_mxcsr && mxcsr & !cpu.model.mxcsr_mask() != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    if with_mxcsr {
        cpu.vector.mxcsr = mxcsr;
    }
    restore_x87(cpu, [*first, *second], st, wide);
    for (n, value) in (0..xmm_count).zip(parts.iter().skip(XMM as usize)) {
        Xmm::put(cpu, n, *value);
    }
    Ok(())
}

pub(super) fn restore_x87(cpu: &mut Cpu, [first, second]: Head, st: &[V128; 8], wide: bool) {
    let x87 = &mut cpu.x87;
    let words = first[0];
    x87.control = words as u16 & CONTROL_MASK | CONTROL_FIXED;
    let loaded = (words >> 16) as u16 & !(status::ES | BUSY);
    let pending = loaded & !x87.control & control::MASKS != 0;
    x87.status = loaded | if pending { status::ES | BUSY } else { 0 };
    let (top, full) = (top(loaded), (words >> 32) as u8);
    x87.tags = 0;
    for (n, &[mantissa, rest]) in (0..8).zip(st) {
        let number = physical(top, n);
        let reg = X87Register { mantissa, sign_exponent: rest as u16 };
        x87.regs[usize::from(number)] = reg;
        let tag = if full >> number & 1 != 0 { tag(&reg) } else { EMPTY };
        x87.tags |= tag << (2 * number);
    }
    if pointers(cpu, cpu.x87.status) != Pointers::Kept {
        cpu.x87.last_opcode = (words >> 48) as u16 & 0x7ff;
        (cpu.x87.last_ip, cpu.x87.last_cs) = split_pointer(cpu, wide, first[1]);
        (cpu.x87.last_dp, cpu.x87.last_ds) = split_pointer(cpu, wide, second[0]);
    }
    cpu.x87_release_ferr();
}

fn fxsave(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    save(cpu, op, false)
}

fn fxsave64(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    save(cpu, op, true)
}

fn fxrstor(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    restore(cpu, op, false)
}

fn fxrstor64(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    restore(cpu, op, true)
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let function = match i.code() {
        Code::Fxsave_m512byte => fxsave,
        Code::Fxsave64_m512byte => fxsave64,
        Code::Fxrstor_m512byte => fxrstor,
        Code::Fxrstor64_m512byte => fxrstor64,
        _ => return None,
    };
    Some(Selection::general(context.op(i), function))
}
