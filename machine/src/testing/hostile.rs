//! Hostile guests and hostile saved states: any byte string as what a guest does to a whole board,
//! or as changes to a machine's state. Fuzz targets and tests call these.

use std::sync::{Arc, OnceLock};

use trivium_chipset::{Clock, Section, VmTime};
use trivium_cpu::{
    Budget, Capabilities, CpuBus, CpuError, CpuModel, CpuState, Exit, Kick, MsrFault, Vcpu,
};
use trivium_devices::i8042::{Key, MouseButtons};
use trivium_devices::ports::DebugConsoleBackend;
use trivium_devices::uart16550::SerialBackend;

use crate::board::{PcBoard, VcpuBus};
use crate::config::{Board, ClockMode, KernelConfig, MachineConfig};
use crate::control::Request;
use crate::machine::Machine;
use crate::state::MachineState;

const RAM: u64 = 2 << 20;
const BOOT_RAM: u64 = 8 << 20;
/// The most steps of a program; what follows is not looked at.
const MAX_STEPS: usize = 200;
/// Deadlines that are kept within one step; the last one is then late.
const MAX_DEADLINES: usize = 32;
/// The most that the saved state of all devices may take, in bytes.
const MAX_STATE: usize = 1 << 20;
/// No machine runs for 146 years.
const END_OF_TIME: VmTime = VmTime::from_nanos(1 << 62);
/// Instructions that a machine runs from a hostile state.
const RUN: u64 = 2000;

/// The local APICs' page.
const APIC_PAGE: u64 = 0xfee0_0000;
const MSRS: [u32; 12] =
    [0x1b, 0x6e0, 0x802, 0x803, 0x808, 0x80b, 0x80f, 0x830, 0x832, 0x838, 0x83e, 0x83f];

/// Takes all that comes.
struct Void;

impl SerialBackend for Void {
    fn transmit(&mut self, _: u8) {}
}

impl DebugConsoleBackend for Void {
    fn write(&mut self, _: u8) {}
}

impl Kick for Void {
    fn kick(&self) {}
    fn attend(&self) {}
}

/// A processor that does nothing: its bus is used without it.
struct Idle(CpuState);

impl Vcpu for Idle {
    fn run(&mut self, _: &dyn CpuBus, _: Budget) -> Result<Exit, CpuError> {
        Ok(Exit::Halted)
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        Arc::new(Void)
    }

    fn save(&mut self) -> Result<CpuState, CpuError> {
        Ok(self.0)
    }

    fn load(&mut self, state: &CpuState) -> Result<(), CpuError> {
        self.0 = *state;
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { exact_budget: true }
    }
}

/// A machine with all that it can have; its firmware repeats `code`.
fn config(code: &[u8]) -> MachineConfig {
    let model = CpuModel::by_name("max").expect("it is known");
    let mut config = MachineConfig::new(model, RAM);
    let code: &[u8] = if code.is_empty() { &[0xf4] } else { code };
    config.firmware = Some(code.iter().copied().cycle().take(4096).collect());
    config.clock = ClockMode::Icount { sleep: false };
    config.debug_exit_port = Some(0x501);
    config.debug_console = Some(Box::new(Void));
    config.serial = std::array::from_fn(|_| Some(Box::new(Void) as Box<dyn SerialBackend>));
    config
}

/// What a guest, its user or time do to a board.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    PortRead(u16, u8),
    PortWrite(u16, u8, u32),
    MemoryRead(u64, usize),
    MemoryWrite(u64, Vec<u8>),
    MsrRead(u32),
    MsrWrite(u32, u64),
    Priority(u8),
    Interrupts,
    Advance(u64),
    Deadline,
    Serial(usize, u8),
    Break(usize),
    Key(u8),
    Mouse(u8),
    PowerButton,
    Rebuild,
    Reset,
}

