//! The commands of the `selvedge` binary.

pub mod child;
pub mod control_plane;
pub mod demo;
mod probe;
pub mod run;
pub mod token;
