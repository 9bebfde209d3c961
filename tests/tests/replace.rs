//! The program of a sidecar is replaced while it runs, and nobody notices.

use std::{
    fs,
    net::SocketAddr,
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
    mesh::Sidecar,
    pair::{HOST, Pair},
    ports::Reserved,
    process::Process,
    wait,
};

/// Waits until a process that was replaced has finished.
async fn finished(mut old: Process) {
    let ended = old.ended().await;
    assert!(ended.success(), "{ended}: {}", old.log());
}

/// Waits until a process that was not to take a place has given up, and returns what it says.
async fn given_up(mut new: Process) -> String {
    let ended = new.ended().await;
    assert!(!ended.success(), "{}", new.log());
    new.log()
}

/// Waits until processes have taken one another's place so often.
async fn in_place(sidecar: &mut Sidecar, times: usize) {
    let process = sidecar.process();
    wait::until_true("the new process has taken the place of the old one", || {
        std::future::ready(process.log().matches("has taken the place of another").count() == times)
    })
    .await;
}

/// Changes the file of a sidecar.
fn edit(sidecar: &Sidecar, change: impl Fn(String) -> String) {
    let path = sidecar.home().join("sidecar.yaml");
    fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
}

#[tokio::test]
async fn a_sidecar_is_replaced_under_load_and_nothing_fails() {
    let mut pair = Pair::start().await;
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
    for round in 0..long::either(3, 20) {
        for sidecar in [&mut pair.api, &mut pair.web] {
            finished(sidecar.replace()).await;
            assert!(sidecar.process().is_running(), "round {round}");
            sidecar.ready().await;
            for load in &loads {
                load.progress(20).await;
            }
        }
    }
    for load in loads {
        load.stop().await.assert_flawless(100);
    }
    stop.store(true, Relaxed);
    anew.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_new_process_that_does_not_start_changes_nothing() {
    let mut pair = Pair::start().await;
    let load = Load::start(&Plan::new(pair.entry(), HOST, "/"), 2, load::ok);
    let good = fs::read_to_string(pair.api.home().join("sidecar.yaml")).unwrap();
    let occupied = Reserved::new();
    let _somebody = occupied.listen();
    let another = format!("- {{listen: {}, forward: '127.0.0.1:1'}}\n", occupied.address());
    for (addition, said) in [("wrokers: 2\n".to_owned(), "wrokers"), (another, "cannot listen on")] {
        edit(&pair.api, |_| format!("{good}{addition}"));
        let log = given_up(pair.api.start_replacement()).await;
        assert!(log.contains(said), "{log}");
        assert!(pair.api.process().is_running());
        load.progress(20).await;
    }
    edit(&pair.api, |_| good.clone());
    finished(pair.api.replace()).await;
    load.progress(20).await;
    load.stop().await.assert_flawless(60);
}

#[tokio::test]
async fn workers_and_addresses_may_be_others() {
    let mut pair = Pair::start().await;
    let (before, after) = (pair.entry(), Reserved::new());
    let load = Load::start(&Plan::new(before, HOST, "/"), 2, load::ok);
    load.progress(20).await;
    edit(&pair.web, |file| format!("workers: 3\n{file}"));
    finished(pair.web.replace()).await;
    load.progress(20).await;
    edit(&pair.web, |file| file.replace("workers: 3\n", ""));
    finished(pair.web.replace()).await;
    load.progress(20).await;
    load.stop().await.assert_flawless(60);

    // A tunnel keeps the process that is replaced, and with it the address that the file has no more.
    let mut tunnel = tunnel(&pair).await;
    edit(&pair.web, |file| file.replace(&before.to_string(), &after.address().to_string()));
    let old = pair.web.replace();
    let called = after.address();
    wait::until_true("the new address is served", || client::answers(called)).await;
    assert!(client::answers(before).await, "somebody may still call the old one");
    talk(&mut tunnel, b"over", "over", 1).await;
    drop(tunnel);
    finished(old).await;
    assert!(!client::accepts(before).await);
    assert!(client::answers(called).await);
}

/// Where a sidecar listens, as it has written.
fn ports(sidecar: &Sidecar) -> serde_json::Value {
    serde_json::from_slice(&fs::read(sidecar.home().join("ports.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn the_ports_file_says_where_the_new_process_listens() {
    let mut pair = Pair::start().await;
    let good = fs::read_to_string(pair.web.home().join("sidecar.yaml")).unwrap();
    let one_more = format!("{good}- {{listen: '127.0.0.1:0', to: 'shop/api:80'}}\n");
    edit(&pair.web, |_| one_more.clone());
    finished(pair.web.replace()).await;
    let first = ports(&pair.web);
    let chosen: SocketAddr = first["outbound"][1].as_str().unwrap().parse().unwrap();
    assert!(chosen.port() != 0 && client::answers(chosen).await);
    edit(&pair.web, |file| format!("{file}wrokers: 2\n"));
    given_up(pair.web.start_replacement()).await;
    assert_eq!(ports(&pair.web), first);
    edit(&pair.web, |_| one_more.clone());
    finished(pair.web.replace()).await;
    assert_eq!(ports(&pair.web), first, "the port that the kernel chose stays");
    assert!(client::answers(chosen).await);
}

/// A connection that `web` has made a tunnel to the application.
async fn tunnel(pair: &Pair) -> tokio::net::TcpStream {
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    let mut tunnel = client::connect(pair.entry()).await.unwrap();
    assert!(talk(&mut tunnel, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
    tunnel
}

#[tokio::test]
async fn what_lives_long_stays_with_its_process_over_further_replacements() {
    let mut pair = Pair::start().await;
    let mut first = tunnel(&pair).await;
    let mut oldest = pair.web.replace();
    in_place(&mut pair.web, 1).await;
    let mut second = tunnel(&pair).await;
    let mut older = pair.web.replace();
    in_place(&mut pair.web, 2).await;
    assert_eq!(pair.get("/").await.status, 200);
    assert!(oldest.is_running() && older.is_running());
    for tunnel in [&mut first, &mut second] {
        assert!(talk(tunnel, b"still here", "still here", 1).await.ends_with("here"));
    }
    drop(first);
    finished(oldest).await;
    assert!(older.is_running());
    // Whoever is told to end does not wait for what is left.
    older.terminate();
    finished(older).await;
    assert_eq!(pair.get("/").await.status, 200);
}

#[tokio::test]
async fn two_at_once_come_one_after_the_other() {
    let mut pair = Pair::start().await;
    let load = Load::start(&Plan::new(pair.entry(), HOST, "/"), 2, load::ok);
    load.progress(20).await;
    let (mut one, mut other) = (pair.web.start_replacement(), pair.web.start_replacement());
    assert!(pair.web.process().ended().await.success());
    // One of both has been replaced by the other.
    let is_one = wait::until("one of both ends", || {
        let running = (one.is_running(), other.is_running());
        std::future::ready((running.0 != running.1).then_some(running.1))
    })
    .await;
    load.progress(20).await;
    load.stop().await.assert_flawless(40);
    finished(if is_one { one } else { other }).await;
}

#[tokio::test]
async fn a_process_that_dies_while_it_is_replaced_is_followed_all_the_same() {
    let mut pair = Pair::start().await;
    for milliseconds in [0, 10, 30, 60, 100] {
        let mut old = pair.web.replace();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        old.kill();
        pair.web.ready().await;
        pair.until_status("/", 200).await;
    }
    finished(pair.web.replace()).await;
    pair.until_status("/", 200).await;
}

#[tokio::test]
async fn one_that_nobody_runs_starts_as_usual_and_one_that_cannot_be_replaced_is_named() {
    let mut pair = Pair::start().await;
    // As a release has it that knew nothing of this.
    fs::remove_file(pair.web.home().join("state/replace.sock")).unwrap();
    let log = given_up(pair.web.start_replacement()).await;
    assert!(log.contains("stop it first if it is a sidecar of an earlier release"), "{log}");
    assert_eq!(pair.get("/").await.status, 200);
    pair.web.process().kill();
    let _dead = pair.web.replace();
    pair.web.ready().await;
    pair.until_status("/", 200).await;
    finished(pair.web.replace()).await;
}
