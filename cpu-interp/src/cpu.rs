//! The interpreter's working state: what [`trivium_cpu::CpuState`] says, in the form that handlers
//! want it, and what passes between handlers and the outer loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trivium_cpu::bits::{cr0, cr4, efer, rflags};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{
    Activity, CS, Control, CpuState, Debug, FS, GS, General, Injected, Latent, Msrs, Segment,
    SegmentAttributes, Segments, TableRegister, Vector, X87,
};
use trivium_cpu::walk::{MemoryView, Paging};
use trivium_cpu::{Exception, Kick};
use trivium_memory::{CodeReader, GuestMemory, RamView};

use crate::block::{Block, Generations, Reach};
use crate::code_segments::CodeSegments;
use crate::flags::Flags;
use crate::mem::Mmio;
use crate::native::Native;
use crate::op::{Op, Stop, StopReason};
use crate::pcid::{self, Contexts, Tlbs};
use crate::system::monitor::Monitor;
use crate::tlb::Tlb;
use crate::watch::Watch;

/// Index in [`Cpu::regs`] of RSP.
pub const RSP: u8 = 4;
/// Index in [`Cpu::regs`] of a register that is always zero.
pub const ZERO: u8 = 16;
/// Index in [`Cpu::regs`] of the base that ES has in address computations; CS to GS follow.
pub const SEG_BASE: u8 = 24;
/// Indices in [`Cpu::regs`] of what translated code looks for TLB entries with: the address of the
/// TLB, and the bits of an address that choose the entry.
pub const TLB_ADDRESS: u8 = 32;
/// The second of these.
pub const TLB_MASK: u8 = 33;

/// What code is decoded for: part of a block's key. Two blocks of the same bytes with different
/// modes have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mode(pub u16);

impl Mode {
    /// 64-bit code.
    pub const LONG: u16 = 1;
    /// 32-bit code (neither: 16-bit).
    pub const CODE32: u16 = 2;
    /// The stack pointer is ESP (64-bit code: always RSP).
    pub const STACK32: u16 = 4;
    /// All of ES, CS, SS and DS span the linear address space from 0: no checks are needed.
    pub const FLAT: u16 = 8;
    /// CPL is 3.
    pub const USER: u16 = 16;
    /// Protected mode, not virtual-8086.
    pub const PROTECTED: u16 = 32;
    /// Blocks have one instruction.
    pub const SINGLE: u16 = 64;
    /// FS may be read and written over 4 GiB, from wherever it begins; not in 64-bit code, which
    /// knows no limits.
    pub const OPEN_FS: u16 = 128;
    /// The same of GS.
    pub const OPEN_GS: u16 = 256;
    /// How many bits there are.
    pub(crate) const BITS: u32 = 9;

    /// Whether a bit is set.
    #[inline(always)]
    #[must_use]
    pub fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }

    /// Width of code addresses in bits: 16, 32 or 64.
    #[must_use]
    pub fn bitness(self) -> u32 {
        if self.has(Self::LONG) {
            64
        } else if self.has(Self::CODE32) {
            32
        } else {
            16
        }
    }

    /// The bits that RIP has. 16-bit code goes on beyond FFFFh as far as its segment does; it is
    /// branches that are cut to 16 bits.
    #[must_use]
    pub fn ip_mask(self) -> u64 {
        if self.has(Self::LONG) { !0 } else { 0xffff_ffff }
    }
}

/// An access by a handler that the TLB could not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Miss {
    /// Linear address.
    pub linear: u64,
    /// Size in bytes.
    pub size: u8,
    /// What is done there.
    pub kind: Access,
    /// The segment it went through, for #GP or #SS on addresses that are not canonical.
    pub seg: u8,
}

/// What an access does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads.
    Read,
    /// Stores.
    Write,
    /// Loads, then stores.
    Modify,
}

