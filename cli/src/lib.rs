//! What the `selvedge` binary does: the operators' [`commands`], the [`demo`], and what these have in common.

pub mod child;
pub mod commands;
pub mod demo;
mod probe;
