//! Makes cases: each from a seed and an index alone.

mod descriptors;
pub mod paging;
pub mod privilege;
mod tables;