/// Which of the TLBs is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Space {
    /// CPL 0 to 2, user pages out of reach under SMAP.
    Supervisor = 0,
    /// CPL 0 to 2 with RFLAGS.AC set while SMAP is on.
    SupervisorAc = 1,
    /// CPL 3.
    User = 2,
    /// CPL 3 with alignment checks: no translations are kept, so that each access is looked at.
    Checked = 3,
}

/// What a shadow of one instruction holds off.
pub mod shadow {
    /// STI: interrupts.
    pub const STI: u8 = 1;
    /// MOV SS and POP SS: debug exceptions too. Intel SDM vol. 3A, 6.8.3.
    pub const MOV_SS: u8 = 2;
}

/// Makes the CPU look up from its work.
#[derive(Debug, Default)]
pub struct Attention {
    /// Somebody called `kick`.
    kicked: AtomicBool,
    /// Something about interrupts may have changed.
    wanted: AtomicBool,
}

impl Attention {
    /// Whether there was a call since the last look.
    #[inline]
    pub fn take(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::Acquire)
    }

    /// Address of a byte that is not 0 if there was a call that no one has looked at.
    pub(crate) fn address(&self) -> usize {
        (&raw const self.wanted).addr()
    }

    /// Whether there was a call that no one has looked at.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether `run` is to return.
    pub fn take_kick(&self) -> bool {
        self.kicked.swap(false, Ordering::Acquire)
    }
}

impl Kick for Attention {
    fn kick(&self) {
        self.kicked.store(true, Ordering::Release);
        self.wanted.store(true, Ordering::Release);
    }

    fn attend(&self) {
        self.wanted.store(true, Ordering::Release);
    }
}

/// The working state of one virtual CPU. Aligned, as translated code takes a shift count from its
/// address.
#[repr(align(64))]
pub struct Cpu {
    /// General registers; [`ZERO`]; segment bases from [`SEG_BASE`]. As long as an index has, so
    /// that none needs a check.
    pub regs: [u64; 256],
    /// The arithmetic flags.
    pub flags: Flags,
    /// Instructions that may still be run before the outer loop is due.
    pub quantum: i64,
    /// Guest memory by arena offset.
    pub ram: RamView,
    /// The translations in use.
    pub tlb: Box<Tlb>,
    /// Which ways between blocks still hold.
    pub generations: Generations,
    /// What code is decoded for now.
    pub mode: Mode,
    /// Vector registers.
    pub vector: Vector,
    /// RIP: exact whenever no handler runs; in a general function that of the instruction.
    pub rip: u64,
    /// In a [`crate::op::GeneralFn`] of `general_end` and in a [`crate::op::SystemFn`]: RIP of the
    /// next instruction, to be changed by those that branch.
    pub next_rip: u64,
    /// The bits that RIP has: 32 or 64 of them.
    pub ip_mask: u64,
    /// The bits that the stack pointer has: 16, 32 or 64 of them.
    pub stack_mask: u64,
    /// Which of the code segments there were is the present one.
    pub(crate) code_segments: CodeSegments,
    /// x87 instructions raise #NM, or wait for nothing: CR0.EM or CR0.TS.
    pub x87_blocked: bool,
    /// SSE instructions raise #UD or #NM.
    pub sse_blocked: bool,

    /// RFLAGS without the arithmetic flags.
    pub system_flags: u64,
    /// Segment registers and descriptor tables.
    pub segments: Segments,
    /// Control registers.
    pub control: Control,
    /// Debug registers.
    pub debug: Debug,
    /// Model-specific registers.
    pub msrs: Msrs,
    /// x87 and MMX.
    pub x87: X87,
    /// FERR# is asserted: an x87 error waits with CR0.NE clear, and an instruction met it.
    pub ferr: bool,
    /// The platform is to be told of a change of that.
    pub ferr_changed: bool,

