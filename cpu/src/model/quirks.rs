//! What the vendors' processors do differently, where one manual says otherwise than the other or
//! leaves it open. A model's vendor decides; nothing else asks for the vendor's name.

use super::Vendor::{self, Amd, Intel};

/// A quirk in the table.
#[derive(Debug, Clone, Copy)]
pub struct QuirkInfo {
    /// The quirk.
    pub quirk: Quirk,
    /// Whose processors have it.
    pub vendor: Vendor,
    /// What they do, beside what the other vendor's do.
    pub what: &'static str,
    /// Where that is written, or how it is known.
    pub source: &'static str,
}

macro_rules! quirks {
    ($($name:ident $vendor:ident $what:literal $source:literal;)*) => {
        /// Something that only one vendor's processors do; the table of quirks says what.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Quirk {
            $(#[doc = $what] $name,)*
        }

        /// All quirks, in the order of [`Quirk`].
        pub const QUIRKS: &[QuirkInfo] = &[$(QuirkInfo {
            quirk: Quirk::$name,
            vendor: $vendor,
            what: $what,
            source: $source,
        },)*];
    };
}

quirks! {
    SyscallInAllProtectedModes Amd
        "SYSCALL and SYSRET work in compatibility and legacy protected mode too; elsewhere they raise #UD there."
        "APM vol. 3, SYSCALL; SDM vol. 2, SYSCALL";
    SysenterInLongMode Intel
        "SYSENTER and SYSEXIT work in long mode; elsewhere they raise #UD there."
        "SDM vol. 2, SYSENTER; APM vol. 3, SYSENTER";
    SysretChecksAddress Intel
        "SYSRET to an address that is not canonical raises #GP at CPL 0; elsewhere the fetch at CPL 3 faults."
        "SDM vol. 2, SYSRET; APM vol. 3, SYSRET";
    SysretKeepsStackAttributes Amd
        "SYSRET sets the selector of SS and keeps base, limit and attributes; elsewhere it makes SS flat."
        "APM vol. 3, SYSRET; SDM vol. 2, SYSRET";
    SysexitChecksPrivilegeFirst Amd
        "SYSEXIT at CPL above 0 raises #GP where it would raise #UD at CPL 0."
        "seen on a Zen 5";
    NullSelectorKeepsBase Amd
        "Loading a null selector leaves the hidden base and limit as they are, unless CPUID tells of NullSelectorClearsBase; elsewhere it clears them."
        "APM vol. 2, 4.5.2; vol. 3, E.4";
    PushSegmentWritesWord Intel
        "PUSH of a segment register with 32-bit operands writes two bytes of the slot; elsewhere all four."
        "SDM vol. 2, PUSH; APM vol. 3, PUSH";
    CmpxchgAlwaysWrites Intel
        "CMPXCHG writes its destination back when the comparison fails, which clears the upper half of a 64-bit register; elsewhere the register stays as it is."
        "SDM vol. 2, CMPXCHG; seen on a Zen 5";
    LoopByRepeatPrefix Amd
        "A repeat prefix decides between LOOPE and LOOPNE; elsewhere the opcode does."
        "seen on a Zen 5";
    MovsxdReadsDoubleword Amd
        "MOVSXD with 16-bit operands reads four bytes of memory; elsewhere two."
        "seen on a Zen 5; SDM vol. 2, MOVSXD";
    PrefetchOfRegisterUndefined Amd
        "0F 0D with a register operand raises #UD; elsewhere it does nothing."
        "APM vol. 3, PREFETCH; SDM vol. 2, table A-6";
    OperandSizeOfNearBranches Amd
        "The operand-size prefix makes near branches of 64-bit code 16 bits wide; elsewhere it is ignored. Far pointers have no 64-bit offset, LOCK MOV CR0 means CR8, and UD0 has no operands."
        "APM vol. 3, 1.2.1, MOV (CRn), JMP (far), UD0; SDM vol. 1, 3.6.1";
    FarCallPushesInNewMode Amd
        "CALL to a code segment of another mode pushes with the stack addresses of that mode; elsewhere with those of its own."
        "APM vol. 3, CALL (Far); seen on a Zen 5; SDM vol. 2, CALL";
    WideElementsUndefined Amd
        "VPINSRD and VPEXTRD with VEX.W set raise #UD outside of 64-bit code; elsewhere VEX.W is ignored there."
        "seen on a Zen 5; SDM vol. 2, VPINSRD, VPEXTRD";
    OuterStackReadFirst Amd
        "IRET and RETF to an outer level read SS:ESP before they look at the code segment."
        "APM vol. 3, IRET and RETF; seen on a Zen 5";
    OuterStackCheckedFirst Intel
        "IRET and RETF to an outer level check SS and its segment before RIP; elsewhere after."
        "SDM vol. 2, RET and IRET; APM vol. 3, IRET and RETF";
    FaultedRepeatKeepsFlags Intel
        "A fault in the middle of a repeated CMPS or SCAS shows the flags of before the instruction; elsewhere those of the last comparison."
        "SDM vol. 2, REP; seen on a Zen 5";
    RepeatedIoAsksFirst Amd
        "A repeated INS or OUTS checks the permission of its port even if its count is zero; elsewhere it does nothing then."
        "seen on a Zen 5; SDM vol. 2, REP";
    FcomiKeepsC1 Amd
        "FCOMI and its like leave C1 as it is unless a register is empty; elsewhere they clear it."
        "seen on a Zen 5; SDM vol. 2, FCOMI";
    PointersOfPendingExceptions Amd
        "FXSAVE and XSAVE save the x87 pointers and opcode only while an unmasked exception is pending, otherwise zeros if CPUID tells of RstrFpErrPtrs and nothing if it does not, and FXRSTOR and XRSTOR then do not restore them; elsewhere always."
        "APM vol. 2, 11.4.4, and vol. 3, E.4.7; seen on a Zen 5";
    PointersHave57Bits Amd
        "FXRSTOR and XRSTOR with REX.W extend the x87 pointers by sign from 57 bits; elsewhere they take all 64."
        "seen on a Zen 5; SDM vol. 1, 8.1.8";
    DebugRegisterPrivilegeFirst Amd
        "MOV of a debug register at CPL above 0 raises #GP even where DR4 or DR5 would raise #UD."
        "APM vol. 3, MOV (DRn); SDM vol. 2, MOV (debug registers)";
    DebugTrapClearsRf Amd
        "#DB between the iterations of a repeated string instruction pushes RFLAGS.RF as 0; elsewhere as 1."
        "seen on a Zen 5; SDM vol. 3B, 18.3.1.1";
    Pml4Bit8Reserved Amd
        "Bit 8 of page-table entries above the second level that map no page must be zero; elsewhere it is ignored."
        "APM vol. 2, 5.3.3; SDM vol. 3A, table 4-15";
    MsrUpperHalfDropped Amd
        "32-bit MSRs drop the upper half of what is written; elsewhere it must be zero."
        "APM vol. 2, A.2; SDM vol. 4";
    CpuidZeroBeyondEnd Amd
        "CPUID answers zeros to leaves beyond the highest; elsewhere as to the highest basic leaf."
        "APM vol. 3, CPUID; SDM vol. 2, CPUID";
    LongModeWantsWideTss Intel
        "Setting CR0.PG with EFER.LME while TR holds a 16-bit TSS raises #GP; elsewhere it is not looked at."
        "SDM vol. 2, MOV (control registers); APM vol. 2, 14.6.1";
    SyscallBitIn64BitCode Intel
        "CPUID 8000_0001h shows SYSCALL in EDX to 64-bit code alone; elsewhere always."
        "SDM vol. 2, CPUID";
}

impl Quirk {
    /// The quirk's line in the table.
    #[must_use]
    pub const fn info(self) -> &'static QuirkInfo {
        // The table is in the order of the enumeration: both come out of one macro.
        &QUIRKS[self as usize]
    }
}

impl Vendor {
    /// Whether this vendor's processors have the quirk.
    #[inline]
    #[must_use]
    pub const fn has(self, quirk: Quirk) -> bool {
        self as u8 == quirk.info().vendor as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quirk_is_one_vendors_alone() {
        for info in QUIRKS {
            let other = if info.vendor == Amd { Intel } else { Amd };
            assert!(info.vendor.has(info.quirk) && !other.has(info.quirk), "{:?}", info.quirk);
            assert_eq!(info.quirk.info().what, info.what);
        }
        assert!(Intel.has(Quirk::SysenterInLongMode));
    }
}
