//! System behaviour: segments, gates, exception and interrupt delivery, control registers, MSRs,
//! CPUID, ports.

pub mod interrupt;