    /// The present general function has something for the outer loop: it is to be left after it.
    pub leave: bool,
    /// Why the last run of operations came back; [`StopReason::Cut`] while one is going on.
    pub stop: StopReason,
    /// For translated code.
    pub native: Native,
    /// Index of the block it came back from.
    pub stop_block: u32,
    /// How many operations were still to come.
    pub stop_rest: usize,
    /// Which link of that block to set; for [`StopReason::Unlinked`].
    pub stop_link: u8,
    /// The access that missed.
    pub miss: Miss,
    /// The exception that was raised.
    pub exception: Exception,
    /// Device registers on the way to and from general functions.
    pub mmio: Mmio,

    /// What the CPU is doing.
    pub activity: Activity,
    /// What the instruction before has put the next one into: bits of [`shadow`].
    pub shadow: u8,
    /// The shadow that the present instruction is in.
    pub shadowed: u8,
    /// #DB follows the present instruction: RFLAGS.TF was set when it began. Instructions that hold
    /// it off clear this.
    pub single_step: bool,
    /// All translated blocks are to be dropped.
    pub drop_blocks: bool,
    /// Debug traps that follow the present instruction, as bits of DR6.
    pub pending_debug: u64,
    /// The breakpoints that are enabled.
    pub(crate) watch: Watch,
    /// An SMI waits.
    pub smi_pending: bool,
    /// What MONITOR has set up.
    pub(crate) monitor: Monitor,
    /// NMIs wait for IRET.
    pub nmi_masked: bool,
    /// An NMI waits.
    pub nmi_pending: bool,
    /// In system-management mode.
    pub smm: bool,
    /// An event whose delivery another CPU had begun.
    pub injected: Option<Injected>,
    /// An interrupt waits, or RFLAGS.IF or the like has changed: look before the next block.
    pub look: bool,

    /// The translations not in use, by [`Space`]; the place of the one in use is empty.
    pub tlbs: Tlbs,
    /// The translations of other PCIDs.
    pub(crate) contexts: Contexts,
    /// Which of the TLBs is in use.
    pub space: Space,
    /// Page walk parameters, from the control registers.
    pub paging: Paging,
    /// The machine's memory.
    pub memory: Arc<GuestMemory>,
    /// What it knows of writes to code that it has decoded.
    pub(crate) code_reader: CodeReader,
    /// Its map, as it was when the present translations were made.
    pub(crate) view: MemoryView,
    /// The CPU's model.
    pub model: Arc<CpuModel>,
    /// Local APIC ID and number of CPUs, for CPUID.
    pub topology: Topology,
    /// Asked by others.
    pub attention: Arc<Attention>,
    /// Arena offset of 4 KiB for accesses that are not plain RAM.
    pub scratch: usize,
    /// Instruction translations, dropped with the others.
    pub(crate) fetch: crate::block::FetchTlb,
    pub(crate) code_pages: crate::block::CodePages,
    /// Linear pages that code was found on whose translations are global.
    pub(crate) global_code_pages: crate::block::CodePages,
}

/// Where a CPU stands among others, and the platform's clocks: what CPUID tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Local APIC ID.
    pub apic_id: u32,
    /// Number of CPUs.
    pub cpus: u32,
    /// Frequency of the TSC in hertz.
    pub tsc_hz: u64,
    /// Frequency of the local APIC's timer in hertz.
    pub apic_hz: u64,
}

