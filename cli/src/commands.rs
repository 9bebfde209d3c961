//! The operators' commands: each a file with its arguments and a `run` that does it and says what went wrong.

pub mod ca;
pub mod completions;
pub mod confirm;
pub mod control_plane;
pub mod down;
pub mod inject;
pub mod install;
pub mod join;
pub mod leave;
pub mod lint;
pub mod proxy;
pub mod run;
pub mod share;
pub mod token;
pub mod uninstall;
pub mod up;
