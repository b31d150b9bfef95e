//! What this host's KVM does, found by trying: capability bits and CPUID say what a kernel means to
//! do, and there are kernels that do much less.
//!
//! Each probe is a guest of a few instructions with a second's time.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use trivium_cpu::bits::{debug, rflags};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{CpuState, SegmentAttributes};
use trivium_cpu::{Exit, Kick, Vcpu};
use trivium_memory::GuestMemory;

use crate::cpuid;
use crate::error::KvmError;
use crate::guest::{self, Listener, PLACE};
use crate::relay::Level;
use crate::vcpu::{KvmExit, KvmVcpu, UserEnd};

/// How long a probe may take.
const LIMIT: Duration = Duration::from_secs(1);
/// Millions of instructions a second from which on code runs on the processor itself: emulators in
/// kernels reach two, slow processors hundreds.
const FAST_MIPS: f64 = 50.0;
/// What a guest stores to say that all is well.
const WELL: u32 = 0x600d;

/// A behaviour that guests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Behaviour {
    /// Real mode comes to its HLT.
    RealMode,
    /// 32-bit paging.
    Paging32,
    /// Virtual-8086 mode.
    V86,
    /// x87 and SSE at CPL 0.
    CplFpu,
    /// INT n in protected mode.
    PmInt,
    /// INT3 at CPL 0 in 64-bit code.
    LongInt,
    /// SYSCALL from ring 3 comes to ring 0.
    R3Syscall,
    /// The guest's own single step at CPL 3.
    R3Step,
    /// The guest's own watchpoints.
    Watch,
    /// CPUID says what it was told to say.
    CpuidExact,
    /// XGETBV and wide vectors are the guest's, not the host's.
    Xcr0,
    /// CPL 0 runs on the processor.
    Fast,
    /// CPL 3, 64-bit code, runs on the processor.
    UserFast,
    /// Exceptions of such code are where they belong.
    UserFaults,
    /// An SMI comes to its handler.
    Smm,
}

/// What a behaviour is called, and what follows if it is not there.
pub struct BehaviourInfo {
    /// Which.
    pub behaviour: Behaviour,
    /// Its name, as tests and `trivium cpus` have it.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What follows where it is missing.
    pub without: &'static str,
    run: fn() -> Result<Finding, KvmError>,
}

/// What a probe has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// It is as it should be.
    pub works: bool,
    /// What was seen.
    pub seen: String,
}

impl Finding {
    fn new(works: bool, seen: impl Into<String>) -> Self {
        Self { works, seen: seen.into() }
    }
}

macro_rules! behaviours {
    ($($behaviour:ident, $what:literal, $without:literal, $run:expr;)*) => {
        &[$(BehaviourInfo {
            behaviour: Behaviour::$behaviour,
            name: stringify!($behaviour),
            what: $what,
            without: $without,
            run: $run,
        }),*]
    };
}

/// All behaviours that are probed.
pub const BEHAVIOURS: &[BehaviourInfo] = behaviours![
    RealMode, "real mode", "firmware does not start on KVM", real_mode;
    Paging32, "32-bit paging", "32-bit systems run on the other CPU", paging32;
    V86, "virtual-8086 mode", "DOS under 32-bit systems runs on the other CPU", v86;
    CplFpu, "x87 and SSE at CPL 0", "the kernel's own use of them goes to the other CPU, one by one", cpl_fpu;
    PmInt, "INT n in protected mode", "these instructions go to the other CPU, one by one", pm_int;
    LongInt, "INT3 at CPL 0", "these instructions go to the other CPU, one by one", long_int;
    R3Syscall, "SYSCALL from ring 3", "64-bit systems cannot run on KVM alone: their kernels run on the other CPU", r3_syscall;
    R3Step, "single step at CPL 3", "debuggers in the guest run on the other CPU", r3_step;
    Watch, "watchpoints", "watchpoints in the guest are not met", watch;
    CpuidExact, "CPUID as it was set", "programs see the host's processor, not --cpu's", cpuid_exact;
    Xcr0, "XCR0 at CPL 3", "programs may use vectors that --cpu does not have", xcr0;
    Fast, "speed at CPL 0", "kernels are emulated by the host's kernel: the JIT is much faster", fast;
    UserFast, "speed at CPL 3", "KVM gains nothing", user_fast;
    UserFaults, "exceptions at CPL 3", "KVM cannot be trusted with programs", user_faults;
    Smm, "system-management mode", "an SMI goes to the other CPU; --accel kvm ends there and says so", smm;
];

