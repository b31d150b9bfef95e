//! The table of what the manuals leave undefined, each line with its source.

use iced_x86::Mnemonic::{self, *};
use trivium_cpu::bits::rflags::{AF, CF, OF, PF, SF, ZF};
use trivium_cpu::model::Vendor;

use super::{Rule, What, When};

const BOTH: &[Vendor] = &[Vendor::Intel, Vendor::Amd];

/// C0, C2 and C3 of the x87 status word.
const C0_C2_C3: u16 = 1 << 8 | 1 << 10 | 1 << 14;
/// C0 and C3.
const C0_C3: u16 = 1 << 8 | 1 << 14;
/// C0 to C3.
const C0_TO_C3: u16 = C0_C2_C3 | 1 << 9;

const fn rule(
    mnemonics: &'static [Mnemonic],
    when: When,
    what: What,
    source: &'static str,
) -> Rule {
    Rule { mnemonics, when, what, vendors: BOTH, source }
}

const fn flags(mnemonics: &'static [Mnemonic], bits: u64, source: &'static str) -> Rule {
    rule(mnemonics, When::Always, What::Flags(bits), source)
}

/// What may differ.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    flags(&[And, Or, Xor, Test], AF, "SDM vol. 2, AND, OR, XOR, TEST, Flags Affected; APM vol. 3, table F-1"),
    flags(&[Andn], AF | PF, "SDM vol. 2, ANDN; APM vol. 3, ANDN"),
    flags(&[Bextr], AF | SF | PF, "SDM vol. 2, BEXTR; APM vol. 3, BEXTR"),
    flags(&[Blsi, Blsmsk, Blsr, Bzhi], AF | PF, "SDM vol. 2, BLSI, BLSMSK, BLSR, BZHI; APM vol. 3, the same"),
    flags(&[Mul, Imul], SF | ZF | AF | PF, "SDM vol. 2, MUL, IMUL; APM vol. 3, MUL, IMUL"),
    flags(&[Div, Idiv], CF | OF | SF | ZF | AF | PF, "SDM vol. 2, DIV, IDIV; APM vol. 3, DIV, IDIV"),
    flags(&[Bsf, Bsr], CF | OF | SF | AF | PF, "SDM vol. 2, BSF, BSR; APM vol. 3, BSF, BSR"),
    // AMD's manual says that the destination is unchanged; so do all of Intel's processors.
    Rule { vendors: &[Vendor::Intel], ..rule(&[Bsf, Bsr], When::Zero, What::Destination, "SDM vol. 2, BSF, BSR: destination undefined if the source is 0") },
    flags(&[Bt, Bts, Btr, Btc], OF | SF | AF | PF, "SDM vol. 2, BT, BTS, BTR, BTC; APM vol. 3, the same"),
    flags(&[Lzcnt, Tzcnt], OF | SF | PF | AF, "SDM vol. 2, LZCNT, TZCNT; APM vol. 3, the same"),
    flags(&[Aaa, Aas], OF | SF | ZF | PF, "SDM vol. 2, AAA, AAS; APM vol. 3, the same"),
    flags(&[Aam, Aad], OF | AF | CF, "SDM vol. 2, AAM, AAD; APM vol. 3, the same"),
    flags(&[Daa, Das], OF, "SDM vol. 2, DAA, DAS; APM vol. 3, the same"),

    rule(&[Shl, Sal, Shr, Sar, Shld, Shrd], When::CountNotZero, What::Flags(AF), "SDM vol. 2, SAL/SAR/SHL/SHR, SHLD, SHRD; APM vol. 3, the same"),
    rule(&[Shl, Sal, Shr, Sar, Shld, Shrd, Rol, Ror, Rcl, Rcr], When::CountAboveOne, What::Flags(OF), "SDM vol. 2, SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD; APM vol. 3, the same"),
    rule(&[Shl, Sal, Shr], When::CountAtLeastSize, What::Flags(CF), "SDM vol. 2, SAL/SAR/SHL/SHR: CF undefined where the count is the size or more"),
    rule(&[Shld, Shrd], When::CountAboveSize, What::Flags(CF | OF | SF | ZF | AF | PF), "SDM vol. 2, SHLD, SHRD: flags undefined where the count is above the size"),
    rule(&[Shld, Shrd], When::CountAboveSize, What::Destination, "SDM vol. 2, SHLD, SHRD: result undefined where the count is above the size; APM vol. 3, the same"),

    rule(&[Rcpps, Rcpss, Rsqrtps, Rsqrtss, Vrcpps, Vrcpss, Vrsqrtps, Vrsqrtss], When::Always, What::Approximate(-10), "SDM vol. 2, RCPPS, RSQRTPS: relative error up to 1.5 * 2^-12 each; APM vol. 4, the same"),

    rule(SEVERAL_ACCESSES, When::Always, What::WhichFault, "SDM vol. 3A, 6.9, table 6-2: within a class the priority of faults is the processor's own; AMD64 APM vol. 2, 8.5"),
    rule(&[Cmpxchg16b], When::Always, What::WhichFault, "SDM vol. 3A, 6.9, table 6-2: of an operand that is neither canonical nor aligned, #SS and #GP are of one class; AMD64 APM vol. 2, 8.5"),
    rule(SEVERAL_STORES, When::Always, What::PartialResults, "SDM vol. 3A, 6.6, asks that an instruction that faulted can be begun again, not that what it had stored before is taken back"),
    rule(UNDEFINED, When::Always, What::WhichFault, "SDM vol. 3A, 6.9, table 6-2: an undefined opcode and an instruction beyond 15 bytes are of one class; how much of an undefined one is fetched is nowhere said"),

    rule(X87_ARITHMETIC, When::Always, What::X87Status(C0_C2_C3), "SDM vol. 1, table 8-1, and vol. 2, FPU Flags Affected; APM vol. 5, the same"),
    rule(&[Fptan, Fsin, Fcos, Fsincos], When::Always, What::X87Status(C0_C3), "SDM vol. 2, FPTAN, FSIN, FCOS, FSINCOS; APM vol. 5, the same"),
    rule(&[Fcmovb, Fcmovbe, Fcmove, Fcmovnb, Fcmovnbe, Fcmovne, Fcmovnu, Fcmovu], When::Always, What::X87Status(C0_C2_C3), "SDM vol. 2, FCMOVcc; APM vol. 5, the same"),
    rule(&[Fnop, Wait], When::Always, What::X87Status(C0_TO_C3), "SDM vol. 2, FNOP, WAIT; APM vol. 5, the same"),
];

