//! What sidecars are told of what users wrote.

use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use selvedge_control_plane::{
    snapshot::Snapshot,
    source::{Change, Document},
    store::{Report, Store},
};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND, SELVEDGE},
    proto::{
        discovery::{DeltaDiscoveryRequest, Node},
        mesh::{AddressPort, Destination, Endpoints, Inbound, InboundMode, OutboundMode},
    },
    resource::TypeUrl,
    server::Stream,
};

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080, appProtocol: http}, {port: 81}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}
spec: {serviceAccount: web, address: 10.0.0.1, ports: [{port: 8080, dial: 15006}], weight: 3}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {serviceAccount: web, address: 'fd00::2', weight: 0}
---
apiVersion: selvedge.dev/v1alpha1
kind: ExternalService
metadata: {name: pay, namespace: shop}
spec:
  hosts: [api.pay.example]
  ports: [{port: 443, tls: {}}]
  endpoints: [{address: 198.51.100.1}, {address: 198.51.100.2, port: 8443}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split, namespace: shop}
spec: {parentRefs: [{kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: on-service, namespace: shop}
spec: {targetRef: {kind: Service, name: web}, action: ALLOW, rules: [{from: [{serviceAccounts: [ui]}]}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: on-namespace, namespace: shop}
spec: {action: DENY, rules: [{from: [{namespaces: [evil]}]}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: RateLimit
metadata: {name: on-workload, namespace: shop}
spec: {targetRef: {kind: Workload, name: web-1}, limits: [{requests: 5, per: 1s}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: tries, namespace: shop}
spec: {targetRef: {kind: Service, name: web}, timeouts: {request: 3s}}
---
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: {name: mesh, namespace: selvedge-system}
spec: {targetRef: {kind: Mesh}, mtls: {inbound: PERMISSIVE, outbound: PREFER}, defaultPosture: deny}
---
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: {name: default, namespace: shop}
spec: {mtls: {inbound: STRICT}}
---
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: {name: one, namespace: shop}
spec: {targetRef: {kind: Workload, name: web-2}, defaultPosture: allow}
";

fn snapshot(text: &str) -> Arc<Snapshot> {
    let (snapshot, mut report) = committed(text);
    // Files stand for the pods of a cluster here.
    report.findings.retain(|finding| finding.field != "spec.pod");
    assert_eq!(report.findings, [], "the example is sound");
    snapshot
}

fn committed(text: &str) -> (Arc<Snapshot>, Report) {
    let mut store = Store::new("mesh.local");
    store.take("files", Document { origin: "a.yaml".into(), text: Ok(text.into()) }.put());
    store.take("files", Change::Complete);
    store.commit()
}

fn decode<T: Message + Default>(snapshot: &Snapshot, kind: TypeUrl, name: &str) -> T {
    let resource = snapshot.get(kind, name).unwrap_or_else(|| panic!("no {kind:?} {name}"));
    T::decode(resource.body.clone()).unwrap()
}

#[test]
fn a_service_answers_to_all_its_names_and_addresses() {
    let snapshot = snapshot(SHOP);
    for alias in [
        "shop/web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "web.shop:80",
        "10.96.0.1:80",
        "10.96.0.1:81",
    ] {
        let destination: Destination = decode(&snapshot, DESTINATION, alias);
        assert_eq!(destination.name, "web", "{alias}");
    }
    for alias in ["web", "10.96.0.1:82", "10.0.0.1:15006", "other.shop"] {
        assert!(snapshot.get(DESTINATION, alias).is_none(), "{alias}");
    }
    let web: Destination = decode(&snapshot, DESTINATION, "shop/web");
    let ports: Vec<_> = web.ports.iter().map(|port| (port.port, port.app_protocol.as_str())).collect();
    assert_eq!(ports, [(80, "http"), (81, "")]);
    assert_eq!(web.origin.unwrap().generation, 1);
    let names: Vec<_> = web.policies.iter().map(|p| p.origin.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(names, ["tries"]);
    assert!(web.routes[0].document.contains(r#""namespace":"shop""#), "namespaces are filled in");
}

#[test]
fn a_pod_of_both_ip_versions_is_one_endpoint_and_answers_to_both_addresses() {
    let slice = |version: &str, address: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-{version}, namespace: shop, \
             labels: {{kubernetes.io/service-name: web}}}}\naddressType: {version}\nendpoints: [{{addresses: ['{address}'], \
             targetRef: {{kind: Pod, name: web-1}}}}]\nports: [{{name: '', port: 8080}}]\n"
        )
        .replace(&format!("name: web-{version}"), &format!("name: web-{}", version.to_lowercase()))
    };
    for (first, expected) in [("10.96.0.1", "10.0.0.1:8080"), ("'fd00:96::1'", "[fd00::1]:8080")] {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{clusterIP: {first}, selector: \
             {{app: web}}, ports: [{{port: 80}}]}}\n---\napiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: \
             web-1, namespace: shop, labels: {{app: web}}}}\nspec: {{serviceAccount: web, address: 10.0.0.1, addresses: \
             ['fd00::1']}}\n{}{}",
            slice("IPv4", "10.0.0.1"),
            slice("IPv6", "fd00::1")
        );
        let snapshot = snapshot(&text);
        let endpoints: Endpoints = decode(&snapshot, ENDPOINTS, "shop/web:80");
        let called: Vec<&str> = endpoints.endpoints.iter().map(|endpoint| &*endpoint.address).collect();
        assert_eq!(called, [expected]);
        for ip in ["10.0.0.1", "fd00::1"] {
            assert!(!decode::<Destination>(&snapshot, DESTINATION, ip).address_ports.is_empty(), "{ip}");
        }
    }
}

#[test]
fn a_port_whose_name_begins_with_tcp_is_opaque_unless_it_says_otherwise() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{name: tcp-db, port: 1}, \
                {name: tcp, port: 2}, {name: tcpdump, port: 3}, {name: http, port: 4}, {name: tcp-x, port: 5, appProtocol: \
                http}]}\n";
    let web: Destination = decode(&snapshot(text), DESTINATION, "shop/web");
    let spoken: Vec<_> = web.ports.iter().map(|port| (port.port, &*port.app_protocol)).collect();
    assert_eq!(spoken, [(1, "tcp"), (2, "tcp"), (3, ""), (4, ""), (5, "http")]);
}

