//! What `make dist` packs: the same bytes each time, and packages that a system without a network installs, uses, and removes
//! with nothing left of them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use selvedge_tests::{namespace::Namespaces, process::binary, program, workspace};
use tempfile::TempDir;

#[path = "dist/system.rs"]
mod system;
#[path = "dist/usage.rs"]
mod usage;

/// Names the folder with what was packed to the run of the test in its namespaces.
const FOLDER: &str = "SELVEDGE_TEST_DIST";

/// A copy of this system in memory: what is changed in it is in `layers/changes`, and this system stays as it is. Where all of it
/// could be mounted there is `/tmp/whole` in it.
const SYSTEM: &str = "
    ip link set lo up
    cd \"$SELVEDGE_TEST_DIST\"
    mount -t tmpfs none layers && mkdir layers/changes layers/work &&
        mount -t overlay -o lowerdir=/,upperdir=$PWD/layers/changes,workdir=$PWD/layers/work overlay system &&
        mount -t proc proc system/proc &&
        mount --rbind /dev system/dev &&
        mount -t tmpfs none system/run &&
        mount -t tmpfs none system/tmp &&
        mount --bind one system/mnt &&
        touch system/tmp/whole";

#[test]
fn a_system_without_a_network_installs_uses_and_removes_what_is_the_same_each_time() {
    let mut setup = String::new();
    let folder = TempDir::with_prefix("selvedge-test-").expect("a folder");
    if env::var_os(FOLDER).is_none() {
        if ["dpkg-deb", "dpkg-shlibdeps", "strip"].iter().any(|tool| program(tool).is_none()) {
            return;
        }
        pack_twice(folder.path());
        for name in ["layers", "system"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        setup = format!("export {FOLDER}='{}'{SYSTEM}", folder.path().display());
    }
    let new = ["--mount", "--net", "--pid", "--fork", "--kill-child"];
    let namespaces = Namespaces { new: &new, needs: &["dpkg"], setup: &setup };
    namespaces.run("a_system_without_a_network_installs_uses_and_removes_what_is_the_same_each_time", || async {
        let folder = env::var_os(FOLDER).map(PathBuf::from).expect("it is said where");
        usage::whole_life(&folder).await;
    });
}

/// Packs the programs into `one` and, in other surroundings, into `other`.
fn pack_twice(folder: &Path) {
    let [one, other] = ["one", "other"].map(|name| folder.join(name));
    let first = pack(&one, "022", "UTC");
    let second = pack(&other, "077", "Asia/Kolkata");
    for packing in [first, second] {
        let packed = packing.wait_with_output().expect("it ends");
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    }
    let sums = |folder: &Path| fs::read_to_string(folder.join("SHA256SUMS")).expect("the sums");
    assert_eq!(sums(&one).lines().count(), 3, "two packages and a tarball: {}", sums(&one));
    assert_eq!(sums(&one), sums(&other), "the same programs give the same bytes");
    fs::remove_dir_all(other).expect("it goes");
}

fn pack(out: &Path, umask: &str, time_zone: &str) -> Child {
    let programs = binary("selvedge").parent().expect("its folder").to_owned();
    let mut command = Command::new("bash");
    command.args(["-c", "umask \"$1\"; shift; exec \"$@\"", "bash", umask]);
    command.arg(workspace().join("deploy/package")).args([&programs, out]);
    command.env("TZ", time_zone).envs([("COMPRESSION", "gzip"), ("LEVEL", "1")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("bash runs")
}
