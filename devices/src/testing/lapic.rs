//! A local APIC as a device whose registers of both modes are in memory.

use std::sync::Arc;

use trivium_chipset::{
    BusError, BusResult, Device, ManualClock, Mmio, MsiMessage, SaveRestore, Section, StateError,
    Timed,
};

use crate::apic::{ApicGeneration, LapicConfig, Lint, LocalApic, Message};

/// Where the MSRs are: eight bytes each, by number.
const MSRS: u64 = 0x10_0000;
const fn msr(number: u64) -> u64 {
    MSRS + 8 * number
}

/// Registers of xAPIC mode, then MSRs: IA32_APIC_BASE, IA32_TSC_DEADLINE and those of x2APIC mode.
pub(super) const BENCH_MMIO: [u64; 34] = [
    0x020,
    0x030,
    0x080,
    0x0a0,
    0x0b0,
    0x0d0,
    0x0e0,
    0x0f0,
    0x0f0,
    0x110,
    0x190,
    0x210,
    0x280,
    0x300,
    0x310,
    0x320,
    0x330,
    0x340,
    0x350,
    0x360,
    0x370,
    0x380,
    0x390,
    0x3e0,
    msr(0x1b),
    msr(0x6e0),
    msr(0x803),
    msr(0x808),
    msr(0x80b),
    msr(0x80f),
    msr(0x830),
    msr(0x832),
    msr(0x838),
    msr(0x83f),
];

/// A local APIC and the offset of its processor's time-stamp counter, which is the processor's
/// state.
pub(super) struct LapicBench(LocalApic);

impl LapicBench {
    pub(super) fn new(clock: &Arc<ManualClock>) -> Self {
        let config = LapicConfig {
            present: true,
            id: 0,
            bootstrap: true,
            timer_hz: 1_000_000_000,
            tsc_hz: 2_000_000_000,
            physical_bits: 40,
            x2apic: true,
            tsc_deadline: true,
            generation: ApicGeneration::Xapic,
        };
        Self(LocalApic::new(config, clock.clone()))
    }

    /// What processor and bus do.
    pub(super) fn poke(&mut self, what: u8) {
        let apic = &mut self.0;
        match what {
            0x00 => _ = apic.take_nmi(),
            0x01 => _ = apic.take_smi(),
            0x02 => _ = apic.take_init(),
            0x03 => _ = apic.take_startup(),
            0x04 => apic.performance_event(),
            0x05 => apic.thermal_event(),
            0x06 => apic.set_virtual_wire(),
            0x07 => apic.acknowledge_extint(),
            0x08..0x0c => {
                let pin = if what & 1 == 0 { Lint::Lint0 } else { Lint::Lint1 };
                apic.set_lint(pin, what & 2 != 0);
            }
            0x10..0x20 => apic.set_cr8(what & 15),
            0x20..0x40 if apic.highest_pending().is_some() => _ = apic.acknowledge(),
            _ => {
                let data =
                    u32::from(what) | u32::from(what & 7) << 8 | u32::from(what & 1) * 0xc000;
                let message = MsiMessage { address: 0xfee0_0000, data };
                if let Some(message) = Message::from_msi(message) {
                    apic.receive(&message);
                }
            }
        }
    }

    /// The MSR at an offset.
    fn msr(offset: u64, length: usize) -> Option<u32> {
        let number = offset.checked_sub(MSRS)? / 8;
        u32::try_from(number).ok().filter(|_| length == 8)
    }
}

impl Mmio for LapicBench {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> BusResult<()> {
        let Some(msr) = Self::msr(offset, data.len()) else {
            return self.0.mmio_read(offset, data);
        };
        let value = self.0.read_msr(msr).map_err(|_| BusError::NoRegister)?;
        data.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> BusResult<()> {
        let Some(msr) = Self::msr(offset, data.len()) else {
            return self.0.mmio_write(offset, data).map(|_| ());
        };
        let value = data.try_into().map_or(0, u64::from_le_bytes);
        self.0.write_msr(msr, value).map(|_| ()).map_err(|_| BusError::NoRegister)
    }
}

impl Device for LapicBench {
    fn mmio(&mut self) -> Option<&mut dyn Mmio> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        self.0.timed()
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}

impl SaveRestore for LapicBench {
    fn save(&self) -> Section {
        self.0.save()
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        self.0.restore(section)
    }
}
