//! The commands of the `selvedge` binary.

pub mod ca;
pub mod child;
pub mod control_plane;
pub mod demo;
pub mod lint;
mod probe;
pub mod proxy;
pub mod run;
pub mod token;
