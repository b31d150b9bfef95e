//! What an exit was, in words.

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register};
use trivium_cpu::ExitReason;
use trivium_machine::exits::format::Record;

/// Names of ports, from the first of a range to its last.
const PORTS: &[(u64, u64, &str)] = &[
    (0x00, 0x0f, "DMA"),
    (0x20, 0x21, "8259A"),
    (0x40, 0x43, "8254"),
    (0x60, 0x60, "8042"),
    (0x61, 0x61, "port B"),
    (0x64, 0x64, "8042"),
    (0x70, 0x71, "CMOS and RTC"),
    (0x80, 0x8f, "DMA pages, POST"),
    (0x92, 0x92, "port 92h"),
    (0xa0, 0xa1, "8259A"),
    (0xb2, 0xb3, "APM"),
    (0xc0, 0xdf, "DMA"),
    (0xe9, 0xe9, "debug console"),
    (0x2e8, 0x2ef, "COM4"),
    (0x2f8, 0x2ff, "COM2"),
    (0x378, 0x37a, "LPT1"),
    (0x3e8, 0x3ef, "COM3"),
    (0x3f8, 0x3ff, "COM1"),
    (0x4d0, 0x4d1, "ELCR"),
    (0x501, 0x504, "debug exit"),
    (0x510, 0x51b, "fw_cfg"),
    (0x600, 0x63f, "power management"),
    (0x700, 0x70f, "SMBus"),
    (0xcf8, 0xcff, "PCI configuration"),
];

/// Names of device registers in memory.
const MEMORY: &[(u64, u64, &str)] = &[
    (0xa_0000, 0xb_ffff, "VGA"),
    (0xfec0_0000, 0xfec0_0fff, "I/O APIC"),
    (0xfed0_0000, 0xfed0_03ff, "HPET"),
    (0xfee0_0000, 0xfee0_0fff, "local APIC"),
];

/// A reason, in words.
pub fn reason(reason: ExitReason) -> &'static str {
    match reason {
        ExitReason::PortRead => "port read",
        ExitReason::PortWrite => "port write",
        ExitReason::MmioRead => "device register read",
        ExitReason::MmioWrite => "device register write",
        ExitReason::MsrRead => "MSR read",
        ExitReason::MsrWrite => "MSR write",
        ExitReason::TaskPriority => "CR8",
        ExitReason::Interrupt => "interrupt taken",
        ExitReason::Halted => "halted",
        ExitReason::Kicked => "kicked",
        ExitReason::Budget => "budget used up",
        ExitReason::WaitForSipi => "waiting for SIPI",
        ExitReason::Shutdown => "shutdown",
        ExitReason::TlbMiss => "TLB miss",
        ExitReason::System => "system instruction",
        ExitReason::Exception => "exception",
        ExitReason::Lookup => "code looked up",
        ExitReason::InterruptWindow => "interrupt window",
        ExitReason::Cpuid => "CPUID",
        ExitReason::Emulated => "emulated instruction",
        ExitReason::Debug => "debug stop",
        ExitReason::Attention => "attention",
        ExitReason::Other => "other",
    }
}

/// An exit, in words: which port, register, MSR, vector or instruction.
pub fn what(record: &Record) -> String {
    let words = reason(record.reason);
    let Record { detail, width, .. } = *record;
    match record.reason {
        ExitReason::PortRead | ExitReason::PortWrite => {
            format!("{words} {detail:04x}/{width}{}", device(PORTS, detail))
        }
        ExitReason::MmioRead | ExitReason::MmioWrite => {
            format!("{words} {detail:08x}/{width}{}", device(MEMORY, detail))
        }
        ExitReason::MsrRead | ExitReason::MsrWrite => format!("{words} {detail:x}"),
        ExitReason::Interrupt => format!("{words} {detail:02x}"),
        ExitReason::Exception => format!("{words} {}", exception(detail as u8)),
        ExitReason::System | ExitReason::Emulated => instruction(detail, record.bits),
        _ => words.to_owned(),
    }
}

fn device(table: &[(u64, u64, &str)], address: u64) -> String {
    let found = table.iter().find(|(first, last, _)| (*first..=*last).contains(&address));
    found.map_or(String::new(), |(_, _, name)| format!(" ({name})"))
}

/// Intel SDM vol. 3A, table 6-1.
fn exception(vector: u8) -> String {
    const NAMES: [&str; 22] = [
        "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "", "#TS", "#NP", "#SS",
        "#GP", "#PF", "", "#MF", "#AC", "#MC", "#XM", "#VE", "#CP",
    ];
    let name = NAMES.get(usize::from(vector)).filter(|name| !name.is_empty());
    name.map_or_else(|| format!("{vector:02x}"), |name| (*name).to_owned())
}

/// An instruction without what is of no interest in it: MOV CR3, IRETQ, INVLPG.
fn instruction(code: u64, bits: u8) -> String {
    let bits = if matches!(bits, 16 | 32 | 64) { bits.into() } else { 64 };
    let bytes = code.to_le_bytes();
    let instruction = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode();
    if code == 0 || instruction.is_invalid() {
        return format!("{} of unknown code", reason(ExitReason::System));
    }
    let name = format!("{:?}", instruction.mnemonic()).to_uppercase();
    match system_register(&instruction) {
        Some((0, register)) => format!("{name} to {register:?}"),
        Some((_, register)) => format!("{name} from {register:?}"),
        None => name,
    }
}

/// The control, debug or segment register among an instruction's operands, and its place.
fn system_register(instruction: &Instruction) -> Option<(u32, Register)> {
    let registers = (0..instruction.op_count())
        .filter(|&n| instruction.op_kind(n) == OpKind::Register)
        .map(|n| (n, instruction.op_register(n)));
    registers.into_iter().find(|(_, r)| r.is_cr() || r.is_dr() || r.is_segment_register())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(reason: ExitReason, detail: u64) -> String {
        what(&Record { reason, detail, width: 1, bits: 64, ..Record::default() })
    }

    #[test]
    fn exits_are_named_by_what_was_asked_for() {
        assert_eq!(named(ExitReason::PortWrite, 0x3f8), "port write 03f8/1 (COM1)");
        assert_eq!(
            named(ExitReason::MmioRead, 0xfee0_0020),
            "device register read fee00020/1 (local APIC)"
        );
        assert_eq!(named(ExitReason::Exception, 14 | 2 << 32), "exception #PF");
        assert_eq!(named(ExitReason::Interrupt, 0xec), "interrupt taken ec");
        assert_eq!(named(ExitReason::Halted, 0), "halted");
    }

    #[test]
    fn instructions_are_named_without_their_operands() {
        let code = |bytes: &[u8]| {
            let mut all = [0; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            named(ExitReason::System, u64::from_le_bytes(all))
        };
        assert_eq!(code(&[0x0f, 0x22, 0xdf]), "MOV to CR3");
        assert_eq!(code(&[0x0f, 0x20, 0xd0]), "MOV from CR2");
        assert_eq!(code(&[0x0f, 0x01, 0x3f]), "INVLPG");
        assert_eq!(code(&[0x48, 0xcf]), "IRETQ");
        assert_eq!(code(&[]), "system instruction of unknown code");
    }
}
