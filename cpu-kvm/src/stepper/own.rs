//! Instructions of 64-bit user-level code that are KVM's own: under it they do not what the machine's
//! processor does, whatever the processor is. A table, with why.

use iced_x86::{CpuidFeature, FlowControl, Instruction, Mnemonic};

/// A kind of instruction that is not compared.
pub struct Own {
    /// Which, as people name them.
    pub what: &'static str,
    /// Why they are KVM's own.
    pub why: &'static str,
    is: fn(&Instruction) -> bool,
}

/// All of them. What is in two kinds is counted as the first.
pub const OWN: &[Own] = &[
    Own {
        what: "SYSCALL, INT, IN, OUT, CLI, HLT and all that is privileged",
        why: "they leave user-level code",
        is: leaves,
    },
    Own {
        what: "far branches, loads of segment registers, SGDT, LAR and their like",
        why: "descriptor tables are those that KVM is given",
        is: uses_descriptors,
    },
    Own {
        what: "PUSHF, POPF",
        why: "RFLAGS.TF is set while instructions are counted, and would be seen",
        is: |i| {
            use Mnemonic::{Popf, Popfd, Popfq, Pushf, Pushfd, Pushfq};
            matches!(i.mnemonic(), Pushf | Pushfd | Pushfq | Popf | Popfd | Popfq)
        },
    },
    Own {
        what: "repeated string instructions",
        why: "with RFLAGS.TF they end after each repetition",
        is: |i| i.is_string_instruction() && (i.has_rep_prefix() || i.has_repne_prefix()),
    },
    Own {
        what: "CPUID, XGETBV",
        why: "the answer is the host's",
        is: |i| matches!(i.mnemonic(), Mnemonic::Cpuid | Mnemonic::Xgetbv),
    },
    Own {
        what: "RDTSC, RDTSCP",
        why: "the time is the host's",
        is: |i| matches!(i.mnemonic(), Mnemonic::Rdtsc | Mnemonic::Rdtscp),
    },
    Own {
        what: "RDRAND, RDSEED",
        why: "random numbers are the host's",
        is: |i| matches!(i.mnemonic(), Mnemonic::Rdrand | Mnemonic::Rdseed),
    },
    Own {
        what: "RDPID, RDPMC, RDPRU",
        why: "the register is the host's",
        is: |i| matches!(i.mnemonic(), Mnemonic::Rdpid | Mnemonic::Rdpmc | Mnemonic::Rdpru),
    },
    Own {
        what: "x87 instructions, MMX",
        why: "processors keep no pointers to the last x87 instruction where it was without an error, and \
              KVM gives tags in two of their four values",
        is: is_x87,
    },
    Own {
        what: "FXSAVE, XSAVE and their like",
        why: "the image tells of what is in its initial state, which is the processor's choice",
        is: Instruction::is_save_restore_instruction,
    },
    Own {
        what: "transactions",
        why: "whether they succeed is the processor's choice",
        is: |i| {
            i.cpuid_features().iter().any(|f| matches!(f, CpuidFeature::RTM | CpuidFeature::HLE))
        },
    },
    Own {
        what: "what cannot be decoded",
        why: "it raises #UD, or is of processors to come",
        is: Instruction::is_invalid,
    },
];

fn leaves(i: &Instruction) -> bool {
    use Mnemonic::{In, Insb, Insd, Insw, Out, Outsb, Outsd, Outsw, Syscall, Sysenter};
    let kernel = matches!(i.mnemonic(), Syscall | Sysenter);
    let port = matches!(i.mnemonic(), In | Out | Insb | Insw | Insd | Outsb | Outsw | Outsd);
    let interrupts = matches!(i.flow_control(), FlowControl::Interrupt | FlowControl::Exception);
    kernel || port || interrupts || i.is_privileged()
}