/// What answers at each port of an address: `port service protocol address settings`.
fn address_ports(snapshot: &Snapshot, ip: &str) -> Vec<String> {
    let message: Destination = decode(snapshot, DESTINATION, ip);
    let shown = message.address_ports.iter().map(|port| {
        let settings = port.policies.iter().filter_map(|policy| Some(&*policy.origin.as_ref()?.name));
        let address = port.endpoint.as_ref().map_or("direct", |endpoint| &endpoint.address);
        let settings = settings.collect::<Vec<_>>().join(",");
        format!("{} {} {} {address} {settings}", port.port, port.service, port.app_protocol).trim_end().to_owned()
    });
    shown.collect()
}

#[test]
fn a_workload_answers_to_its_own_address_with_the_settings_of_the_service_before_each_port() {
    let snapshot = snapshot(SHOP);
    let listed = ["81 shop/web  10.0.0.1:81 tries", "8080 shop/web http 10.0.0.1:15006 tries"];
    assert_eq!(address_ports(&snapshot, "10.0.0.1"), listed, "what it listens on beside is not known");
    let captured = [
        "0   [fd00::2]:0",
        "81 shop/web  [fd00::2]:81 tries",
        "8080 shop/web http [fd00::2]:8080 tries",
        "15020   direct",
    ];
    assert_eq!(address_ports(&snapshot, "fd00::2"), captured);
    assert!(snapshot.get(DESTINATION, "198.51.100.1").is_none(), "that is no workload's");
}

#[test]
fn workloads_of_a_service_without_slices_are_meant_for_callers_near_them() {
    let meant = |distribution: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{selector: {{app: web}}, ports: \
             [{{port: 80}}]{distribution}}}\n---\napiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: \
             one, namespace: shop, labels: {{app: web}}}}\nspec: {{serviceAccount: web, address: 10.0.0.1, zone: a, node: \
             one}}\n"
        );
        let told: Endpoints = decode(&snapshot(&text), ENDPOINTS, "shop/web:80");
        (told.endpoints[0].for_nodes.join(","), told.endpoints[0].for_zones.join(","))
    };
    let hints = |nodes: &str, zones: &str| (nodes.to_owned(), zones.to_owned());
    assert_eq!(meant(""), hints("", ""));
    assert_eq!(meant(", trafficDistribution: PreferClose"), hints("", "a"));
    assert_eq!(meant(", trafficDistribution: PreferSameNode"), hints("one", "a"));
    assert_eq!(meant(", trafficDistribution: Newer"), hints("", ""));
}

