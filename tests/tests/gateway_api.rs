//! Routes do what the Gateway API says where they name what there is not, what is another's, or what cannot be done.

use std::collections::BTreeMap;

use http::Method;
use selvedge_tests::{
    client::{self, request},
    mesh::Workload,
    pair::{HOST, Pair},
    upstream::Upstream,
    wait,
};
use serde_json::Value;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: { name: empty, namespace: shop }
spec: { selector: { app: nobody }, ports: [{ port: 80 }] }
";

/// Of the older version, and beside a gateway of the name of the service.
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: HTTPRoute
metadata: { name: odd, namespace: shop }
spec:
  parentRefs:
  - { group: gateway.networking.k8s.io, kind: Gateway, name: api }
  - { group: '', kind: Service, name: api }
  rules:
  - matches: [{ path: { value: /missing } }]
    backendRefs: [{ name: nobody, port: 80 }, { name: api, port: 80 }]
  - matches: [{ path: { value: /port } }]
    backendRefs: [{ name: api, port: 81 }]
  - matches: [{ path: { value: /empty } }]
    backendRefs: [{ name: empty, port: 80 }]
  - matches: [{ path: { value: /bucket } }]
    backendRefs: [{ group: s3.example.com, kind: Bucket, name: pages }, { name: api, port: 80 }]
  - matches: [{ path: { value: /weightless } }]
    backendRefs: [{ name: api, port: 80, weight: 0 }]
  - matches: [{ path: { value: /mirrored } }]
    filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: api, port: 80 } } }]
  - matches: [{ path: { value: /abroad } }]
    backendRefs: [{ name: ledger, namespace: bank, port: 80 }, { name: api, port: 80 }]
  - {}
";

const GRANT: &str = "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: { name: shop, namespace: bank }
spec:
  from: [{ group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop }]
  to: [{ group: '', kind: Service, name: ledger }]
";

/// How the mesh, or who served it, answers 40 requests for `target`. Of two even shares one is empty once in 10^12 runs.
async fn answers(pair: &Pair, target: &str) -> BTreeMap<String, u32> {
    let mut answers = BTreeMap::new();
    for _ in 0..40 {
        let answer = pair.get(target).await;
        let said = match answer.reason() {
            "" => answer.header("served-by").to_owned(),
            reason => format!("{} {reason}", answer.status.as_u16()),
        };
        *answers.entry(said).or_default() += 1;
    }
    answers
}

fn kinds(answers: &BTreeMap<String, u32>) -> Vec<&str> {
    answers.keys().map(String::as_str).collect()
}

#[tokio::test]
async fn what_a_route_cannot_do_is_answered_with_an_error_for_its_share_alone() {
    let pair = Pair::start().await;
    let ledger = Upstream::start("ledger").await;
    pair.mesh.service("bank/ledger", 80, 8080, "http");
    let _ledger = pair.mesh.sidecar(Workload::new("bank/ledger").serves(8080, ledger.address())).await;
    pair.mesh.write("services.yaml", SERVICES);
    pair.mesh.write("route.yaml", ROUTE);
    pair.until_reason("/empty", "no_endpoints").await;
    for (target, expected) in [
        ("/", &["api"][..]),
        ("/missing", &["500 invalid_route", "api"]),
        ("/port", &["500 invalid_route"]),
        ("/empty", &["503 no_endpoints"]),
        ("/bucket", &["500 invalid_route", "api"]),
        ("/weightless", &["500 invalid_route"]),
        ("/mirrored/below", &["500 invalid_route"]),
        ("/abroad", &["500 invalid_route", "api"]),
    ] {
        let answers = answers(&pair, target).await;
        assert_eq!(kinds(&answers), expected, "{target}: {answers:?}");
    }
    assert!(pair.until_reason("/missing", "invalid_route").await.text().contains("Service shop/nobody with port 80"));

    pair.mesh.write("grant.yaml", GRANT);
    let pair = &pair;
    wait::until_true("the grant opens the namespace", || async move {
        kinds(&answers(pair, "/abroad").await) == ["api", "ledger"]
    })
    .await;
    pair.mesh.remove("grant.yaml");
    wait::until_true("access ends with the grant", || async move {
        kinds(&answers(pair, "/abroad").await) == ["500 invalid_route", "api"]
    })
    .await;
    pair.mesh.service("shop/nobody", 80, 8080, "http");
    let nobody = Workload::new("shop/nobody").serves(8080, pair.upstream.address());
    let _nobody = pair.mesh.sidecar(nobody).await;
    wait::until_true("a service that comes later is called", || async move {
        kinds(&answers(pair, "/missing").await) == ["api"]
    })
    .await;
}

async fn findings(pair: &Pair) -> Vec<Value> {
    let status = client::get(pair.mesh.admin(), "/status").await.unwrap().json();
    status["findings"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_parent_that_does_not_say_its_kind_is_told_of_and_taken_for_nothing() {
    let pair = Pair::start().await;
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec:\n  \
                 parentRefs: [{name: api}]\n  rules: [{matches: [{path: {type: Exact, value: /other}}]}]\n";
    pair.mesh.write("route.yaml", route);
    let pair = &pair;
    let told = wait::until("the parent is told of", || async move { findings(pair).await.pop() }).await;
    assert_eq!((&told["severity"], &told["field"]), (&"error".into(), &"spec.parentRefs[0]".into()), "{told}");
    assert!(told["hint"].as_str().unwrap().contains("kind: Service, group: \"\""), "{told}");
    assert_eq!(pair.get("/").await.status, 200);
    pair.mesh.write("route.yaml", &route.replace("{name: api}", "{kind: Service, group: '', name: api}"));
    pair.until_reason("/", "no_route").await;
    pair.mesh.write("route.yaml", route);
    wait::until_true("it is told of again", || async move { !findings(pair).await.is_empty() }).await;
    assert_eq!(pair.get("/").await.reason(), "no_route", "the last good version stays in force");
}

#[tokio::test]
async fn a_service_with_a_port_of_datagrams_is_called_on_its_others() {
    let pair = Pair::start().await;
    pair.mesh.write(
        "service-shop-api.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\nspec:\n  selector: {app: api}\n  ports:\n  - \
         {name: datagrams, port: 80, protocol: UDP}\n  - {name: main, port: 80, targetPort: 8080}\n",
    );
    let another = Upstream::start("another").await;
    let another = Workload::new("shop/api-2").runs_as("api").backs("api").serves(8080, another.address());
    let _another = pair.mesh.sidecar(another).await;
    let pair = &pair;
    wait::until_true("changes of the service take effect", || async move {
        let asked = request(Method::GET, HOST, "/");
        client::call(pair.entry(), asked).await.unwrap().header("served-by") == "another"
    })
    .await;
    assert_eq!(findings(pair).await, [] as [Value; 0]);
}