fn uses_descriptors(i: &Instruction) -> bool {
    use Mnemonic::{Lar, Lfs, Lgs, Lsl, Lss, Sgdt, Sidt, Sldt, Smsw, Str, Verr, Verw};
    let far =
        i.is_jmp_far() || i.is_jmp_far_indirect() || i.is_call_far() || i.is_call_far_indirect();
    let returns =
        matches!(i.mnemonic(), Mnemonic::Retf | Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq);
    let load = matches!(i.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
        && i.op_count() > 0
        && i.op0_register().is_segment_register();
    let table = matches!(
        i.mnemonic(),
        Lar | Lsl | Lfs | Lgs | Lss | Sgdt | Sidt | Sldt | Smsw | Str | Verr | Verw
    );
    far || returns || load || table
}

fn is_x87(i: &Instruction) -> bool {
    use CpuidFeature::{D3NOW, FPU, FPU287, FPU287XL_ONLY, FPU387, MMX};
    let of_x87 =
        |f: &CpuidFeature| matches!(*f, FPU | FPU287 | FPU287XL_ONLY | FPU387 | MMX | D3NOW);
    let mmx = (0..i.op_count()).any(|n| i.op_register(n).is_mm());
    mmx || i.mnemonic() == Mnemonic::Wait || i.cpuid_features().iter().any(of_x87)
}

/// What an instruction of 64-bit code is, if it is not to be compared: its number in [`OWN`].
pub(super) fn kind(instruction: &Instruction) -> Option<usize> {
    OWN.iter().position(|own| (own.is)(instruction))
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn what(code: &[u8]) -> Option<&'static str> {
        let instruction = Decoder::new(64, code, DecoderOptions::NONE).decode();
        kind(&instruction).map(|n| OWN[n].what.split([',', ' ']).next().unwrap_or_default())
    }

    #[test]
    fn instructions_are_found_behind_prefixes_and_by_all_their_names() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (&[0x0f, 0xa2], Some("CPUID")),
            (&[0x0f, 0x01, 0xd0], Some("CPUID")),
            (&[0x66, 0x48, 0x0f, 0x31], Some("RDTSC")),
            (&[0xf3, 0x48, 0xa5], Some("repeated")),
            (&[0x48, 0xa5], None),
            (&[0x0f, 0xc7, 0xf0], Some("RDRAND")),
            (&[0x0f, 0xc7, 0x0f], None),
            (&[0x0f, 0xae, 0x17], None),
            (&[0x0f, 0xae, 0x27], Some("FXSAVE")),
            (&[0xff, 0xe0], None),
            (&[0xff, 0x28], Some("far")),
            (&[0x48, 0xcb], Some("far")),
            (&[0x8e, 0xd8], Some("far")),
            (&[0x0f, 0xa1], Some("far")),
            (&[0x8c, 0xd8], None),
            (&[0x0f, 0x05], Some("SYSCALL")),
            (&[0xcc], Some("SYSCALL")),
            (&[0xcd, 0x80], Some("SYSCALL")),
            (&[0xe4, 0x60], Some("SYSCALL")),
            (&[0x6e], Some("SYSCALL")),
            (&[0xf4], Some("SYSCALL")),
            (&[0xfa], Some("SYSCALL")),
            (&[0x0f, 0x20, 0xc0], Some("SYSCALL")),
            (&[0x0f, 0x0b], Some("SYSCALL")),
            (&[0x9c], Some("PUSHF")),
            (&[0xd9, 0xe8], Some("x87")),
            (&[0x9b], Some("x87")),
            (&[0x0f, 0xef, 0xc0], Some("x87")),
            (&[0x66, 0x0f, 0xef, 0xc0], None),
            (&[0x0f, 0x77], Some("x87")),
            (&[0xc5, 0xf8, 0x77], None),
            (&[0xf3, 0x0f, 0x2d, 0xc0], None),
            (&[0xf3, 0x48, 0x0f, 0xae, 0xc0], None),
            (&[0x06], Some("SYSCALL")),
            (&[0xc3], None),
        ];
        for (code, expected) in cases {
            assert_eq!(what(code), *expected, "{code:02x?}");
        }
    }
}
