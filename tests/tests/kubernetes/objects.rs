//! Objects as real clusters write them.

use selvedge_tests::api_server::ApiServer;
use serde_json::{Value, json};

use super::{Fed, endpoints, pod, service, slice};

/// A port of a service.
fn port(name: &str, number: u16, protocol: &str) -> Value {
    json!({ "name": name, "port": number, "targetPort": number, "protocol": protocol })
}

#[tokio::test]
async fn a_number_that_is_a_port_of_tcp_and_of_udp_is_called_over_tcp() {
    let server = ApiServer::start().await;
    for (name, ports) in [("first", ["TCP", "UDP"]), ("last", ["UDP", "TCP"])] {
        let mut dns = service("kube-system", name);
        let named = |protocol: &str| port(&format!("dns-{}", protocol.to_lowercase()), 53, protocol);
        dns["spec"]["ports"] = json!(ports.map(named));
        let mut of = slice("kube-system", name, &[("10.1.0.9", None, "ready")]);
        of["ports"] = dns["spec"]["ports"].clone();
        server.put(dns);
        server.put(of);
    }
    let mut fed = Fed::new(&server).await;
    fed.until("it is complete", |fed| fed.report.complete).await;
    for name in ["first", "last"] {
        let expected = [("10.1.0.9:53".to_owned(), String::new())];
        assert_eq!(endpoints(&fed, &format!("kube-system/{name}:53")), expected, "{name}");
    }
}

#[tokio::test]
async fn a_pod_that_a_slice_gives_only_the_address_of_is_called_as_the_pod_it_is() {
    let server = ApiServer::start().await;
    server.put(service("shop", "web"));
    server.put(pod("shop", "meshed", "10.1.0.5", true));
    server.put(slice("shop", "web", &[("10.1.0.5", None, "ready")]));
    let mut fed = Fed::new(&server).await;
    fed.until("it is complete", |fed| fed.report.complete).await;
    let identity = "spiffe://mesh.local/ns/shop/sa/web".to_owned();
    assert_eq!(endpoints(&fed, "shop/web:80"), [("10.1.0.5:8080".to_owned(), identity)]);
}
