//! Makes the memory small that a divergence needs.

use trivium_chipset::VmTime;

use super::LockstepError;
use super::pair::Pair;

/// Empties all pages of RAM without which the machines still differ in the same way, larger and then
/// smaller parts of them. Gives in what they differ.
pub(super) fn shrink(pair: &mut Pair, until: VmTime) -> Result<Vec<String>, LockstepError> {
    let wanted = pair.probe_anew(until)?;
    let mut kept: Vec<usize> = (0..pair.pages()).filter(|&page| pair.has_content(page)).collect();
    let mut size = kept.len().div_ceil(2);
    while size > 0 {
        let mut needed = Vec::new();
        for part in kept.chunks(size) {
            let taken = pair.take_out(part);
            if pair.probe_anew(until)? != wanted {
                pair.put_back(taken);
                needed.extend(part);
            }
        }
        kept = needed;
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    pair.probe_anew(until)
}
