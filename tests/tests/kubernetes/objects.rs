//! Objects as real clusters write them.

use prost::Message;
use selvedge_control_plane::source::{Change, files};
use selvedge_tests::api_server::ApiServer;
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND},
    proto::mesh::{Destination, Endpoint, Endpoints, Inbound, InternalTrafficPolicy},
    resource::TypeUrl,
};
use serde_json::{Value, json};

use super::{Fed, endpoints, has, pod, problems, service, slice};

fn decoded<T: Message + Default>(fed: &Fed, kind: TypeUrl, name: &str) -> T {
    let found = fed.snapshot.get(kind, name);
    found.map(|resource| T::decode(resource.body.clone()).unwrap()).unwrap_or_default()
}

/// A port of a service, or of its endpoints when it leads nowhere else.
fn port(name: &str, number: u16, protocol: &str) -> Value {
    json!({ "name": name, "port": number, "protocol": protocol })
}

#[tokio::test]
async fn a_number_that_is_a_port_of_tcp_and_of_udp_is_called_over_tcp() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        for (name, ports) in [("first", ["TCP", "UDP"]), ("last", ["UDP", "TCP"])] {
            let mut dns = service("kube-system", name);
            let named = |protocol: &str| port(&format!("dns-{}", protocol.to_lowercase()), 53, protocol);
            dns["spec"]["ports"] = json!(ports.map(named));
            let mut of = slice("kube-system", name, &[("10.1.0.9", None, "ready")]);
            of["ports"] = dns["spec"]["ports"].clone();
            server.put(dns).await;
            server.put(of).await;
        }
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        for name in ["first", "last"] {
            let expected = [("10.1.0.9:53".to_owned(), String::new())];
            assert_eq!(endpoints(&fed, &format!("kube-system/{name}:53")), expected, "{name}");
        }
    }
}

#[tokio::test]
async fn what_clusters_have_beside_plain_services_is_taken_without_a_finding() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let mut own = service("default", "kubernetes");
        own["spec"].as_object_mut().unwrap().remove("selector");
        let mut headless = service("shop", "headless");
        headless["spec"]["clusterIP"] = json!("None");
        headless["spec"]["clusterIPs"] = json!(["None"]);
        headless["spec"].as_object_mut().unwrap().remove("ports");
        let mut named = service("shop", "elsewhere");
        named["spec"] = json!({ "type": "ExternalName", "externalName": "api.example.com", "sessionAffinity": "None" });
        let mut empty = slice("shop", "headless", &[]);
        empty["endpoints"] = Value::Null;
        empty["ports"] = Value::Null;
        let mut starting = pod("shop", "starting", "", false);
        starting["status"] = json!({ "phase": "Pending" });
        let host = json!({ "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": "kube-system", "name": "proxy-node-1" },
            "spec": { "hostNetwork": true, "containers": [
                { "name": "a", "image": "a", "ports": [{ "name": "metrics", "containerPort": 9100, "hostPort": 9100 }] },
                { "name": "b", "image": "b", "ports": [{ "name": "metrics", "containerPort": 9101 }, { "name": "dns", "containerPort": 53, "protocol": "UDP" }] },
            ] },
            "status": { "phase": "Running", "podIP": "fd00::9", "podIPs": [{ "ip": "fd00::9" }] },
        });
        for object in [own, headless, named, empty, starting, host] {
            server.put(object).await;
        }
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        let findings: Vec<&str> = fed.report.findings.iter().map(|finding| &*finding.message).collect();
        assert_eq!(findings, [""; 0]);
        assert_eq!(problems(&fed), [""; 0]);
    }
}

#[tokio::test]
async fn a_pod_that_a_slice_gives_only_the_address_of_is_called_as_the_pod_it_is() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("shop", "web")).await;
        server.put(pod("shop", "meshed", "10.1.0.5", true)).await;
        server.put(slice("shop", "web", &[("10.1.0.5", None, "ready")])).await;
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        let identity = "spiffe://mesh.local/ns/shop/sa/web".to_owned();
        assert_eq!(endpoints(&fed, "shop/web:80"), [("10.1.0.5:8080".to_owned(), identity)]);
    }
}