/// What was found on this host.
#[derive(Debug, Clone, Default)]
pub struct Report {
    findings: Vec<(Behaviour, Finding)>,
}

impl Report {
    /// What this host's KVM does. Probed once in the life of a process.
    ///
    /// # Errors
    /// KVM cannot be used at all.
    pub fn of_host() -> Result<&'static Self, KvmError> {
        static REPORT: OnceLock<Report> = OnceLock::new();
        if let Some(report) = REPORT.get() {
            return Ok(report);
        }
        let mut report = Self::default();
        for info in BEHAVIOURS {
            report.findings.push((info.behaviour, probe(info)?));
        }
        Ok(REPORT.get_or_init(|| report))
    }

    /// What was found of one behaviour.
    #[must_use]
    pub fn finding(&self, behaviour: Behaviour) -> Option<&Finding> {
        self.findings.iter().find(|(b, _)| *b == behaviour).map(|(_, finding)| finding)
    }

    /// Whether a behaviour is as it should be.
    #[must_use]
    pub fn has(&self, behaviour: Behaviour) -> bool {
        self.finding(behaviour).is_some_and(|finding| finding.works)
    }

    /// The first of these that is missing.
    #[must_use]
    pub fn lacks(&self, needed: &[Behaviour]) -> Option<&'static BehaviourInfo> {
        BEHAVIOURS.iter().find(|i| needed.contains(&i.behaviour) && !self.has(i.behaviour))
    }

    /// Whether KVM runs a whole system by itself, and well.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        use Behaviour as B;
        let needed = [
            B::RealMode,
            B::Paging32,
            B::V86,
            B::CplFpu,
            B::PmInt,
            B::LongInt,
            B::R3Syscall,
            B::Fast,
        ];
        self.lacks(&needed).is_none()
    }

    /// Whether KVM is of use for 64-bit programs.
    #[must_use]
    pub fn is_good_for_programs(&self) -> bool {
        self.has(Behaviour::UserFast) && self.has(Behaviour::UserFaults)
    }

    /// What KVM is given where another CPU stands behind it.
    #[must_use]
    pub fn level(&self) -> Level {
        if self.is_whole() { Level::All } else { Level::User }
    }
}

/// Runs a probe on a thread of its own, so that one that never ends is left behind.
fn probe(info: &'static BehaviourInfo) -> Result<Finding, KvmError> {
    let (sender, receiver) = mpsc::channel();
    let body = move || drop(sender.send((info.run)()));
    let thread = std::thread::Builder::new().name(format!("probe {}", info.name));
    thread.spawn(body).map_err(|source| KvmError::Call { call: "Starting a thread", source })?;
    match receiver.recv_timeout(3 * LIMIT) {
        Ok(Err(KvmError::State(what))) => Ok(Finding::new(false, what)),
        Ok(result) => result,
        Err(_) => Ok(Finding::new(false, "does not come back, even when it is interrupted")),
    }
}

/// What a guest is made with.
struct Probe {
    memory: Arc<GuestMemory>,
    vcpu: KvmVcpu,
    bus: Listener,
}

impl Probe {
    fn new() -> Result<Self, KvmError> {
        let refused = |_| KvmError::Lacks("memory for a small guest");
        let memory = guest::memory(16).map_err(refused)?;
        let model = CpuModel::by_name("max").map_err(|_| KvmError::Lacks("a CPU model"))?;
        let vcpu = KvmVcpu::new(memory.clone(), Arc::new(model), PLACE)?;
        let bus = Listener::default();
        bus.kicks(vcpu.kicker());
        Ok(Self { memory, vcpu, bus })
    }

    /// Runs from a state until the guest reports, halts, fails, or its time is over.
    fn run(&mut self, state: &CpuState) -> Result<KvmExit, KvmError> {
        self.vcpu.take_over(state)?;
        let _watchdog = Watchdog::new(self.vcpu.kicker());
        self.vcpu.enter(&self.bus)
    }

