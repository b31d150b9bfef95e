//! Steps of random programs for the property tests of all devices; what runs them is in
//! [`crate::testing`].

use proptest::prelude::*;
use trivium_chipset::{AccessWidth, NANOS_PER_SECOND};

pub(crate) use crate::testing::{Fixture, IrqLog, Step, check};

fn width() -> impl Strategy<Value = AccessWidth> {
    prop_oneof![
        8 => Just(AccessWidth::Byte),
        1 => Just(AccessWidth::Word),
        1 => Just(AccessWidth::Dword),
    ]
}

/// Spans from the nanosecond to years, most of them short.
fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..2_000u64,
        8 => 0..10_000_000u64,
        4 => 0..5 * NANOS_PER_SECOND,
        1 => any::<u32>().prop_map(|seconds| u64::from(seconds) * NANOS_PER_SECOND / 100),
    ]
}

fn common_step() -> BoxedStrategy<Step> {
    prop_oneof![
        6 => span().prop_map(Step::Advance),
        3 => Just(Step::SaveRestore),
        1 => Just(Step::Reset),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, to)| Step::Corrupt(at, to)),
        4 => any::<u8>().prop_map(Step::Poke),
    ]
    .boxed()
}

/// Steps for a device with I/O ports.
pub(crate) fn port_steps(ports: &[u16]) -> impl Strategy<Value = Vec<Step>> + use<> {
    let port = proptest::sample::select(ports.to_vec());
    let value = prop_oneof![any::<u8>().prop_map(u32::from), any::<u32>()];
    let access = prop_oneof![
        (port.clone(), width()).prop_map(|(port, width)| Step::PortRead(port, width)),
        (port, width(), value).prop_map(|(port, width, value)| {
            Step::PortWrite(port, width, value & width.mask())
        }),
    ];
    proptest::collection::vec(prop_oneof![3 => access, 1 => common_step()], 1..120)
}

/// Steps for a device with memory-mapped registers at these offsets, and some elsewhere.
pub(crate) fn mmio_steps(offsets: &[u64]) -> impl Strategy<Value = Vec<Step>> + use<> {
    let offset = prop_oneof![
        8 => proptest::sample::select(offsets.to_vec()),
        1 => any::<u64>(),
    ];
    let length = prop_oneof![8 => Just(4usize), 2 => Just(8usize), 1 => 1..65usize];
    // Small numbers make things happen soon; random ones make everything else happen.
    let low = prop_oneof![any::<u32>(), 0..0x1_0000u32, Just(0)];
    let data = (low, any::<[u8; 60]>())
        .prop_map(|(low, high)| low.to_le_bytes().into_iter().chain(high).collect::<Vec<u8>>());
    let access = prop_oneof![
        (offset.clone(), length.clone()).prop_map(|(offset, len)| Step::MmioRead(offset, len)),
        (offset, length, data).prop_map(|(offset, length, mut data)| {
            data.truncate(length);
            Step::MmioWrite(offset, data)
        }),
    ];
    proptest::collection::vec(prop_oneof![3 => access, 1 => common_step()], 1..120)
}

/// Steps for a PCI function that has these ports as well.
pub(crate) fn pci_steps(ports: &[u16]) -> impl Strategy<Value = Vec<Step>> + use<> {
    let mask = any::<[bool; 4]>().prop_map(|enabled| {
        enabled.into_iter().fold(0, |mask, byte| mask << 8 | if byte { 0xff } else { 0 })
    });
    let dword = (0..64u8).prop_map(|index| index * 4);
    let config = prop_oneof![
        dword.clone().prop_map(Step::ConfigRead),
        (dword, any::<u32>(), mask)
            .prop_map(|(offset, value, mask)| { Step::ConfigWrite(offset, value & mask, mask) }),
    ];
    let config = proptest::collection::vec(config, 1..60);
    if ports.is_empty() {
        return config.boxed();
    }
    (config, port_steps(ports))
        .prop_map(|(config, mut steps)| {
            steps.extend(config);
            steps
        })
        .prop_shuffle()
        .boxed()
}
