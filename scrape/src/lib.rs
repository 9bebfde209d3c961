//! Modules stand data first: each uses only those listed above it.
//!
//! What both programs tell whoever scrapes them: what the kernel says of the process, and how what is told is coded on its way.

pub mod process;
pub mod gzip;
