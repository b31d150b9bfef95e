//! Where processors do what their manuals do not say, or the host's kernel does something of its
//! own: such cases say nothing about the other engine if it does otherwise.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use trivium_cpu::model::FeatureSet;
use trivium_interp::decode::offered;

use super::{bytes_of, first_instruction};
use crate::case::{Case, Width};
use crate::generate::exclusions;

/// Something of that kind.
pub struct Beyond {
    /// What it is.
    pub what: &'static str,
    /// Where it was seen, and against which statement.
    pub source: &'static str,
    /// Whether a case of one instruction is about it.
    pub concerns: fn(&Case) -> bool,
}

/// All of them.
pub const BEYOND: &[Beyond] = &[
    Beyond {
        what: "LOCK VERW is no undefined opcode",
        source: "seen on a Zen 5, against APM vol. 3, 1.2.5, and SDM vol. 2, LOCK",
        concerns: is_lock_verw,
    },
    Beyond {
        what: "VPERMQ and VPERMPD do not ask for VEX.W",
        source: "seen on a Zen 5, against APM vol. 4, VPERMQ, and SDM vol. 2, VPERMQ",
        concerns: is_permutation_without_w,
    },
    Beyond {
        what: "AVX-512, which CPU models do not have",
        source: "SDM vol. 2, 2.7, and KADD and those after it",
        concerns: |case| is_mask_instruction(case) || is_evex(case),
    },
    Beyond {
        what: "an effective address beside FS or GS must be canonical itself",
        source: "seen on a Zen 5; APM vol. 2, 5.3.1, and SDM vol. 1, 3.3.7.1, ask it of the sum",
        concerns: has_wrapping_address,
    },
    Beyond {
        what: "Linux has a segment whose limit is the processor's number",
        source: "Linux, arch/x86/include/asm/segment.h, GDT_ENTRY_CPUNODE",
        concerns: is_limit_of_number,
    },
    Beyond {
        what: "the host's XCR0 has components that CPU models do not have",
        source: "SDM vol. 1, 13.7 to 13.11: XSTATE_BV has a bit for each that is asked for and switched on",
        concerns: asks_for_other_components,
    },
];

/// What a case of one instruction is about, of all these; or why nothing is known of its result, if
/// the CPU has these features.
#[must_use]
pub fn beyond(case: &Case, features: FeatureSet) -> Option<&'static str> {
    let code = first_instruction(case).code();
    if let Some(reason) = exclusions::reason(code).filter(|_| code != Code::INVALID) {
        return Some(reason);
    }
    if !offered::has(features, code) {
        return Some("the CPU model lacks it");
    }
    BEYOND.iter().find(|b| (b.concerns)(case)).map(|b| b.what)
}

fn is_lock_verw(case: &Case) -> bool {
    let bytes = bytes_of(case);
    let options = DecoderOptions::NO_INVALID_CHECK;
    let instruction = Decoder::with_ip(case.width.bits(), &bytes, 0, options).decode();
    instruction.mnemonic() == Mnemonic::Verw && instruction.has_lock_prefix()
}

fn is_permutation_without_w(case: &Case) -> bool {
    // W = 0, vvvv unused, L = 1, pp = 66h.
    matches!(vex(case), Some((3, 0x7d, 0 | 1)))
}

fn is_mask_instruction(case: &Case) -> bool {
    matches!(
        vex(case),
        Some((1, _, 0x41 | 0x42 | 0x44..=0x47 | 0x4a | 0x4b | 0x90..=0x93 | 0x98 | 0x99))
            | Some((3, _, 0x30..=0x33))
    )
}

/// Whether there is an EVEX prefix: 62h, which is BOUND elsewhere if a memory operand follows.
fn is_evex(case: &Case) -> bool {
    let bytes = bytes_of(case);
    let Some(at) = bytes.iter().position(|&byte| byte == 0x62) else { return false };
    let second = bytes.get(at + 1).copied().unwrap_or_default();
    first_instruction(case).is_invalid() && (case.width == Width::Bits64 || second >= 0xc0)
}

/// Map, last prefix byte and opcode of a case that begins with a VEX prefix.
fn vex(case: &Case) -> Option<(u8, u8, u8)> {
    let bytes = bytes_of(case);
    let at = bytes.iter().position(|byte| matches!(byte, 0xc4 | 0xc5))?;
    match bytes[at..] {
        [0xc4, map, last, opcode, ..] => Some((map & 0x1f, last, opcode)),
        [0xc5, last, opcode, ..] => Some((1, last, opcode)),
        _ => None,
    }
}

fn has_wrapping_address(case: &Case) -> bool {
    let instruction = first_instruction(case);
    let segment = match instruction.mnemonic() {
        Mnemonic::Clzero => instruction.segment_prefix(),
        _ => instruction.memory_segment(),
    };
    if case.width != Width::Bits64 || !matches!(segment, Register::FS | Register::GS) {
        return false;
    }
    let Some(address) = effective_address(&instruction, case) else { return false };
    let size = instruction.memory_size().size().max(1) as u64;
    let canonical = |a: u64| (a << 16) as i64 >> 16 == a as i64;
    !canonical(address) || !canonical(address.wrapping_add(size - 1))
}