/// Those that access memory in more than one place.
#[rustfmt::skip]
const SEVERAL_ACCESSES: &[Mnemonic] = &[
    Movsb, Movsw, Movsd, Movsq, Cmpsb, Cmpsw, Cmpsd, Cmpsq, Push, Pop, Call, Ret, Retf, Iret, Iretd,
    Iretq, Enter, Leave, Pusha, Pushad, Popa, Popad, Jmp, Lds, Les, Lfs, Lgs, Lss, Bound,
    Vgatherdpd, Vgatherdps, Vgatherqpd, Vgatherqps, Vpgatherdd, Vpgatherdq, Vpgatherqd, Vpgatherqq,
    Vmaskmovpd, Vmaskmovps, Vpmaskmovd, Vpmaskmovq, Maskmovdqu, Vmaskmovdqu, Fxsave, Fxsave64,
    Fxrstor, Fxrstor64, Xsave, Xsave64, Xsaveopt, Xsaveopt64, Xsavec, Xsavec64, Xrstor, Xrstor64,
    Fnsave, Frstor, Fnstenv, Fldenv,
];

/// Those that store, or load registers, one after another.
const SEVERAL_STORES: &[Mnemonic] = &[Call, Enter, Pusha, Pushad, Popa, Popad];

/// Those that are none.
const UNDEFINED: &[Mnemonic] = &[INVALID, Ud0, Ud1];

/// Those that set C1 only.
const X87_ARITHMETIC: &[Mnemonic] = &[
    F2xm1, Fabs, Fadd, Faddp, Fbld, Fbstp, Fchs, Fdecstp, Fdiv, Fdivp, Fdivr, Fdivrp, Ffree, Fiadd,
    Fidiv, Fidivr, Fild, Fimul, Fincstp, Fist, Fistp, Fisttp, Fisub, Fisubr, Fld, Fld1, Fldl2e,
    Fldl2t, Fldlg2, Fldln2, Fldpi, Fldz, Fmul, Fmulp, Fpatan, Frndint, Fscale, Fsqrt, Fst, Fstp,
    Fsub, Fsubp, Fsubr, Fsubrp, Fxch, Fxtract, Fyl2x, Fyl2xp1,
];