impl Cpu {
    /// A CPU after RESET#. `scratch` is the arena offset of a page of its own.
    #[must_use]
    pub fn new(
        memory: Arc<GuestMemory>,
        model: Arc<CpuModel>,
        topology: Topology,
        scratch: usize,
    ) -> Self {
        let state = CpuState::default();
        let mut cpu = Self {
            regs: [0; 256],
            flags: Flags::default(),
            quantum: 0,
            ram: memory.ram().clone(),
            tlb: Tlb::new(),
            generations: Generations::default(),
            mode: Mode::default(),
            vector: state.vector,
            rip: 0,
            next_rip: 0,
            ip_mask: 0xffff,
            stack_mask: 0xffff,
            code_segments: CodeSegments::default(),
            x87_blocked: false,
            sse_blocked: true,
            system_flags: rflags::FIXED,
            segments: state.segments,
            control: state.control,
            debug: state.debug,
            msrs: state.msrs,
            x87: state.x87,
            ferr: false,
            ferr_changed: false,
            leave: false,
            stop: StopReason::Cut,
            native: Native::new(),
            stop_block: 0,
            stop_rest: 0,
            stop_link: 0,
            miss: Miss { linear: 0, size: 0, kind: Access::Read, seg: 0 },
            exception: Exception::ud(),
            mmio: Mmio::default(),
            activity: Activity::Running,
            shadow: 0,
            shadowed: 0,
            single_step: false,
            drop_blocks: false,
            pending_debug: 0,
            watch: Watch::default(),
            smi_pending: false,
            monitor: Monitor::default(),
            nmi_masked: false,
            nmi_pending: false,
            smm: false,
            injected: None,
            look: true,
            tlbs: pcid::tlbs_beside(Space::Supervisor),
            contexts: Contexts::default(),
            space: Space::Supervisor,
            paging: Paging::from_state(&state.control, model.phys_bits),
            view: MemoryView::new(&memory),
            code_reader: memory.code().add_reader(),
            memory,
            model,
            topology,
            attention: Arc::default(),
            scratch,
            fetch: crate::block::FetchTlb::default(),
            code_pages: crate::block::CodePages::default(),
            global_code_pages: crate::block::CodePages::default(),
        };
        cpu.native.wanted = cpu.attention.address();
        cpu.native.written = cpu.memory.code().address();
        cpu.native.sites.set_nowhere((cpu.ram.base_address() as u64).wrapping_add(scratch as u64));
        cpu.put_state(&state);
        cpu
    }

    /// Whether code that it has decoded may have been written since it last looked.
    #[inline]
    pub(crate) fn code_is_written(&self) -> bool {
        self.memory.code().any_written(&self.code_reader)
    }

    /// Records where a run of operations came back.
    #[cold]
    #[inline(never)]
    pub fn stop_at(&mut self, reason: StopReason, rest: usize, block: &Block) {
        self.stop = reason;
        self.stop_rest = rest;
        self.stop_block = block.target.index;
    }

    /// Takes more for the quantum from what is in reserve, if nobody wants anything.
    pub(crate) fn refill(&mut self) -> bool {
        let wanted = self.attention.is_wanted() || self.code_is_written();
        let native = &mut self.native;
        let more = native.reserve.min(native.quantum - self.quantum);
        if wanted || more <= 0 {
            return false;
        }
        native.reserve -= more;
        self.quantum += more;
        true
    }

    /// Records an exception of a handler; its error code, if it has one, is 0.
    #[cold]
    #[inline(never)]
    pub fn raised(&mut self, vector: trivium_cpu::Vector, rest: usize, block: &Block) {
        self.exception = match vector.has_error_code() {
            true => Exception::with_code(vector, 0),
            false => Exception::plain(vector),
        };
        self.stop_at(StopReason::Exception, rest, block);
    }

    /// Records an exception of a general or system function.
    #[cold]
    pub fn raise(&mut self, exception: Exception) -> Stop {
        self.exception = exception;
        self.stop = StopReason::Exception;
        Stop
    }

    /// RIP after an operation of a block.
    pub(crate) fn rip_after(&self, block: &Block, op: &Op) -> u64 {
        block.rip.wrapping_add(op.off as u64).wrapping_add(u64::from(op.len)) & self.ip_mask
    }

    /// The whole of RFLAGS.
    #[must_use]
    pub fn rflags(&self) -> u64 {
        self.system_flags | self.flags.get()
    }

