//! The kit of the tests that look at Selvedge from outside: the mesh as a whole, and the rules of the house.
//!
//! [`source`], [`lockfile`] and [`complaints`] read the workspace as text, for `house.rs`, `dependencies.rs` and `advisories.rs`.

pub mod complaints;
pub mod lockfile;
pub mod source;

use std::path::PathBuf;

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the tests package lies in the workspace").to_path_buf()
}
