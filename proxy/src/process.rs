//! The process around the data path.

pub mod original_dst;
