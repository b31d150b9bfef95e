//! User-level code alone under KVM.
//!
//! There are KVMs that run 64-bit code at CPL 3 as fast as the processor and nothing else well. An
//! island is a stretch of such code: it sees the guest's own page tables, but below an interrupt
//! table of ours, in an entry of the top-level table that the guest does not use. Whatever would
//! enter the guest's kernel (a fault, SYSCALL, an interrupt) ends the island instead, with the state
//! as before the instruction, and another CPU goes on from there: it meets the fault again and
//! delivers it.

use trivium_cpu::bits::{cr4, debug, efer, rflags};
use trivium_cpu::state::{
    Activity, CS, CpuState, Events, SS, Segment, SegmentAttributes, TableRegister,
};
use trivium_cpu::walk::{Access, Paging, probe};
use trivium_memory::{GuestMemory, GuestPhysAddr, MemoryError, PAGE_SIZE, RamView};

const PAGE: usize = PAGE_SIZE as usize;

/// The pages of an island, by number.
mod page {
    /// A copy of the guest's top-level table, with an entry for the island.
    pub const TOP: usize = 0;
    pub const POINTERS: usize = 1;
    pub const DIRECTORY: usize = 2;
    pub const TABLE: usize = 3;
    pub const IDT: usize = 4;
    /// A copy of the guest's descriptors, with two of the island's.
    pub const GDT: usize = 5;
    /// The handlers and the task-state segment.
    pub const CODE: usize = 6;
    pub const STACK: usize = 7;
    pub const COUNT: usize = 8;
}

/// Offset in the page of code of the handler of all exceptions.
const EXCEPTION: usize = 0;
/// Of the handler of SYSCALL.
const SYSCALL: usize = 16;
/// Of the handlers of #DB and #BP, which are traps.
const DEBUG: usize = 32;
const BREAKPOINT: usize = 48;
/// Of how many instructions are still to be counted, by the handler of #DB.
const COUNT: usize = 128;
/// Of the task-state segment.
const TSS: usize = 256;
/// Its size.
const TSS_SIZE: usize = 104;
/// Offset in it of IST1. Intel SDM vol. 3A, figure 8-11.
const TSS_IST1: usize = 36;
/// The port that a handler writes; no device sees it.
pub(crate) const EXCEPTION_PORT: u16 = 0xe0;
/// The same for SYSCALL, #DB and #BP.
pub(crate) const SYSCALL_PORT: u16 = 0xe1;
pub(crate) const DEBUG_PORT: u16 = 0xe2;
const BREAKPOINT_PORT: u16 = 0xe3;
/// All of them.
pub(crate) const PORTS: std::ops::RangeInclusive<u16> = EXCEPTION_PORT..=BREAKPOINT_PORT;

/// Present, writable, not for CPL 3.
const ENTRY: u64 = 3;
const PRESENT: u64 = 1;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Entries of a table.
const ENTRIES: usize = 512;
/// The first entry of the upper half.
const UPPER: usize = 256;
/// 64-bit code at CPL 0.
const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
/// The largest of the guest's descriptor tables of which there is room for a copy.
const MAX_GDT: usize = PAGE - 32;

/// The memory of an island.
pub(crate) struct Island {
    memory: GuestMemory,
    /// Guest-physical address of its first page.
    gpa: u64,
    /// Entry of the top-level table.
    entry: usize,
    /// Bytes of the guest's descriptor table that are copied.
    gdt_size: usize,
}

/// What a frame on the island's stack says of the interrupted code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    /// Whose handler it is, by its port.
    port: u16,
}

