//! Which flags an instruction leaves undefined.

use iced_x86::{Decoder, DecoderOptions, FlowControl, RflagsBits};
use trivium_cpu::CpuState;
use trivium_cpu::bits::rflags;

use super::pair::bitness;

/// The arithmetic flags, as the decoder and as RFLAGS has them.
const FLAGS: [(u32, u64); 6] = [
    (RflagsBits::CF, rflags::CF),
    (RflagsBits::PF, rflags::PF),
    (RflagsBits::AF, rflags::AF),
    (RflagsBits::ZF, rflags::ZF),
    (RflagsBits::SF, rflags::SF),
    (RflagsBits::OF, rflags::OF),
];

fn in_rflags(bits: u32) -> u64 {
    FLAGS.iter().filter(|(bit, _)| bits & bit != 0).fold(0, |all, (_, flag)| all | flag)
}

/// The flags that may be anything after an instruction: what it leaves undefined, and what was
/// before, if it does not change it. `code` is the instruction at `before`.
pub(super) fn undefined_after(
    before: &CpuState,
    code: &[u8],
    after: &CpuState,
    undefined: u64,
) -> u64 {
    let rip = before.general.rip;
    let mut decoder = Decoder::with_ip(bitness(before), code, rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let plain = instruction.flow_control() == FlowControl::Next;
    let executed = !plain || after.general.rip == instruction.next_ip();
    if instruction.is_invalid() || !executed {
        return undefined;
    }
    let left = in_rflags(instruction.rflags_undefined());
    if left != 0 {
        // A shift by nothing leaves all as it was.
        return undefined | left;
    }
    undefined & !in_rflags(instruction.rflags_modified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(code: &[u8], undefined: u64) -> u64 {
        let mut before = CpuState::default();
        before.general.rip = 0x100;
        let mut next = before;
        next.general.rip += code.len() as u64;
        undefined_after(&before, code, &next, undefined)
    }

    #[test]
    fn shifts_leave_flags_undefined_and_additions_define_all() {
        assert_eq!(after(&[0xc1, 0xe8, 0x08], 0), rflags::AF | rflags::OF, "shr ax, 8");
        assert_eq!(after(&[0x01, 0xc0], rflags::STATUS), 0, "add ax, ax");
        assert_eq!(after(&[0x40], rflags::STATUS), rflags::CF, "inc ax");
        assert_eq!(after(&[0x89, 0xc0], rflags::AF), rflags::AF, "mov ax, ax");
    }
}
