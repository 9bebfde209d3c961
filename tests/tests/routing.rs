//! `HTTPRoute` sends requests where the user said, and changes what the user asked to change.

use std::{collections::HashMap, time::Duration};

use http::Method;
use selvedge_tests::{
    client::{self, request},
    load::{self, Load, Plan},
    mesh::Workload,
    pair::{HOST, Pair},
    upstream::{Scenario, Upstream},
    wait,
};
use tokio::time::Instant;

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: split, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: api }]
  rules:
  - name: next
    matches: [{ path: { type: PathPrefix, value: /next }, headers: [{ name: x-beta, value: 'yes' }] }]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: { set: [{ name: x-routed, value: next }], add: [{ name: x-order, value: rule }], remove: [x-beta] }
    - type: ResponseHeaderModifier
      responseHeaderModifier: { add: [{ name: x-from, value: next }] }
    backendRefs:
    - name: next
      port: 80
      filters:
      - type: RequestHeaderModifier
        requestHeaderModifier: { add: [{ name: x-order, value: backend }], set: [{ name: x-routed, value: to-next }] }
      - type: ResponseHeaderModifier
        responseHeaderModifier: { add: [{ name: x-from, value: backend }], set: [{ name: served-by, value: changed }] }
  - name: query
    matches: [{ queryParams: [{ name: to, value: next }], method: POST }]
    backendRefs: [{ name: next, port: 80 }]
  - name: weighted
    matches: [{ path: { type: PathPrefix, value: /split } }]
    backendRefs: [{ name: api, port: 80, weight: 80 }, { name: next, port: 80, weight: 20 }]
  - name: nobody
    matches: [{ path: { type: Exact, value: /nobody } }]
    backendRefs: [{ name: api, port: 80, weight: 0 }, { name: next, port: 80, weight: 0 }]
  - name: own
    matches: [{ path: { type: Exact, value: /own } }]
    filters: [{ type: ResponseHeaderModifier, responseHeaderModifier: { add: [{ name: x-from, value: own }] } }]
  - name: rest
    matches: [{ path: { type: Exact, value: / } }]
";

#[tokio::test]
async fn rules_match_change_and_split() {
    let pair = Pair::start().await;
    let next = Upstream::start("next").await;
    pair.mesh.service("shop/next", 80, 8080, "http");
    let _next = pair.mesh.sidecar(Workload::new("shop/next").serves(8080, next.address())).await;
    pair.mesh.write("route.yaml", ROUTE);
    assert_eq!(pair.until_status("/nowhere", 404).await.reason(), "no_route");

    let mut beta = request(Method::GET, HOST, "/next/a");
    beta.headers_mut().insert("x-beta", "yes".parse().unwrap());
    let answer = client::call(pair.entry(), beta).await.unwrap();
    let from: Vec<_> = answer.headers.get_all("x-from").iter().collect();
    assert_eq!(from, ["backend", "next"], "of the backend, then of the rule: {}", answer.text());
    assert_eq!((answer.header("served-by"), &answer.json()["servedBy"]), ("changed", &"next".into()));
    let seen = answer.json()["headers"].clone();
    let sent = |name: &str| {
        let fields = seen.as_array().unwrap().iter().filter(|field| field[0] == name);
        fields.map(|field| field[1].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((sent("x-order"), sent("x-routed"), sent("x-beta")), (vec!["rule", "backend"], vec!["to-next"], vec![]));

    let answer = client::call(pair.entry(), request(Method::POST, HOST, "/any?to=next")).await.unwrap();
    assert_eq!(answer.header("served-by"), "next");
    assert_eq!(pair.get("/").await.header("served-by"), "api");
    let own = pair.get("/own").await;
    assert_eq!(own.headers.get_all("x-from").iter().count(), 1, "made once, not on both sides: {:?}", own.headers);
    assert_eq!(pair.get("/nextdoor").await.status, 404, "a prefix ends at a segment");
    assert_eq!(pair.get("/nobody").await.reason(), "invalid_route", "no backend has any weight");

    let mut counts: HashMap<String, u32> = HashMap::new();
    for _ in 0..300 {
        *counts.entry(pair.get("/split").await.header("served-by").to_owned()).or_default() += 1;
    }
    // 300 draws at 20 %: mean 60, standard deviation 7; six of them either side.
    assert!((18..=102).contains(&counts["next"]), "{counts:?}");
}

#[tokio::test]
async fn load_spreads_over_the_workloads_of_a_service() {
    let pair = Pair::start().await;
    let twin = Upstream::start("twin").await;
    let _twin =
        pair.mesh.sidecar(Workload::new("shop/api-2").runs_as("api").backs("api").serves(8080, twin.address())).await;
    let load = Load::start(&Plan::new(pair.entry(), HOST, "/"), 8, load::ok);
    wait::until_true("the new workload is called", || async { twin.served() > 0 }).await;
    pair.mesh.write(
        "traffic.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  targetRef: \
         {kind: Service, name: api}\n  balancer: roundRobin\n",
    );
    // The default prefers whichever answers faster; taking turns is exact, from when it is in force.
    wait::until_true("both take turns", || async {
        let before = (pair.upstream.served(), twin.served());
        load.progress(100).await;
        let share = [pair.upstream.served() - before.0, twin.served() - before.1];
        share[0].abs_diff(share[1]) <= 20
    })
    .await;
    load.stop().await.assert_flawless(100);
}

#[tokio::test]
async fn an_instance_that_fails_at_once_does_not_draw_the_load() {
    let pair = Pair::start().await;
    let broken = Upstream::start("broken").await;
    broken.play(Scenario::Fail(u32::MAX, 503));
    pair.upstream.play(Scenario::Slow(Duration::from_millis(20)));
    let _twin =
        pair.mesh.sidecar(Workload::new("shop/api-2").runs_as("api").backs("api").serves(8080, broken.address())).await;
    let (pair, broken) = (&pair, &broken);
    wait::until_true("the broken workload is called", || async move {
        pair.get("/").await;
        broken.served() > 0
    })
    .await;
    let (mut failed, start) = (0, Instant::now());
    for _ in 0..200 {
        failed += u64::from(pair.get("/").await.status == 503);
    }
    // What it has failed is forgotten with time, so it is tried more often where 200 requests take longer.
    let most = 20 + start.elapsed().as_secs();
    assert!(failed <= most, "{failed} of 200 requests went to the instance that fails fastest");
}
