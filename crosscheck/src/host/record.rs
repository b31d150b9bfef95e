//! How a case lies in shared memory for the child, and an outcome for the parent: offsets.
//!
//! A case's record is a header, a signal frame through which `rt_sigreturn` enters the case, its
//! XSAVE image, lines of memory, and calls of `modify_ldt`. An outcome's record is a header, the
//! context and XSAVE image of the signal frame that ended it, and lines of memory.
//! Frames: Linux, arch/x86/include/uapi/asm/sigcontext.h and ucontext.h.

/// Fields of a case's record.
pub(super) mod case {
    /// Bytes of the whole record.
    pub const SIZE: usize = 0;
    /// Lines of memory to write.
    pub const LINE_COUNT: usize = 8;
    /// Offset of the first.
    pub const LINES: usize = 16;
    /// Calls of `modify_ldt` to make.
    pub const LDT_COUNT: usize = 24;
    /// Offset of the first's `user_desc`.
    pub const LDT: usize = 32;
    /// Selectors: ES, DS, FS, GS.
    pub const SELECTORS: usize = 40;
    /// Bases of FS and GS.
    pub const BASES: usize = 48;
    /// RFLAGS that `rt_sigreturn` leaves alone.
    pub const FLAGS: usize = 64;
    /// A number that the outcome has too, so that no other's is taken for it.
    pub const TAG: usize = 72;
    /// The frame: a return address that nobody uses, then the `ucontext`.
    pub const FRAME: usize = 80;
    /// The XSAVE image, aligned.
    pub const XSAVE: usize = 448;
}

/// Offsets in a `ucontext`.
pub(super) mod ucontext {
    /// `uc_flags`.
    pub const FLAGS: usize = 0;
    /// `uc_stack`: address, flags, size.
    pub const STACK: usize = 16;
    /// `uc_mcontext`, a `sigcontext`.
    pub const CONTEXT: usize = 40;
    /// `uc_sigmask`.
    pub const MASK: usize = 296;
}

/// Offsets in a `sigcontext`.
pub(super) mod context {
    /// R8 to R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP: numbers of the registers.
    pub const ORDER: [usize; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1, 4];
    /// RIP.
    pub const RIP: usize = 128;
    /// RFLAGS.
    pub const RFLAGS: usize = 136;
    /// CS, of 16 bits.
    pub const CS: usize = 144;
    /// SS, of 16 bits.
    pub const SS: usize = 150;
    /// The exception's error code.
    pub const ERROR: usize = 152;
    /// Its vector.
    pub const VECTOR: usize = 160;
    /// CR2.
    pub const CR2: usize = 176;
    /// Address of the XSAVE image.
    pub const XSAVE: usize = 184;
    /// All of it.
    pub const SIZE: usize = 256;
}

/// Fields of an outcome's record.
pub(super) mod outcome {
    /// Bytes of the whole record.
    pub const SIZE: usize = 0;
    /// Offset of the end of the lines.
    pub const LINES_END: usize = 8;
    /// ES, DS, FS, GS.
    pub const SELECTORS: usize = 16;
    /// Bases of FS and GS.
    pub const BASES: usize = 24;
    /// The case's number.
    pub const TAG: usize = 40;
    /// The beginning of `siginfo`: number, error, code; and for SIGSYS where, what, which kind.
    pub const INFO: usize = 48;
    /// The `sigcontext`.
    pub const CONTEXT: usize = 80;
    /// The XSAVE image; the lines are behind it.
    pub const XSAVE: usize = 384;
}

/// Bytes of a line's entry: its offset in the regions, then its bytes.
pub(super) const LINE_ENTRY: usize = 8 + super::arena::LINE;
/// Bytes of a `user_desc`, which `modify_ldt` takes.
pub(super) const LDT_ENTRY: usize = 16;
