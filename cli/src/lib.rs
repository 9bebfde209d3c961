//! The commands of the `selvedge` binary.

pub mod child;
pub mod demo;
mod probe;
pub mod run;
