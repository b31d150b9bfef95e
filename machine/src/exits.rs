//! Traces of exits: each time that a processor leaves the guest's code, why, where, and what it costs.
//!
//! What the processor asks of the board in an exit says what the exit is; `TracedBus` stands
//! between the two and writes it down. The module `format` has the file's format.

pub mod format;

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use trivium_cpu::{Budget, CpuBus, CpuError, Exit, ExitReason, MsrFault, Vcpu};

use crate::board::VcpuBus;
use crate::control::lock;
use crate::pass_on::pass_on;
use format::{Header, Record};

/// Bytes that a processor keeps before it writes them.
const BUFFER: usize = 1 << 16;

/// Which exits a trace has, and where it goes.
pub struct ExitTraceConfig {
    /// The kind of CPU, for whoever reads the file.
    pub cpu: String,
    /// Those within CPUs in software too: misses in the TLB, exceptions, instructions that are left
    /// to general functions. There are very many.
    pub inner: bool,
    /// Where the file's bytes go.
    pub sink: Box<dyn Write + Send>,
}

/// A machine's trace of exits.
pub(crate) struct ExitTrace {
    inner: bool,
    start: Instant,
    sink: Mutex<Box<dyn Write + Send>>,
}

impl ExitTrace {
    /// Begins the file.
    pub(crate) fn new(config: ExitTraceConfig) -> Self {
        let ExitTraceConfig { cpu, inner, mut sink } = config;
        let header = Header { cpu, overhead_ns: overhead_ns() };
        // A sink that fails loses it: the guest must not notice.
        let _ = sink.write_all(&header.to_bytes());
        Self { inner, start: Instant::now(), sink: Mutex::new(sink) }
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(crate) fn flush(&self) {
        let _ = lock(&self.sink).flush();
    }
}

/// What an exit seems to take in which nothing is done: the clock's own time.
fn overhead_ns() -> u32 {
    let once = || {
        let start = Instant::now();
        start.elapsed().as_nanos() as u32
    };
    (0..1000).map(|_| once()).min().unwrap_or(0)
}

/// An exit that has begun.
#[derive(Clone, Copy, Default)]
struct Open {
    /// It has begun, and not ended.
    is_open: bool,
    record: Record,
    /// What the record's reason is, if the platform was asked for something.
    reason: Option<ExitReason>,
}

/// A processor's way to the board.
pub(crate) enum Way<'a> {
    /// The shortest.
    Plain(VcpuBus<'a>),
    /// With a trace of exits.
    Traced(TracedBus<'a>),
}

impl<'a> Way<'a> {
    pub(crate) fn new(bus: VcpuBus<'a>, trace: Option<&'a ExitTrace>) -> Self {
        match trace {
            None => Self::Plain(bus),
            Some(trace) => Self::Traced(TracedBus::new(bus, trace)),
        }
    }

    /// Runs the processor.
    ///
    /// # Errors
    /// As [`Vcpu::run`].
    pub(crate) fn run(&self, vcpu: &mut dyn Vcpu, budget: Budget) -> Result<Exit, CpuError> {
        match self {
            Self::Plain(bus) => vcpu.run(bus, budget),
            Self::Traced(bus) => {
                bus.end(ExitReason::Other);
                let exit = vcpu.run(bus, budget)?;
                // It costs what there is to be done until the next call.
                bus.begin(bus.linear.load(Ordering::Relaxed), 0, 0);
                bus.is(ExitReason::from(exit), 0, 0, None);
                Ok(exit)
            }
        }
    }
}

/// A processor's way to the board, with a trace of its exits.
pub(crate) struct TracedBus<'a> {
    bus: VcpuBus<'a>,
    trace: &'a ExitTrace,
    /// Of this processor alone: only its own thread takes it.
    state: Mutex<State>,
    /// Where the guest's code was left last.
    linear: AtomicU64,
}

#[derive(Default)]
struct State {
    open: Open,
    buffer: Vec<u8>,
}

impl<'a> TracedBus<'a> {
    fn new(bus: VcpuBus<'a>, trace: &'a ExitTrace) -> Self {
        Self { bus, trace, state: Mutex::default(), linear: AtomicU64::new(0) }
    }