#[test]
fn a_node_says_in_which_zone_what_is_on_it_is_and_where_the_probes_of_its_pods_come_from() {
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: one, labels: {topology.kubernetes.io/zone: a}}\nspec: \
                {podCIDRs: [10.1.0.0/24, 'fd00:1::/64']}\n";
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: \
                   web}, trafficDistribution: PreferClose, ports: [{port: 80}]}\n";
    let workload = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop, labels: \
             {{app: web}}}}\nspec: {{serviceAccount: web, {spec}}}\n"
        )
    };
    let text = [node, service]
        .map(str::to_owned)
        .into_iter()
        .chain([
            workload("pod", "address: 10.1.0.5, node: one, pod: true"),
            workload("process", "address: 10.1.0.6, node: one, zone: own"),
            workload("elsewhere", "address: 10.1.0.7, node: other, pod: true"),
        ])
        .collect::<String>();
    let told = snapshot(&text);
    let endpoints = decode::<Endpoints>(&told, ENDPOINTS, "shop/web:80").endpoints;
    let zones: Vec<_> = endpoints.iter().map(|of| (&*of.address, &*of.zone, of.for_zones.join(","))).collect();
    let hint = |address, zone: &'static str| (address, zone, zone.to_owned());
    assert_eq!(zones, [hint("10.1.0.7:80", ""), hint("10.1.0.5:80", "a"), hint("10.1.0.6:80", "own")]);
    let own = |name: &str| {
        let Inbound { zone, node, probers, .. } = decode(&told, INBOUND, &format!("shop/{name}"));
        (zone, node, probers.join(" "))
    };
    let place = |zone: &str, node: &str, probers: &str| (zone.to_owned(), node.to_owned(), probers.to_owned());
    assert_eq!(own("pod"), place("a", "one", "10.1.0.1 fd00:1::1"));
    assert_eq!(own("process"), place("own", "one", ""), "no kubelet asks a process");
    assert_eq!(own("elsewhere"), place("", "other", ""));
}

/// Where a caller is decides its sidecar, so that one encoding serves all of them.
#[test]
fn callers_on_different_nodes_are_told_the_same_and_it_is_encoded_once() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, \
                   internalTrafficPolicy: Local, trafficDistribution: PreferClose, ports: [{port: 80}]}\n";
    let workloads = ["one", "two"].map(|node| {
        format!(
            "---\napiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: on-{node}, namespace: shop, labels: \
             {{app: web}}}}\nspec: {{serviceAccount: web, address: 10.0.0.{}, node: {node}, zone: {node}}}\n",
            node.len()
        )
    });
    let told = snapshot(&(service.to_owned() + &workloads.concat()));
    let names = [(DESTINATION, "shop/web"), (ENDPOINTS, "shop/web:80")];
    let hears = |node: &str| {
        let mut stream = Stream::new(&SELVEDGE);
        for (kind, name) in names {
            let request = DeltaDiscoveryRequest {
                node: Some(Node { id: format!("shop/on-{node}"), ..Node::default() }),
                type_url: kind.to_string(),
                resource_names_subscribe: vec![name.to_owned()],
                ..DeltaDiscoveryRequest::default()
            };
            stream.request(request).unwrap();
        }
        stream.changed();
        let (mut bytes, mut held) = (Vec::new(), Vec::new());
        loop {
            let responses = stream.responses(&|kind, name| told.get(kind, name), &"1".into());
            if responses.is_empty() {
                return (bytes, held);
            }
            for response in responses {
                let reply = DeltaDiscoveryRequest {
                    type_url: response.kind.to_string(),
                    response_nonce: response.nonce.to_string(),
                    ..DeltaDiscoveryRequest::default()
                };
                bytes.extend(response.resources.iter().map(|(resource, _)| resource.body.to_vec()));
                held.extend(stream.request(reply).unwrap().unwrap().taken);
            }
        }
    };
    let ((told_one, held_one), (told_two, held_two)) = (hears("one"), hears("two"));
    assert_eq!((&told_one, told_one.len()), (&told_two, names.len()));
    let is_same = |(one, two)| Arc::ptr_eq(one, two);
    assert!(held_one.len() == names.len() && held_one.iter().zip(&held_two).all(is_same), "{held_one:?} {held_two:?}");
}

