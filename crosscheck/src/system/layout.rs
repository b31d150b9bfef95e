//! What the supervisor's memory holds in all cases: descriptors, gates, handlers and stacks.
//!
//! It is mapped to itself: linear addresses are physical ones. Each vector's handler is one HLT.

use trivium_cpu::state::{Segment, SegmentAttributes, TableRegister};
use trivium_cpu::{CpuState, Exit};

use super::image::{Image, SYSTEM};
use super::machine::Ended;

/// The global descriptor table.
pub const GDT: u64 = SYSTEM.start;
/// The interrupt descriptor table.
pub const IDT: u64 = SYSTEM.start + 0x1000;
/// The task-state segment.
pub const TSS: u64 = SYSTEM.start + 0x2000;
/// The handlers, [`HANDLER_SIZE`] bytes each.
pub const HANDLERS: u64 = SYSTEM.start + 0x3000;
/// Bytes from one handler to the next.
pub const HANDLER_SIZE: u64 = 16;
/// Code of the supervisor.
pub const CODE: u64 = SYSTEM.start + 0x4000;
/// Code of the user.
pub const USER_CODE: u64 = SYSTEM.start + 0x5000;
/// The top of the stack on which exceptions are delivered.
pub const HANDLER_STACK: u64 = SYSTEM.start + 0x7000;
/// The top of the supervisor's stack.
pub const STACK: u64 = SYSTEM.start + 0x8000;
/// The top of the user's stack.
pub const USER_STACK: u64 = SYSTEM.start + 0x9000;
/// The local descriptor table.
pub const LDT: u64 = SYSTEM.start + 0xa000;
/// Where the stacks of privilege cases are.
pub const TEST_STACKS: std::ops::Range<u64> = SYSTEM.start + 0xb000..SYSTEM.start + 0x1_0000;
/// The page tables through which the supervisor's memory is reached.
pub const TABLES: u64 = SYSTEM.start + 0x1_0000;
/// Where further page tables are made.
pub const MORE_TABLES: u64 = SYSTEM.start + 0x1_8000;
/// How many there may be.
pub const MORE_TABLES_COUNT: u64 = 16;

/// Selector of the TSS.
pub const TSS_SELECTOR: u16 = 0x70;

/// HLT.
const HLT: u8 = 0xf4;

/// A descriptor of a segment; the attributes as in [`SegmentAttributes`], the limit in their unit.
#[must_use]
pub fn descriptor(base: u64, limit: u64, attributes: u16) -> u64 {
    limit & 0xffff
        | (base & 0xff_ffff) << 16
        | u64::from(attributes) << 40
        | (limit >> 16 & 0xf) << 48
        | (base >> 24 & 0xff) << 56
}

/// The selector of 32-bit code of a privilege level.
#[must_use]
pub fn code32(dpl: u8) -> u16 {
    0x08 + 0x18 * u16::from(dpl) | u16::from(dpl)
}

/// The selector of data of a privilege level.
#[must_use]
pub fn data(dpl: u8) -> u16 {
    0x10 + 0x18 * u16::from(dpl) | u16::from(dpl)
}

/// The selector of 64-bit code of a privilege level.
#[must_use]
pub fn code64(dpl: u8) -> u16 {
    0x18 + 0x18 * u16::from(dpl) | u16::from(dpl)
}

/// A flat segment of a privilege level: its selector and cached descriptor.
#[must_use]
pub fn flat(selector: u16, attributes: u16) -> Segment {
    let attributes = SegmentAttributes(attributes | (selector & 3) << 5);
    Segment { selector, base: 0, limit: u32::MAX, attributes }
}

/// 32-bit code.
pub const CODE32: u16 = 0xc09b;
/// 64-bit code.
pub const CODE64: u16 = 0xa09b;
/// Data.
pub const DATA: u16 = 0xc093;