    /// Sets the whole of RFLAGS; bits that do not exist are left out. The mode follows VM.
    pub fn set_rflags(&mut self, value: u64) {
        let value = value & rflags::ALL | rflags::FIXED;
        self.flags.set_explicit(value);
        let changed = (self.system_flags ^ value) & !rflags::STATUS;
        self.system_flags = value & !rflags::STATUS;
        if changed & rflags::TF != 0 || changed & value & rflags::IF != 0 && self.holds_something()
        {
            self.look = true;
        }
        if changed & (rflags::VM | rflags::AC) != 0 {
            self.update_mode();
        }
    }

    /// Whether an interrupt may wait for RFLAGS.IF.
    fn holds_something(&self) -> bool {
        self.native.held != 0 || self.attention.is_wanted()
    }

    /// Whether the next instruction may come at once after one that ended its block: nobody wants
    /// anything before it, and it is not to be run alone.
    #[inline(always)]
    pub(crate) fn goes_on(&self, block: &Block) -> bool {
        // It may end there, with RF set.
        let flags = self.system_flags & (rflags::TF | rflags::VIP | rflags::RF) == 0;
        let debug = self.pending_debug == 0 && !self.single_step && !self.watch.code;
        let quiet = !self.look && !self.leave && self.shadow == 0 && !self.drop_blocks;
        flags && debug && quiet && !self.mmio.is_used() && !block.mode.has(Mode::SINGLE)
    }

    /// The current privilege level.
    #[inline(always)]
    #[must_use]
    pub fn cpl(&self) -> u8 {
        self.segments.cpl
    }

    /// The I/O privilege level.
    #[must_use]
    pub fn iopl(&self) -> u8 {
        ((self.system_flags & rflags::IOPL) >> rflags::IOPL_SHIFT) as u8
    }

    /// Protected mode, virtual-8086 included.
    #[inline(always)]
    #[must_use]
    pub fn protected(&self) -> bool {
        self.control.cr0 & cr0::PE != 0
    }

    /// Virtual-8086 mode.
    #[inline(always)]
    #[must_use]
    pub fn v86(&self) -> bool {
        self.system_flags & rflags::VM != 0
    }

    /// Long mode is active: 64-bit or compatibility.
    #[inline(always)]
    #[must_use]
    pub fn long_mode(&self) -> bool {
        self.control.efer & efer::LMA != 0
    }

    /// 64-bit code is running.
    #[inline(always)]
    #[must_use]
    pub fn code64(&self) -> bool {
        self.mode.has(Mode::LONG)
    }

    /// Brings everything that depends on segment registers, control registers, privilege and
    /// RFLAGS.VM or AC up to date. To be called after each change of these.
    pub fn update_mode(&mut self) {
        let protected = self.protected() && !self.v86();
        let cs = self.segments.regs[CS].attributes;
        let ss = self.segments.regs[trivium_cpu::state::SS].attributes;
        let long = self.long_mode() && cs.has(SegmentAttributes::L);
        let mut mode = 0;
        if long {
            mode |= Mode::LONG | Mode::FLAT;
        } else {
            mode |= if cs.has(SegmentAttributes::DB) { Mode::CODE32 } else { 0 };
            mode |= if ss.has(SegmentAttributes::DB) { Mode::STACK32 } else { 0 };
            mode |= if protected && self.is_flat() { Mode::FLAT } else { 0 };
            mode |= if protected && self.is_open(FS) { Mode::OPEN_FS } else { 0 };
            mode |= if protected && self.is_open(GS) { Mode::OPEN_GS } else { 0 };
        }
        mode |= if protected { Mode::PROTECTED } else { 0 };
        mode |= if self.cpl() == 3 { Mode::USER } else { 0 };
        self.mode = Mode(mode);
        self.ip_mask = self.mode.ip_mask();
        self.note_code_segment();
        self.note_limits();
        self.stack_mask = match (long, self.mode.has(Mode::STACK32)) {
            (true, _) => !0,
            (_, true) => 0xffff_ffff,
            _ => 0xffff,
        };
        for (index, segment) in self.segments.regs.iter().enumerate() {
            let ignored = long && index < 4;
            self.regs[usize::from(SEG_BASE) + index] = if ignored { 0 } else { segment.base };
        }
        let control = &self.control;
        self.x87_blocked = control.cr0 & (cr0::EM | cr0::TS) != 0;
        self.sse_blocked = control.cr0 & (cr0::EM | cr0::TS) != 0 || control.cr4 & cr4::OSFXSR == 0;
        self.native.simd.update(control, self.sse_blocked);
        self.enter_space();
    }