    fn begin(&self, linear: u64, bits: u8, code: u64) {
        self.linear.store(linear, Ordering::Relaxed);
        let (time_ns, cpu) = (self.trace.now_ns(), self.bus.cpu as u8);
        let record = Record { time_ns, linear, bits, detail: code, cpu, ..Record::default() };
        lock(&self.state).open = Open { is_open: true, record, reason: None };
    }

    fn end(&self, default: ExitReason) {
        let now = self.trace.now_ns();
        let mut state = lock(&self.state);
        let Open { is_open, mut record, reason } = std::mem::take(&mut state.open);
        record.reason = reason.unwrap_or(default);
        if !is_open || !(self.trace.inner || record.reason.is_outer()) {
            return;
        }
        record.cost_ns = now.saturating_sub(record.time_ns);
        state.buffer.extend_from_slice(&record.to_bytes());
        if state.buffer.len() >= BUFFER {
            self.write(&mut state);
        }
    }

    /// Something was asked for outside of an exit that the CPU tells of: it is one by itself. KVM's
    /// processors look at CR8 before each entry; that is none.
    fn alone(&self, reason: ExitReason, detail: u64, width: usize, since: Option<Instant>) {
        if reason != ExitReason::TaskPriority {
            self.begin(self.linear.load(Ordering::Relaxed), 0, 0);
            if let Some(since) = since {
                let open = &mut lock(&self.state).open;
                let passed = since.elapsed().as_nanos() as u64;
                open.record.time_ns = open.record.time_ns.saturating_sub(passed);
            }
            self.is(reason, detail, width, since);
            self.end(reason);
        }
    }

    fn write(&self, state: &mut State) {
        let _ = lock(&self.trace.sink).write_all(&state.buffer);
        state.buffer.clear();
    }

    /// The open exit is for this: what the board is asked for first, but for more of the same.
    fn is(&self, reason: ExitReason, detail: u64, width: usize, since: Option<Instant>) {
        if !lock(&self.state).open.is_open {
            return self.alone(reason, detail, width, since);
        }
        let open = &mut lock(&self.state).open;
        if let Some(since) = since {
            open.record.device_ns += since.elapsed().as_nanos() as u64;
        }
        open.record.accesses = open.record.accesses.saturating_add(u16::from(since.is_some()));
        if open.reason.is_none_or(|is| is == ExitReason::Exception) {
            open.reason = Some(reason);
            open.record.detail = detail;
            open.record.width = width.min(64) as u8;
        }
    }
}

impl Drop for TracedBus<'_> {
    fn drop(&mut self) {
        self.end(ExitReason::Other);
        self.write(&mut lock(&self.state));
        self.trace.flush();
    }
}

