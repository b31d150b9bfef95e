//! Where devices ask the machine to switch off or to start anew.

/// How far a requested reset goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetKind {
    /// INIT to the processor only; memory and devices keep their state.
    Soft,
    /// The reset line of the whole board: processors, buses and devices.
    Hard,
}

/// The power supply and the reset line, seen from a device. Requests take effect when the machine
/// next looks, so a device may make them while it is locked.
pub trait PowerSink: Send + Sync {
    /// Switches the machine off (soft-off, ACPI S5).
    fn power_off(&self);

    /// Starts the machine anew.
    fn reset(&self, kind: ResetKind);
}

/// SMI#, as chips drive it: each call is an assertion of the pin, which every processor sees. Called
/// with the chip locked.
pub trait SmiSink: Send + Sync {
    /// Asserts SMI#.
    fn assert_smi(&self);
}
