//! The list of bugs.

use iced_x86::{Instruction, OpKind};
use trivium_cpu::bits::{cr0, pf, rflags};
use trivium_cpu::state::{DS, ES, FS, GS, SegmentAttributes};
use trivium_cpu::{CpuState, Exception, Vector};

use super::How::{After, Exception as Raising, Instead, Load};
use super::{Before, Bug, How};
use crate::cpu::Cpu;

const fn bug(name: &'static str, how: How) -> Bug {
    Bug { name, how }
}

/// None: what it is planted in only runs instruction by instruction, as with the others.
pub static HARMLESS: Bug = bug("nothing is wrong", Load(|_| ()));

/// All of them.
pub static BUGS: &[Bug] = &[
    bug("ADC leaves out the carry", Instead("Adc_", "Add_")),
    bug("SBB leaves out the borrow", Instead("Sbb_", "Sub_")),
    bug("SAR shifts zeroes in", Instead("Sar_", "Shr_")),
    bug("RCL leaves CF out of the circle", Instead("Rcl_", "Rol_")),
    bug("MOVSX extends with zeroes", Instead("Movsx_", "Movzx_")),
    bug("JLE does not jump on equal", Instead("Jle_", "Jl_")),
    bug("SETBE does not look at ZF", Instead("Setbe_", "Setb_")),
    bug("CMOVG moves on equal", Instead("Cmovg_", "Cmovge_")),
    bug("IDIV divides without sign", Instead("Idiv_", "Div_")),
    bug("IMUL of bytes multiplies without sign", Instead("Imul_rm8", "Mul_rm8")),
    bug("BTS clears the bit", Instead("Bts_", "Btr_")),
    bug("SHLD shifts right", Instead("Shld_", "Shrd_")),
    bug("LOOPNE loops on equal", Instead("Loopne_", "Loope_")),
    bug("CDQE extends a byte less", Instead("Cdqe", "Cwde")),
    bug("PADDSB wraps", Instead("Paddsb_", "Paddb_")),
    bug("PADDUSW saturates with sign", Instead("Paddusw_", "Paddsw_")),
    bug("PSRAW shifts zeroes in", Instead("Psraw_", "Psrlw_")),
    bug("PMULHW multiplies without sign", Instead("Pmulhw_", "Pmulhuw_")),
    bug("PUNPCKHBW takes the low half", Instead("Punpckhbw_", "Punpcklbw_")),
    bug("MINPS gives the greater", Instead("Minps_", "Maxps_")),
    bug("CVTTPS2DQ rounds", Instead("Cvttps2dq_", "Cvtps2dq_")),
    bug("UCOMISS signals on quiet NaN", Instead("Ucomiss_", "Comiss_")),
    bug("FSUB subtracts the other way round", Instead("Fsub_", "Fsubr_")),
    bug("FISTP chops", Instead("Fistp_m32int", "Fisttp_m32int")),
    bug("INC clears CF", After("Inc_", |cpu, _, _| flags(cpu, rflags::CF, 0))),
    bug("ADD never sets AF", After("Add_", |cpu, _, _| flags(cpu, rflags::AF, 0))),
    bug("NEG of zero sets CF", After("Neg_", |cpu, _, _| flags(cpu, rflags::CF, rflags::CF))),
    bug("POPCNT never sets ZF", After("Popcnt_", |cpu, _, _| flags(cpu, rflags::ZF, 0))),
    bug("DAA never sets CF", After("Daa", |cpu, _, _| flags(cpu, rflags::CF, 0))),
    bug(
        "CMP does not look at the sign for OF",
        After("Cmp_", |cpu, _, _| flags(cpu, rflags::OF, 0)),
    ),
    bug("MOV to a 32-bit register keeps its upper half", After("Mov_r32_", keep_upper_half)),
    bug("BSWAP of a 32-bit register keeps its upper half", After("Bswap_r32", keep_upper_half)),
    bug("CMOVE of 32 bits keeps the upper half", After("Cmove_r32_", keep_upper_half)),
    bug("LODSD keeps the upper half of RAX", After("Lodsd_", keep_upper_half)),
    bug(
        "MUL of 32 bits keeps the upper half of RDX",
        After("Mul_rm32", |cpu, before, _| {
            cpu.regs[2] |= before.regs[2] & !0 << 32;
        }),
    ),
    bug(
        "CMPXCHG that fails leaves the accumulator",
        After("Cmpxchg_rm", |cpu, before, _| {
            cpu.regs[0] = before.regs[0];
        }),
    ),
    bug(
        "XADD leaves the source",
        After("Xadd_rm", |cpu, before, i| {
            let source = i.op1_register().full_register().number() & 15;
            cpu.regs[source] = before.regs[source];
        }),
    ),
    bug(
        "POP adds four bytes less",
        After("Pop_r64", |cpu, _, i| {
            if i.op0_register().number() != 4 {
                cpu.regs[4] = cpu.regs[4].wrapping_sub(4);
            }
        }),
    ),
    bug("LAHF leaves out the fixed bit", After("Lahf", |cpu, _, _| cpu.regs[0] &= !0x200)),
    bug(
        "STOSB does not look at DF",
        After("Stosb_", |cpu, before, _| {
            if before.rflags & rflags::DF != 0 {
                cpu.regs[7] = before.regs[7].wrapping_add(1);
            }
        }),
    ),
    bug("ENTER leaves RBP", After("Enterq_", |cpu, before, _| cpu.regs[5] = before.regs[5])),
    bug("XLATB clears AH", After("Xlat_m8", |cpu, _, _| cpu.regs[0] &= !0xff00)),
    bug(
        "DIVPS forgets the MXCSR flags",
        After("Divps_", |cpu, before, _| {
            cpu.vector.mxcsr = before.vector.mxcsr;
        }),
    ),
    bug(
        "ADDSS never reports a denormal",
        After("Addss_", |cpu, before, _| {
            cpu.vector.mxcsr = cpu.vector.mxcsr & !2 | before.vector.mxcsr & 2;
        }),
    ),
    bug(
        "MOVSS from memory keeps the upper lanes",
        After("Movss_xmm_xmmm32", |cpu, before, i| {
            if i.op1_kind() == OpKind::Memory {
                let n = i.op0_register().number() & 15;
                cpu.vector.regs[n][1] = before.vector.regs[n][1];
            }
        }),
    ),
    bug(
        "FSTP leaves the register full",
        After("Fstp_", |cpu, before, _| {
            cpu.x87.tags = before.x87.tags;
        }),
    ),
    bug("FADD never says that it rounded up", After("Fadd_", |cpu, _, _| cpu.x87.status &= !0x200)),
    bug(
        "an instruction with TF set goes without its trap",
        After("", |cpu, _, _| {
            cpu.single_step = false;
        }),
    ),
    bug("#PF does not tell of writes", Raising(|_, e| code(e, Vector::PF, pf::W))),
    bug("#PF does not tell of user code", Raising(|_, e| code(e, Vector::PF, pf::U))),
    bug("#PF does not tell of fetches", Raising(|_, e| code(e, Vector::PF, pf::I))),
    bug("CR2 is that of the page", Raising(|_, e| e.cr2 = e.cr2.map(|a| a & !0xfff))),
    bug(
        "#GP of a software interrupt does not tell of the IDT",
        Raising(|_, e| {
            code(e, Vector::GP, 2);
        }),
    ),
    bug("#SS is taken for #GP", Raising(|_, e| instead(e, Vector::SS, Vector::GP))),
    bug("#AC is taken for #GP", Raising(|_, e| instead(e, Vector::AC, Vector::GP))),
    bug("#XM is taken for #MF", Raising(|_, e| instead(e, Vector::XM, Vector::MF))),
    bug("#MF is taken for #XM", Raising(|_, e| instead(e, Vector::MF, Vector::XM))),
    bug("#DE is taken for #OF", Raising(|_, e| instead(e, Vector::DE, Vector::OF))),
    bug("a store that ends on a page it may not write has written before", Raising(partial_store)),
    bug(
        "data segments end a byte later",
        Load(|state| {
            data_segments(state, |limit, _| *limit = limit.saturating_add(1));
        }),
    ),
    bug(
        "segments do not expand down",
        Load(|state| {
            data_segments(state, |_, kind| *kind &= !SegmentAttributes::EXPAND_DOWN);
        }),
    ),
    bug(
        "read-only segments can be written",
        Load(|state| {
            data_segments(state, |_, kind| *kind |= SegmentAttributes::WRITABLE);
        }),
    ),
    bug("alignment is not checked", Load(|state| state.control.cr0 &= !cr0::AM)),
];