    /// The finding of a guest that reports [`WELL`] if all is as it should be.
    fn expect_report(mut self, state: &CpuState) -> Result<Finding, KvmError> {
        let exit = self.run(state)?;
        Ok(match (self.bus.reported(), exit) {
            (Some(WELL), _) => Finding::new(true, "works"),
            (Some(value), _) => Finding::new(false, format!("gives {value:#x}")),
            (None, KvmExit::Cannot(reason)) => Finding::new(false, reason.to_string()),
            (None, KvmExit::Exit(Exit::Shutdown)) => Finding::new(false, "ends in a triple fault"),
            (None, KvmExit::Exit(Exit::Halted)) => Finding::new(false, "goes another way"),
            (None, KvmExit::Exit(_)) => Finding::new(false, "does not come to its end in a second"),
        })
    }
}

/// Kicks a processor when a probe's time is over.
struct Watchdog(Option<mpsc::Sender<()>>);

impl Watchdog {
    fn new(kick: Arc<dyn Kick>) -> Self {
        let (sender, receiver) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if receiver.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                kick.kick();
            }
        });
        Self(Some(sender))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// MOV DWORD [REPORT], WELL in 32-bit code.
const REPORT_WELL_32: &[u8] = &[0xc7, 0x05, 0, 0, 0x0a, 0, 0x0d, 0x60, 0, 0, 0xf4];
/// The same in 64-bit code.
const REPORT_WELL: &[u8] = &[0xc7, 0x04, 0x25, 0, 0, 0x0a, 0, 0x0d, 0x60, 0, 0, 0xf4];
/// MOV [REPORT], EAX in 64-bit code.
const REPORT_EAX: &[u8] = &[0x89, 0x04, 0x25, 0, 0, 0x0a, 0, 0xf4];
/// HLT: where an exception comes that should not.
const HALT: &[u8] = &[0xf4];

fn real_mode() -> Result<Finding, KvmError> {
    let mut probe = Probe::new()?;
    // MOV AX, 1234h; ADD AX, AX; HLT
    let state = guest::real_mode(&probe.memory, &[0xb8, 0x34, 0x12, 0x01, 0xc0, 0xf4]);
    let exit = probe.run(&state)?;
    let works = exit == KvmExit::Exit(Exit::Halted);
    Ok(Finding::new(works, if works { "works".into() } else { format!("{exit:?}") }))
}

fn paging32() -> Result<Finding, KvmError> {
    let probe = Probe::new()?;
    let state = guest::paging32(&probe.memory, REPORT_WELL_32, HALT);
    probe.expect_report(&state)
}

fn v86() -> Result<Finding, KvmError> {
    let probe = Probe::new()?;
    let mut state = guest::real_mode(&probe.memory, &[]);
    // MOV AX, A000h; MOV DS, AX; MOV DWORD [0], WELL
    let code = [0xb8, 0x00, 0xa0, 0x8e, 0xd8, 0x66, 0xc7, 0x06, 0, 0, 0x0d, 0x60, 0, 0];
    let protected = guest::protected_mode(&probe.memory, &[], HALT);
    let _ = probe.memory.write(trivium_memory::GuestPhysAddr(0x7000), &code);
    state.control.cr0 = protected.control.cr0;
    state.segments.idtr = protected.segments.idtr;
    state.segments.gdtr = protected.segments.gdtr;
    state.segments.cpl = 3;
    state.general.rflags |= rflags::VM;
    for segment in &mut state.segments.regs {
        segment.attributes = SegmentAttributes(0xf3);
    }
    probe.expect_report(&state)
}

fn smm() -> Result<Finding, KvmError> {
    let probe = Probe::new()?;
    // MOV AX, A000h; MOV DS, AX; MOV DWORD [0], WELL; HLT at SMBASE + 8000h
    let handler = [0xb8, 0x00, 0xa0, 0x8e, 0xd8, 0x66, 0xc7, 0x06, 0, 0, 0x0d, 0x60, 0, 0, 0xf4];
    let mut state = guest::real_mode(&probe.memory, &[0xeb, 0xfe]);
    let at = state.msrs.smbase + 0x8000;
    let _ = probe.memory.write(trivium_memory::GuestPhysAddr(at), &handler);
    state.events.smi_pending = true;
    probe.expect_report(&state)
}

