//! A sidecar that is told to stop finishes what it started, and callers notice nothing.

use std::time::Duration;

use http::Method;
use selvedge_tests::{
    around::talk,
    client::{self, Connection, request},
    load::{self, Load, Plan},
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST, Pair},
    upstream::{Scenario, Upstream},
    wait,
};
use tokio::time::Instant;

/// Tells a sidecar that its application is done.
async fn drain(sidecar: &Sidecar) {
    let drain = request(Method::POST, "localhost", "/drain");
    assert_eq!(client::call(sidecar.admin(), drain).await.unwrap().status, 202);
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_sidecar_ends() {
    let mut pair = Pair::start().await;
    pair.upstream.play(Scenario::Slow(Duration::from_millis(700)));
    let entry = pair.entry();
    let call = tokio::spawn(async move {
        client::call(entry, request(Method::GET, HOST, "/slow")).await.map_err(|e| e.to_string())
    });
    let served = pair.upstream.served();
    let upstream = &pair.upstream;
    wait::until_true("the request is under way", || async move { upstream.served() > served || served > 1 }).await;
    pair.api.process().terminate();
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    drop(pair.upstream);
    let ended = pair.api.process().ended().await;
    assert!(ended.success(), "{ended}");
}

#[tokio::test]
async fn readiness_goes_first_and_the_application_may_call_until_it_is_done() {
    let mut pair = Pair::start().await;
    let mut connection = Connection::open(pair.entry()).await.unwrap();
    pair.web.process().terminate();
    let web = &pair.web;
    wait::until_true("readiness is off", || async move { !web.is_ready().await }).await;
    for _ in 0..5 {
        let answer = connection.call(request(Method::GET, HOST, "/")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // What an application has to say at its end may come on a new connection.
    assert_eq!(pair.get("/").await.status, 200);
    drop(connection);
    let start = Instant::now();
    drain(&pair.web).await;
    let ended = pair.web.process().ended().await;
    assert!(ended.success(), "{ended}");
    // The deadline is 30 s; nothing is open any more, so there is nothing to wait for.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

/// Long enough that no test sees its end.
const LONG: &str = "drainDeadline: 5m\n";

/// How soon a sidecar ends with which nothing is in flight. Tests wait nearly ten times as long.
const END: Duration = Duration::from_secs(5);

/// Waits until a sidecar that was told to end has done so.
async fn ends_soon(sidecar: &mut Sidecar) {
    let start = Instant::now();
    let ended = wait::until_within(9 * END, "the sidecar ends", || {
        std::future::ready((!sidecar.process().is_running()).then(|| start.elapsed()))
    });
    println!("it has ended after {:?}, goal {END:?}", ended.await);
    assert!(sidecar.process().ended().await.success());
}

#[tokio::test]
async fn sidecars_end_soon_while_their_applications_go_on() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "http");
    let mut api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address()).with(LONG)).await;
    let mut web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION).with(LONG)).await;
    let entry = web.outbound(DESTINATION);
    wait::until_true("the service can be reached", || client::answers(entry)).await;
    // Both keep connections on which nothing is asked, as pools do.
    let _idle = [Connection::open(entry).await.unwrap(), Connection::open_http2(entry).await.unwrap()];
    for sidecar in [&mut api, &mut web] {
        sidecar.process().terminate();
    }
    ends_soon(&mut api).await;
    ends_soon(&mut web).await;
}

#[tokio::test]
async fn an_application_that_goes_on_is_called_for_as_long_as_its_sidecar_runs() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "http");
    let serving = Workload::new("shop/api").serves(8080, upstream.address()).with("drainDeadline: 45s\n");
    let mut api = mesh.sidecar(serving).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION)).await;
    let entry = web.outbound(DESTINATION);
    wait::until_true("the service can be reached", || client::answers(entry)).await;
    let load = Load::start(&Plan::new(entry, HOST, "/"), 2, load::ok);
    load.progress(20).await;
    api.process().terminate();
    // Longer than the third of the deadline that is left to callers of an application that is done.
    tokio::time::sleep(Duration::from_secs(16)).await;
    load.progress(20).await;
    let outcome = load.stop().await;
    assert!(api.process().is_running(), "this machine was too slow to see anything");
    outcome.assert_flawless(40);
    ends_soon(&mut api).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_drain() {
    let mut pair = Pair::start().await;
    let mut open = Connection::open(pair.entry()).await.unwrap();
    pair.web.process().terminate();
    let web = &pair.web;
    wait::until_true("readiness is off", || async move { !web.is_ready().await }).await;
    assert_eq!(open.call(request(Method::GET, HOST, "/")).await.unwrap().status, 200);
    let start = Instant::now();
    pair.web.process().terminate();
    assert!(pair.web.process().ended().await.success());
    // Without the second signal, at the deadline of 30 s.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn replacing_every_workload_in_turn_fails_no_request() {
    let pair = Pair::start().await;
    let plan = Plan::new(pair.entry(), HOST, "/");
    let load = Load::start(&plan, 6, load::ok);
    let http2 = Load::start(&plan.clone().over_http2(), 2, load::ok);
    load.progress(50).await;
    for round in 0..3 {
        let application = Upstream::start("twin").await;
        let replacement = Workload::new("shop/api-2").runs_as("api").backs("api").serves(8080, application.address());
        let mut replacement = pair.mesh.sidecar(replacement).await;
        let called = &application;
        wait::until_true("the new workload is called", || async move { called.served() > 0 }).await;
        // As an orchestrator does: out of the endpoints first, then SIGTERM; the application ends when it is ready to.
        pair.mesh.remove("workload-shop-api-2.yaml");
        replacement.process().terminate();
        load.progress(50).await;
        drop(application);
        assert!(replacement.process().ended().await.success(), "round {round}");
        load.progress(50).await;
    }
    load.stop().await.assert_flawless(200);
    http2.stop().await.assert_flawless(50);
}

