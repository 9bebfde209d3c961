//! A test in namespaces of its own: it runs itself again where it may set up networks as it likes. Needs root.

use std::{
    future::Future,
    process::{Command, Stdio},
};

use crate::skip;

/// Set where a test runs in its namespaces.
const INSIDE: &str = "SELVEDGE_TEST_INSIDE";

/// The namespaces that a test runs in.
pub struct Namespaces<'a> {
    /// What `unshare` makes, such as `-n` for a network.
    pub new: &'a [&'a str],
    /// What has to be there as well, to be run with `--version`.
    pub needs: &'a [&'a str],
    /// Commands of a shell that set it up, with the test's own program as `$0`. What they export the test has in its
    /// environment.
    pub setup: &'a str,
}

impl<'a> Namespaces<'a> {
    /// A network without an interface that is up, for tests that capture connections.
    pub const fn network(setup: &'a str) -> Self {
        Self { new: &["-n"], needs: &["nft"], setup }
    }

    /// Runs the test named `name` again in them, or `body` when this is that run. Without the rights it says that it is skipped.
    pub fn run<F: Future<Output = ()>>(&self, name: &str, body: impl FnOnce() -> F) {
        if std::env::var_os(INSIDE).is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            return runtime.block_on(body());
        }
        let works = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if !works("unshare", &[self.new, &["ip", "link", "add", "type", "bridge"]].concat()) {
            return skip("this needs root to make namespaces, and the tools unshare, ip and nsenter");
        }
        if let Some(missing) = self.needs.iter().find(|program| !works(program, &["--version"])) {
            return skip(&format!("{missing} is not installed"));
        }
        let script = format!("set -e\n{}\n{INSIDE}=1 \"$0\" --exact {name} --nocapture", self.setup);
        let test = std::env::current_exe().expect("the test's own program");
        let status = Command::new("unshare").args(self.new).args(["sh", "-c", &script]).arg(test).status();
        assert!(status.expect("unshare runs").success(), "{name} failed in its namespace");
    }
}
