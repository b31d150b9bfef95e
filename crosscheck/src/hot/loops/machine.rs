//! What loops run in: a mode, memory that is mapped page by page, handlers that set right what
//! faults.

use iced_x86::{Code, Instruction, MemoryOperand, Register};
use trivium_cpu::CpuState;
use trivium_cpu::bits::rflags;
use trivium_cpu::state::CS;
use trivium_memory::{GuestMemory, GuestPhysAddr};

use super::assemble::Assembly;
use super::body::register;
use super::choices::Choices;
use super::program::Program;
use crate::anything;
use crate::hot::platform::Platform;
use crate::hot::side::{NARROW_TABLE, WIDE_TABLE};

/// Pages of code, from here on, and of its other version.
pub(super) const CODE: u64 = 0x4_0000;
pub(super) const CODE_SIZE: u64 = 0x1_0000;
/// The bit of an address in which a page and its other version differ.
pub(super) const OTHER: u64 = 0x1_0000;
/// The pages of the stack; and where it is at the beginning: near the end of one.
const STACKS_AT: u64 = 0x6_0000;
pub(super) const STACK: u64 = STACKS_AT + 0x800c;
/// Pages of data.
pub(super) const DATA: u64 = 0x8_0000;
pub(super) const DATA_SIZE: u64 = 0x1_0000;
/// What [`ASK`]'s handler is to do: where it is to put a number, the number, and the page that the
/// TLB is to drop, or 0 for all.
pub(super) const WISH: u64 = 0x1_3000;
/// The vector of the handler that does it.
pub(super) const ASK: u8 = 0x90;

const HANDLERS: u64 = 0x1000;
const IDT: u64 = 0x3000;
const TSS: u64 = 0x4000;
const STACKS: [u64; 2] = [0x7000, 0x6000];
const PAGE_FAULT: u64 = 14;
const DOUBLE_FAULT: u64 = 8;
/// Exceptions with an error code.
const WITH_CODE: [u64; 8] = [DOUBLE_FAULT, 10, 11, 12, 13, PAGE_FAULT, 17, 21];

/// The kind of code, and what it may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// As [`anything`] counts modes.
    pub(super) mode: u8,
    /// It is 64-bit code.
    pub(super) wide: bool,
    /// The processor is in long mode.
    long: bool,
    pub(super) is_kernel: bool,
    /// Entries of page tables have 32 bits.
    narrow: bool,
}

const KINDS: [Kind; 5] = [
    Kind { mode: 7, wide: true, long: true, is_kernel: true, narrow: false },
    Kind { mode: 8, wide: true, long: true, is_kernel: false, narrow: false },
    Kind { mode: 9, wide: false, long: true, is_kernel: false, narrow: false },
    Kind { mode: 5, wide: false, long: false, is_kernel: true, narrow: false },
    Kind { mode: 4, wide: false, long: false, is_kernel: false, narrow: true },
];

impl Kind {
    pub(super) fn choose(choices: &mut Choices<'_>) -> Self {
        KINDS[choices.pick(&[0, 0, 0, 0, 1, 1, 2, 3, 3, 4])]
    }

    /// Where the page-table entry of a page is.
    pub(super) fn entry(self, page: u64) -> u64 {
        if self.narrow { NARROW_TABLE + 4 * (page >> 12) } else { WIDE_TABLE + 8 * (page >> 12) }
    }

    /// Whether the stack's pages may be taken away: a fault is then not handled on it.
    pub(super) fn stack_may_fault(self) -> bool {
        self.long || !self.is_kernel
    }

    /// Selectors of CS and of the other segments.
    fn selectors(self) -> (u16, u16) {
        match (self.wide, self.is_kernel) {
            (true, true) => (9 * 8, 6 * 8),
            (true, false) => (10 * 8 | 3, 8 * 8 | 3),
            (false, true) => (5 * 8, 6 * 8),
            (false, false) => (7 * 8 | 3, 8 * 8 | 3),
        }
    }
}