#[tokio::test]
async fn a_headless_service_is_called_by_its_name_and_its_pods_by_their_addresses() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let mut headless = service("shop", "web");
        headless["spec"]["clusterIP"] = json!("None");
        headless["spec"]["clusterIPs"] = json!(["None"]);
        server.put(headless).await;
        let members = [("10.1.0.5", "web-0"), ("10.1.0.6", "web-1")];
        for (address, name) in members {
            server.put(pod("shop", name, address, true)).await;
        }
        let mut of = slice("shop", "web", &members.map(|(address, name)| (address, Some(name), "ready")));
        for (endpoint, (_, name)) in of["endpoints"].as_array_mut().unwrap().iter_mut().zip(members) {
            endpoint["hostname"] = json!(name); // as that of a StatefulSet
        }
        server.put(of).await;
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        let identity = "spiffe://mesh.local/ns/shop/sa/web".to_owned();
        let called = members.map(|(address, _)| (format!("{address}:8080"), identity.clone()));
        assert_eq!(endpoints(&fed, "shop/web:80"), called);
        let by_name: Destination = decoded(&fed, DESTINATION, "web.shop.svc.cluster.local");
        assert_eq!(by_name.name, "web");
        for (address, _) in members {
            let by_address: Destination = decoded(&fed, DESTINATION, address);
            let port = by_address.address_ports.iter().find(|port| port.port == 8080).expect("it has the port");
            assert_eq!((&*port.service, &*port.endpoint.as_ref().unwrap().identity), ("shop/web", &*identity));
        }
        assert_eq!(problems(&fed), [""; 0]);
    }
}

#[tokio::test]
async fn a_service_whose_last_pod_goes_is_called_nowhere() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("shop", "web")).await;
        server.put(slice("shop", "web", &[("10.1.0.5", None, "ready")])).await;
        let mut fed = Fed::new(&server).await;
        fed.until("it is called", |fed| !endpoints(fed, "shop/web:80").is_empty() && fed.report.complete).await;
        let mut empty = slice("shop", "web", &[]);
        empty["endpoints"] = Value::Null;
        server.put(empty).await;
        fed.until("it is not called", |fed| endpoints(fed, "shop/web:80").is_empty()).await;
    }
}

#[tokio::test]
async fn of_two_containers_that_give_a_port_the_same_name_the_first_counts() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("shop", "web")).await;
        let mut web = pod("shop", "web-1", "10.1.0.5", true);
        web["spec"]["containers"] = json!([
            { "name": "one", "image": "one", "ports": [{ "name": "web", "containerPort": 9000 }] },
            { "name": "two", "image": "two", "ports": [{ "name": "web", "containerPort": 8000 }] },
        ]);
        server.put(web).await;
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        let identity = "spiffe://mesh.local/ns/shop/sa/web".to_owned();
        assert_eq!(endpoints(&fed, "shop/web:80"), [("10.1.0.5:9000".to_owned(), identity)]);
    }
}

#[tokio::test]
async fn callers_are_told_where_endpoints_are_and_whom_the_cluster_means_each_for() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("shop", "web")).await;
        server.put(pod("shop", "near", "10.1.0.5", true)).await;
        server.put(pod("shop", "far", "10.1.0.6", false)).await;
        let mut of =
            slice("shop", "web", &[("10.1.0.5", Some("near"), "ready"), ("10.1.0.6", Some("far"), "terminating")]);
        let hints = json!({ "forZones": [{ "name": "a" }], "forNodes": [{ "name": "one" }] });
        for endpoint in of["endpoints"].as_array_mut().unwrap() {
            endpoint["zone"] = json!("a");
            endpoint["hints"] = hints.clone();
        }
        server.put(of).await;
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        let told = |fed: &Fed| decoded::<Endpoints>(fed, ENDPOINTS, "shop/web:80");
        let of_ready = told(&fed).endpoints;
        let Endpoint { zone, node, for_zones, for_nodes, .. } = &of_ready[0];
        assert_eq!((&**zone, &**node, &*for_zones[0], &*for_nodes[0]), ("a", "one", "a", "one"));
        assert!(of_ready.len() == 1 && told(&fed).leaving.is_empty());
        let own: Inbound = decoded(&fed, INBOUND, "shop/near");
        assert_eq!(own.node, "one", "so does the sidecar of a pod learn where it is");

        let mut local = service("shop", "web");
        local["spec"]["internalTrafficPolicy"] = json!("Local");
        server.put(local).await;
        fed.until("calls stay on their node", |fed| {
            told(fed).internal_traffic_policy() == InternalTrafficPolicy::Local
        })
        .await;
        let leaving = told(&fed).leaving;
        assert!(leaving.len() == 1 && leaving[0].address == "10.1.0.6:8080" && leaving[0].for_zones.is_empty());
    }
}

