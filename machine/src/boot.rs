//! How a machine starts: at the reset vector, or where a kernel wants to be entered.

use std::sync::Arc;

use trivium_cpu::bits::{cr0, cr4, efer, rflags};
use trivium_cpu::cpuid::CpuidContext;
use trivium_cpu::state::{
    Activity, CS, DS, ES, FS, GS, SS, Segment, SegmentAttributes, TableRegister,
};
use trivium_cpu::{CpuModel, CpuState, Feature};
use trivium_firmware::acpi::{self, AcpiConfig};
use trivium_firmware::boot::{BOOT_CS, BOOT_DS, BOOT_TR};
use trivium_firmware::mptable::{self, MpConfig};
use trivium_firmware::smbios::{self, SmbiosConfig, SmbiosCpu, SmbiosSettings};
use trivium_firmware::{BootState, EntryMode, Kernel, LoadError, MemoryLayout, Module};
use trivium_memory::{GuestMemory, GuestPhysAddr};

use crate::config::{Board, KernelConfig, SERIAL_PORTS};
use crate::time::{APIC_HZ, TSC_HZ};

/// Numbers of RAX, RBX, RSP and RSI among the general registers.
const RAX: usize = 0;
const RBX: usize = 3;
const RSP: usize = 4;
const RSI: usize = 6;

/// What the board is called in the tables.
const PRODUCT: &str = "PC (i440FX, PIIX3, PIIX4)";
const ISA_PRODUCT: &str = "PC (ISA)";

/// What a machine starts with, each time it is reset.
pub(crate) struct BootSource {
    pub(crate) kernel: Option<Arc<KernelConfig>>,
    /// Bytes at the top of low RAM that the guest must leave alone.
    pub(crate) reserved: u64,
    pub(crate) smbios: SmbiosSettings,
    pub(crate) acpi_tables: Vec<Vec<u8>>,
    pub(crate) board: Board,
    pub(crate) com_ports: [bool; SERIAL_PORTS],
    pub(crate) parallel: bool,
    pub(crate) apic_ids: Vec<u32>,
    pub(crate) model: Arc<CpuModel>,
}

impl BootSource {
    /// Puts into memory what is to be booted, and gives the processors' states. The chips must
    /// have been set up.
    pub(crate) fn load(
        &self,
        memory: &GuestMemory,
        ram_size: u64,
    ) -> Result<Vec<CpuState>, LoadError> {
        let reset = CpuState::reset(&self.model);
        let first = match &self.kernel {
            Some(kernel) => entry_state(&reset, &self.load_kernel(kernel, memory, ram_size)?),
            None => reset,
        };
        let mut waiting = reset;
        waiting.events.activity = Activity::WaitForSipi;
        let others = std::iter::repeat_n(waiting, self.apic_ids.len().saturating_sub(1));
        Ok(std::iter::once(first).chain(others).collect())
    }

    fn load_kernel(
        &self,
        config: &KernelConfig,
        memory: &GuestMemory,
        ram_size: u64,
    ) -> Result<BootState, LoadError> {
        let layout = MemoryLayout::new(ram_size)?.with_reserved(self.reserved)?;
        let rsdp = self.build_tables(memory, &layout)?;
        let modules: Vec<_> = config
            .modules
            .iter()
            .map(|module| Module { data: &module.data, command_line: &module.command_line })
            .collect();
        let kernel = Kernel {
            image: &config.image,
            name: &config.name,
            initrd: config.initrd.as_deref(),
            modules: &modules,
            command_line: &config.command_line,
        };
        trivium_firmware::load(memory, &layout, &kernel, rsdp)
    }

    /// How the first processor is when the guest starts.
    fn cpuid_context(&self) -> CpuidContext {
        CpuidContext {
            apic_id: 0,
            cpus: self.apic_ids.len() as u32,
            apic_enabled: true,
            code64: false,
            osxsave: false,
            pke: false,
            xcr0: 1,
            xss: 0,
            tsc_hz: TSC_HZ,
            apic_hz: APIC_HZ,
        }
    }

