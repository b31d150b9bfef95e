//! Why a kernel cannot be loaded, in words for the user.

use thiserror::Error;
use trivium_memory::MemoryError;

/// Which of the user's inputs an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The kernel image.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// A boot module, counted from 0.
    Module(usize),
    /// The kernel's command line.
    CommandLine,
    /// The size of RAM.
    Ram,
    /// The number of processors.
    Processors,
    /// The settings of SMBIOS fields.
    Smbios,
    /// An ACPI table of the user's, counted from 0.
    AcpiTable(usize),
}

/// Why a kernel cannot be loaded. Each text is one line that names reason and remedy; the caller
/// puts the name of the option or file that [`LoadError::subject`] tells before it.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel image has no bytes.
    #[error("The file is empty; give a Linux bzImage, an ELF kernel or a Multiboot kernel")]
    EmptyKernel,
    /// The initial RAM disk or a module has no bytes.
    #[error("The file is empty; leave the option out to boot without it")]
    EmptyModule(Subject),
    /// The file is no kernel that can be loaded.
    #[error("The file is {found}; {remedy}")]
    NotAKernel {
        /// What it seems to be.
        found: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The kernel is for another kind of computer.
    #[error("The kernel is for {found}; give one for x86 (i386 or x86-64)")]
    WrongArchitecture {
        /// The architecture it is for.
        found: String,
    },
    /// The file ends before what its headers promise.
    #[error(
        "The {what} is cut short: it has {have} bytes of at least {needed}; fetch or build the file again"
    )]
    Truncated {
        /// Which file.
        subject: Subject,
        /// What is cut short.
        what: &'static str,
        /// How long the file is.
        have: u64,
        /// How long it should at least be.
        needed: u64,
    },
    /// A header of the image contradicts itself.
    #[error("The {what}; the file is corrupt: fetch or build it again")]
    Corrupt {
        /// Which file.
        subject: Subject,
        /// What is wrong in it.
        what: &'static str,
    },
    /// The kernel wants something of its loader that there is not.
    #[error("The kernel {what}; {remedy}")]
    Unsupported {
        /// What it wants.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The initial RAM disk has no known form.
    #[error("The file is {found}; give a cpio archive (may be compressed) or a file system image")]
    NotAnInitrd {
        /// What it seems to be.
        found: &'static str,
    },
    /// The kernel takes no modules.
    #[error("Only Multiboot and PVH kernels take modules; give Linux its initial RAM disk instead")]
    ModulesUnsupported,
    /// The command line is longer than the kernel takes.
    #[error("The kernel takes {limit} bytes of command line, not {have}; shorten it")]
    CommandLineTooLong {
        /// How long it is, in bytes.
        have: usize,
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// The command line has a NUL byte.
    #[error("A command line cannot have a NUL byte; leave it out")]
    CommandLineNul,
    /// The kernel and what is loaded with it need more RAM.
    #[error(
        "The {what} needs RAM of at least {needed_mib} MiB, the machine has {have_mib} MiB; give it more"
    )]
    RamTooSmall {
        /// What does not fit.
        what: &'static str,
        /// RAM that would do, in MiB.
        needed_mib: u64,
        /// RAM of the machine, in MiB.
        have_mib: u64,
    },
    /// The kernel wants to lie where no RAM is free.
    #[error(
        "The kernel wants to be loaded at {start:#x}..{end:#x}, which is not free RAM; link it at 1 MiB or above and below the top of RAM"
    )]
    NoRamThere {
        /// First address.
        start: u64,
        /// The address after the last.
        end: u64,
    },
    /// There are too many processors for the space of the ACPI tables.
    #[error("The ACPI tables have no room for so many processors; give the machine fewer")]
    AcpiTooLarge,
    /// The SMBIOS strings do not fit.
    #[error("The tables have {have} bytes, with room for {limit}; give shorter or fewer strings")]
    SmbiosTooLarge {
        /// How large the tables are.
        have: usize,
        /// How large they may be.
        limit: usize,
    },
    /// A user's ACPI table is none.
    #[error("The table {what}; give one as iasl or acpidump -b writes it")]
    BadAcpiTable {
        /// Which table, counted from 0.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The board has no RAM where the layout says there is.
    #[error("Guest memory does not match the machine's layout: {0}")]
    Memory(#[from] MemoryError),
}

impl LoadError {
    /// Which of the user's inputs is to be changed.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::EmptyModule(subject)
            | Self::Truncated { subject, .. }
            | Self::Corrupt { subject, .. } => *subject,
            Self::NotAnInitrd { .. } => Subject::Initrd,
            Self::ModulesUnsupported => Subject::Module(0),
            Self::CommandLineTooLong { .. } | Self::CommandLineNul => Subject::CommandLine,
            Self::RamTooSmall { .. } | Self::Memory(_) => Subject::Ram,
            Self::AcpiTooLarge => Subject::Processors,
            Self::SmbiosTooLarge { .. } => Subject::Smbios,
            Self::BadAcpiTable { index, .. } => Subject::AcpiTable(*index),
            Self::EmptyKernel
            | Self::NotAKernel { .. }
            | Self::WrongArchitecture { .. }
            | Self::Unsupported { .. }
            | Self::NoRamThere { .. } => Subject::Kernel,
        }
    }
}