/// A node with far more to say than the mesh needs.
fn node(name: &str, zone: &str, networks: &[&str]) -> Value {
    let images: Vec<Value> = (0..20).map(|n| json!({ "names": [format!("image-{n}")], "sizeBytes": 1 })).collect();
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": { "topology.kubernetes.io/zone": zone, "kubernetes.io/os": "linux" },
        },
        "spec": { "podCIDRs": networks, "taints": [{ "key": "node.kubernetes.io/x", "effect": "NoSchedule" }] },
        "status": { "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }], "images": images },
    });
    if let Some(first) = networks.first() {
        node["spec"]["podCIDR"] = json!(first);
    }
    node
}

#[tokio::test]
async fn nodes_say_in_which_zone_their_pods_are_and_where_probes_come_from() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("shop", "web")).await;
        server.put(pod("shop", "web-1", "10.1.0.5", true)).await;
        server.put(slice("shop", "web", &[("10.1.0.5", Some("web-1"), "ready")])).await;
        let mut fed = Fed::new(&server).await;
        let zone = |fed: &Fed| {
            let told: Endpoints = decoded(fed, ENDPOINTS, "shop/web:80");
            told.endpoints.first().map(|endpoint| endpoint.zone.clone())
        };
        fed.until("it is complete", |fed| fed.report.complete).await;
        assert_eq!(zone(&fed), Some(String::new()), "the node is not known");
        server.put(node("one", "a", &["10.1.0.0/24", "fd00:1::/64"])).await;
        fed.until("the endpoint is in the zone of its node", |fed| zone(fed).as_deref() == Some("a")).await;
        let own = |fed: &Fed| decoded::<Inbound>(fed, INBOUND, "shop/web-1");
        assert_eq!((own(&fed).zone.as_str(), own(&fed).probers), ("a", vec!["10.1.0.1".into(), "fd00:1::1".into()]));
        let kept = fed.store.unsaved().map(|in_force| format!("{in_force:?}")).unwrap_or_default();
        assert!(kept.contains("10.1.0.0/24") && !kept.contains("image-1") && !kept.contains("taints"), "{kept}");
        server.put(node("one", "b", &["10.1.0.0/24", "fd00:1::/64"])).await;
        fed.until("the zone is another", |fed| zone(fed).as_deref() == Some("b") && own(fed).zone == "b").await;
        server.delete("Node", "", "one").await;
        fed.until("the node is gone", |fed| own(fed).zone.is_empty() && own(fed).probers.is_empty()).await;
        assert_eq!(problems(&fed), [""; 0]);
    }
}

#[tokio::test]
async fn a_pod_is_called_at_its_own_address_but_for_the_ports_that_are_reached_past_its_sidecar() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("shop", "web")).await;
        let mut web = pod("shop", "web-1", "10.1.0.5", true);
        web["metadata"]["annotations"] = json!({ "config.selvedge.dev/exclude-inbound-ports": "9000, 9001" });
        web["spec"]["initContainers"][0]["ports"] = json!([{ "name": "mesh-metrics", "containerPort": 15021 }]);
        server.put(web).await;
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        let told = |fed: &Fed| decoded::<Destination>(fed, DESTINATION, "10.1.0.5").address_ports;
        let ports: Vec<_> =
            told(&fed).into_iter().map(|port| (port.port, port.service, port.endpoint.is_some())).collect();
        let direct = |port| (port, String::new(), false);
        let expected =
            [(0, String::new(), true), (8080, "shop/web".to_owned(), true), direct(9000), direct(9001), direct(15021)];
        assert_eq!(ports, expected);
        server.delete("Pod", "shop", "web-1").await;
        fed.until("it goes with the pod", |fed| told(fed).is_empty()).await;
        assert_eq!(problems(&fed), [""; 0]);
    }
}