    /// Notes which code segment this is: what RIP leads to depends on its base and limit.
    fn note_code_segment(&mut self) {
        // That of 64-bit code counts as the one of flat 32-bit code: the mode tells them apart.
        let segment = (self.code_base(), self.code_limit() as u32);
        if !self.code_segments.enter(segment) {
            // Numbers that there were before may come again, for others.
            self.generations.void(Reach::Page);
            self.generations.void(Reach::Global);
        }
    }

    /// Lets translated code know which offsets segments have. Where it asks for none, there is none to
    /// be found.
    fn note_limits(&mut self) {
        if self.mode.has(Mode::LONG) {
            return;
        }
        let protected = self.mode.has(Mode::PROTECTED);
        for (index, segment) in self.segments.regs.iter().enumerate() {
            let is_open = match index {
                FS => self.mode.has(Mode::OPEN_FS),
                GS => self.mode.has(Mode::OPEN_GS),
                _ => self.mode.has(Mode::FLAT),
            };
            if !is_open {
                self.native.limits.set(index, segment, protected);
            }
        }
    }

    /// What ways that hold for a generation hold for: it, the code segment and the mode.
    #[inline(always)]
    #[must_use]
    pub fn tag(&self, generation: u64) -> u64 {
        generation << 20 | self.code_segments.number() << Mode::BITS | u64::from(self.mode.0)
    }

    /// The number of the present code segment: two that differ in base or limit have different ones.
    #[must_use]
    pub fn code_segment(&self) -> u64 {
        self.code_segments.number()
    }

    /// The address of RIP 0, which is 0 in 64-bit code.
    #[must_use]
    pub fn code_base(&self) -> u32 {
        match self.mode.has(Mode::LONG) {
            true => 0,
            false => self.segments.regs[CS].base as u32,
        }
    }

    /// The last address that code may have; none but 64 bits of ones in 64-bit code.
    #[must_use]
    pub fn code_limit(&self) -> u64 {
        match self.mode.has(Mode::LONG) {
            true => u64::MAX,
            false => u64::from(self.segments.regs[CS].limit),
        }
    }

    /// Whether a segment spans 4 GiB and may be read and written as usual.
    fn is_open(&self, number: usize) -> bool {
        use SegmentAttributes as A;
        let Segment { limit, attributes, .. } = self.segments.regs[number];
        let usual = attributes.has(A::P) && attributes.has(A::WRITABLE);
        limit == u32::MAX && usual && !attributes.has(A::CODE) && !attributes.has(A::EXPAND_DOWN)
    }

    /// Whether ES, CS, SS and DS all span 4 GiB from 0 and may be read and written as usual.
    fn is_flat(&self) -> bool {
        use SegmentAttributes as A;
        let spans = |s: &Segment| s.base == 0 && s.limit == u32::MAX && s.attributes.has(A::P);
        self.segments.regs[..4].iter().enumerate().all(|(index, s)| {
            let code = s.attributes.has(A::CODE);
            let plain = if index == CS {
                s.attributes.has(A::WRITABLE)
            } else {
                !code && s.attributes.has(A::WRITABLE) && !s.attributes.has(A::EXPAND_DOWN)
            };
            spans(s) && plain
        })
    }

