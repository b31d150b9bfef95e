//! A bare machine: a virtual CPU, the RAM of an [`Image`], and a bus with nothing on it.

use std::sync::Arc;

use trivium_cpu::model::CpuModel;
use trivium_cpu::{Budget, CpuState, Exit, NullBus, Vcpu};
use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, Region, RegionKind};

use super::image::{Image, SIZE, WINDOWS};
use crate::engine::EngineError;

/// Makes a CPU of a model on a memory; the number is the arena offset of its scratch page.
pub type MakeVcpu<'a, V> = &'a dyn Fn(Arc<GuestMemory>, Arc<CpuModel>, usize) -> V;

/// The unit in which memory is put back between cases.
const PAGE: usize = 0x1000;

/// The machine.
pub struct Machine<V> {
    vcpu: V,
    model: Arc<CpuModel>,
    memory: Arc<GuestMemory>,
    /// What the memory holds now.
    present: Image,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Why the CPU came back.
    pub exit: Exit,
    /// The CPU's state.
    pub state: CpuState,
}

impl<V: Vcpu> Machine<V> {
    /// A machine with zeroes in its memory.
    ///
    /// # Errors
    /// The host refuses memory.
    pub fn new(model: CpuModel, make: MakeVcpu<'_, V>) -> Result<Self, EngineError> {
        let failed = |e| EngineError::Host { engine: "system", source: std::io::Error::other(e) };
        let memory = Arc::new(GuestMemory::new(SIZE, 1).map_err(failed)?);
        let mut offset = 0;
        let regions = WINDOWS.map(|window| {
            let kind = RegionKind::Ram { offset };
            offset += window.len as usize;
            Region::new(window.start, window.len, kind)
        });
        memory.set_map(FlatMap::new(&regions));
        let model = Arc::new(model);
        let scratch = memory.scratch(0, 1).unwrap_or_default();
        let vcpu = make(memory.clone(), model.clone(), scratch);
        Ok(Self { vcpu, model, memory, present: Image::default() })
    }

    /// The CPU's model.
    #[must_use]
    pub fn model(&self) -> &CpuModel {
        &self.model
    }

    /// What the last run has left in memory.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.present
    }

    /// Runs from a state, with this in memory, until the CPU halts or has used up its budget.
    ///
    /// # Errors
    /// The CPU refuses the state, or fails.
    pub fn run(
        &mut self,
        image: &Image,
        state: &CpuState,
        budget: u64,
    ) -> Result<Ended, EngineError> {
        let failed = |e| EngineError::Host { engine: "system", source: std::io::Error::other(e) };
        self.fill(image);
        self.vcpu.load(state).map_err(failed)?;
        let budget = Budget { instructions: budget };
        let exit = self.vcpu.run(&NullBus::new(), budget).map_err(failed)?;
        let state = self.vcpu.save().map_err(failed)?;
        self.look();
        Ok(Ended { exit, state })
    }

    /// Puts an image into memory.
    fn fill(&mut self, image: &Image) {
        let mut offset = 0;
        for (there, new) in self.present.bytes().chunks(PAGE).zip(image.bytes().chunks(PAGE)) {
            if there != new {
                self.memory.write_arena(offset, new);
            }
            offset += PAGE;
        }
        self.present.clone_from(image);
    }

    /// Sees what is in memory.
    fn look(&mut self) {
        let mut rest = self.present.bytes_mut();
        for window in &WINDOWS {
            let (part, others) = rest.split_at_mut(window.len as usize);
            if self.memory.read(GuestPhysAddr(window.start), part).is_err() {
                unreachable!("all windows are RAM");
            }
            rest = others;
        }
    }
}
