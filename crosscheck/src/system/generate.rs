//! Makes cases: each from a seed and an index alone.

pub mod paging;
mod tables;