/// A program that is being read.
struct Reader<'a> {
    bytes: std::slice::Iter<'a, u8>,
    ports: &'a [u16],
    windows: &'a [u64],
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.bytes.next().copied()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte().unwrap_or(0))
    }

    fn port(&mut self) -> Option<u16> {
        let [low, high] = [self.byte()?, self.byte()?];
        let number = u16::from_le_bytes([low, high & 0x7f]);
        match high & 0x80 {
            0 => self.ports.get(usize::from(number) % self.ports.len().max(1)).copied(),
            // Of the others those that can be moved to, and any.
            _ => Some(if low & 1 == 0 {
                0x600 + number % 0x100
            } else {
                u16::from_le_bytes(self.array())
            }),
        }
    }

    fn width(&mut self) -> u8 {
        match self.byte() {
            Some(0xe0..0xf0) => 2,
            Some(0xf0..) => 4,
            _ => 1,
        }
    }

    fn address(&mut self) -> Option<u64> {
        let window = self.byte()?;
        if window == 0xff {
            return Some(u64::from_le_bytes(self.array()));
        }
        let base = self.windows.get(usize::from(window) % self.windows.len().max(1))?;
        Some(base + u64::from(u16::from_le_bytes(self.array()) & 0xfff))
    }

    fn length(&mut self) -> usize {
        match self.byte() {
            Some(n @ 1..=64) => n.into(),
            Some(0xe0..) => 8,
            _ => 4,
        }
    }

    fn msr(&mut self) -> Option<u32> {
        let number = self.byte()?;
        let known = MSRS.get(usize::from(number)).copied();
        Some(known.unwrap_or(0x800 | u32::from(number)))
    }

    fn step(&mut self) -> Option<Step> {
        Some(match self.byte()? {
            0x00..0x30 => Step::PortRead(self.port()?, self.width()),
            0x30..0x80 => {
                Step::PortWrite(self.port()?, self.width(), u32::from_le_bytes(self.array()))
            }
            0x80..0x90 => Step::MemoryRead(self.address()?, self.length()),
            0x90..0xb0 => {
                let (address, length) = (self.address()?, self.length());
                Step::MemoryWrite(address, (0..length).map(|_| self.byte().unwrap_or(0)).collect())
            }
            0xb0..0xb4 => Step::MsrRead(self.msr()?),
            0xb4..0xbc => Step::MsrWrite(self.msr()?, u64::from_le_bytes(self.array())),
            0xbc..0xc0 => Step::Priority(self.byte()? & 15),
            0xc0..0xd0 => Step::Interrupts,
            0xd0..0xe0 => {
                let [exponent, mantissa] = self.array();
                Step::Advance(u64::from(mantissa) << (exponent % 56))
            }
            0xe0..0xe8 => Step::Deadline,
            0xe8..0xec => Step::Serial(usize::from(self.byte()? & 7), self.byte()?),
            0xec => Step::Break(usize::from(self.byte()? & 7)),
            0xed..0xf1 => Step::Key(self.byte()?),
            0xf1 => Step::Mouse(self.byte()?),
            0xf2 => Step::PowerButton,
            0xf3..0xfc => Step::Rebuild,
            0xfc.. => Step::Reset,
        })
    }
}

/// Ports at which a device answers, and addresses where registers are.
struct Places {
    ports: Vec<u16>,
    windows: Vec<u64>,
}

impl Places {
    fn of(board: &PcBoard) -> Self {
        let ports = (0..=u16::MAX).filter(|port| board.ports.device(*port).is_some()).collect();
        let windows = board.windows.iter().map(|window| window.base);
        Self {
            ports,
            windows: windows.chain([APIC_PAGE, 0xa_0000, 0xc_0000, 0xfff8_0000]).collect(),
        }
    }
}

fn world(kind: Board) -> Machine {
    let config = MachineConfig { board: kind, ..config(&[]) };
    let new =
        |_: &crate::cpus::VcpuParts<'_>| Ok(Box::new(Idle(CpuState::default())) as Box<dyn Vcpu>);
    Machine::with_vcpus(config, new).expect("it can be made")
}

/// The board that a program is for, by its first byte, and the program's steps.
fn program(bytes: &[u8]) -> (Board, Vec<Step>) {
    static PLACES: [OnceLock<Places>; 2] = [const { OnceLock::new() }; 2];
    let (kind, bytes) = match bytes.split_first() {
        Some((0xff, rest)) => (Board::IsaPc, rest),
        Some((_, rest)) => (Board::Pc, rest),
        None => (Board::Pc, bytes),
    };
    let places = &PLACES[usize::from(kind == Board::IsaPc)];
    let Places { ports, windows } = places.get_or_init(|| Places::of(&world(kind).board));
    let mut reader = Reader { bytes: bytes.iter(), ports, windows };
    (kind, std::iter::from_fn(|| reader.step()).take(MAX_STEPS).collect())
}

/// Goes to `end`, and calls devices at their deadlines.
fn advance(board: &PcBoard, end: VmTime) {
    let end = end.min(END_OF_TIME);
    for _ in 0..MAX_DEADLINES {
        let Some(next) = board.timers.refresh().filter(|next| *next <= end) else { break };
        board.clock.set(next.max(board.clock.now()));
        board.fire_due(board.clock.now());
    }
    board.clock.set(end);
    board.fire_due(end);
    let next = board.timers.refresh();
    assert!(next.is_none_or(|next| next > end), "deadlines at {end} do not end");
}