#[tokio::test]
async fn an_instance_that_stops_hands_its_callers_over() {
    let pair = Pair::start().await;
    let plan = Plan::new(pair.entry(), HOST, "/");
    let loads = [Load::start(&plan, 4, load::ok), Load::start(&plan.clone().over_http2(), 2, load::ok)];
    for by_signal in [true, false] {
        let application = Upstream::start("twin").await;
        let second = Workload::new("shop/api-2").runs_as("api").backs("api").serves(8080, application.address());
        let mut second = pair.mesh.sidecar(second).await;
        let called = &application;
        wait::until_true("the second instance is called", || async move { called.served() > 20 }).await;
        // Nobody has told the callers: they hear it from the sidecar itself.
        if by_signal {
            second.process().terminate();
            loads[0].progress(50).await;
            drop(application);
        } else {
            drain(&second).await;
        }
        assert!(second.process().ended().await.success(), "by signal: {by_signal}");
        pair.mesh.remove("workload-shop-api-2.yaml");
        for load in &loads {
            load.progress(50).await;
        }
    }
    for load in loads {
        load.stop().await.assert_flawless(100);
    }
}

#[tokio::test]
async fn an_idle_connection_of_the_application_does_not_hold_up_the_end() {
    let mut pair = Pair::start().await;
    let mut connections =
        [Connection::open(pair.entry()).await.unwrap(), Connection::open_http2(pair.entry()).await.unwrap()];
    // One that was opened in advance, as pools do.
    let _silent = client::connect(pair.entry()).await.unwrap();
    drain(&pair.web).await;
    let start = Instant::now();
    for connection in &mut connections {
        assert_eq!(connection.call(request(Method::GET, HOST, "/")).await.unwrap().status, 200);
    }
    assert!(pair.web.process().ended().await.success());
    // The deadline is 30 s, and both connections are still open at this end.
    assert!((1..20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test]
async fn callers_that_hear_of_nothing_do_not_hold_up_the_end() {
    let upstream = Upstream::start("api").await;
    let mesh = Mesh::start().await;
    mesh.service("shop/api", 80, 8080, "http");
    mesh.write(
        "permissive.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: open, namespace: shop}\nspec:\n  mtls: \
         {inbound: PERMISSIVE}\n",
    );
    let serving = Workload::new("shop/api").serves(8080, upstream.address()).with("drainDeadline: 9s\n");
    let mut api = mesh.sidecar(serving).await;
    let entry = api.inbound(8080);
    wait::until_true("strangers may call", || client::answers(entry)).await;
    // Each call comes on a new connection, as from a caller that keeps none.
    let calls = tokio::spawn(async move {
        let mut answered = 0;
        while client::accepts(entry).await && client::answers(entry).await {
            answered += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        answered
    });
    let start = Instant::now();
    drain(&api).await;
    assert!(api.process().ended().await.success());
    assert!((2..9).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(calls.await.unwrap() > 2, "they were served for a third of the deadline");
}

#[tokio::test]
async fn a_call_that_is_nearly_done_at_the_deadline_is_answered() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "http");
    let _api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address())).await;
    let mut web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION).with("drainDeadline: 2s\n")).await;
    let entry = web.outbound(DESTINATION);
    wait::until_true("the service can be reached", || client::answers(entry)).await;
    upstream.play(Scenario::Slow(Duration::from_millis(2200)));
    let (called, served) = (&upstream, upstream.served());
    let call = tokio::spawn(async move {
        client::call(entry, request(Method::GET, HOST, "/")).await.map_err(|error| error.to_string())
    });
    wait::until_true("the request is under way", || async move { called.served() > served }).await;
    drain(&web).await;
    let answer = call.await.unwrap().expect("its last second is enough");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(web.process().ended().await.success());
}

#[tokio::test]
async fn the_deadline_ends_what_does_not_end_by_itself() {
    let upstream = Upstream::start("api").await;
    let mesh = Mesh::start().await;
    mesh.service("shop/api", 80, 8080, "");
    let api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address())).await;
    let mut web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION).with("drainDeadline: 1s\n")).await;
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    let entry = web.outbound(DESTINATION);
    wait::until_true("the service can be reached", || async move {
        client::call(entry, request(Method::GET, HOST, "/")).await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let mut tunnel = client::connect(entry).await.unwrap();
    assert!(talk(&mut tunnel, head.as_bytes(), "\r\n\r\n", 1).await.starts_with("HTTP/1.1 101"));
    let start = Instant::now();
    web.process().terminate();
    assert!(talk(&mut tunnel, b"still here", "still here", 1).await.ends_with("here"));
    assert!(web.process().ended().await.success());
    assert!((1..10).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(api.is_ready().await);
}
