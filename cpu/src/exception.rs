//! Exceptions: their vectors, error codes, classes, and what two of them in a row make.

use serde::{Deserialize, Serialize};

/// Exception vectors. Intel SDM vol. 3A, table 6-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the manual's mnemonics.
pub enum Vector {
    DE = 0,
    DB = 1,
    NMI = 2,
    BP = 3,
    OF = 4,
    BR = 5,
    UD = 6,
    NM = 7,
    DF = 8,
    TS = 10,
    NP = 11,
    SS = 12,
    GP = 13,
    PF = 14,
    MF = 16,
    AC = 17,
    MC = 18,
    XM = 19,
}

/// Classes that decide what a second exception makes of a first. Intel SDM vol. 3A, table 6-4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Two in a row are handled one after the other.
    Benign,
    /// Two in a row make a double fault.
    Contributory,
    /// A page fault, or a contributory one after it, makes a double fault.
    PageFault,
}

impl Vector {
    /// Whether the exception pushes an error code. Intel SDM vol. 3A, table 6-1.
    #[must_use]
    pub fn has_error_code(self) -> bool {
        use Vector::*;
        matches!(self, DF | TS | NP | SS | GP | PF | AC)
    }

    /// The exception's class. Intel SDM vol. 3A, table 6-4.
    #[must_use]
    pub fn class(self) -> Class {
        use Vector::*;
        match self {
            DE | TS | NP | SS | GP => Class::Contributory,
            PF => Class::PageFault,
            _ => Class::Benign,
        }
    }
}

/// An exception on its way to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Which.
    pub vector: Vector,
    /// The error code, for those vectors that push one.
    pub error_code: Option<u32>,
    /// The linear address that goes to CR2, for #PF.
    pub cr2: Option<u64>,
}

impl Exception {
    /// An exception without error code.
    #[must_use]
    pub const fn plain(vector: Vector) -> Self {
        Self { vector, error_code: None, cr2: None }
    }

    /// An exception with an error code.
    #[must_use]
    pub const fn with_code(vector: Vector, error_code: u32) -> Self {
        Self { vector, error_code: Some(error_code), cr2: None }
    }

    /// A page fault.
    #[must_use]
    pub const fn page_fault(error_code: u32, linear: u64) -> Self {
        Self { vector: Vector::PF, error_code: Some(error_code), cr2: Some(linear) }
    }

    /// #GP(`code`).
    #[must_use]
    pub const fn gp(code: u32) -> Self {
        Self::with_code(Vector::GP, code)
    }

    /// #UD.
    #[must_use]
    pub const fn ud() -> Self {
        Self::plain(Vector::UD)
    }
}

/// What becomes of `second`, raised while `first` was being delivered. Intel SDM vol. 3A, table 6-5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combined {
    /// The second is delivered.
    Second,
    /// A double fault is delivered in place of both.
    DoubleFault,
    /// The CPU shuts down.
    TripleFault,
}

/// What becomes of `second`, raised while `first` was being delivered.
#[must_use]
pub fn combine(first: Vector, second: Vector) -> Combined {
    use Class::{Benign, Contributory, PageFault};
    if first == Vector::DF && second.class() != Benign {
        return Combined::TripleFault;
    }
    match (first.class(), second.class()) {
        (Contributory, Contributory) | (PageFault, Contributory | PageFault) => {
            Combined::DoubleFault
        }
        _ => Combined::Second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_for_a_double_fault_are_those_of_sdm_table_6_5() {
        use Combined::{DoubleFault, Second, TripleFault};
        let table = [
            (Vector::UD, Vector::PF, Second),
            (Vector::UD, Vector::GP, Second),
            (Vector::GP, Vector::UD, Second),
            (Vector::GP, Vector::NP, DoubleFault),
            (Vector::GP, Vector::PF, Second),
            (Vector::PF, Vector::UD, Second),
            (Vector::PF, Vector::GP, DoubleFault),
            (Vector::PF, Vector::PF, DoubleFault),
            (Vector::DF, Vector::GP, TripleFault),
            (Vector::DF, Vector::PF, TripleFault),
            (Vector::DF, Vector::UD, Second),
        ];
        for (first, second, expected) in table {
            assert_eq!(combine(first, second), expected, "{first:?} then {second:?}");
        }
    }
}
