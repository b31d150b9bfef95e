//! What translated code keeps in the CPU's state.
//!
//! While vector registers are in use there, they live in the host's, with the guest's MXCSR; the
//! state's copies are then out of date.

use std::hash::{BuildHasher, RandomState};

use trivium_cpu::bits::{cr0, cr4};
use trivium_cpu::state::{Control, Segment, SegmentAttributes};

use crate::counts::{Counts, SharedCounts};
use crate::tlb::Entry;

/// XCR0's bits for SSE and AVX, which must both be set for AVX.
const SSE_AND_AVX: u64 = 6;
/// MXCSR after reset, which is what compiled code expects.
const MXCSR_RESET: u32 = 0x1f80;
/// The bits of an offset into a page.
const PAGE_OFFSET: u64 = 0xfff;

/// The most that the quantum is, where nobody wants less.
pub const QUANTUM: i64 = 4000;
/// [`Native::hot`], where nobody wants another.
pub const HOT: u32 = 32;

/// What only translated code uses.
#[repr(C)]
pub struct Native {
    /// The arithmetic flags on the way in and out, as LAHF and SETO give them: AH above AL.
    pub flags: u64,
    /// The bits of an address that choose its place in `jumps`.
    pub jump_mask: u64,
    /// Where an indirect jump leads, for [`crate::op::StopReason::Jump`], and the code there.
    pub target: u64,
    /// The most that the quantum may be, which is less than 4096.
    pub quantum: i64,
    /// How often it is used up at a block before that is worth translating with those that follow.
    pub hot: u32,
    /// Address of a byte that is not 0 when somebody wants the CPU to look up from its work.
    pub wanted: usize,
    /// The last number that a quantum was made shorter by.
    pub chance: u32,
    /// Not 0 if an interrupt may wait for RFLAGS.IF.
    pub held: u8,
    /// Instructions that may be run when the quantum is used up, if nobody wants anything.
    pub reserve: i64,
    /// Address of a number that changes when decoded code is written by anybody.
    pub written: usize,
    /// What is there as long as all that was written is known.
    pub seen: u64,
    /// How many of `samples` there are.
    pub sampled: u32,
    /// Where translated code has taken more for its quantum by itself: blocks' numbers, as exits have
    /// them.
    pub samples: [u32; NATIVE_SAMPLES],
    /// The numbers of blocks that these have shown to be hot.
    pub found_hot: Vec<u32>,
    /// The address of code that is about to be jumped to.
    pub code: u64,
    /// RAX, while something else is in the host's.
    pub kept: u64,
    /// The host's stack pointer when translated code was entered.
    pub stack: u64,
    /// What ways of each [`crate::block::Reach`] hold for: the generation of mappings, and the mode.
    pub tags: [u64; 4],
    /// Which offsets segments have, where that is not all of them.
    pub limits: NativeLimits,
    /// What is to be added to addresses of the present block's spans to get the host's.
    pub spans: [u64; 16],
    /// Translations that single accesses have found last.
    pub sites: NativeSites,
    /// Of vector registers.
    pub simd: NativeSimd,
    /// Of the x87 unit.
    pub x87: NativeX87,
    /// Of vectors across two pages.
    pub crossing: NativeCrossing,
    /// Where indirect jumps find their code.
    pub jumps: Box<NativeJumps>,
    /// What is counted, if somebody wants to know.
    pub counts: Option<SharedCounts>,
    /// Translated code is to leave before the first instruction at which `cut` is reached.
    pub cuts: bool,
    /// What is left of the quantum and its reserve there.
    pub cut: i64,
}

/// Places of [`Native::samples`].
pub const NATIVE_SAMPLES: usize = 16;

/// Entries of [`Native::jumps`].
pub const NATIVE_JUMPS: usize = 16384;
/// Bits of an address that do not choose its entry there: targets are seldom nearer to each other.
pub const JUMP_SHIFT: u32 = 3;

/// Where code for addresses is; the code itself looks whether it still belongs there.
#[derive(Debug)]
#[repr(C)]
pub struct NativeJumps {
    /// RIP, negated.
    pub tags: [u64; NATIVE_JUMPS],
    /// Address of the code.
    pub codes: [u64; NATIVE_JUMPS],
}

impl NativeJumps {
    fn new() -> Self {
        Self { tags: std::array::from_fn(empty_jump), codes: [0; NATIVE_JUMPS] }
    }

    /// Enters code for an address.
    pub fn set(&mut self, rip: u64, code: u64) {
        let slot = Native::jump_slot(rip);
        (self.tags[slot], self.codes[slot]) = (0_u64.wrapping_sub(rip), code);
    }

    /// Removes what is entered for an address, if it is this code.
    pub fn remove(&mut self, rip: u64, code: u64) {
        let slot = Native::jump_slot(rip);
        if self.codes[slot] == code {
            (self.tags[slot], self.codes[slot]) = (empty_jump(slot), 0);
        }
    }

