//! For what stands between a CPU and the platform: the calls that it only passes on.

/// Methods of [`trivium_cpu::CpuBus`] that do no more than to call the same of a field.
macro_rules! pass_on {
    ($field:ident: $($method:ident)*) => { $(pass_on!(@$method $field);)* };
    (@retire $to:ident) => {
        fn retire(&self, instructions: u64) {
            self.$to.retire(instructions);
        }
    };
    (@mmio_read $to:ident) => {
        fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
            self.$to.mmio_read(gpa, data);
        }
    };
    (@mmio_write $to:ident) => {
        fn mmio_write(&self, gpa: u64, data: &[u8]) {
            self.$to.mmio_write(gpa, data);
        }
    };
    (@pio_read $to:ident) => {
        fn pio_read(&self, port: u16, width: u8) -> u32 {
            self.$to.pio_read(port, width)
        }
    };
    (@pio_write $to:ident) => {
        fn pio_write(&self, port: u16, width: u8, value: u32) {
            self.$to.pio_write(port, width, value);
        }
    };
    (@msr_read $to:ident) => {
        fn msr_read(&self, msr: u32) -> Option<Result<u64, trivium_cpu::MsrFault>> {
            self.$to.msr_read(msr)
        }
    };
    (@msr_write $to:ident) => {
        fn msr_write(&self, msr: u32, value: u64) -> Option<Result<(), trivium_cpu::MsrFault>> {
            self.$to.msr_write(msr, value)
        }
    };
    (@cr8 $to:ident) => {
        fn cr8(&self) -> u8 {
            self.$to.cr8()
        }
    };
    (@set_cr8 $to:ident) => {
        fn set_cr8(&self, priority: u8) {
            self.$to.set_cr8(priority);
        }
    };
    (@tsc $to:ident) => {
        fn tsc(&self) -> u64 {
            self.$to.tsc()
        }
    };
    (@set_tsc_offset $to:ident) => {
        fn set_tsc_offset(&self, offset: u64) {
            self.$to.set_tsc_offset(offset);
        }
    };
    (@random $to:ident) => {
        fn random(&self) -> u64 {
            self.$to.random()
        }
    };
    (@interrupt_pending $to:ident) => {
        fn interrupt_pending(&self) -> bool {
            self.$to.interrupt_pending()
        }
    };
    (@acknowledge_interrupt $to:ident) => {
        fn acknowledge_interrupt(&self) -> Option<u8> {
            self.$to.acknowledge_interrupt()
        }
    };
    (@take_nmi $to:ident) => {
        fn take_nmi(&self) -> bool {
            self.$to.take_nmi()
        }
    };
    (@take_smi $to:ident) => {
        fn take_smi(&self) -> bool {
            self.$to.take_smi()
        }
    };
    (@set_smm $to:ident) => {
        fn set_smm(&self, smm: bool) {
            self.$to.set_smm(smm);
        }
    };
    (@take_reset $to:ident) => {
        fn take_reset(&self) -> Option<trivium_cpu::ResetKind> {
            self.$to.take_reset()
        }
    };
    (@delivering $to:ident) => {
        fn delivering(&self, vector: u8, error_code: Option<u32>, rip: u64) {
            self.$to.delivering(vector, error_code, rip);
        }
    };
    (@set_ferr $to:ident) => {
        fn set_ferr(&self, high: bool) {
            self.$to.set_ferr(high);
        }
    };
    (@traces_exits $to:ident) => {
        fn traces_exits(&self) -> bool {
            self.$to.traces_exits()
        }
    };
    (@exit_begins $to:ident) => {
        fn exit_begins(&self, linear: u64, bits: u8, code: u64) {
            self.$to.exit_begins(linear, bits, code);
        }
    };
    (@exit_ends $to:ident) => {
        fn exit_ends(&self, reason: trivium_cpu::ExitReason) {
            self.$to.exit_ends(reason);
        }
    };
}

pub(crate) use pass_on;