#[test]
fn an_endpoint_of_a_slice_is_in_the_zone_of_its_node_unless_the_slice_says() {
    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: one, labels: {topology.kubernetes.io/zone: a}}\nspec: {}\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 80}]}\n---\n\
                apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {name: pod, namespace: shop}\nspec: \
                {serviceAccount: web, address: 10.1.0.5, node: one}\n---\n\
                apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, namespace: shop, labels: \
                {kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints:\n\
                - {addresses: [10.1.0.5], targetRef: {kind: Pod, name: pod}}\n\
                - {addresses: [10.1.0.6], nodeName: one}\n\
                - {addresses: [10.1.0.7], nodeName: one, zone: b}\n\
                - {addresses: [10.1.0.8], nodeName: other}\n\
                ports: [{port: 8080}]\n";
    let endpoints = decode::<Endpoints>(&snapshot(text), ENDPOINTS, "shop/web:80").endpoints;
    let places: Vec<_> = endpoints.iter().map(|of| (&*of.node, &*of.zone)).collect();
    assert_eq!(places, [("one", "a"), ("one", "a"), ("one", "b"), ("other", "")]);
}

#[test]
fn of_several_services_before_one_port_the_first_by_name_counts_and_of_two_workloads_on_one_that_with_a_sidecar() {
    let service = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{app: \
             web}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
        )
    };
    let workload = |name: &str, more: &str| {
        format!(
            "---\napiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop, labels: \
             {{app: web}}}}\nspec: {{serviceAccount: web, address: 10.0.0.1{more}}}\n"
        )
    };
    let services = service("web") + &service("all");
    let alone = snapshot(&(services.clone() + &workload("one", ", directPorts: [9000, 8080]")));
    let direct = ["0   10.0.0.1:0", "8080   direct", "9000   direct"];
    assert_eq!(address_ports(&alone, "10.0.0.1"), direct);
    let alone = snapshot(&(services.clone() + &workload("one", "")));
    assert_eq!(address_ports(&alone, "10.0.0.1")[1], "8080 shop/all  10.0.0.1:8080");
    let neighbours = workload("one", ", ports: [{port: 9001, dial: 15006}]") + &workload("two", ", sidecar: false");
    let shared = snapshot(&(services + &neighbours));
    assert_eq!(address_ports(&shared, "10.0.0.1"), ["8080 shop/all  10.0.0.1:8080", "9001   10.0.0.1:15006"]);
    let told: Endpoints = decode(&shared, ENDPOINTS, "shop/web:80");
    let identities: Vec<&str> = told.endpoints.iter().map(|endpoint| &*endpoint.identity).collect();
    assert_eq!(identities, ["spiffe://mesh.local/ns/shop/sa/web"], "one place is not called in two ways");
}

/// Which workload answers at 10.0.0.1 on each port, `-` for one in plaintext.
fn answering(text: &str) -> Vec<String> {
    let told: Destination = decode(&committed(text).0, DESTINATION, "10.0.0.1");
    let who =
        |port: &AddressPort| port.endpoint.as_ref().map_or("direct".to_owned(), |endpoint| endpoint.workload.clone());
    told.address_ports.iter().map(|port| format!("{} {}", port.port, who(port).replace("shop/", ""))).collect()
}

