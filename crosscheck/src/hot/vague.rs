//! Instructions after which two CPUs may differ.

use iced_x86::{Instruction, Mnemonic, RflagsBits};

/// Whether an instruction leaves something undefined that the JIT, which lets the host do it, and
/// the interpreter make different things of.
pub(crate) fn is_vague(i: &Instruction) -> bool {
    use Mnemonic as M;
    let undefined = match i.mnemonic() {
        // All processors clear AF.
        M::And | M::Or | M::Xor | M::Test | M::Andn | M::Blsi | M::Blsmsk | M::Blsr | M::Bzhi => {
            i.rflags_undefined() & !RflagsBits::AF
        }
        _ => i.rflags_undefined(),
    };
    let approximate = matches!(
        i.mnemonic(),
        M::Rcpps
            | M::Rcpss
            | M::Rsqrtps
            | M::Rsqrtss
            | M::Vrcpps
            | M::Vrcpss
            | M::Vrsqrtps
            | M::Vrsqrtss
    );
    let destination = matches!(i.mnemonic(), M::Bsf | M::Bsr | M::Shld | M::Shrd | M::Bswap)
        && (i.mnemonic() != M::Bswap || i.op0_register().size() == 2);
    undefined != RflagsBits::NONE || approximate || destination
}