fn cpl_fpu() -> Result<Finding, KvmError> {
    let probe = Probe::new()?;
    // FNINIT; FLD1; FADD ST0, ST0; FISTP DWORD [RSP - 8]; PXOR XMM0, XMM0; PADDD XMM0, XMM0
    let code = [
        &[0xdb, 0xe3, 0xd9, 0xe8, 0xd8, 0xc0, 0xdb, 0x5c, 0x24, 0xf8][..],
        &[0x66, 0x0f, 0xef, 0xc0, 0x66, 0x0f, 0xfe, 0xc0],
        REPORT_WELL,
    ]
    .concat();
    let state = guest::long_mode(&probe.memory, 0, &code, HALT);
    probe.expect_report(&state)
}

fn pm_int() -> Result<Finding, KvmError> {
    let probe = Probe::new()?;
    let state = guest::protected_mode(&probe.memory, &[0xcd, 0x40, 0xf4], REPORT_WELL_32);
    probe.expect_report(&state)
}

fn long_int() -> Result<Finding, KvmError> {
    let probe = Probe::new()?;
    let state = guest::long_mode(&probe.memory, 0, &[0xcc, 0xf4], REPORT_WELL);
    probe.expect_report(&state)
}

fn r3_syscall() -> Result<Finding, KvmError> {
    let probe = Probe::new()?;
    // At CPL 0 MOV RAX, CR0 is allowed.
    let handler = [&[0x0f, 0x20, 0xc0][..], REPORT_WELL].concat();
    let mut state = guest::long_mode(&probe.memory, 3, &[0x0f, 0x05], &handler);
    // An exception ends in a triple fault instead of the handler.
    state.segments.idtr.limit = 0;
    probe.expect_report(&state)
}

fn r3_step() -> Result<Finding, KvmError> {
    let probe = Probe::new()?;
    // #DB from CPL 3 takes a stack from the TSS, and comes after the first NOP of many.
    let code = [&[0x90; 64][..], &[0xeb, 0xfe]].concat();
    let mut state = guest::long_mode(&probe.memory, 3, &code, REPORT_WELL);
    state.general.rflags |= rflags::TF;
    put_tss(&probe, &mut state);
    probe.expect_report(&state)
}

/// A task-state segment at 9000h, whose ring 0 has a stack.
fn put_tss(probe: &Probe, state: &mut CpuState) {
    const TSS: u64 = 0x9800;
    let stack = (guest::STACK - 0x1000).to_le_bytes();
    let _ = probe.memory.write(trivium_memory::GuestPhysAddr(TSS + 4), &stack);
    state.segments.tr.base = TSS;
    state.segments.tr.limit = 103;
}

fn watch() -> Result<Finding, KvmError> {
    let probe = Probe::new()?;
    // MOV [RSP - 8], RAX; HLT
    let code = [0x48, 0x89, 0x44, 0x24, 0xf8, 0xf4];
    let mut state = guest::long_mode(&probe.memory, 0, &code, REPORT_WELL);
    state.debug.address[0] = guest::STACK - 8;
    // Breakpoint 0 is on, for writes of 8 bytes. Intel SDM vol. 3B, 18.2.4.
    state.debug.dr7 = debug::DR7_FIXED | 2 | 0b1001 << 16;
    probe.expect_report(&state)
}

/// What a guest at this privilege level finds in a leaf of CPUID.
fn cpuid_in_guest(leaf: u32, cpl: u8) -> Result<[u32; 4], KvmError> {
    const ANSWER: u64 = 0x12_0000;
    // MOV EAX, leaf; XOR ECX, ECX; CPUID; MOV [ANSWER], EAX; and EBX, ECX, EDX after it
    let mut code = vec![0xb8];
    code.extend(leaf.to_le_bytes());
    code.extend([0x31, 0xc9, 0x0f, 0xa2]);
    for (n, register) in [0x04, 0x1c, 0x0c, 0x14].into_iter().enumerate() {
        code.extend([0x89, register, 0x25]);
        code.extend((ANSWER as u32 + 4 * n as u32).to_le_bytes());
    }
    code.extend(REPORT_WELL);
    let mut probe = Probe::new()?;
    let state = guest::long_mode(&probe.memory, cpl, &code, HALT);
    probe.run(&state)?;
    Ok(std::array::from_fn(|n| probe.memory.ram().load(ANSWER as usize + 4 * n)))
}

