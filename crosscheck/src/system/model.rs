//! The reference: what a processor does, written from the tables of the manuals alone.
//!
//! It shares no code with any CPU of the project, and cares for nothing but being easy to hold
//! against the manual.

pub mod descriptor;
mod execute;
pub mod paging;
pub mod program;
pub mod protection;
pub mod transfer;