#[test]
fn what_several_claim_is_called_over_mtls_and_never_in_plaintext() {
    let workload = |name: &str, more: &str| {
        format!(
            "---\napiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop}}\nspec: \
             {{serviceAccount: {name}, address: 10.0.0.1{more}}}\n"
        )
    };
    let on_8080 = ", ports: [{port: 8080}]";
    let bare = |name: &str, more: &str| workload(name, &format!(", sidecar: false{more}"));
    let proven = workload("meshed", on_8080);
    for beside in [bare("bare", on_8080), bare("zz-bare", on_8080), bare("bare", "")] {
        let told = answering(&(beside.clone() + &proven));
        assert_eq!(told, ["0 meshed", "8080 meshed", "15020 direct"], "{beside}");
    }
    let two = answering(&(bare("bare", ", ports: [{port: 8080}, {port: 9090}]") + &proven));
    assert_eq!(two, ["0 meshed", "8080 meshed", "9090 ", "15020 direct"], "a port that nobody else has is its own");
    let both = answering(&(workload("two", on_8080) + &proven));
    assert_eq!(both, ["0 meshed", "8080 meshed", "15020 direct"], "if it is the other, the call fails");
    let listed = workload("meshed", ", ports: [{port: 8080, dial: 15006}]");
    assert_eq!(answering(&(listed + &bare("bare", ""))), ["8080 meshed"], "what else is there is not known");
    let node = workload("pod", ", pod: true, sidecar: false, ports: [{port: 9100}, {port: 8080}]");
    assert_eq!(answering(&(node + &proven)), ["8080 ", "9100 "], "what a cluster says of a pod is so");
}

#[test]
fn nobody_beside_a_pod_with_a_sidecar_lets_calls_of_its_address_go_past_it() {
    let workload = |name: &str, created: u32, more: &str| {
        format!(
            "---\napiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop, \
             creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}\nspec: {{serviceAccount: {name}, address: 10.0.0.1{more}}}\n"
        )
    };
    let pod = workload("pod", 1, ", pod: true, ports: [{port: 8080}]");
    let alone = address_ports(&snapshot(&pod), "10.0.0.1");
    assert_eq!(alone, ["0   10.0.0.1:0", "8080   10.0.0.1:8080", "15020   direct"]);
    let claim = workload("claim", 9, ", sidecar: false, ports: [{port: 8080}, {port: 9090}]");
    assert_eq!(address_ports(&committed(&(pod.clone() + &claim)).0, "10.0.0.1"), alone);
    let newer = workload("newer", 2, ", pod: true");
    let owner: Destination = decode(&snapshot(&(pod + &newer)), DESTINATION, "10.0.0.1");
    let identity = |port: &AddressPort| Some(port.endpoint.as_ref()?.identity.clone());
    let identities: Vec<String> = owner.address_ports.iter().filter_map(identity).collect();
    assert_eq!(identities, ["spiffe://mesh.local/ns/shop/sa/newer"], "the older one is gone");
}

#[test]
fn protocols_may_be_named_as_kubernetes_names_them() {
    for (written, meant) in [
        ("kubernetes.io/ws", "http"),
        ("kubernetes.io/h2c", "http2"),
        ("grpc", "grpc"),
        ("https", "tls"),
        ("kubernetes.io/wss", "tls"),
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{selector: {{app: web}}, \
             ports: [{{port: 80, appProtocol: {written}}}]}}\n---\napiVersion: selvedge.dev/v1alpha1\nkind: Workload\n\
             metadata: {{name: web-1, namespace: shop, labels: {{app: web}}}}\n\
             spec: {{serviceAccount: web, address: 10.0.0.1}}\n"
        );
        let snapshot = snapshot(&text);
        let web: Destination = decode(&snapshot, DESTINATION, "shop/web");
        assert_eq!(web.ports[0].app_protocol, meant, "{written}");
    }
}

#[test]
fn endpoints_are_where_peers_dial_and_whom_they_must_find() {
    let snapshot = snapshot(SHOP);
    let http: Endpoints = decode(&snapshot, ENDPOINTS, "shop/web:80");
    let endpoint = &http.endpoints[0];
    assert_eq!(http.endpoints.len(), 1, "a workload of weight 0 gets nothing");
    assert_eq!((endpoint.address.as_str(), endpoint.port, endpoint.weight), ("10.0.0.1:15006", 8080, 3));
    assert_eq!(endpoint.identity, "spiffe://mesh.local/ns/shop/sa/web");
    assert_eq!(endpoint.workload, "shop/web-1");
    let other: Endpoints = decode(&snapshot, ENDPOINTS, "shop/web:81");
    assert_eq!(other.endpoints[0].address, "10.0.0.1:81");
}

