//! The MXCSR register: control bits, sticky flags and when #XM is due (Intel SDM vol. 1, 10.2.3).

/// A guest's MXCSR value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mxcsr(pub u32);

impl Mxcsr {
    /// Invalid operation flag.
    pub const IE: u32 = 1 << 0;
    /// Denormal operand flag.
    pub const DE: u32 = 1 << 1;
    /// Divide by zero flag.
    pub const ZE: u32 = 1 << 2;
    /// Overflow flag.
    pub const OE: u32 = 1 << 3;
    /// Underflow flag.
    pub const UE: u32 = 1 << 4;
    /// Precision (inexact) flag.
    pub const PE: u32 = 1 << 5;
    /// All six exception flags.
    pub const FLAGS: u32 = 0x3f;
    /// Denormals are zeros.
    pub const DAZ: u32 = 1 << 6;
    /// The underflow mask.
    pub const UM: u32 = 1 << 11;
    /// All six exception masks.
    pub const MASKS: u32 = 0x1f80;
    /// Rounding control: two bits, 0 nearest, 1 down, 2 up, 3 towards zero.
    pub const RC: u32 = 3 << 13;
    /// Position of [`Mxcsr::RC`].
    pub const RC_SHIFT: u32 = 13;
    /// Rounding to nearest, to even.
    pub const NEAREST: u32 = 0;
    /// Rounding down.
    pub const DOWN: u32 = 1;
    /// Rounding up.
    pub const UP: u32 = 2;
    /// Flush to zero.
    pub const FTZ: u32 = 1 << 15;
    /// The value after power-up or reset: everything masked, round to nearest.
    pub const RESET: Mxcsr = Mxcsr(Self::MASKS);

    /// Position of the masks relative to the flags.
    const MASK_SHIFT: u32 = 7;
    /// Exceptions found before the operation is computed; if one of them is unmasked, those found
    /// afterwards are not reported (SDM vol. 1, 11.5.3 and 4.9.2).
    const PRE_COMPUTATION: u32 = Self::IE | Self::DE | Self::ZE;

    /// Whether control and masks are those of [`Mxcsr::RESET`], whatever the flags.
    #[inline(always)]
    pub const fn is_default(self) -> bool {
        self.0 & 0xffff & !Self::FLAGS == Self::MASKS
    }

    /// The rounding mode: [`Mxcsr::NEAREST`], [`Mxcsr::DOWN`], [`Mxcsr::UP`] or 3, towards zero.
    #[inline(always)]
    pub const fn rounding(self) -> u32 {
        self.0 >> Self::RC_SHIFT & 3
    }

    /// The flags of the exceptions that are not masked.
    #[inline(always)]
    pub const fn unmasked(self) -> u32 {
        !(self.0 >> Self::MASK_SHIFT) & Self::FLAGS
    }

    /// Where the flags of an instruction's earlier steps are, of which none is unmasked.
    const EARLIER_SHIFT: u32 = 8;

    /// The flags of an instruction that takes several steps, after another one that raised `flags`.
    /// What its last step hides does not hide what earlier ones raised.
    #[inline(always)]
    pub const fn after(earlier: u32, flags: u32) -> u32 {
        let earlier = (earlier | earlier >> Self::EARLIER_SHIFT) & Self::FLAGS;
        flags | earlier << Self::EARLIER_SHIFT
    }

    /// Adds the flags that an operation raised. The second value says whether one of them is
    /// unmasked, so that #XM (or #UD without CR4.OSXMMEXCPT) is due and the destination is kept.
    #[inline(always)]
    pub const fn raise(self, flags: u32) -> (Mxcsr, bool) {
        let unmasked = flags & self.unmasked();
        let earlier = flags >> Self::EARLIER_SHIFT & Self::FLAGS;
        let flags = flags & Self::FLAGS;
        if unmasked == 0 {
            return (Mxcsr(self.0 | earlier | flags), false);
        }
        let reported =
            if unmasked & Self::PRE_COMPUTATION != 0 { Self::PRE_COMPUTATION } else { Self::FLAGS };
        (Mxcsr(self.0 | earlier | (flags & reported)), true)
    }
}
