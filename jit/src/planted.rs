//! Bugs to plant in what is emitted, so that a test can show that they are found. Only in builds
//! with the feature `planted-bugs`, and only in threads that ask for one.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A base register that is in memory is taken from its neighbour's place.
    WrongPlace,
    /// The lookup of an address changes flags.
    FlagsClobbered,
    /// A result of 32 bits leaves the upper half of a register in memory as it was.
    NoZeroExtension,
    /// Jumps to a block stay when it is dropped.
    StaleJumps,
    /// Stores are looked up among the translations for loads, so they reach code and what may not
    /// be written.
    StoresByLoads,
    /// A block counts as one instruction more than it has.
    WrongCount,
    /// An access is looked up by its first byte alone.
    NoLastByte,
    /// AH to BH are taken for AL to BL.
    HighByteMixedUp,
    /// PUSH moves the stack pointer before it is known that it can store.
    PushMovesFirst,
    /// OF is not taken into translated code.
    NoOverflow,
    /// RET does not drop what its immediate says.
    RetDropsNothing,
    /// An access finds its remembered translation by the page that it ends on.
    PageForWindow,
    /// The window of a remembered translation reaches to the page's end, whatever the size is.
    WindowToTheEnd,
    /// A remembered translation is kept when the TLB loses any.
    KeptTranslations,
    /// What a superblock's way out has not run is not given back to the quantum.
    NoRefund,
    /// Registers are not brought home at a superblock's way out.
    NotBroughtHome,
    /// A superblock does not look where a return within it goes.
    ReturnNotCompared,
    /// A superblock has no guards within.
    NoGuardsWithin,
    /// A superblock is kept when one of its blocks is dropped.
    KeptSuperblock,
    /// A block that has the number of an earlier one is not told who jumps to it.
    NumberTaken,
    /// The x87 unit's last operand is noted where its span begins.
    OperandBySpan,
    /// R9 is taken for the translation of another span than the one that it is of.
    HeldMixedUp,
    /// An address of 16 bits does not wrap.
    OffsetNotCut,
    /// No limit of a segment is looked at.
    NoLimits,
    /// A segment has the base of its neighbour.
    NeighboursBase,
    /// Moving a stack pointer of 16 bits changes the rest of it.
    WholeStackPointer,
}

/// Those that random code finds.
pub const BUGS: &[Bug] = &[
    Bug::WrongPlace,
    Bug::FlagsClobbered,
    Bug::NoZeroExtension,
    Bug::StaleJumps,
    Bug::StoresByLoads,
    Bug::WrongCount,
    Bug::NoLastByte,
    Bug::HighByteMixedUp,
    Bug::PushMovesFirst,
    Bug::NoOverflow,
    Bug::RetDropsNothing,
];

/// The same of 16-bit and segmented code.
pub const SEGMENT_BUGS: &[Bug] =
    &[Bug::OffsetNotCut, Bug::NoLimits, Bug::NeighboursBase, Bug::WholeStackPointer];

/// Those of superblocks, and of what hardly comes but with them.
pub const SUPERBLOCK_BUGS: &[Bug] = &[
    Bug::PageForWindow,
    Bug::WindowToTheEnd,
    Bug::KeptTranslations,
    Bug::NoRefund,
    Bug::NotBroughtHome,
    Bug::ReturnNotCompared,
    Bug::NoGuardsWithin,
    Bug::KeptSuperblock,
    Bug::NumberTaken,
    Bug::OperandBySpan,
    Bug::HeldMixedUp,
];

#[cfg(feature = "planted-bugs")]
mod here {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in all that this thread translates from now on, or takes it out.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub(crate) use here::has;
#[cfg(feature = "planted-bugs")]
pub use here::plant;

/// Whether this bug is planted.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn has(_: Bug) -> bool {
    false
}
