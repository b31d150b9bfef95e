//! The state of a whole machine: taken, put back, and told apart by a hash.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trivium_chipset::{Clock, SaveRestore, Section, VmTime};
use trivium_cpu::{CpuError, CpuState};
use trivium_memory::PAGE_SIZE;

use crate::board::PcBoard;
use crate::control::lock;
use crate::error::RestoreError;
use crate::machine::Machine;

/// The section of the interrupt router.
const ROUTER: &str = "irq-router";
const PAGE: usize = PAGE_SIZE as usize;

/// The state of a whole machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineState {
    /// The present moment of virtual time.
    pub now: VmTime,
    /// The processors.
    pub cpus: Vec<CpuState>,
    /// The devices by name, the local APICs and the interrupt router among them.
    pub devices: Vec<(String, Section)>,
    /// Size of RAM in bytes.
    pub ram_size: u64,
    /// The pages of RAM that are not zero: page number in the arena, and content.
    pub pages: Vec<(u64, Vec<u8>)>,
}

/// A SHA-256 over the whole state of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateHash(pub [u8; 32]);

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn apic_name(cpu: usize) -> String {
    format!("lapic{cpu}")
}

impl PcBoard {
    /// All devices' states by name, the interrupt router's last.
    fn save_devices(&self) -> Vec<(String, Section)> {
        let slots = self.slots.iter();
        let mut sections: Vec<_> =
            slots.map(|slot| (slot.name.to_owned(), lock(&slot.device).save())).collect();
        for cpu in 0..self.apics.len() {
            sections.extend(self.apics.with(cpu, |apic| (apic_name(cpu), apic.save())));
        }
        sections.push((ROUTER.to_owned(), self.router.save()));
        sections
    }

    /// Puts all devices' states back.
    fn restore_devices(&self, sections: &[(String, Section)]) -> Result<(), RestoreError> {
        let names = self.slots.iter().map(|slot| slot.name);
        for name in names.chain([ROUTER]) {
            if !sections.iter().any(|(known, _)| known == name) {
                return Err(RestoreError::MissingDevice { name });
            }
        }
        // Devices may tell the router of their configuration while they are restored: its own
        // state comes last and overrides that, as do the interrupt controllers' before it.
        let controllers = ["pic", "ioapic"];
        let late = |name: &str| match name {
            ROUTER => 3,
            _ if name.starts_with("lapic") => 2,
            _ if controllers.contains(&name) => 1,
            _ => 0,
        };
        let mut ordered: Vec<_> = sections.iter().collect();
        ordered.sort_by_key(|(name, _)| late(name));
        for (name, section) in ordered {
            self.restore_device(name, section)?;
        }
        self.restore_a20();
        self.refresh_timers();
        Ok(())
    }

    fn restore_device(&self, name: &str, section: &Section) -> Result<(), RestoreError> {
        let refused = |source| RestoreError::Device { name: name.to_owned(), source };
        if name == ROUTER {
            return self.router.restore_shared(section).map_err(refused);
        }
        if let Some(slot) = self.slots.iter().find(|slot| slot.name == name) {
            return lock(&slot.device).restore(section).map_err(refused);
        }
        let apic = (0..self.apics.len()).find(|cpu| apic_name(*cpu) == name);
        match apic.and_then(|cpu| self.apics.with(cpu, |apic| apic.restore(section))) {
            Some(result) => result.map_err(refused),
            None => Err(RestoreError::UnknownDevice { name: name.to_owned() }),
        }
    }
}

impl Machine {
    /// The whole state.
    ///
    /// # Errors
    /// A processor's host interface failed.
    pub fn save(&mut self) -> Result<MachineState, CpuError> {
        let mut pages = Vec::new();
        self.each_page(|number, content| pages.push((number, content.to_vec())));
        Ok(MachineState {
            now: self.parts.clock.now(),
            cpus: self.vcpus.iter_mut().map(|vcpu| vcpu.save()).collect::<Result<_, _>>()?,
            devices: self.board.save_devices(),
            ram_size: self.parts.layout.ram_size(),
            pages,
        })
    }

    /// Puts a state back that a machine of the same configuration was in.
    ///
    /// # Errors
    /// The state is not of such a machine. The machine must then not be run, but for another
    /// restore or a reset.
    pub fn restore(&mut self, state: &MachineState) -> Result<(), RestoreError> {
        let MachineState { now, cpus, devices, ram_size, pages } = state;
        let (saved, have) = (cpus.len(), self.vcpus.len());
        if saved != have {
            return Err(RestoreError::Cpus { saved, have });
        }
        let (saved, have) = (*ram_size, self.parts.layout.ram_size());
        if saved != have {
            return Err(RestoreError::Memory { saved, have });
        }
        self.parts.clock.set(*now);
        self.board.restore_devices(devices)?;
        self.restore_ram(pages);
        for (vcpu, cpu) in self.vcpus.iter_mut().zip(cpus) {
            vcpu.load(cpu)?;
        }
        Ok(())
    }

    fn restore_ram(&self, pages: &[(u64, Vec<u8>)]) {
        let memory = &self.parts.memory;
        let mut wanted = pages.iter().peekable();
        let zeroes = [0; PAGE];
        let mut present = [0; PAGE];
        for number in 0..self.parts.layout.ram_size() / PAGE_SIZE {
            let offset = number as usize * PAGE;
            let content = wanted.next_if(|(page, _)| *page == number);
            let content = content.map_or(&zeroes[..], |(_, content)| content);
            memory.ram().read_slice(offset, &mut present);
            if let Some(content) = content.get(..PAGE)
                && content != present
            {
                memory.write_arena(offset, content);
            }
        }
    }

    /// A hash over the whole state: equal exactly if the states are, for all practical purposes.
    ///
    /// # Errors
    /// A processor's host interface failed.
    pub fn state_hash(&mut self) -> Result<StateHash, CpuError> {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(&self.parts.clock.now().as_nanos().to_le_bytes());
        for vcpu in &mut self.vcpus {
            let section = Section::encode(1, &vcpu.save()?);
            part(&section.data);
        }
        for (name, section) in self.board.save_devices() {
            part(name.as_bytes());
            part(&section.version.to_le_bytes());
            part(&section.data);
        }
        part(&self.parts.layout.ram_size().to_le_bytes());
        self.each_page(|number, content| {
            part(&number.to_le_bytes());
            part(content);
        });
        Ok(StateHash(hasher.finalize().into()))
    }

    /// Calls `f` with the number and content of each page of RAM that is not zero.
    fn each_page(&self, mut f: impl FnMut(u64, &[u8])) {
        let zeroes = [0; PAGE];
        let mut content = [0; PAGE];
        for number in 0..self.parts.layout.ram_size() / PAGE_SIZE {
            self.parts.memory.ram().read_slice(number as usize * PAGE, &mut content);
            if content != zeroes {
                f(number, &content);
            }
        }
    }

    /// Saves all devices, drops them, builds them anew and restores them: the guest must not
    /// notice. For tests.
    ///
    /// # Errors
    /// A device refuses its own state.
    pub fn rebuild_devices(&mut self) -> Result<(), RestoreError> {
        let sections = self.board.save_devices();
        self.board = PcBoard::new(&self.parts)?;
        self.board.restore_devices(&sections)
    }
}