fn number(result: Option<Result<u64, MsrFault>>) -> u64 {
    result.and_then(Result::ok).unwrap_or(u64::MAX)
}

/// Takes what waits for the processor.
fn interrupts(bus: &VcpuBus<'_>) -> u64 {
    let mut seen = u64::from(bus.take_nmi()) | u64::from(bus.take_smi()) << 1;
    seen |= u64::from(bus.take_reset().is_some()) << 2;
    if bus.interrupt_pending() {
        seen |= u64::from(bus.acknowledge_interrupt().unwrap_or(0)) << 8;
        bus.mmio_write(APIC_PAGE + 0xb0, &[0; 4]);
    }
    seen
}

/// Does a step; what the guest sees is the result. An honest machine's devices are never rebuilt.
fn take(machine: &mut Machine, step: &Step, honest: bool) -> u64 {
    let handle = machine.handle();
    let board = &machine.board;
    let bus = VcpuBus { board, cpu: 0 };
    match step {
        Step::PortRead(port, width) => return bus.pio_read(*port, *width).into(),
        Step::PortWrite(port, width, value) => bus.pio_write(*port, *width, *value),
        Step::MemoryRead(address, length) => {
            let mut data = vec![0; *length];
            bus.mmio_read(*address, &mut data);
            return data.iter().fold(0, |sum, byte| sum * 257 % 0xffff_fffb + u64::from(*byte));
        }
        Step::MemoryWrite(address, data) => bus.mmio_write(*address, data),
        Step::MsrRead(msr) => return number(bus.msr_read(*msr)),
        Step::MsrWrite(msr, value) => {
            return number(bus.msr_write(*msr, *value).map(|result| result.map(|()| 0)));
        }
        Step::Priority(priority) => bus.set_cr8(*priority),
        Step::Interrupts => return interrupts(&bus),
        Step::Advance(nanos) => advance(board, board.clock.now().saturating_add(*nanos)),
        Step::Deadline => {
            if let Some(next) = board.timers.refresh() {
                advance(board, next.max(board.clock.now()));
            }
        }
        Step::Serial(port, count) => _ = handle.serial_input(*port, &vec![0x55; (*count).into()]),
        Step::Break(port) => handle.send_break(*port),
        Step::Key(code) => {
            if let Some(key) = Key::ALL.get(usize::from(code & 0x7f)) {
                handle.key_event(*key, *code < 0x80);
            }
        }
        Step::Mouse(way) => {
            let (way, buttons) = (i32::from(*way) - 0x80, MouseButtons::from_bits_truncate(*way));
            handle.mouse_event(way * 40, -way, way, buttons);
        }
        Step::PowerButton => handle.press_power_button(),
        Step::Rebuild if honest => {}
        Step::Rebuild => machine.rebuild_devices().expect("devices take their own state"),
        Step::Reset => machine.reset().expect("a machine can be reset"),
    }
    while let Ok(message) = machine.messages.try_recv() {
        machine.board.handle(message);
    }
    match machine.parts.control.take_request() {
        Some(Request::Reset) => {
            machine.reset().expect("a machine can be reset");
            1
        }
        other => u64::from(other.is_some()) << 1,
    }
}

/// Runs a byte string as a guest's accesses to a whole board, with time and host events between
/// them, on two machines: one whose devices are saved, dropped and made anew on the way.
///
/// # Panics
/// The machines differ, states grow without bound, or deadlines do not end.
pub fn board(bytes: &[u8]) {
    let (kind, steps) = program(bytes);
    let (mut honest, mut rebuilt) = (world(kind), world(kind));
    for step in steps {
        let (seen, other) = (take(&mut honest, &step, true), take(&mut rebuilt, &step, false));
        assert_eq!(seen, other, "{step:?}");
    }
    rebuilt.rebuild_devices().expect("devices take their own state");
    let (state, other) = (honest.board.save_devices(), rebuilt.board.save_devices());
    assert_eq!(state, other);
    let size: usize = state.iter().map(|(_, section)| section.data.len()).sum();
    assert!(size <= MAX_STATE, "{size} bytes of state");
}

