//! The state of a whole machine: taken, and put back.

mod compare;
mod format;
mod frozen;
mod hash;
#[cfg(test)]
mod tests;

use trivium_chipset::{Clock, SaveRestore, Section, VmTime};
use trivium_cpu::{CpuError, CpuState, Vcpu};
use trivium_memory::{RamImage, image};

use crate::board::PcBoard;
use crate::control::lock;
use crate::error::{MachineError, RestoreError};
use crate::machine::Machine;

pub use format::FormatError;
pub use frozen::Frozen;
pub use hash::StateHash;

/// The section of the interrupt router.
const ROUTER: &str = "irq-router";
/// The section of what processors are asked to do.
const CONTROL: &str = "control";

/// The state of a whole machine, but for what the host's side keeps: files, terminals, the trace,
/// and which unclaimed accesses were told of.
#[derive(Debug, PartialEq)]
pub struct MachineState {
    /// The present moment of virtual time.
    pub now: VmTime,
    /// The processors.
    pub cpus: Vec<CpuState>,
    /// The devices by name, the local APICs and the interrupt router among them.
    pub devices: Vec<(String, Section)>,
    /// RAM.
    pub ram: RamImage,
}

impl MachineState {
    /// The hash that [`Machine::state_hash`] gives of a machine in this state.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        hash::of(self.now, &self.cpus, &self.devices, self.ram.size(), &self.ram.digest())
    }
}

fn apic_name(cpu: usize) -> String {
    format!("lapic{cpu}")
}

impl PcBoard {
    /// All devices' states by name, the interrupt router's last.
    pub(crate) fn save_devices(&self) -> Vec<(String, Section)> {
        let slots = self.slots.iter();
        let mut sections: Vec<_> =
            slots.map(|slot| (slot.name.to_owned(), lock(&slot.device).save())).collect();
        for cpu in 0..self.apics.len() {
            sections.extend(self.apics.with(cpu, |apic| (apic_name(cpu), apic.save())));
        }
        sections.push((CONTROL.to_owned(), self.control.save()));
        sections.push((ROUTER.to_owned(), self.router.save()));
        sections
    }

    /// Says whether there is a section for each device, and a device for each section.
    fn check_names(&self, sections: &[(String, Section)]) -> Result<(), RestoreError> {
        let slots = self.slots.iter().map(|slot| slot.name.to_owned());
        let apics = (0..self.apics.len()).map(apic_name);
        let mut missing: Vec<String> = slots.chain(apics).collect();
        missing.extend([CONTROL.to_owned(), ROUTER.to_owned()]);
        for (name, _) in sections {
            let Some(place) = missing.iter().position(|known| known == name) else {
                return Err(RestoreError::UnknownDevice { name: name.clone() });
            };
            missing.swap_remove(place);
        }
        match missing.into_iter().next() {
            Some(name) => Err(RestoreError::MissingDevice { name }),
            None => Ok(()),
        }
    }

    /// Puts all devices' states back.
    fn restore_devices(&self, sections: &[(String, Section)]) -> Result<(), RestoreError> {
        self.check_names(sections)?;
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
        match name {
            ROUTER => return self.router.restore_shared(section).map_err(refused),
            CONTROL => return self.control.restore(section).map_err(refused),
            _ => {}
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
    /// A processor's host interface failed, or the host has no memory for a copy of RAM.
    pub fn save(&mut self) -> Result<MachineState, MachineError> {
        self.settle();
        Ok(MachineState {
            now: self.parts.clock.now(),
            cpus: self.save_cpus()?,
            devices: self.board.save_devices(),
            ram: RamImage::of(&self.parts.memory, self.parts.layout.ram_size())?,
        })
    }

    /// A hash over the whole state: equal exactly if the states are, for all practical purposes.
    ///
    /// # Errors
    /// A processor's host interface failed.
    pub fn state_hash(&mut self) -> Result<StateHash, CpuError> {
        self.settle();
        let size = self.parts.layout.ram_size();
        let ram = image::digest(&self.parts.memory, size);
        let (now, cpus) = (self.parts.clock.now(), self.save_cpus()?);
        Ok(hash::of(now, &cpus, &self.board.save_devices(), size, &ram))
    }

    /// Puts a state back that a machine of the same configuration was in.
    ///
    /// # Errors
    /// The state is not of such a machine. The machine must then not be run, but for another
    /// restore or a reset.
    pub fn restore(&mut self, state: &MachineState) -> Result<(), RestoreError> {
        let MachineState { now, cpus, devices, ram } = state;
        let (saved, have) = (cpus.len(), self.vcpus.len());
        if saved != have {
            return Err(RestoreError::Cpus { saved, have });
        }
        let (saved, have) = (ram.size(), self.parts.layout.ram_size());
        if saved != have {
            return Err(RestoreError::Memory { saved, have });
        }
        for cpu in cpus {
            cpu.validate().map_err(CpuError::State)?;
        }
        self.settle();
        self.parts.clock.set(*now);
        self.board.restore_devices(devices)?;
        ram.put_back(&self.parts.memory);
        for (vcpu, cpu) in self.vcpus.iter_mut().zip(cpus) {
            vcpu.load(cpu)?;
        }
        Ok(())
    }

    fn save_cpus(&mut self) -> Result<Vec<CpuState>, CpuError> {
        let vcpus: &mut [Box<dyn Vcpu>] = &mut self.vcpus;
        vcpus.iter_mut().map(|vcpu| vcpu.save()).collect()
    }

    /// Does what others have asked of the machine while it stood, as the next run would first, so
    /// that it is part of the state.
    fn settle(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.board.handle(message);
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