#[test]
fn a_named_target_port_is_each_workloads_own() {
    let text = SHOP
        .replace("targetPort: 8080", "targetPort: http")
        .replace("clusterIP: 10.96.0.1", "clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::96']");
    let text = text.replace("{port: 8080, dial: 15006}", "{name: http, port: 8080, dial: 15006}");
    let text = text.replace("address: 'fd00::2', weight: 0", "address: 'fd00::2', ports: [{name: http, port: 9000}]");
    let snapshot = snapshot(&text);
    let http: Endpoints = decode(&snapshot, ENDPOINTS, "shop/web:80");
    let addresses: Vec<_> = http.endpoints.iter().map(|endpoint| endpoint.address.as_str()).collect();
    assert_eq!(addresses, ["10.0.0.1:15006", "[fd00::2]:9000"]);
    let two: Inbound = decode(&snapshot, INBOUND, "shop/web-2");
    assert_eq!(two.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [81, 9000]);
    assert!(snapshot.get(DESTINATION, "[fd00::96]:80").is_some(), "every address is an alias");

    let mut store = Store::new("mesh.local");
    let unnamed = text.replace("{name: http, port: 9000}", "{port: 9000}");
    store.take("files", Document { origin: "a.yaml".into(), text: Ok(unnamed.into()) }.put());
    store.take("files", Change::Complete);
    let (snapshot, report) = store.commit();
    let told: Vec<_> = report.findings.iter().map(|f| (f.field.as_str(), f.message.as_str())).collect();
    assert_eq!(told, [("spec.ports[0].targetPort", "calls on port 80 do not reach Workload shop/web-2")]);
    assert_eq!(decode::<Endpoints>(&snapshot, ENDPOINTS, "shop/web:80").endpoints.len(), 1);
}

#[test]
fn an_external_service_has_no_identity_and_may_have_tls() {
    let snapshot = snapshot(SHOP);
    for alias in ["shop/pay", "api.pay.example", "api.pay.example:443", "198.51.100.1:443", "198.51.100.2:8443"] {
        assert!(decode::<Destination>(&snapshot, DESTINATION, alias).external, "{alias}");
    }
    let pay: Endpoints = decode(&snapshot, ENDPOINTS, "shop/pay:443");
    let endpoints: Vec<_> =
        pay.endpoints.iter().map(|e| (e.address.as_str(), e.identity.as_str(), e.tls_server_name.as_str())).collect();
    assert_eq!(endpoints, [("198.51.100.1:443", "", "api.pay.example"), ("198.51.100.2:8443", "", "api.pay.example")]);
}

#[test]
fn a_workload_sees_what_covers_it() {
    let snapshot = snapshot(SHOP);
    let one: Inbound = decode(&snapshot, INBOUND, "shop/web-1");
    let names = |attached: &[selvedge_xds::proto::mesh::Attachment]| -> Vec<String> {
        attached.iter().map(|a| a.origin.as_ref().unwrap().name.clone()).collect()
    };
    assert_eq!(names(&one.policies), ["on-namespace", "on-workload"]);
    let http = &one.ports[1];
    assert_eq!((http.port, http.service.as_str(), http.app_protocol.as_str()), (8080, "shop/web", "http"));
    assert_eq!(names(&http.policies), ["on-service"]);
    assert_eq!(names(&http.routes), ["split"]);
    assert_eq!(snapshot.identity_of_workload("shop/web-1").unwrap(), "spiffe://mesh.local/ns/shop/sa/web");
    assert_eq!(snapshot.identity_of_workload("shop/web"), None);
}