/// A machine's state with bytes changed, and code.
///
/// Each change is the number of a section (processors, devices, then virtual time), an offset
/// there, and a value: four bytes.
fn change(state: &mut MachineState, changes: &[u8]) {
    let cpus = state.cpus.len();
    let devices = state.devices.len();
    for change in changes.chunks_exact(4) {
        let &[section, low, high, value] = change else { continue };
        let at = usize::from(u16::from_le_bytes([low, high]));
        let put = |data: &mut Vec<u8>| {
            let length = data.len().max(1);
            if let Some(byte) = data.get_mut(at % length) {
                *byte = value;
            }
        };
        match usize::from(section) % (cpus + devices + 1) {
            n if n < cpus => {
                let mut changed = Section::encode(1, &state.cpus[n]);
                put(&mut changed.data);
                if let Ok(cpu) = changed.decode(1) {
                    state.cpus[n] = cpu;
                }
            }
            n if n < cpus + devices => put(&mut state.devices[n - cpus].1.data),
            _ => {
                let now =
                    state.now.as_nanos() & !(0xff << (at % 64)) | u64::from(value) << (at % 64);
                state.now = VmTime::from_nanos(now);
            }
        }
    }
}

/// Runs a byte string as changes to the state of a machine, and code that the machine runs then if
/// the state is not refused.
///
/// # Panics
/// The machine fails.
pub fn state(bytes: &[u8]) {
    // Both the format of bytes and what is behind its checksums.
    if let Ok(read) = MachineState::from_bytes(bytes) {
        assert_eq!(MachineState::from_bytes(&read.to_bytes()).expect("our own"), read);
    }
    let (code, changes) = match bytes.split_first() {
        Some((length, rest)) => rest.split_at(usize::from(length & 0x3f).min(rest.len())),
        None => (bytes, bytes),
    };
    let mut machine = Machine::new(config(code)).expect("it can be made");
    let mut state = machine.save().expect("it can be saved");
    change(&mut state, changes);
    if machine.restore(&state).is_err() {
        return;
    }
    let end = machine.now().saturating_add(RUN);
    machine.run_until(end).expect("a processor goes on");
    let state = machine.save().expect("it can be saved");
    machine.restore(&state).expect("a machine takes its own state");
}

/// Boots a byte string: as a kernel, or another file that is read with one.
///
/// Four lengths of two bytes each, and their parts: initial RAM disk, command line, ACPI table and
/// SMBIOS settings. Then the kernel.
///
/// # Panics
/// It is neither booted nor refused with a line.
pub fn boot(bytes: &[u8]) {
    let mut rest = bytes;
    let mut parts: [&[u8]; 4] = [&[]; 4];
    for part in &mut parts {
        let Some((length, tail)) = rest.split_first_chunk() else { return };
        let length = usize::from(u16::from_le_bytes(*length)).min(tail.len());
        (*part, rest) = tail.split_at(length);
    }
    let [initrd, command_line, table, settings] = parts;
    let mut config = config(&[]);
    config.firmware = None;
    config.memory_size = BOOT_RAM;
    config.kernel = Some(KernelConfig {
        image: rest.to_vec(),
        name: "kernel".into(),
        initrd: (!initrd.is_empty()).then(|| initrd.to_vec()),
        command_line: String::from_utf8_lossy(command_line).into_owned(),
        modules: Vec::new(),
    });
    config.acpi_tables = if table.is_empty() { Vec::new() } else { vec![table.to_vec()] };
    if let Ok(settings) = String::from_utf8_lossy(settings).parse() {
        config.smbios = settings;
    }
    match Machine::new(config) {
        Ok(mut machine) => {
            machine.run_until(VmTime::from_nanos(RUN)).expect("a processor goes on");
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn random(count: usize, seed: u64) -> Vec<u8> {
        let mut seed = seed;
        let mut next = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ z >> 31) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn random_guests_do_no_harm_to_the_board() {
        for seed in 0..1000 {
            println!("seed {seed}");
            let mut program = random(600, seed);
            if seed % 4 == 0 {
                program[0] = 0xff;
            }
            board(&program);
        }
    }

    #[test]
    fn random_changes_to_a_state_do_no_harm() {
        for seed in 0..300 {
            println!("seed {seed}");
            state(&random(80, seed << 32));
        }
    }

    #[test]
    fn a_program_reads_as_its_bytes_say() {
        let first = Places::of(&world(Board::IsaPc).board).ports[0];
        let bytes = [0xff, 0x30, 0, 0, 0xff, 1, 2, 3, 4, 0xd0, 4, 3, 0xf3];
        let expected =
            vec![Step::PortWrite(first, 4, 0x0403_0201), Step::Advance(48), Step::Rebuild];
        assert_eq!(program(&bytes), (Board::IsaPc, expected));
    }
}