/// Puts tables and handlers into memory, for long mode or for protected mode.
pub fn write(image: &mut Image, long: bool) {
    for dpl in 0..4 {
        let entries = [(code32(dpl), CODE32), (data(dpl), DATA), (code64(dpl), CODE64)];
        for (selector, attributes) in entries {
            let entry = descriptor(0, 0xf_ffff, attributes | u16::from(dpl) << 5);
            image.put_number(GDT + u64::from(selector & !7), entry, 8);
        }
    }
    image.put_number(GDT + u64::from(TSS_SELECTOR), descriptor(TSS, 0x67, 0x8b), 8);
    for vector in 0..32 {
        let handler = HANDLERS + HANDLER_SIZE * vector;
        image.put(handler, &[HLT]);
        // INT3 ends a program at any privilege level.
        let dpl = if vector == 3 { 3 } else { 0 };
        let (size, selector, ist) = if long { (16, code64(0), 1) } else { (8, code32(0), 0) };
        let gate = handler & 0xffff
            | u64::from(selector) << 16
            | ist << 32
            | (0x8e | dpl << 5) << 40
            | (handler >> 16 & 0xffff) << 48;
        image.put_number(IDT + size * vector, gate, 8);
    }
    if long {
        image.put_number(TSS + 4, HANDLER_STACK, 8);
        image.put_number(TSS + 0x24, HANDLER_STACK, 8);
    } else {
        image.put_number(TSS + 4, HANDLER_STACK, 4);
        image.put_number(TSS + 8, u64::from(data(0)), 2);
    }
}

/// Sets the table registers and the task register.
pub fn set_tables(state: &mut CpuState) {
    state.segments.gdtr = TableRegister { base: GDT, limit: 0x7f };
    state.segments.idtr = TableRegister { base: IDT, limit: 0x1ff };
    state.segments.tr = Segment {
        selector: TSS_SELECTOR,
        base: TSS,
        limit: 0x67,
        attributes: SegmentAttributes(0x8b),
    };
}

/// What ended a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// An exception.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code, or zero.
        error: u32,
        /// CR2, if it was a page fault, or zero.
        cr2: u64,
        /// The saved RIP.
        rip: u64,
    },
    /// The CPU shut down.
    Shutdown,
    /// It came back for another reason.
    Lost(Exit),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Exception { vector, error, cr2, rip } => {
                write!(f, "vector {vector}, error code {error:#x}, CR2 {cr2:#x}, RIP {rip:#x}")
            }
            Self::Shutdown => write!(f, "shutdown"),
            Self::Lost(exit) => write!(f, "lost: {exit:?}"),
        }
    }
}

/// What an exception has saved on the handler's stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// CS.
    pub cs: u16,
    /// RFLAGS.
    pub rflags: u64,
    /// RSP.
    pub rsp: u64,
    /// SS; that of the handler if the stack was not switched.
    pub ss: u16,
}

/// What ended a run, and if it was an exception, what has been saved of the interrupted program.
#[must_use]
pub fn stopped(ended: &Ended, image: &Image, long: bool) -> (Stop, Frame) {
    let state = &ended.state;
    let handler = state.general.rip.wrapping_sub(HANDLERS);
    let halted = ended.exit == Exit::Halted
        && handler < HANDLER_SIZE * 32
        && handler % HANDLER_SIZE == 1
        && state.segments.cpl == 0;
    let mut rsp = state.general.regs[4];
    let stop = match ended.exit {
        Exit::Shutdown => Stop::Shutdown,
        exit if !halted => Stop::Lost(exit),
        _ => {
            let vector = (handler / HANDLER_SIZE) as u8;
            let size = if long { 8 } else { 4 };
            let mut error = 0;
            if matches!(vector, 8 | 10..=14 | 17) {
                error = image.get(rsp, 4) as u32;
                rsp += size;
            }
            let cr2 = if vector == 14 { state.control.cr2 } else { 0 };
            Stop::Exception { vector, error, cr2, rip: image.get(rsp, size) }
        }
    };
    (stop, frame(ended, image, long, rsp))
}

fn frame(ended: &Ended, image: &Image, long: bool, at: u64) -> Frame {
    let size = if long { 8 } else { 4 };
    let word = |n| image.get(at + size * n, size);
    let cs = word(1) as u16;
    let switched = long || cs & 3 != 0;
    let (rsp, ss) = if switched {
        (word(3), word(4) as u16)
    } else {
        (at + 3 * size, ended.state.segments.regs[trivium_cpu::state::SS].selector)
    };
    Frame { cs, rflags: word(2), rsp, ss }
}
