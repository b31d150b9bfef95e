//! Which local APICs take a message: the rules of the APIC bus, as pure functions over what the
//! APICs say of themselves. Intel SDM vol. 3A, 11.6.2 and 11.12.10.

use super::local::ApicMode;
use super::message::{BROADCAST, Destination, Message};

/// What must be known of a local APIC to route messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LapicSummary {
    /// APIC ID.
    pub id: u32,
    /// Off, xAPIC or x2APIC.
    pub mode: ApicMode,
    /// Logical destination register, as it reads: in xAPIC mode the ID is in bits 31 to 24.
    pub ldr: u32,
    /// Destination format register, as it reads; Fh in bits 31 to 28 is the flat model.
    pub dfr: u32,
    /// Processor priority: PPR.
    pub priority: u8,
    /// Enabled by software (SVR bit 8): may be chosen for lowest-priority messages.
    pub software_enabled: bool,
}

/// The indices in `apics` of those that take `message`; `sender` is the index of the APIC it comes
/// from, if it comes from one. A message for one of several APICs goes to the one with the lowest
/// processor priority, and among equals to the first.
pub fn targets<'a>(
    message: &Message,
    sender: Option<usize>,
    apics: &'a [LapicSummary],
) -> impl Iterator<Item = usize> + 'a {
    let destination = message.destination;
    let taken_by = move |index: usize, apic: &LapicSummary| match destination {
        _ if apic.mode == ApicMode::Disabled => false,
        Destination::All => true,
        Destination::Others => sender != Some(index),
        Destination::Physical(id) => matches_physical(apic, id),
        Destination::Logical(id) => matches_logical(apic, id),
    };
    let chosen = apics
        .iter()
        .enumerate()
        .filter(|(index, apic)| apic.software_enabled && taken_by(*index, apic))
        .min_by_key(|(_, apic)| apic.priority >> 4)
        .map(|(index, _)| index);
    let single = message.single;
    apics.iter().enumerate().filter_map(move |(index, apic)| {
        let takes = if single { chosen == Some(index) } else { taken_by(index, apic) };
        takes.then_some(index)
    })
}

/// Physical destination mode: the ID, or all.
#[must_use]
pub fn matches_physical(apic: &LapicSummary, id: u32) -> bool {
    id == BROADCAST || apic.id == id
}

/// Logical destination mode: flat and cluster model in xAPIC mode, clusters of sixteen in x2APIC
/// mode.
#[must_use]
pub fn matches_logical(apic: &LapicSummary, id: u32) -> bool {
    if id == BROADCAST {
        return apic.mode != ApicMode::Disabled;
    }
    match apic.mode {
        ApicMode::Disabled => false,
        ApicMode::X2Apic => apic.ldr >> 16 == id >> 16 && apic.ldr & id & 0xffff != 0,
        ApicMode::XApic if id > 0xff => false,
        ApicMode::XApic => matches_xapic(apic.ldr >> 24, apic.dfr >> 28, id),
    }
}

fn matches_xapic(logical_id: u32, model: u32, id: u32) -> bool {
    match model {
        0xf => logical_id & id != 0,
        // In the cluster model, cluster Fh is all of them.
        0x0 => (id >> 4 == 0xf || logical_id >> 4 == id >> 4) && logical_id & id & 0xf != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::DeliveryMode;

    fn xapic(id: u32, ldr: u32, dfr: u32) -> LapicSummary {
        let mode = ApicMode::XApic;
        LapicSummary { id, mode, ldr: ldr << 24, dfr, priority: 0, software_enabled: true }
    }

    fn x2apic(id: u32) -> LapicSummary {
        let ldr = id >> 4 << 16 | 1 << (id & 15);
        let mode = ApicMode::X2Apic;
        LapicSummary { id, mode, ldr, dfr: u32::MAX, priority: 0, software_enabled: true }
    }

    fn fixed(destination: Destination) -> Message {
        let delivery = DeliveryMode::Fixed;
        Message { destination, delivery, vector: 0x40, level: false, single: false }
    }

    fn route(message: &Message, sender: Option<usize>, apics: &[LapicSummary]) -> Vec<usize> {
        targets(message, sender, apics).collect()
    }

    #[test]
    fn physical_mode_names_one_id_or_all() {
        let apics: Vec<_> = (0..4).map(|id| xapic(id, 0, u32::MAX)).collect();
        assert_eq!(route(&fixed(Destination::Physical(2)), None, &apics), [2]);
        assert_eq!(route(&fixed(Destination::Physical(BROADCAST)), None, &apics), [0, 1, 2, 3]);
        assert_eq!(route(&fixed(Destination::Physical(9)), None, &apics), []);
    }

    #[test]
    fn flat_model_ands_eight_bits() {
        let apics: Vec<_> = (0..4).map(|id| xapic(id, 1 << id, u32::MAX)).collect();
        assert_eq!(route(&fixed(Destination::Logical(0b1010)), None, &apics), [1, 3]);
        assert_eq!(route(&fixed(Destination::Logical(BROADCAST)), None, &apics), [0, 1, 2, 3]);
    }

    #[test]
    fn cluster_model_compares_the_high_half_and_ands_the_low() {
        let model = 0x0fff_ffff;
        let apics = [xapic(0, 0x11, model), xapic(1, 0x12, model), xapic(2, 0x21, model)];
        assert_eq!(route(&fixed(Destination::Logical(0x13)), None, &apics), [0, 1]);
        assert_eq!(route(&fixed(Destination::Logical(0x21)), None, &apics), [2]);
        assert_eq!(route(&fixed(Destination::Logical(0xf1)), None, &apics), [0, 2]);
    }

    #[test]
    fn x2apic_logical_ids_are_clusters_of_sixteen() {
        let apics = [x2apic(0), x2apic(1), x2apic(16), x2apic(17)];
        assert_eq!(route(&fixed(Destination::Logical(0x0000_0003)), None, &apics), [0, 1]);
        assert_eq!(route(&fixed(Destination::Logical(0x0001_0002)), None, &apics), [3]);
        assert_eq!(route(&fixed(Destination::Logical(BROADCAST)), None, &apics), [0, 1, 2, 3]);
        assert_eq!(route(&fixed(Destination::Physical(17)), None, &apics), [3]);
    }

    #[test]
    fn shorthands_include_or_exclude_the_sender_and_never_the_disabled() {
        let mut apics: Vec<_> = (0..3).map(x2apic).collect();
        assert_eq!(route(&fixed(Destination::All), Some(1), &apics), [0, 1, 2]);
        assert_eq!(route(&fixed(Destination::Others), Some(1), &apics), [0, 2]);
        apics[2].mode = ApicMode::Disabled;
        assert_eq!(route(&fixed(Destination::Others), Some(1), &apics), [0]);
    }

    #[test]
    fn lowest_priority_goes_to_one_enabled_processor() {
        let mut apics: Vec<_> = (0..4).map(|id| xapic(id, 1 << id, u32::MAX)).collect();
        let all = fixed(Destination::Logical(0b1111));
        let message = Message { delivery: DeliveryMode::LowestPriority, single: true, ..all };
        apics[0].priority = 0x50;
        apics[1].priority = 0x40;
        apics[2].priority = 0x20;
        apics[3].software_enabled = false;
        assert_eq!(route(&message, None, &apics), [2]);
    }
}
