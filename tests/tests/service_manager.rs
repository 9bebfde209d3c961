//! Under a service manager a restart is noticed by nobody, and the manager knows how a process is.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Method;
use selvedge_tests::{
    around::talk,
    client::{self, request},
    load::{self, Load, Plan},
    long,
    manager::Manager,
    mesh::Sidecar,
    pair::{HOST, Pair},
    process::{Process, binary},
    wait,
};

/// Callers wait for a sidecar that starts, however long that takes.
const PATIENT: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: api, namespace: shop}\n\
                       spec: {targetRef: {kind: Service, name: api}, timeouts: {connect: 60s}}\n";

/// A pair whose sidecars run under a service manager each: of `web`, of `api`. `None` where the system is not for it.
async fn managed() -> Option<(Pair, [Manager; 2])> {
    if !Manager::is_able() {
        return None;
    }
    let mut pair = Pair::start().await;
    pair.mesh.write("traffic.yaml", PATIENT);
    let managers = [Manager::start(pair.web.home()), Manager::start(pair.api.home())];
    for (sidecar, manager) in [&mut pair.web, &mut pair.api].into_iter().zip(&managers) {
        sidecar.process().kill();
        sidecar.start_under(manager);
        manager.hears("READY=1", 1).await;
    }
    pair.until_status("/", 200).await;
    let patient =
        async || client::get(pair.web.admin(), "/config").await.is_ok_and(|page| page.text().contains("\"60s\""));
    wait::until_true("the policy is in force", patient).await;
    Some((pair, managers))
}

/// What `systemctl restart` does.
async fn restart(sidecar: &mut Sidecar, manager: &Manager) {
    let before = manager.heard("READY=1");
    sidecar.process().terminate();
    let ended = sidecar.process().ended().await;
    assert!(ended.success(), "{ended}");
    sidecar.start_under(manager);
    manager.hears("READY=1", before + 1).await;
}

#[tokio::test]
async fn a_single_instance_is_restarted_under_load_and_nothing_fails() {
    let Some((mut pair, managers)) = managed().await else { return };
    let entry = pair.entry();
    let plan = Plan::new(entry, HOST, "/");
    let loads = [Load::start(&plan, 4, load::ok), Load::start(&plan.clone().over_http2(), 2, load::ok)];
    // One that opens a connection for each request.
    let stop = Arc::new(AtomicBool::new(false));
    let anew = tokio::spawn({
        let stop = stop.clone();
        async move {
            while !stop.load(Relaxed) {
                let answer =
                    client::call(entry, request(Method::GET, HOST, "/")).await.map_err(|error| error.to_string())?;
                load::ok(&answer).map_or(Ok(()), Err)?;
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            Ok::<(), String>(())
        }
    });
    for _ in 0..long::either(2, 20) {
        for (sidecar, manager) in [&mut pair.web, &mut pair.api].into_iter().zip(&managers) {
            restart(sidecar, manager).await;
            for load in &loads {
                load.progress(20).await;
            }
        }
    }
    for load in loads {
        load.stop().await.assert_flawless(80);
    }
    stop.store(true, Relaxed);
    anew.await.unwrap().unwrap();
    assert!(managers.iter().all(|manager| manager.heard("STOPPING=1") > 0 && manager.heard("STATUS=serving") > 0));
}

#[tokio::test]
async fn who_calls_between_two_processes_waits_for_the_next() {
    let Some((mut pair, [manager, _])) = managed().await else { return };
    manager.hears("WATCHDOG=1", 2).await;
    let entry = pair.entry();
    pair.web.process().kill();
    let kept = manager.kept();
    let call = tokio::spawn(client::call(entry, request(Method::GET, HOST, "/")));
    // Longer than a call to nobody takes to fail.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!call.is_finished());
    pair.web.start_under(&manager);
    assert_eq!(call.await.unwrap().unwrap().status, 200);
    assert!(pair.web.is_ready().await);
    // What is kept is the same after any number of processes, so it does not run full.
    manager.hears("READY=1", 2).await;
    assert_eq!(manager.kept(), kept);
}

#[tokio::test]
async fn what_lives_long_is_served_to_its_deadline_and_so_is_who_comes_meanwhile() {
    let Some((mut pair, [manager, _])) = managed().await else { return };
    let entry = pair.entry();
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    let mut tunnel = client::connect(entry).await.unwrap();
    assert!(talk(&mut tunnel, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
    pair.web.process().terminate();
    manager.hears("STOPPING=1", 1).await;
    for _ in 0..5 {
        assert_eq!(pair.get("/").await.status, 200);
    }
    assert!(talk(&mut tunnel, b"still here", "still here", 1).await.ends_with("here"));
    assert!(pair.web.process().is_running());
    drop(tunnel);
    assert!(pair.web.process().ended().await.success());
    pair.web.start_under(&manager);
    assert_eq!(pair.get("/").await.status, 200);
}

#[tokio::test]
async fn a_socket_unit_listens_before_the_sidecar_runs() {
    if !Manager::is_able() {
        return;
    }
    let mut pair = Pair::start().await;
    let (entry, manager) = (pair.entry(), Manager::start(pair.web.home()));
    pair.web.process().kill();
    manager.keep("web.socket", std::net::TcpListener::bind(entry).unwrap());
    let unknown = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = unknown.local_addr().unwrap();
    manager.keep("unknown.socket", unknown);
    let call = tokio::spawn(client::call(entry, request(Method::GET, HOST, "/")));
    pair.web.start_under(&manager);
    assert_eq!(call.await.unwrap().unwrap().status, 200);
    wait::until_true("nobody waits where nobody answers", || async { !client::accepts(nowhere).await }).await;
    // It is the manager's own, and was not sent back.
    assert!(!manager.kept().iter().any(|name| name.contains(&entry.port().to_string())));
}

#[tokio::test]
async fn the_manager_hears_how_a_control_plane_is() {
    if !Manager::is_able() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    std::fs::create_dir(&config).unwrap();
    let manager = Manager::start(folder.path());
    let mut command = Command::new(binary("selvedge"));
    command.arg("control-plane").arg("--config-dir").arg(&config).arg("--state-dir").arg(folder.path().join("state"));
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let mut process = Process::start("control-plane", &mut manager.wrap(&command, 200), folder.path());
    manager.hears("READY=1", 1).await;
    manager.hears("WATCHDOG=1", 3).await;
    process.terminate();
    assert!(process.ended().await.success());
    manager.hears("STOPPING=1", 1).await;
    assert_eq!(manager.heard("READY=1"), 1);
}
