//! The kit of the tests that look at Selvedge from outside: the mesh as a whole, and the rules of the house.
//!
//! - [`mesh`]: a control plane and sidecars as real processes on ports of their own
//! - [`namespace`]: a test in a network of its own
//! - [`nodes`]: sidecars with transparent capture, each in a network namespace with an address of its own
//! - [`manager`]: a service manager, as processes see one
//! - [`pair`]: the smallest mesh with a request path; [`around`]: the same around any application
//! - [`api_server`]: API servers of Kubernetes: a double, and a real one where there is one
//! - [`upstream`]: services that answer as a scenario says; [`client`]: callers, one request or a load
//! - [`recorder`]: a service that takes down every byte and forgives nothing; [`relay`]: the wire, taken down
//! - [`frames`]: HTTP/2 as raw bytes
//! - [`pattern`]: bodies to be compared byte for byte; [`metrics`]: numbers to be compared with ==
//! - [`prometheus`]: a real one, where it is installed
//! - [`long`]: suites of data in a short and a long form
//! - [`wait`]: polling with a deadline, so that no test sleeps and hopes
//! - [`source`], [`imports`], [`pages`], [`commands`], [`lockfile`], [`complaints`]: the workspace as text, for the rules of
//!   the house

pub mod api_server;
pub mod around;
pub mod client;
pub mod commands;
pub mod complaints;
pub mod frames;
pub mod imports;
pub mod load;
pub mod long;
pub mod lockfile;
pub mod manager;
pub mod mesh;
pub mod metrics;
pub mod namespace;
pub mod nodes;
pub mod pages;
pub mod pair;
pub mod pattern;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod recorder;
pub mod relay;
pub mod source;
pub mod upstream;
pub mod wait;

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

/// The path of an installed program, or `None` after saying that the test is skipped without it.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let postgres =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let found =
        std::env::split_paths(&path).chain(usual).chain(postgres).map(|folder| folder.join(name)).find(|p| p.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}