/// Sets the flags of `mask` to `value`.
fn flags(cpu: &mut Cpu, mask: u64, value: u64) {
    cpu.flags.set_some(mask, value);
}

/// Gives the first operand its former upper half back.
fn keep_upper_half(cpu: &mut Cpu, before: &Before, i: &Instruction) {
    let n = i.op0_register().full_register().number() & 15;
    cpu.regs[n] = cpu.regs[n] & 0xffff_ffff | before.regs[n] & !0 << 32;
}

/// Clears bits of an exception's error code.
fn code(exception: &mut Exception, vector: Vector, bits: u32) {
    if exception.vector == vector {
        exception.error_code = exception.error_code.map(|code| code & !bits);
    }
}

/// Raises another exception.
fn instead(exception: &mut Exception, from: Vector, to: Vector) {
    if exception.vector == from {
        *exception = match to.has_error_code() {
            true => Exception::with_code(to, 0),
            false => Exception::plain(to),
        };
    }
}

/// Writes the byte before the page that a store faults on, if the store began before it.
fn partial_store(cpu: &mut Cpu, exception: &mut Exception) {
    let wrote = exception.error_code.is_some_and(|code| code & pf::W != 0);
    if let Some(cr2) = exception.cr2.filter(|cr2| wrote && cr2 & 0xfff == 0) {
        let _ = cpu.store_linear::<u8>(cr2.wrapping_sub(1), 0x5a, crate::mem::Rights::Program);
    }
}

/// Changes the limits and attributes of data segments that have a limit.
fn data_segments(state: &mut CpuState, change: fn(&mut u32, &mut u16)) {
    for n in [ES, DS, FS, GS] {
        let segment = &mut state.segments.regs[n];
        let data = SegmentAttributes::S | SegmentAttributes::P;
        if segment.attributes.has(data) && segment.selector & 4 != 0 {
            change(&mut segment.limit, &mut segment.attributes.0);
        }
    }
}