/// The leaves of features at CPL 0 and CPL 3, held against what they were set to.
fn cpuid_exact() -> Result<Finding, KvmError> {
    let mut seen = Vec::new();
    for cpl in [0, 3] {
        let mut added = Vec::new();
        for leaf in [1, 7, 0x8000_0001] {
            let set = Probe::new()?.vcpu.cpuid(leaf, 0);
            let found = cpuid_in_guest(leaf, cpl)?;
            added.extend(cpuid::added(leaf, set, found));
        }
        if !added.is_empty() {
            seen.push(format!("CPL {cpl} sees more than was set: {}", added.join(" ")));
        }
    }
    Ok(Finding::new(
        seen.is_empty(),
        if seen.is_empty() { "works".into() } else { seen.join("; ") },
    ))
}

fn xcr0() -> Result<Finding, KvmError> {
    // XOR ECX, ECX; XGETBV
    let code = [&[0x31, 0xc9, 0x0f, 0x01, 0xd0][..], REPORT_EAX].concat();
    let mut probe = Probe::new()?;
    let state = guest::long_mode(&probe.memory, 3, &code, HALT);
    probe.run(&state)?;
    let told = probe.bus.reported();
    let works = told == Some(7);
    let seen =
        format!("7 was set; CPL 3 sees {}", told.map_or("nothing".into(), |v| format!("{v:#x}")));
    Ok(Finding::new(works, if works { "works".into() } else { seen }))
}

/// MOV ECX, count; SUB RCX, 1; JNZ; then what follows.
fn counting(count: u32, then: &[u8]) -> Vec<u8> {
    [&[0xb9][..], &count.to_le_bytes(), &[0x48, 0x83, 0xe9, 0x01, 0x75, 0xfa], then].concat()
}

fn mips(instructions: u32, time: Duration) -> f64 {
    f64::from(instructions) / time.as_secs_f64().max(1e-9) / 1e6
}

fn fast() -> Result<Finding, KvmError> {
    const COUNT: u32 = 50_000;
    let mut probe = Probe::new()?;
    let state = guest::long_mode(&probe.memory, 0, &counting(COUNT, REPORT_WELL), HALT);
    let begin = Instant::now();
    probe.run(&state)?;
    let speed = mips(2 * COUNT, begin.elapsed());
    let done = probe.bus.reported() == Some(WELL);
    Ok(Finding::new(
        done && speed > FAST_MIPS,
        format!("about {speed:.1} million instructions a second"),
    ))
}

fn user_fast() -> Result<Finding, KvmError> {
    const COUNT: u32 = 100_000_000;
    let mut probe = Probe::new()?;
    let state = guest::long_mode(&probe.memory, 3, &counting(COUNT, &[0x0f, 0x0b]), HALT);
    probe.vcpu.forget_attention();
    let _watchdog = Watchdog::new(probe.vcpu.kicker());
    let Some(exit) = probe.vcpu.run_user(&state, &probe.bus)? else {
        return Ok(Finding::new(false, "there is no room beside the guest's page tables"));
    };
    let done = COUNT - (exit.state.general.regs[1] as u32).min(COUNT);
    let speed = mips(done.saturating_mul(2), exit.inside);
    Ok(Finding::new(speed > FAST_MIPS, format!("about {speed:.0} million instructions a second")))
}

/// Exceptions that end a program's stretch: each leaves the state before its instruction.
fn user_faults() -> Result<Finding, KvmError> {
    let faults: [(&str, &[u8]); 6] = [
        ("a page fault", &[0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0x70]),
        ("UD2", &[0x0f, 0x0b]),
        ("a division by zero", &[0xf7, 0xf1]),
        ("INT3", &[0xcc]),
        ("INT 80h", &[0xcd, 0x80]),
        ("SYSCALL", &[0x0f, 0x05]),
    ];
    let mut probe = Probe::new()?;
    probe.vcpu.forget_attention();
    let _watchdog = Watchdog::new(probe.vcpu.kicker());
    for (name, fault) in faults {
        let code = [&[0xb8, 7, 0, 0, 0], fault].concat();
        let state = guest::long_mode(&probe.memory, 3, &code, HALT);
        let exit = probe.vcpu.run_user(&state, &probe.bus)?;
        let right = exit.is_some_and(|exit| {
            exit.reason != UserEnd::Attention
                && exit.state.general.rip == guest::CODE + 5
                && exit.state.general.regs[0] == 7
                && exit.state.general.regs[4] == guest::STACK
        });
        if !right {
            return Ok(Finding::new(false, format!("{name} is not where it belongs")));
        }
    }
    Ok(Finding::new(true, "works"))
}
