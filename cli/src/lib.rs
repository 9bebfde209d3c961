//! Modules stand callers first: each uses only those listed below it.
//!
//! What the `selvedge` binary does: the operators' [`commands`], the [`demo`], and what these have in common.

pub mod commands;
pub mod demo;

pub mod home;
mod strays;
pub mod background;
pub mod logfile;
pub mod child;
mod manifest;
mod probe;
