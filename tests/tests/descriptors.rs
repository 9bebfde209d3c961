//! Who may open many files opens many, whatever the soft limit says, and who may not is told at start.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use selvedge_tests::mesh::{Mesh, Workload};

/// The one test of this process, because limits are the process's and its children's.
#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one_and_a_low_one_is_pointed_out() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let enough = maximum.is_none_or(|maximum| maximum >= 60_000);
    setrlimit(Resource::Nofile, Rlimit { current: Some(300), maximum }).expect("lowering is allowed");
    let mut mesh = Mesh::start().await;
    let mut sidecar = mesh.sidecar(Workload::new("shop/web")).await;
    for process in [mesh.control_plane_id(), sidecar.process().id()] {
        assert_eq!(soft_limit(process), maximum, "raised");
    }
    let warns = |log: &str| log.contains("may open fewer files and sockets");
    assert_eq!((warns(&mesh.control_plane_log()), warns(&sidecar.process().log())), (!enough, !enough));

    setrlimit(Resource::Nofile, Rlimit { current: Some(300), maximum: Some(600) }).expect("lowering is allowed");
    mesh.kill_control_plane();
    mesh.start_control_plane().await;
    assert_eq!(soft_limit(mesh.control_plane_id()), Some(600));
    let log = mesh.control_plane_log();
    assert!(warns(&log) && log.contains("limit=600") && log.contains("LimitNOFILE"), "{log}");
}

fn soft_limit(process: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).expect("the process runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line for files");
    line.split_whitespace().nth(3).expect("a soft limit").parse().ok()
}