    /// Removes all.
    pub fn clear(&mut self) {
        for (slot, tag) in self.tags.iter_mut().enumerate() {
            *tag = empty_jump(slot);
        }
        self.codes.fill(0);
    }
}

/// A tag that no address finds: it is of one that belongs elsewhere.
fn empty_jump(slot: usize) -> u64 {
    0_u64.wrapping_sub((slot as u64 + 1 & NATIVE_JUMPS as u64 - 1) << JUMP_SHIFT)
}

impl Native {
    /// With nothing known.
    pub(crate) fn new() -> Self {
        Self {
            flags: 0,
            jump_mask: (NATIVE_JUMPS as u64 - 1) << JUMP_SHIFT,
            target: 0,
            wanted: 0,
            chance: 0,
            held: 1,
            quantum: QUANTUM,
            hot: HOT,
            reserve: 0,
            written: 0,
            seen: 0,
            sampled: 0,
            samples: [0; NATIVE_SAMPLES],
            found_hot: Vec::new(),
            code: 0,
            kept: 0,
            stack: 0,
            tags: [0; 4],
            limits: NativeLimits::default(),
            spans: [0; 16],
            sites: NativeSites::new(),
            simd: NativeSimd::default(),
            x87: NativeX87::default(),
            crossing: NativeCrossing::default(),
            jumps: Box::new(NativeJumps::new()),
            counts: None,
            cuts: false,
            cut: i64::MIN,
        }
    }

    /// The first quantum of several: a little less than the most, and another each time, lest samples
    /// of a loop fall on the same place over and over.
    pub(crate) fn first_quantum(&mut self) -> i64 {
        // Numerical Recipes, 7.1.
        self.chance = self.chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.quantum - i64::from(self.chance >> 16) % (self.quantum / 4).max(1)
    }

    /// Counts something, if somebody wants to know.
    #[inline(always)]
    pub fn count(&self, count: impl FnOnce(&mut Counts)) {
        if let Some(counts) = &self.counts {
            count(&mut counts.lock());
        }
    }

    /// The place in [`Self::jumps`] of an address.
    #[must_use]
    pub fn jump_slot(rip: u64) -> usize {
        (rip >> JUMP_SHIFT) as usize % NATIVE_JUMPS
    }
}

/// Accesses that remember the translation they have found last.
pub const NATIVE_SITES: usize = 1024;

/// The translations that accesses of translated code have found last, each by itself: so that where
/// the memory lies need not wait for the address. Not by the page, as an entry does not say which page
/// an access begins on: by a window of 2 KiB, so far from the page's end that an access which begins
/// there ends on the page. Single bytes, and what must be aligned, have the page as their window.
#[repr(C)]
pub struct NativeSites {
    /// By the access's number.
    pub entries: [Entry; NATIVE_SITES],
    /// How often each has found none here.
    pub misses: [u32; NATIVE_SITES],
    /// The bits of a distance from the window's beginning that are zero in it.
    pub window: u64,
    /// Not 0 if there may be any, in each half: of supervisors' accesses, and of users'. While
    /// supervisors have allowed themselves users' pages, it is 1 if any was found since.
    pub filled: [u8; 2],
    /// How many of each half's numbers are in use.
    pub used: [usize; 2],
    /// Address of the TLB that each half is from.
    pub tlb: [usize; 2],
    /// What an access without a translation has: a page that no guest knows, as no address on it is
    /// canonical, and where it lies is chosen by chance; what is read there is worth nothing.
    pub empty: Entry,
}

impl NativeSites {
    fn new() -> Self {
        let chance = RandomState::new().hash_one(0) & 0x3fff_ffff_ffff_f000;
        let empty = Entry { tag: 0_u64.wrapping_sub(1 << 62 | chance), addend: 0 };
        Self {
            entries: [empty; NATIVE_SITES],
            misses: [0; NATIVE_SITES],
            window: !0x7ff,
            filled: [0; 2],
            used: [0; 2],
            tlb: [0; 2],
            empty,
        }
    }

    /// Sets the host's address of a page that accesses without a translation lead to.
    pub(crate) fn set_nowhere(&mut self, host: u64) {
        self.empty.addend = host.wrapping_add(self.empty.tag);
        self.entries.fill(self.empty);
    }

    /// Drops a half's translations, unless they are of this TLB and it has `lost` none.
    pub fn keep(&mut self, half: usize, tlb: usize, lost: bool) {
        let half = half & 1;
        let same = std::mem::replace(&mut self.tlb[half], tlb) == tlb;
        if (same && !lost) || std::mem::take(&mut self.filled[half]) == 0 {
            return;
        }
        let Self { entries, used, empty, .. } = self;
        let of_half = entries.iter_mut().skip(half * NATIVE_SITES / 2).take(used[half]);
        of_half.for_each(|entry| *entry = *empty);
    }

