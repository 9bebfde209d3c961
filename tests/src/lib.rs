//! The kit of the tests that look at Selvedge from outside: the mesh as a whole, and the rules of the house.
//!
//! [`source`], [`lockfile`] and [`complaints`] read the workspace as text, for `house.rs`, `dependencies.rs` and `advisories.rs`.

pub mod complaints;
pub mod lockfile;
pub mod source;

use std::{io::Write, path::PathBuf};

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the tests package lies in the workspace").to_path_buf()
}

/// Says that a test does not run, and why. Written past the capture of the test harness, so that `make test`
/// shows every skip.
pub fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {reason}");
}
