//! What kills the correctness of a JIT, a test for each: every program runs on the interpreter and
//! on the JIT, which translates at once or later, and must end as the manual says.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used)]
// What dynasm makes of labels that are not used.
#![allow(unused_imports, clippy::useless_conversion)]

mod faults;
mod machine;
mod modes;
mod modified;
mod privileged;
mod registers;
mod system;
mod traps;