    /// Takes a number into use: it has no translation.
    pub fn take(&mut self, number: u16) {
        let number = usize::from(number);
        let half = usize::from(number >= NATIVE_SITES / 2);
        self.used[half] = self.used[half].max(number % (NATIVE_SITES / 2) + 1);
        if let (Some(entry), Some(misses)) =
            (self.entries.get_mut(number), self.misses.get_mut(number))
        {
            (*entry, *misses) = (self.empty, 0);
        }
    }
}

/// Which offsets may be read and written in each segment: a number that, added to that of an access's
/// last byte, gives less than 2^32 if it may be.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct NativeLimits {
    /// By the segments' numbers.
    pub read: [u64; 6],
    /// The same.
    pub write: [u64; 6],
}

impl NativeLimits {
    /// A segment that no offset may be found in; those that expand down count as such.
    const CLOSED: u64 = 1 << 32;

    /// A segment register has changed.
    pub(crate) fn set(&mut self, index: usize, segment: &Segment, protected: bool) {
        use SegmentAttributes as A;
        let attributes = segment.attributes;
        let (code, may_write) = (attributes.has(A::CODE), attributes.has(A::WRITABLE));
        let closed = !code && attributes.has(A::EXPAND_DOWN) || protected && !attributes.has(A::P);
        let up_to_limit = u64::from(u32::MAX - segment.limit);
        let for_use = |allowed: bool| match closed || protected && !allowed {
            true => Self::CLOSED,
            false => up_to_limit,
        };
        if let (Some(read), Some(write)) = (self.read.get_mut(index), self.write.get_mut(index)) {
            *read = for_use(!code || may_write);
            *write = for_use(!code && may_write);
        }
    }
}

/// What translated code wants to know of vector registers, as its tests want it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct NativeSimd {
    /// Which bits of an offset into a page are zero if it is one and a multiple of 16, or of 32.
    pub aligned: [u64; 2],
    /// The host's own MXCSR.
    pub host_mxcsr: u32,
    /// 1 if the host's registers are the guest's.
    pub live: u8,
    /// 0 if they are, and instructions of SSE may be executed.
    pub sse_idle: u8,
    /// 0 if they are, and instructions of AVX may be executed.
    pub avx_idle: u8,
    /// 0 if CR0 and CR4 allow SSE.
    pub sse_refused: u8,
    /// 0 if CR0, CR4 and XCR0 allow AVX.
    pub avx_refused: u8,
}

impl Default for NativeSimd {
    fn default() -> Self {
        Self {
            aligned: [16, 32].map(|size| !PAGE_OFFSET | (size - 1)),
            host_mxcsr: MXCSR_RESET,
            live: 0,
            sse_idle: 1,
            avx_idle: 1,
            sse_refused: 1,
            avx_refused: 1,
        }
    }
}

impl NativeSimd {
    /// Follows the control registers. In protected mode; translated code is in no other.
    pub(crate) fn update(&mut self, control: &Control, sse_blocked: bool) {
        let avx = control.cr4 & cr4::OSXSAVE != 0
            && control.xcr0 & SSE_AND_AVX == SSE_AND_AVX
            && control.cr0 & cr0::TS == 0;
        self.sse_refused = sse_blocked.into();
        self.avx_refused = (!avx).into();
    }
}

/// Bytes of an image of XSAVE without extended components. Intel SDM vol. 1, 13.4.
pub const IMAGE_SIZE: usize = 576;

/// The x87 registers on their way to and from the host, as XSAVE has them.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct X87Image(pub [u8; IMAGE_SIZE]);

/// The same of the x87 unit: while it is in use in translated code, its registers, control word and
/// status word are in the host's. Where its last instruction was, is in the state at all times.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct NativeX87 {
    /// On the way in and out.
    pub image: X87Image,
    /// A control word on its way to the host.
    pub control: u16,
    /// 0 if the host's unit is the guest's.
    pub idle: u8,
    /// An MMX instruction was the last to set all tags.
    pub mmx: u8,
}

impl Default for NativeX87 {
    fn default() -> Self {
        Self { image: X87Image([0; IMAGE_SIZE]), control: 0, idle: 1, mmx: 0 }
    }
}

/// Where vectors pass that lie across two pages.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct NativeCrossing {
    /// What is before the border and what is behind it, 32 bytes each.
    pub buffer: [u8; 64],
    /// The linear address of the border.
    pub border: u64,
    /// The host's address of the first page's end.
    pub first: u64,
    /// The host's address of the second page.
    pub second: u64,
}

impl Default for NativeCrossing {
    fn default() -> Self {
        Self { buffer: [0; 64], border: 0, first: 0, second: 0 }
    }
}
