//! What the kernel hands back: accesses to devices and MSRs, HLT, and what it cannot do.

use trivium_cpu::msr::{self, MsrKind};
use trivium_cpu::state::Activity;
use trivium_cpu::{CpuBus, Exit};

use super::{KvmExit, KvmVcpu};
use crate::error::{Cannot, KvmError};
use crate::ioctls::HostExit;

/// How many further exits one instruction may have: an access across pages, a long REP OUTS.
const COMPLETE_LIMIT: u32 = 10_000;
/// IA32_APIC_BASE.
const MSR_APIC_BASE: u32 = 0x1b;

impl KvmVcpu {
    /// Serves an exit; `None` if the guest may go on.
    pub(super) fn serve(
        &mut self,
        exit: HostExit,
        bus: &dyn CpuBus,
    ) -> Result<Option<KvmExit>, KvmError> {
        let cannot = |reason| Ok(Some(KvmExit::Cannot(reason)));
        match exit {
            HostExit::Io { write, port, size, count: _ } => self.port(write, port, size, bus),
            HostExit::Mmio { write: true, gpa, len, data } => {
                self.counts.mmio += 1;
                self.incomplete = true;
                bus.mmio_write(gpa, data.get(..len).unwrap_or(&data));
            }
            HostExit::Mmio { write: false, gpa, len, .. } => self.load_mmio(gpa, len, bus),
            HostExit::ReadMsr(index) => self.read_msr(index, bus),
            HostExit::WriteMsr(index, value) => self.write_msr(index, value, bus),
            HostExit::Halt => {
                self.counts.halts += 1;
                self.state.events.activity = Activity::Halted;
            }
            HostExit::Shutdown => {
                self.state.events.activity = Activity::Shutdown;
                return Ok(Some(KvmExit::Exit(Exit::Shutdown)));
            }
            HostExit::EndOfInterrupt(vector) => {
                if let Some(ends) = &self.ends {
                    ends(vector);
                }
            }
            HostExit::WindowOpen => self.counts.windows += 1,
            HostExit::TaskPriority | HostExit::Interrupted | HostExit::Again | HostExit::Debug => {}
            HostExit::InternalError { suberror, bytes } => {
                return cannot(Cannot::Internal { suberror, bytes });
            }
            HostExit::FailEntry(reason) => return cannot(Cannot::FailEntry(reason)),
            HostExit::Unknown(reason) => return cannot(Cannot::Unknown(reason)),
            HostExit::Other(reason) => return cannot(Cannot::Exit(reason)),
        }
        Ok(None)
    }

    fn port(&mut self, write: bool, port: u16, size: u8, bus: &dyn CpuBus) {
        self.counts.io += 1;
        self.incomplete = true;
        if !matches!(size, 1 | 2 | 4) {
            return;
        }
        for item in self.io.io_data().chunks_exact_mut(size.into()) {
            if write {
                let mut value = [0; 4];
                value[..item.len()].copy_from_slice(item);
                bus.pio_write(port, size, u32::from_le_bytes(value));
            } else {
                let value = bus.pio_read(port, size).to_le_bytes();
                item.copy_from_slice(&value[..item.len()]);
            }
        }
    }

    fn load_mmio(&mut self, gpa: u64, len: usize, bus: &dyn CpuBus) {
        self.counts.mmio += 1;
        self.incomplete = true;
        let mut data = [0; 8];
        let len = len.min(data.len());
        bus.mmio_read(gpa, &mut data[..len]);
        self.io.set_mmio_data(data);
    }

    fn read_msr(&mut self, index: u32, bus: &dyn CpuBus) {
        self.counts.msr += 1;
        self.incomplete = true;
        let value = bus.msr_read(index).unwrap_or_else(|| {
            let msrs = &self.state.msrs;
            match msr::find(&self.model, index)?.kind {
                MsrKind::Tsc => Ok(msr::tsc(msrs, bus.tsc())),
                MsrKind::TscAdjust => Ok(msrs.tsc_adjust),
                _ => msr::read(msrs, &self.model, index),
            }
        });
        self.io.set_msr_answer(value.ok());
    }

    fn write_msr(&mut self, index: u32, value: u64, bus: &dyn CpuBus) {
        self.counts.msr += 1;
        self.incomplete = true;
        let done = bus.msr_write(index, value).unwrap_or_else(|| {
            let msrs = &mut self.state.msrs;
            match msr::find(&self.model, index)?.kind {
                MsrKind::Tsc => msr::write_tsc(msrs, bus.tsc(), value),
                MsrKind::TscAdjust => msr::write_tsc_adjust(msrs, value),
                _ => return msr::write(msrs, &self.model, index, value),
            }
            bus.set_tsc_offset(msrs.tsc_offset);
            self.tsc_due = true;
            Ok(())
        });
        if index == MSR_APIC_BASE && done.is_ok() {
            self.apic_base = value;
        }
        self.io.set_msr_answer(done.ok().map(|()| value));
    }

    /// Lets the kernel complete the instruction whose access was served, and no other. An exit, if
    /// that had one of its own.
    pub(super) fn complete(&mut self, bus: &dyn CpuBus) -> Result<Option<KvmExit>, KvmError> {
        let mut ended = None;
        for _ in 0..COMPLETE_LIMIT {
            if !self.incomplete {
                return Ok(ended);
            }
            self.incomplete = false;
            self.io.set_immediate_exit(true);
            let exit = self.io.run();
            self.io.set_immediate_exit(false);
            self.fields_known = true;
            match exit {
                Ok(HostExit::Interrupted | HostExit::Again) => {}
                Ok(exit) => ended = self.serve(exit, bus)?.or(ended),
                Err(error) => {
                    return Ok(Some(KvmExit::Cannot(Cannot::Run(error.to_string()))));
                }
            }
        }
        Ok(Some(KvmExit::Cannot(Cannot::Run("an instruction that never completes".into()))))
    }
}