/// An interrupt gate for CPL 0 with IST1. Intel SDM vol. 3A, figure 6-8.
fn gate(handler: u64, selector: u16) -> [u64; 2] {
    let low = handler & 0xffff
        | u64::from(selector) << 16
        | 0x8e01 << 32
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

/// Whether a state is one that an island may take over.
pub(crate) fn is_eligible(state: &CpuState) -> bool {
    let events = Events { activity: Activity::Running, ..Events::default() };
    let masked = Events { nmi_masked: true, ..events };
    let quiet = state.events == events || state.events == masked;
    let cs = state.segments.regs[CS].attributes;
    let long = state.control.efer & efer::LMA != 0 && cs.has(SegmentAttributes::L);
    let simple = state.control.cr4 & cr4::LA57 == 0
        && state.debug.dr7 & 0xff == 0
        && state.general.rflags & (rflags::TF | rflags::RF | rflags::NT) == 0
        && state.segments.cpl == 3
        && state.segments.regs[SS].attributes.has(SegmentAttributes::P);
    quiet && long && simple && usize::from(state.segments.gdtr.limit) < MAX_GDT
}

impl Island {
    /// An island at the top of an address space of so many bits.
    pub(crate) fn new(phys_bits: u8) -> Result<Self, MemoryError> {
        let memory = GuestMemory::new((page::COUNT * PAGE) as u64, 0)?;
        let top = 1_u64 << phys_bits.clamp(32, 52);
        let gpa = top - (page::COUNT * PAGE) as u64;
        let island = Self { memory, gpa, entry: 0, gdt_size: 0 };
        let code = |at: usize, port: u16| {
            // OUT port, AL; JMP to itself.
            island.ram().write_slice(page::CODE * PAGE + at, &[0xe6, port as u8, 0xeb, 0xfe]);
        };
        code(EXCEPTION, EXCEPTION_PORT);
        code(SYSCALL, SYSCALL_PORT);
        code(BREAKPOINT, BREAKPOINT_PORT);
        // SUB dword [RIP + ...], 1; JG over the next; OUT port, AL; IRETQ.
        let way = (COUNT - DEBUG - 7) as u8;
        let counting = [0x83, 0x2d, way, 0, 0, 0, 1, 0x7f, 2, 0xe6, DEBUG_PORT as u8, 0x48, 0xcf];
        island.ram().write_slice(page::CODE * PAGE + DEBUG, &counting);
        Ok(island)
    }

    /// Lets the handler of #DB end the island only when it has come so often.
    pub(crate) fn set_count(&self, count: u64) {
        self.ram().store(page::CODE * PAGE + COUNT, count.min(i32::MAX as u64) as u32);
    }

    /// How often it has still to come.
    pub(crate) fn count(&self) -> u64 {
        self.ram().load::<u32>(page::CODE * PAGE + COUNT).into()
    }

    /// Where the code goes on that has come to the handler of #DB.
    pub(crate) fn debug_rip(&self) -> u64 {
        self.ram().load(page::STACK * PAGE + (self.stack_top() - 40) as usize % PAGE)
    }

    pub(crate) fn ram(&self) -> &RamView {
        self.memory.ram()
    }

    pub(crate) fn gpa(&self) -> u64 {
        self.gpa
    }

    pub(crate) fn size(&self) -> usize {
        page::COUNT * PAGE
    }

    /// Linear address of a page's byte.
    fn linear(&self, page: usize, at: usize) -> u64 {
        0xffff << 48 | (self.entry as u64) << 39 | (page * PAGE + at) as u64
    }

    fn stack_top(&self) -> u64 {
        self.linear(page::STACK, PAGE - 64)
    }

    /// Puts the island below a guest's state; the state that KVM is to run. None if there is no room.
    pub(crate) fn enter(
        &mut self,
        state: &CpuState,
        guest: &GuestMemory,
        phys_bits: u8,
    ) -> Option<CpuState> {
        self.copy_top(state, guest)?;
        let selector = self.copy_gdt(state, guest, phys_bits)?;
        self.write_tables(selector);
        Some(self.enter_again(state))
    }

    /// The same if nothing but user-level code has run since.
    pub(crate) fn enter_again(&self, state: &CpuState) -> CpuState {
        let selector = self.gdt_size as u16;
        let mut inside = *state;
        inside.control.cr3 = self.gpa;
        inside.control.cr4 &= !cr4::PCIDE;
        inside.control.efer &= !efer::SCE;
        inside.msrs.lstar = self.linear(page::CODE, SYSCALL);
        inside.msrs.cstar = inside.msrs.lstar;
        // SYSENTER raises #GP.
        inside.msrs.sysenter_cs = 0;
        inside.debug.dr6 = debug::DR6_FIXED;
        inside.general.rflags |= rflags::IF;
        inside.segments.idtr = TableRegister { base: self.linear(page::IDT, 0), limit: 0xfff };
        let gdt_limit = (self.gdt_size + 23) as u16;
        inside.segments.gdtr = TableRegister { base: self.linear(page::GDT, 0), limit: gdt_limit };
        inside.segments.tr = Segment {
            selector: selector + 8,
            base: self.linear(page::CODE, TSS),
            limit: TSS_SIZE as u32 - 1,
            attributes: SegmentAttributes(SegmentAttributes::P | 11),
        };
        inside
    }

    /// Copies the guest's top-level table and takes the last entry of it that is free.
    fn copy_top(&mut self, state: &CpuState, guest: &GuestMemory) -> Option<()> {
        let mut top = [0; PAGE];
        guest.read(GuestPhysAddr(state.control.cr3 & ADDRESS), &mut top).ok()?;
        let free = |entry: &usize| top[entry * 8] & PRESENT as u8 == 0;
        self.entry = (UPPER..ENTRIES).rev().find(free)?;
        let mine = (self.gpa + (page::POINTERS * PAGE) as u64) | ENTRY;
        top[self.entry * 8..][..8].copy_from_slice(&mine.to_le_bytes());
        self.ram().write_slice(page::TOP * PAGE, &top);
        Some(())
    }

    /// Copies the guest's descriptors and adds the island's; the selector of its code.
    fn copy_gdt(&mut self, state: &CpuState, guest: &GuestMemory, phys_bits: u8) -> Option<u16> {
        let TableRegister { base, limit } = state.segments.gdtr;
        let size = (usize::from(limit) + 1).next_multiple_of(8);
        let mut table = vec![0; size];
        let paging = Paging::from_state(&state.control, phys_bits);
        let access = Access { write: false, fetch: false, user: false, ac: true };
        let mut done = 0;
        while done < size {
            let linear = base.wrapping_add(done as u64);
            let step = (PAGE - linear as usize % PAGE).min(size - done);
            let place = probe(&paging, guest, linear, access).ok()?;
            guest.read(GuestPhysAddr(place.gpa), &mut table[done..done + step]).ok()?;
            done += step;
        }
        self.ram().write_slice(page::GDT * PAGE, &table);
        let own = page::GDT * PAGE + size;
        self.ram().store(own, CODE_DESCRIPTOR);
        let tss = self.linear(page::CODE, TSS);
        let low =
            (TSS_SIZE as u64 - 1) | (tss & 0xff_ffff) << 16 | 0x8b << 40 | (tss >> 24 & 0xff) << 56;
        self.ram().store(own + 8, [low, tss >> 32]);
        self.gdt_size = size;
        Some(size as u16)
    }

    fn write_tables(&self, selector: u16) {
        let ram = self.ram();
        let at = |page: usize| self.gpa + (page * PAGE) as u64;
        ram.store(page::POINTERS * PAGE, at(page::DIRECTORY) | ENTRY);
        ram.store(page::DIRECTORY * PAGE, at(page::TABLE) | ENTRY);
        for page in 0..page::COUNT {
            ram.store(page::TABLE * PAGE + 8 * page, at(page) | ENTRY);
        }
        for vector in 0..256 {
            let at = match vector {
                1 => DEBUG,
                3 => BREAKPOINT,
                _ => EXCEPTION,
            };
            let gate = gate(self.linear(page::CODE, at), selector);
            ram.store(page::IDT * PAGE + 16 * vector, gate);
        }
        let tss = page::CODE * PAGE + TSS;
        ram.store(tss + 4, self.stack_top());
        ram.store(tss + TSS_IST1, self.stack_top());
        ram.store(tss + 102, TSS_SIZE as u16);
    }

    /// The frame at the handler's stack pointer.
    pub(crate) fn frame(&self, rsp: u64, port: u16) -> Option<Frame> {
        // With an error code there is a word more.
        let below = self.stack_top().checked_sub(rsp)?;
        let skip = match below {
            40 => 0,
            48 => 8,
            _ => return None,
        };
        let start = page::STACK * PAGE + (rsp as usize + skip) % PAGE;
        let word = |n: usize| self.ram().load::<u64>(start + 8 * n);
        Some(Frame { rip: word(0), rflags: word(2), rsp: word(3), port })
    }

    /// Whether an address is the handler's of SYSCALL, to which a KVM may come that has not left
    /// CPL 3.
    pub(crate) fn is_syscall(&self, rip: u64) -> bool {
        rip == self.linear(page::CODE, SYSCALL)
    }

    /// What of the code inside belongs to the guest's state, which otherwise is as it was.
    pub(crate) fn leave(
        &self,
        before: &CpuState,
        inside: &CpuState,
        frame: Option<Frame>,
    ) -> CpuState {
        let mut state = *before;
        state.general = inside.general;
        if let Some(frame) = frame {
            state.general.rip = frame.rip;
            state.general.rflags = frame.rflags;
            state.general.regs[4] = frame.rsp;
            undo_trap(&mut state, &frame);
        }
        if self.is_syscall(state.general.rip) {
            self.undo_syscall(&mut state);
        }
        // RFLAGS.IF is not a user's to change, and RF is only in the frame.
        let kept = before.general.rflags & rflags::IF;
        let flags = state.general.rflags & rflags::ALL & !(rflags::IF | rflags::RF);
        state.general.rflags = flags | kept | rflags::FIXED;
        for n in [0, 3, 4, 5] {
            state.segments.regs[n] = inside.segments.regs[n];
        }
        state.control.pkru = inside.control.pkru;
        state.x87 = inside.x87;
        state.vector = inside.vector;
        state
    }

    /// SYSCALL has put RIP into RCX and RFLAGS into R11, and does so again.
    fn undo_syscall(&self, state: &mut CpuState) {
        let regs = &state.general.regs;
        state.general.rip = regs[1].wrapping_sub(2);
        state.general.rflags = regs[11];
    }
}

/// A trap comes after its instruction: INT3 is to be met again (INT1 comes before it where islands are
/// of use), and what RFLAGS.TF asks for is still to be delivered.
fn undo_trap(state: &mut CpuState, frame: &Frame) {
    let single_step = frame.rflags & rflags::TF != 0;
    match frame.port {
        DEBUG_PORT if single_step => state.events.pending_debug = debug::DR6_BS,
        BREAKPOINT_PORT => state.general.rip = frame.rip.wrapping_sub(1),
        _ => {}
    }
}