#[test]
fn what_is_said_of_a_service_holds_at_the_workloads_behind_it() {
    let said = "---\napiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: web, namespace: shop}\nspec: \
                {targetRef: {kind: Service, name: web}, ambiguousPaths: pass, defaultPosture: allow, mtls: {inbound: STRICT}}\n";
    let snapshot = snapshot(&format!("{}{said}", SHOP.replace("defaultPosture: allow}", "defaultPosture: deny}")));
    let [one, two] = ["web-1", "web-2"].map(|name| decode::<Inbound>(&snapshot, INBOUND, &format!("shop/{name}")));
    assert!([&one, &two].iter().all(|inbound| inbound.settings.contains(r#""ambiguousPaths":"pass""#)), "{one:?}");
    assert_eq!((one.posture.as_str(), two.posture.as_str()), ("allow", "deny"), "a workload is more specific");
    let (_, report) = committed(&said.replace("name: web}, amb", "name: wep}, amb"));
    assert_eq!(report.findings[0].field, "spec.targetRef.name", "{:?}", report.findings);
}

#[test]
fn the_most_specific_mesh_policy_decides_each_field() {
    let snapshot = snapshot(SHOP);
    let one: Inbound = decode(&snapshot, INBOUND, "shop/web-1");
    let two: Inbound = decode(&snapshot, INBOUND, "shop/web-2");
    assert_eq!((one.mode(), one.outbound_mode()), (InboundMode::Strict, OutboundMode::Prefer));
    assert_eq!((one.posture.as_str(), two.posture.as_str()), ("deny", "allow"));
    assert_eq!(two.mode(), InboundMode::Strict, "as its namespace, for it says nothing of it itself");

    let open = SHOP.replace("defaultPosture: allow}", "mtls: {inbound: PERMISSIVE}, defaultPosture: allow}");
    let snapshot = self::snapshot(&open);
    let mode = |name: &str| decode::<Inbound>(&snapshot, INBOUND, name).mode();
    assert_eq!((mode("shop/web-1"), mode("shop/web-2")), (InboundMode::Strict, InboundMode::Permissive));
}

#[test]
fn a_service_has_the_workloads_with_all_labels_of_its_selector() {
    let shop = SHOP.replace("weight: 0", "weight: 1");
    let workloads = |selector: &str| {
        let snapshot = snapshot(&shop.replace("selector: {app: web}", &format!("selector: {{{selector}}}")));
        let endpoints: Endpoints = decode(&snapshot, ENDPOINTS, "shop/web:80");
        let named = endpoints.endpoints.into_iter().map(|endpoint| endpoint.workload).collect::<Vec<_>>();
        let covered = ["shop/web-1", "shop/web-2"].into_iter().filter(|name| {
            decode::<Inbound>(&snapshot, INBOUND, name).ports.iter().any(|port| port.service == "shop/web")
        });
        assert_eq!(named, covered.collect::<Vec<_>>(), "both sides see the same");
        named
    };
    assert_eq!(workloads("app: web"), ["shop/web-1", "shop/web-2"]);
    assert_eq!(workloads("app: web, version: v1"), ["shop/web-1"]);
}

/// Small worlds in which everything refers to everything.
fn documents() -> impl Strategy<Value = Vec<(usize, Option<String>)>> {
    let name = || prop_oneof![Just("a"), Just("b")];
    let own = "selvedge.dev/v1alpha1";
    let head = move |version: &str, kind: &str, name: &str, labels: &str| {
        format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: n, labels: {{{labels}}}}}\nspec: "
        )
    };
    let service = (name(), name(), 1u16..3).prop_map(move |(n, app, port)| {
        head("v1", "Service", n, "") + &format!("{{selector: {{app: {app}}}, ports: [{{port: {port}}}]}}\n")
    });
    let workload = (name(), name(), 1u16..3).prop_map(move |(n, app, port)| {
        head(own, "Workload", n, &format!("app: {app}"))
            + &format!("{{serviceAccount: a, address: 10.0.0.{port}, ports: [{{port: 1, dial: {port}}}]}}\n")
    });
    let external = name().prop_map(move |n| {
        head(own, "ExternalService", n, "")
            + "{hosts: [x.example], ports: [{port: 1}], endpoints: [{address: 1.1.1.1}]}\n"
    });
    let target = || {
        prop_oneof![
            Just(""),
            Just("targetRef: {kind: Service, name: a}, "),
            Just("targetRef: {kind: Workload, name: a}, ")
        ]
    };
    let policy = (name(), target()).prop_map(move |(n, target)| {
        head(own, "AuthorizationPolicy", n, "") + &format!("{{{target}action: DENY, rules: []}}\n")
    });
    let traffic = (name(), prop_oneof![Just("Service"), Just("ExternalService")]).prop_map(move |(n, kind)| {
        head(own, "TrafficPolicy", n, "") + &format!("{{targetRef: {{kind: {kind}, name: {n}}}}}\n")
    });
    let route = (name(), name()).prop_map(move |(n, parent)| {
        head("gateway.networking.k8s.io/v1", "HTTPRoute", n, "")
            + &format!("{{parentRefs: [{{kind: Service, name: {parent}}}]}}\n")
    });
    let scope = prop_oneof![
        Just(""),
        Just("targetRef: {kind: Mesh}, "),
        Just("targetRef: {kind: Service, name: a}, "),
        Just("targetRef: {kind: Workload, name: a}, ")
    ];
    let mesh = (name(), scope).prop_map(move |(n, scope)| {
        let mut head = head(own, "MeshPolicy", n, "");
        if scope.contains("Mesh") {
            head = head.replace("namespace: n,", "namespace: selvedge-system,");
        }
        head + &format!("{{{scope}defaultPosture: deny}}\n")
    });
    let document = prop_oneof![service, workload, external, policy, traffic, route, mesh];
    prop::collection::vec((0usize..6, prop::option::weighted(0.8, document)), 1..24)
}