    /// Puts the TLB of the present privilege in use.
    fn enter_space(&mut self) {
        let ac = self.system_flags & rflags::AC != 0 && self.control.cr4 & cr4::SMAP != 0;
        let space = match (self.cpl() == 3, ac) {
            (true, _) if self.checks_alignment() => Space::Checked,
            (true, _) => Space::User,
            (_, true) => Space::SupervisorAc,
            _ => Space::Supervisor,
        };
        if space == self.space {
            return;
        }
        let entered = self.tlbs[space as usize].take().unwrap_or_else(Tlb::new);
        let left = std::mem::replace(&mut self.tlb, entered);
        self.tlbs[self.space as usize] = Some(left);
        self.space = space;
    }

    /// Page walk parameters follow the control registers; to be called after each change of these,
    /// with [`Self::flush_tlb`] where the architecture asks for it.
    pub fn update_paging(&mut self) {
        let paging = Paging::from_state(&self.control, self.model.phys_bits);
        let gigabytes = self.model.has(trivium_cpu::model::Feature::Pdpe1gb);
        let paging = if gigabytes { paging } else { paging.without_gigabyte_pages() };
        let reserved = self.model.does(trivium_cpu::model::Quirk::Pml4Bit8Reserved);
        self.paging = if reserved { paging.of_amd() } else { paging };
    }

    /// The whole architectural state.
    #[must_use]
    pub fn state(&self) -> CpuState {
        let mut regs = [0; 16];
        regs.copy_from_slice(&self.regs[..16]);
        CpuState {
            general: General { regs, rip: self.rip, rflags: self.rflags() },
            segments: self.segments,
            control: self.control,
            debug: self.debug,
            msrs: self.msrs,
            x87: self.x87,
            vector: self.vector,
            events: trivium_cpu::state::Events {
                activity: self.activity,
                interrupt_shadow: self.shadow != 0,
                debug_shadow: self.shadow & shadow::MOV_SS != 0,
                pending_debug: self.pending_debug,
                smi_pending: self.smi_pending,
                nmi_masked: self.nmi_masked,
                nmi_pending: self.nmi_pending,
                smm: self.smm,
                injected: self.injected,
            },
            latent: Latent { ferr: self.ferr, monitor: self.monitor_state() },
        }
    }

    /// Replaces the whole architectural state; translations are dropped.
    pub fn put_state(&mut self, state: &CpuState) {
        self.regs[..16].copy_from_slice(&state.general.regs);
        self.rip = state.general.rip;
        self.segments = state.segments;
        self.control = state.control;
        self.debug = state.debug;
        self.msrs = state.msrs;
        self.x87 = state.x87;
        self.ferr = state.latent.ferr;
        self.vector = state.vector;
        let events = &state.events;
        self.activity = events.activity;
        self.put_monitor_state(state.latent.monitor.as_ref());
        self.shadow = match (events.debug_shadow, events.interrupt_shadow) {
            (true, _) => shadow::MOV_SS,
            (_, true) => shadow::STI,
            _ => 0,
        };
        self.pending_debug = events.pending_debug;
        self.smi_pending = events.smi_pending;
        self.nmi_masked = events.nmi_masked;
        self.nmi_pending = events.nmi_pending;
        self.smm = events.smm;
        self.injected = events.injected;
        self.system_flags = state.general.rflags & !rflags::STATUS | rflags::FIXED;
        self.flags.set_explicit(state.general.rflags);
        self.look = true;
        self.update_mode();
        self.update_paging();
        self.view.set_smm(&self.memory, events.smm);
        self.flush_tlb(false);
        self.update_watch();
    }

    /// GDTR or IDTR.
    #[must_use]
    pub fn gdtr(&self) -> TableRegister {
        self.segments.gdtr
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        self.memory.code().remove_reader();
    }
}

/// The low `bits` bits.
#[must_use]
pub fn mask_of(bits: u32) -> u64 {
    if bits >= 64 { !0 } else { (1 << bits) - 1 }
}