/// Puts a program, its data and all that it needs into memory.
pub(super) fn furnish(memory: &GuestMemory, kind: Kind, program: &Program, seed: u64) {
    let put = |at: u64, bytes: &[u8]| {
        // All of it lies in RAM.
        let _ = memory.write(GuestPhysAddr(at), bytes);
    };
    for (at, bytes) in &program.sections {
        put(*at, bytes);
        put(at ^ OTHER, bytes);
    }
    // Neighbours are not neighbours in RAM.
    for region in [CODE, STACKS_AT, DATA] {
        for page in (region..region + OTHER).step_by(0x2000).map(|page| page + 0x1000) {
            put(kind.entry(page), &((page ^ OTHER) as u32 | 7).to_le_bytes());
        }
    }
    for spot in &program.spots {
        put(spot ^ OTHER, &[0x33]);
    }
    let mut random = crate::hot::Random(seed | 1);
    for at in (DATA..DATA + 2 * DATA_SIZE).step_by(8) {
        put(at, &random.any().wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    let handlers = handlers(kind, program.start);
    for (at, bytes) in &handlers.sections {
        put(*at, bytes);
    }
    let selector = if kind.long { 9 * 8 } else { 5 * 8 };
    for vector in 0..256 {
        let handler = match vector {
            PAGE_FAULT => handlers.page_fault,
            1 => handlers.debug,
            _ if WITH_CODE.contains(&vector) => handlers.again_with_code,
            0..0x20 => handlers.again,
            _ if vector == u64::from(ASK) => handlers.ask,
            _ => handlers.nothing,
        };
        // An interrupt gate for all; in long mode, faults have a stack of their own.
        let stack = u64::from(kind.long && [PAGE_FAULT, DOUBLE_FAULT].contains(&vector));
        let gate = handler | selector << 16 | stack << 32 | 0xee << 40;
        let size = if kind.long { 16 } else { 8 };
        put(IDT + size * vector, &gate.to_le_bytes());
    }
    if kind.long {
        put(TSS + 4, &STACKS[0].to_le_bytes());
        put(TSS + 0x24, &STACKS[1].to_le_bytes());
    } else {
        put(TSS + 4, &(STACKS[0] | (6 * 8) << 32).to_le_bytes());
    }
}

struct Handlers {
    sections: Vec<(u64, Vec<u8>)>,
    page_fault: u64,
    debug: u64,
    nothing: u64,
    again: u64,
    again_with_code: u64,
    ask: u64,
}

fn handlers(kind: Kind, start: u64) -> Handlers {
    let long = kind.long;
    let word = if long { 8 } else { 4 };
    let mut asm = Assembly::new(if long { 64 } else { 32 });
    asm.section(HANDLERS);
    let labels @ [page_fault, debug, nothing, again, again_with_code, ask] =
        [(); 6].map(|()| asm.label());
    let (eax, ebx) = (register(0, 4), register(3, 4));
    let (rax, rbx, rsp) = (register(0, word), register(3, word), register(4, word));
    let pick = |narrow: Code, wide: Code| if long { wide } else { narrow };
    let (push, pop) = (pick(Code::Push_r32, Code::Push_r64), pick(Code::Pop_r32, Code::Pop_r64));
    let get = pick(Code::Mov_r32_cr, Code::Mov_r64_cr);
    let set = pick(Code::Mov_cr_r32, Code::Mov_cr_r64);
    let iret = Instruction::with(pick(Code::Iretd, Code::Iretq));
    let none = Register::None;
    let absolute = |at: u64| MemoryOperand::new(none, none, 1, at as i64, word.into(), false, none);
    let jumps = [
        pick(Code::Jae_rel32_32, Code::Jae_rel32_64),
        pick(Code::Je_rel32_32, Code::Je_rel32_64),
        pick(Code::Jmp_rel32_32, Code::Jmp_rel32_64),
    ];
    let [elsewhere, all, done] = [(); 3].map(|()| asm.label());

    // The page becomes what it was at the beginning, and the instruction is done again.
    asm.put(page_fault);
    asm.add(Instruction::with1(push, rax));
    asm.add(Instruction::with1(push, rbx));
    asm.add(Instruction::with2(get, rax, Register::CR2));
    let cmp = pick(Code::Cmp_rm32_imm32, Code::Cmp_rm64_imm32);
    asm.add(Instruction::with2(cmp, rax, anything::RAM as i32));
    asm.branch(jumps[0], elsewhere);
    asm.add(Instruction::with2(Code::Mov_r32_rm32, ebx, eax));
    asm.add(Instruction::with2(Code::Shr_rm32_imm8, ebx, 12));
    asm.add(Instruction::with2(Code::And_rm32_imm32, eax, !0xfff));
    asm.add(Instruction::with2(Code::Or_rm32_imm32, eax, 7));
    let (table, scale) = if kind.narrow { (NARROW_TABLE, 4) } else { (WIDE_TABLE, 8) };
    let entry = MemoryOperand::new(none, rbx, scale, table as i64, word.into(), false, none);
    asm.add(Instruction::with2(Code::Mov_rm32_r32, entry, eax));
    asm.add(Instruction::with1(Code::Invlpg_m, MemoryOperand::with_base(rax)));
    asm.add(Instruction::with1(pop, rbx));
    asm.add(Instruction::with1(pop, rax));
    let lea = pick(Code::Lea_r32_m, Code::Lea_r64_m);
    asm.add(Instruction::with2(lea, rsp, MemoryOperand::with_base_displ(rsp, word.into())));
    asm.add(Ok(iret));
    asm.put(elsewhere);
    asm.add(Instruction::with1(pop, rbx));
    asm.add(Instruction::with1(pop, rax));

    // The program begins again.
    asm.put(again_with_code);
    asm.add(Instruction::with2(lea, rsp, MemoryOperand::with_base_displ(rsp, word.into())));
    asm.put(again);
    let store = pick(Code::Mov_rm32_imm32, Code::Mov_rm64_imm32);
    asm.add(Instruction::with2(store, MemoryOperand::with_base(rsp), start as i32));
    asm.add(Ok(iret));

    // One step is enough.
    asm.put(debug);
    let flags = MemoryOperand::with_base_displ(rsp, 2 * i64::from(word));
    asm.add(Instruction::with2(Code::And_rm32_imm32, flags, !0x100));
    asm.put(nothing);
    asm.add(Ok(iret));

    asm.put(ask);
    asm.add(Instruction::with1(push, rax));
    asm.add(Instruction::with1(push, rbx));
    asm.add(Instruction::with2(Code::Mov_r32_rm32, eax, absolute(WISH)));
    asm.add(Instruction::with2(Code::Mov_r32_rm32, ebx, absolute(WISH + 8)));
    asm.add(Instruction::with2(Code::Mov_rm32_r32, MemoryOperand::with_base(rax), ebx));
    asm.add(Instruction::with2(Code::Mov_r32_rm32, eax, absolute(WISH + 16)));
    asm.add(Instruction::with2(Code::Test_rm32_r32, eax, eax));
    asm.branch(jumps[1], all);
    asm.add(Instruction::with1(Code::Invlpg_m, MemoryOperand::with_base(rax)));
    asm.branch(jumps[2], done);
    asm.put(all);
    asm.add(Instruction::with2(get, rax, Register::CR3));
    asm.add(Instruction::with2(set, Register::CR3, rax));
    asm.put(done);
    asm.add(Instruction::with1(pop, rbx));
    asm.add(Instruction::with1(pop, rax));
    asm.add(Ok(iret));

    let assembled = asm.finish();
    let [page_fault, debug, nothing, again, again_with_code, ask] =
        labels.map(|label| assembled.address(label));
    let sections = assembled.sections;
    Handlers { sections, page_fault, debug, nothing, again, again_with_code, ask }
}

/// The state that a program begins in.
pub(super) fn state(kind: Kind, program: &Program, seed: u64, platform: &Platform) -> CpuState {
    let head = [kind.mode, 0, 0, 0, 1, 0, 0, 0];
    let mut state = anything::initial_state(&head, platform);
    let mut random = crate::hot::Random(seed.rotate_left(32) | 1);
    state.general.rip = program.start;
    state.general.rflags = rflags::FIXED | rflags::IF;
    for register in &mut state.general.regs {
        *register = random.any();
        if !kind.wide {
            *register &= 0xffff_ffff;
        }
    }
    for part in state.vector.regs.iter_mut().flatten() {
        *part = random.any().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (state.x87.control, state.x87.tags) = (0x37f, 0xffff);
    state.general.regs[4] = STACK;
    let (code, data) = kind.selectors();
    for (number, segment) in state.segments.regs.iter_mut().enumerate() {
        segment.selector = if number == CS { code } else { data };
    }
    state.segments.regs[4].base = DATA + 0x1ff0 + random.below(32);
    state.segments.regs[5].base = DATA + 0x3f80 + random.below(0x100);
    state
}