/// The address of the memory operand without the segment's base. For bit strings, that of the
/// operand's first byte.
fn effective_address(instruction: &Instruction, case: &Case) -> Option<u64> {
    match instruction.code() {
        Code::Clzeroq => return Some(case.state.regs[0]),
        Code::Clzerod => return Some(case.state.regs[0] & 0xffff_ffff),
        _ => {}
    }
    let is_memory = |n: &u32| {
        let kind = instruction.op_kind(*n);
        kind != OpKind::Register && kind as u32 >= OpKind::MemorySegSI as u32
    };
    let operand = (0..instruction.op_count()).find(is_memory)?;
    instruction.virtual_address(operand, 0, |register, _, _| match register {
        Register::FS | Register::GS => Some(0),
        _ if register.is_gpr() => {
            let full = case.state.regs[register.full_register().number() & 15];
            Some(if register.is_gpr64() { full } else { full & 0xffff_ffff })
        }
        _ => None,
    })
}

/// The selector of [`BEYOND`]'s segment, without its privilege level.
const CPU_NUMBER: u64 = 0x78;

fn is_limit_of_number(case: &Case) -> bool {
    let instruction = first_instruction(case);
    if instruction.mnemonic() != Mnemonic::Lsl {
        return false;
    }
    let register = instruction.op1_register();
    instruction.op1_kind() != OpKind::Register
        || case.state.regs[register.full_register().number() & 15] & 0xfffc == CPU_NUMBER
}

/// The x87 unit, SSE and AVX: all that guests have in XCR0 (`vcpu/guest.rs`).
const COMPONENTS: u64 = 7;

fn asks_for_other_components(case: &Case) -> bool {
    use Mnemonic as M;
    let [eax, _, edx, ..] = case.state.regs.map(|register| register & 0xffff_ffff);
    let asked = edx << 32 | eax;
    asked & !COMPONENTS != 0
        && matches!(
            first_instruction(case).mnemonic(),
            M::Xsave
                | M::Xsave64
                | M::Xsavec
                | M::Xsavec64
                | M::Xsaveopt
                | M::Xsaveopt64
                | M::Xrstor
                | M::Xrstor64
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{CaseId, Kind};
    use crate::layout::CODE;
    use crate::state::UserState;
    use trivium_cpu::model::CpuModel;

    fn concerned(code: &[u8], change: fn(&mut UserState)) -> Option<&'static str> {
        let mut case = Case {
            id: CaseId::default(),
            kind: Kind::Manual,
            width: Width::Bits64,
            code_at: CODE.start,
            code: code.to_vec(),
            state: UserState::default(),
            memory: Vec::new(),
            ldt: Vec::new(),
            limit: 1,
        };
        change(&mut case.state);
        beyond(&case, CpuModel::by_name("max").expect("it is there").features)
    }

    #[test]
    fn each_is_about_its_own_instructions_alone() {
        assert!(concerned(&[0xf0, 0x0f, 0x00, 0x2b], |_| ()).is_some(), "lock verw [rbx]");
        assert!(concerned(&[0xf0, 0x0f, 0x00, 0x23], |_| ()).is_none(), "lock verr [rbx]");
        assert!(concerned(&[0x0f, 0x00, 0x2b], |_| ()).is_none(), "verw [rbx]");
        assert!(concerned(&[0xc4, 0xe3, 0x7d, 0x00, 0x1c, 0x24, 0], |_| ()).is_some(), "W0");
        assert!(concerned(&[0xc4, 0x41, 0x7c, 0x4b, 0xf2], |_| ()).is_some(), "kunpckwd");
        assert!(concerned(&[0x62, 0x33, 0x35, 0xb7, 0x73, 0xc1, 0x3f], |_| ()).is_some(), "EVEX");
        assert!(concerned(&[0xc5, 0xfc, 0x58, 0xf2], |_| ()).is_none(), "vaddps");
        assert!(concerned(&[0xc4, 0xe3, 0xfd, 0x00, 0x1c, 0x24, 0], |_| ()).is_none(), "W1");
        let far = |state: &mut UserState| state.regs[6] = 0x0000_8000_0000_1000;
        assert!(concerned(&[0x65, 0x8a, 0x06], far).is_some(), "mov al, gs:[rsi]");
        assert!(concerned(&[0x8a, 0x06], far).is_none(), "mov al, [rsi]");
        assert!(concerned(&[0x0f, 0xc7, 0xf4], |_| ()).is_some(), "rdrand esp");
        let number = |state: &mut UserState| state.regs[0] = 0x7b;
        assert!(concerned(&[0x0f, 0x03, 0xd8], number).is_some(), "lsl ebx, ax");
        assert!(concerned(&[0x0f, 0x03, 0xd8], |_| ()).is_none(), "lsl ebx, ax");
        let opmask = |state: &mut UserState| state.regs[0] = 0x20;
        assert!(concerned(&[0x0f, 0xae, 0x37], opmask).is_some(), "xsaveopt [rdi]");
        assert!(concerned(&[0x0f, 0xae, 0x37], |state| state.regs[0] = 7).is_none(), "xsaveopt");
        assert!(concerned(&[0x0f, 0xae, 0x3f], opmask).is_none(), "clflush [rdi]");
    }
}
