//! Routes in the namespace of callers (GEP-1294): each shapes the calls of its own namespace to a service of another one, and
//! nobody else's.

use http::Method;
use selvedge_tests::{
    client::{self, Answer, request},
    mesh::{Mesh, Sidecar, Workload},
    upstream::Upstream,
    wait,
};

const LEDGER: &str = "bank/ledger:80";

/// A route of `namespace` with the ledger as parent, and one rule.
fn route(namespace: &str, rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: ledger, namespace: {namespace}}}\nspec:\n  \
         parentRefs: [{{kind: Service, group: '', name: ledger, namespace: bank}}]\n  rules: [{{{rule}}}]\n"
    )
}

/// A rule whose answers say `by`.
fn marked(by: &str) -> String {
    let modifier = format!("{{set: [{{name: x-route, value: {by}}}]}}");
    format!("filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {modifier}}}]")
}

async fn get(caller: &Sidecar) -> Answer {
    client::call(caller.outbound(LEDGER), request(Method::GET, "ledger.bank", "/")).await.expect("it is answered")
}

/// By whose route a caller's request went, or why it did not.
async fn ways(callers: &[&Sidecar]) -> Vec<String> {
    let mut ways = Vec::new();
    for caller in callers {
        let answer = get(caller).await;
        let way =
            if answer.reason().is_empty() { answer.header("x-route").to_owned() } else { answer.reason().to_owned() };
        ways.push(way);
    }
    ways
}

#[tokio::test]
async fn a_route_of_callers_is_for_them_alone_and_in_the_place_of_those_of_the_service() {
    let mesh = Mesh::start().await;
    let ledger = Upstream::start("ledger").await;
    mesh.service("bank/ledger", 80, 8080, "http");
    let _ledger = mesh.sidecar(Workload::new("bank/ledger").serves(8080, ledger.address())).await;
    let mut shop = mesh.sidecar(Workload::new("shop/web").calls(LEDGER)).await;
    let office = mesh.sidecar(Workload::new("office/desk").calls(LEDGER)).await;
    let bank = mesh.sidecar(Workload::new("bank/teller").calls(LEDGER)).await;
    async fn are(callers: [&Sidecar; 3], wanted: [&str; 3]) {
        wait::until_true(&format!("calls go {wanted:?}"), || async { ways(&callers).await == wanted }).await;
    }
    are([&shop, &office, &bank], ["", "", ""]).await;
    mesh.write("producer.yaml", &route("bank", &marked("bank")));
    are([&shop, &office, &bank], ["bank", "bank", "bank"]).await;
    mesh.write("shop.yaml", &route("shop", &marked("shop")));
    are([&shop, &office, &bank], ["shop", "bank", "bank"]).await;
    let labels = ["route=\"shop/ledger/0\"", "destination_service=\"bank/ledger\""];
    assert!(shop.metric("selvedge_requests_total", &labels).await >= 1.0, "its name says whose it is");
    let mirror = "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}}}]";
    mesh.write("office.yaml", &route("office", mirror));
    are([&shop, &office, &bank], ["shop", "invalid_route", "bank"]).await;
    assert_eq!(get(&office).await.status, 500);

    shop.restart();
    shop.ready().await;
    are([&shop, &office, &bank], ["shop", "invalid_route", "bank"]).await;
    mesh.write("shop.yaml", &route("shop", &marked("again")));
    are([&shop, &office, &bank], ["again", "invalid_route", "bank"]).await;
    mesh.remove("shop.yaml");
    are([&shop, &office, &bank], ["bank", "invalid_route", "bank"]).await;
    mesh.remove("office.yaml");
    mesh.remove("producer.yaml");
    are([&shop, &office, &bank], ["", "", ""]).await;
}