fn contents(snapshot: &Snapshot) -> Vec<(TypeUrl, String, String)> {
    let of = |kind| {
        snapshot
            .resources(kind)
            .map(move |r| (kind, r.name.clone(), format!("{:?}{:?}", r.aliases, without_generations(kind, &r.body))))
    };
    let mut all: Vec<_> = SELVEDGE.order().iter().copied().flat_map(of).collect();
    all.sort();
    all
}

/// Generations count changes, so they differ between a store with a past and a new one.
fn without_generations(kind: TypeUrl, body: &[u8]) -> String {
    let text = match kind {
        DESTINATION => format!("{:?}", Destination::decode(body).unwrap()),
        INBOUND => format!("{:?}", Inbound::decode(body).unwrap()),
        ENDPOINTS => format!("{:?}", Endpoints::decode(body).unwrap()),
        _ => String::new(),
    };
    let mut parts = text.split("generation: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However the mesh came to be what it is, it is what it would be if it had been read at once.
    #[test]
    fn step_by_step_is_the_same_as_at_once(steps in documents()) {
        let mut store = Store::new("mesh.local");
        let mut files = std::collections::BTreeMap::new();
        let mut latest = store.commit().0;
        for (file, document) in steps {
            let origin: Arc<str> = format!("{file}.yaml").into();
            match document {
                Some(text) => {
                    files.insert(origin.clone(), text.clone());
                    store.take("files", Document { origin, text: Ok(text.into()) }.put());
                }
                None => {
                    files.remove(&origin);
                    store.take("files", Change::Remove(origin));
                }
            }
            store.take("files", Change::Complete);
            latest = store.commit().0;
        }
        // Of two objects with one name the older one counts, so only the files that are in force are read again.
        let report = store.commit().1;
        let mut again = Store::new("mesh.local");
        for (origin, text) in files {
            if report.objects.iter().any(|object| object.file == *origin) {
                again.take("files", Document { origin, text: Ok(text.into()) }.put());
            }
        }
        again.take("files", Change::Complete);
        prop_assert_eq!(contents(&latest), contents(&again.commit().0));
    }
}

#[test]
fn what_is_attached_to_either_of_two_ports_covers_the_port_of_the_application_that_both_lead_to() {
    let on = |kind: &str, name: &str, spec: &str| {
        format!("---\napiVersion: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n")
    };
    let text = [
        on(
            "v1\nkind: Service",
            "web",
            "{selector: {app: web}, ports: [{name: a, port: 80, targetPort: 8080}, {name: b, port: 81, targetPort: 8080}]}",
        ),
        on("selvedge.dev/v1alpha1\nkind: Workload", "web-1", "{serviceAccount: web, address: 10.0.0.1}")
            .replace("namespace: shop", "namespace: shop, labels: {app: web}"),
        on(
            "gateway.networking.k8s.io/v1\nkind: HTTPRoute",
            "first",
            "{parentRefs: [{kind: Service, name: web, port: 80}], rules: [{name: a}]}",
        ),
        on(
            "gateway.networking.k8s.io/v1\nkind: HTTPRoute",
            "second",
            "{parentRefs: [{kind: Service, name: web, port: 81}], rules: [{name: b}]}",
        ),
    ];
    let inbound: Inbound = decode(&snapshot(&text.concat()), INBOUND, "shop/web-1");
    let [port] = &inbound.ports[..] else { panic!("{:?}", inbound.ports) };
    let routes: Vec<_> = port.routes.iter().map(|route| &*route.origin.as_ref().unwrap().name).collect();
    assert_eq!((port.port, routes), (8080, vec!["first", "second"]));
}