impl CpuBus for TracedBus<'_> {
    pass_on! {
        bus: retire tsc set_tsc_offset random interrupt_pending take_nmi take_smi set_smm take_reset
        set_ferr
    }

    fn traces_exits(&self) -> bool {
        true
    }

    fn exit_begins(&self, linear: u64, bits: u8, code: u64) {
        self.begin(linear, bits, code);
    }

    fn exit_ends(&self, reason: ExitReason) {
        self.end(reason);
    }

    fn delivering(&self, vector: u8, error_code: Option<u32>, rip: u64) {
        self.bus.delivering(vector, error_code, rip);
        let code = error_code.map_or(0, |code| u64::from(code) << 32);
        let mut state = lock(&self.state);
        // What is delivered for an interrupt has been taken before.
        if state.open.reason.is_none() {
            state.open.reason = Some(ExitReason::Exception);
            state.open.record.detail = u64::from(vector) | code;
        }
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        let start = Instant::now();
        self.bus.mmio_read(gpa, data);
        self.is(ExitReason::MmioRead, gpa, data.len(), Some(start));
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        let start = Instant::now();
        self.bus.mmio_write(gpa, data);
        self.is(ExitReason::MmioWrite, gpa, data.len(), Some(start));
    }

    fn pio_read(&self, port: u16, width: u8) -> u32 {
        let start = Instant::now();
        let value = self.bus.pio_read(port, width);
        self.is(ExitReason::PortRead, port.into(), width.into(), Some(start));
        value
    }

    fn pio_write(&self, port: u16, width: u8, value: u32) {
        let start = Instant::now();
        self.bus.pio_write(port, width, value);
        self.is(ExitReason::PortWrite, port.into(), width.into(), Some(start));
    }

    fn msr_read(&self, msr: u32) -> Option<Result<u64, MsrFault>> {
        let start = Instant::now();
        let result = self.bus.msr_read(msr);
        self.is(ExitReason::MsrRead, msr.into(), 8, Some(start));
        result
    }

    fn msr_write(&self, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        let start = Instant::now();
        let result = self.bus.msr_write(msr, value);
        self.is(ExitReason::MsrWrite, msr.into(), 8, Some(start));
        result
    }

    fn cr8(&self) -> u8 {
        let start = Instant::now();
        let value = self.bus.cr8();
        self.is(ExitReason::TaskPriority, 0, 1, Some(start));
        value
    }

    fn set_cr8(&self, priority: u8) {
        let start = Instant::now();
        self.bus.set_cr8(priority);
        self.is(ExitReason::TaskPriority, 1, 1, Some(start));
    }

    fn acknowledge_interrupt(&self) -> Option<u8> {
        let start = Instant::now();
        let vector = self.bus.acknowledge_interrupt();
        if let Some(vector) = vector {
            self.is(ExitReason::Interrupt, vector.into(), 0, Some(start));
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use trivium_cpu::model::CpuModel;

    use super::*;
    use crate::{ClockMode, Machine, MachineConfig, RunEnd};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A ROM of 64 KiB with this code at its reset vector's target.
    fn rom(code: &[u8]) -> Vec<u8> {
        let mut rom = vec![0xf4; 0x1_0000];
        rom[..code.len()].copy_from_slice(code);
        // JMP to the ROM's first byte: 10000h - FFF3h is back.
        rom[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]);
        rom
    }

    fn trace(code: &[u8], inner: bool) -> (RunEnd, Vec<Record>) {
        let sink = Sink::default();
        let mut config = MachineConfig::new(CpuModel::by_name("max").unwrap(), 16 << 20);
        config.firmware = Some(rom(code));
        config.clock = ClockMode::Icount { sleep: false };
        config.debug_exit_port = Some(0x501);
        config.exit_trace =
            Some(ExitTraceConfig { cpu: "interp".into(), inner, sink: Box::new(sink.clone()) });
        let end = Machine::new(config).unwrap().run().unwrap();
        let bytes = sink.0.lock().unwrap().clone();
        let (header, records) = format::read(bytes.as_slice()).unwrap();
        assert_eq!(header.cpu, "interp");
        (end, records)
    }

    #[test]
    fn each_access_to_a_port_is_an_exit_with_its_place() {
        // MOV AL, 5; OUT 80h, AL; IN AL, 61h; MOV DX, 501h; OUT DX, AL
        let code = [0xb0, 5, 0xe6, 0x80, 0xe4, 0x61, 0xba, 0x01, 0x05, 0xee];
        let (end, records) = trace(&code, false);
        assert!(matches!(end, RunEnd::DebugExit(_)));
        let seen: Vec<_> = records.iter().take(3).map(|r| (r.reason, r.detail, r.linear)).collect();
        let expected = [
            (ExitReason::PortWrite, 0x80, 0xffff_0002),
            (ExitReason::PortRead, 0x61, 0xffff_0004),
            (ExitReason::PortWrite, 0x501, 0xffff_0009),
        ];
        assert_eq!(seen, expected);
        assert!(records.iter().take(3).all(|r| r.cost_ns >= r.device_ns && r.width == 1));
    }

    #[test]
    fn system_instructions_are_inner_exits_with_their_code() {
        // MOV ECX, C0000080h (IA32_EFER); RDMSR; MOV DX, 501h; OUT DX, AL
        let code = [0x66, 0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0xba, 0x01, 0x05, 0xee];
        let (_, records) = trace(&code, true);
        let rdmsr = records.iter().find(|r| r.linear == 0xffff_0006).unwrap();
        assert_eq!((rdmsr.reason, rdmsr.bits), (ExitReason::System, 16));
        assert_eq!(rdmsr.detail.to_le_bytes()[..2], [0x0f, 0x32]);
        let (_, records) = trace(&code, false);
        assert!(records.iter().all(|r| r.reason.is_outer()));
    }
}