/// A process on a virtual machine that the selector of `web` selects.
fn machine(namespace: &str, name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "selvedge.dev/v1alpha1", "kind": "Workload",
        "metadata": { "namespace": namespace, "name": name, "labels": { "app": "web" } },
        "spec": { "serviceAccount": "machine", "address": address, "ports": [{ "name": "web", "port": 9090 }] },
    })
}

#[tokio::test]
async fn workloads_that_are_no_pods_stand_beside_the_pods_of_a_service_that_selects_them() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("shop", "web")).await;
        server.put(pod("shop", "web-1", "10.1.0.5", true)).await;
        server.put(pod("shop", "web-2", "10.1.0.6", true)).await;
        let of_pods =
            |state| slice("shop", "web", &[("10.1.0.5", Some("web-1"), state), ("10.1.0.6", Some("web-2"), "unready")]);
        server.put(of_pods("ready")).await;
        server.put(machine("shop", "machine", "192.0.2.7")).await;
        server.put(machine("office", "elsewhere", "192.0.2.8")).await;
        let mut fed = Fed::new(&server).await;
        let called =
            |account: &str, address: &str| (address.to_owned(), format!("spiffe://mesh.local/ns/shop/sa/{account}"));
        let (first, machine_called) = (called("web", "10.1.0.5:8080"), called("machine", "192.0.2.7:9090"));
        let are = |fed: &Fed, expected: &[&(String, String)]| {
            endpoints(fed, "shop/web:80").iter().eq(expected.iter().copied())
        };
        fed.until("both are called", |fed| are(fed, &[&first, &machine_called])).await;
        let own: Inbound = decoded(&fed, INBOUND, "shop/machine");
        assert_eq!(own.ports.iter().map(|port| (port.port, &*port.service)).collect::<Vec<_>>(), [(9090, "shop/web")]);
        assert!(has(&fed, "Workload", "elsewhere"));

        let folder = tempfile::tempdir().unwrap();
        let file = machine("shop", "of-a-file", "192.0.2.9").to_string();
        std::fs::write(folder.path().join("machine.yaml"), file).unwrap();
        for change in files::once(folder.path()).unwrap().into_iter().chain([Change::Complete]) {
            fed.store.take(files::NAME, change);
        }
        (fed.snapshot, fed.report) = fed.store.commit();
        let of_a_file = called("machine", "192.0.2.9:9090");
        assert!(are(&fed, &[&first, &machine_called, &of_a_file]), "{:?}", endpoints(&fed, "shop/web:80"));
        assert_eq!(problems(&fed), [""; 0]);

        server.put(of_pods("terminating")).await;
        fed.until("what ends is not called", |fed| are(fed, &[&machine_called, &of_a_file])).await;
        let mut out = machine("shop", "machine", "192.0.2.7");
        out["spec"]["weight"] = json!(0);
        server.put(out).await;
        fed.until("what has no weight is not called", |fed| are(fed, &[&of_a_file])).await;
        let mut by_hand = slice("shop", "web", &[("192.0.2.9", None, "unready")]);
        by_hand["metadata"]["name"] = json!("web-by-hand");
        server.put(by_hand).await;
        fed.until("a slice says whether it is called", |fed| are(fed, &[&first])).await;
    }
}

#[tokio::test]
async fn a_route_in_the_namespace_of_callers_is_told_to_them_alone() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(service("bank", "ledger")).await;
        server
            .put(json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": { "namespace": "shop", "name": "ledger" },
                "spec": {
                    "parentRefs": [{ "group": "", "kind": "Service", "name": "ledger", "namespace": "bank", "port": 80 }],
                    "rules": [{ "timeouts": { "request": "1s" } }],
                },
            }))
            .await;
        let mut fed = Fed::new(&server).await;
        let routes = |fed: &Fed, namespace: &str| {
            let told = fed.snapshot.seen_from(namespace, DESTINATION, "ledger.bank");
            told.map_or(0, |told| Destination::decode(told.body.clone()).unwrap().routes.len())
        };
        fed.until("callers in shop are told of it", |fed| routes(fed, "shop") == 1).await;
        assert_eq!((routes(&fed, "office"), routes(&fed, "bank")), (0, 0));
        assert_eq!(problems(&fed), [""; 0]);
        server.delete("HTTPRoute", "shop", "ledger").await;
        fed.until("it is gone", |fed| routes(fed, "shop") == 0).await;
    }
}