    /// Writes the tables that tell of the machine; gives the RSDP's address, if there is ACPI.
    fn build_tables(
        &self,
        memory: &GuestMemory,
        layout: &MemoryLayout,
    ) -> Result<Option<GuestPhysAddr>, LoadError> {
        let is_pc = self.board == Board::Pc;
        let [signature, .., features] = self.model.cpuid(1, 0, &self.cpuid_context());
        if is_pc {
            mptable::build(
                memory,
                layout,
                &MpConfig {
                    apic_ids: &self.apic_ids,
                    cpu_signature: signature,
                    cpu_features: features,
                },
            )?;
        }
        let cpu = SmbiosCpu {
            vendor: std::str::from_utf8(self.model.vendor.signature()).unwrap_or_default(),
            name: self.model.brand,
            id: u64::from(features) << 32 | u64::from(signature),
            long_mode: self.model.has(Feature::Lm),
        };
        let tables = SmbiosConfig {
            product: if is_pc { PRODUCT } else { ISA_PRODUCT },
            version: env!("CARGO_PKG_VERSION"),
            processors: self.apic_ids.len() as u32,
            cpu,
            pci: is_pc,
            acpi: is_pc,
            settings: &self.smbios,
        };
        smbios::build(memory, layout, &tables)?;
        if !is_pc {
            return Ok(None);
        }
        let tables = AcpiConfig {
            apic_ids: &self.apic_ids,
            hpet: true,
            com_ports: self.com_ports,
            parallel: self.parallel,
            mouse: true,
            pm_timer_32: false,
            vga: false,
            extra: &self.acpi_tables,
        };
        acpi::build(memory, layout, &tables).map(Some)
    }
}

/// A segment register that was loaded from a descriptor. Intel SDM vol. 3A, 3.4.5.
fn segment(selector: u16, descriptor: u64) -> Segment {
    let attributes = SegmentAttributes((descriptor >> 40) as u16 & SegmentAttributes::ALL);
    let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
    let limit = if attributes.has(SegmentAttributes::G) { limit << 12 | 0xfff } else { limit };
    let base = descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000;
    Segment { selector, base, limit, attributes }
}

/// The state in which the first processor enters a kernel.
fn entry_state(reset: &CpuState, boot: &BootState) -> CpuState {
    let mut state = *reset;
    let descriptor = |selector: u16| {
        let entry = boot.gdt.get(usize::from(selector / 8)).copied();
        segment(selector, entry.unwrap_or(0))
    };
    state.general.regs = [0; 16];
    for (register, value) in [(RAX, boot.rax), (RBX, boot.rbx), (RSP, boot.rsp), (RSI, boot.rsi)] {
        state.general.regs[register] = value;
    }
    state.general.rip = boot.rip;
    state.general.rflags = rflags::FIXED;
    state.segments.regs[CS] = descriptor(BOOT_CS);
    for data in [ES, SS, DS, FS, GS] {
        state.segments.regs[data] = descriptor(BOOT_DS);
    }
    state.segments.tr = descriptor(BOOT_TR);
    state.segments.gdtr = TableRegister { base: boot.gdt_base.0, limit: boot.gdt_limit };
    state.segments.idtr = TableRegister { base: 0, limit: 0 };
    state.control.cr0 = cr0::PE | cr0::ET;
    if let EntryMode::Long { cr3 } = boot.mode {
        state.control.cr0 |= cr0::PG;
        state.control.cr3 = cr3.0;
        state.control.cr4 = cr4::PAE;
        state.control.efer = efer::LME | efer::LMA;
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_descriptor_covers_4_gib() {
        let code = segment(0x10, 0x00cf_9b00_0000_ffff);
        assert_eq!((code.base, code.limit, code.attributes.0), (0, 0xffff_ffff, 0xc09b));
        let tss = segment(0x20, 0x1200_8b34_5678_0067);
        assert_eq!((tss.base, tss.limit, tss.attributes.0), (0x1234_5678, 0x67, 0x8b));
    }

    #[test]
    fn the_entry_state_is_valid_in_both_modes() {
        let model = CpuModel::by_name("qemu64").unwrap();
        let reset = CpuState::reset(&model);
        for mode in [EntryMode::Protected32, EntryMode::Long { cr3: GuestPhysAddr(0x9000) }] {
            let long = mode != EntryMode::Protected32;
            let code = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
            let boot = BootState {
                mode,
                rip: 0x10_0000,
                rsi: 0x7000,
                rbx: 1,
                rax: 2,
                rsp: 0x9000,
                gdt_base: GuestPhysAddr(0x500),
                gdt_limit: 47,
                gdt: [0, 0, code, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067, 0],
            };
            let state = entry_state(&reset, &boot);
            assert_eq!(state.validate(), Ok(()));
            assert_eq!(state.general.regs[RSI], 0x7000);
            assert_eq!(state.control.efer & efer::LMA != 0, long);
        }
    }
}
