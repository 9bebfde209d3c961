//! A sidecar that is told to stop finishes what it started, and callers notice nothing.

use std::time::Duration;

use http::Method;
use selvedge_tests::{
    client::{self, Connection, request},
    load::{self, Load, Plan},
    mesh::Workload,
    pair::{HOST, Pair},
    upstream::{Scenario, Upstream},
    wait,
};
use tokio::time::Instant;

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
    let ended = pair.api.process().ended().await;
    assert!(ended.success(), "{ended}");
}

#[tokio::test]
async fn readiness_goes_first_and_the_application_may_finish_its_calls() {
    let mut pair = Pair::start().await;
    let mut connection = Connection::open(pair.entry()).await.unwrap();
    pair.web.process().terminate();
    let web = &pair.web;
    wait::until_true("readiness is off", || async move { !web.is_ready().await }).await;
    for _ in 0..5 {
        let answer = connection.call(request(Method::GET, HOST, "/")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let start = Instant::now();
    drop(connection);
    let ended = pair.web.process().ended().await;
    assert!(ended.success(), "{ended}");
    // The deadline is 30 s; nothing is open any more, so there is nothing to wait for.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn replacing_every_workload_in_turn_fails_no_request() {
    let pair = Pair::start().await;
    let twin = Upstream::start("twin").await;
    let plan = Plan::new(pair.entry(), HOST, "/");
    pair.mesh.write(
        "traffic.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  targetRef: \
         {kind: Service, name: api}\n  retry: {attempts: 2}\n",
    );
    let load = Load::start(&plan, 6, load::ok);
    let http2 = Load::start(&plan.clone().over_http2(), 2, load::ok);
    load.progress(50).await;
    for round in 0..3 {
        let replacement = Workload::new("shop/api-2").runs_as("api").backs("api").serves(8080, twin.address());
        let replacement = pair.mesh.sidecar(replacement).await;
        let twin = &twin;
        let before = twin.served();
        wait::until_true("the new workload is called", || async move { twin.served() > before }).await;
        // As an orchestrator does: out of the endpoints first, then SIGTERM.
        pair.mesh.remove("workload-shop-api-2.yaml");
        assert!(replacement.stop().await.success(), "round {round}");
        load.progress(50).await;
    }
    load.stop().await.assert_flawless(200);
    http2.stop().await.assert_flawless(50);
}
