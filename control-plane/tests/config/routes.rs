//! What routes are attached to, and which namespaces they may send requests into, as the Gateway API has it.

use std::sync::Arc;

use prost::Message;
use selvedge_control_plane::{
    diagnostic::{Diagnostic, Severity},
    snapshot::Snapshot,
    source::{Change, ClusterObject, Document, Reading},
    store::{Memory, Report, Store},
};
use selvedge_xds::{
    kinds::{DESTINATION, ENDPOINTS, INBOUND},
    proto::mesh::{Destination, Inbound},
};
use serde_json::{Value, json};

const WEB: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 7070}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccount: web, address: 10.0.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: bank}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: vault, namespace: bank}
spec: {ports: [{port: 80}]}
";

const PARENT: &str = "{kind: Service, group: '', name: web}";

fn route(parents: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec: \
         {{parentRefs: [{parents}], rules: [{rules}]}}\n"
    )
}

struct Mesh {
    store: Store,
    snapshot: Arc<Snapshot>,
    report: Report,
}

impl Mesh {
    fn of(files: &[(&str, &str)]) -> Self {
        Self::with(Store::new("mesh.local"), files)
    }

    fn with(store: Store, files: &[(&str, &str)]) -> Self {
        let mut mesh = Self { store, snapshot: Arc::default(), report: Report::default() };
        mesh.write(files);
        mesh
    }

    fn write(&mut self, files: &[(&str, &str)]) {
        for (file, text) in files {
            self.store.take("files", Document { origin: (*file).into(), text: Ok((*text).into()) }.put());
        }
        self.complete();
    }

    fn complete(&mut self) {
        self.store.take("files", Change::Complete);
        (self.snapshot, self.report) = self.store.commit();
    }

    fn findings(&self) -> Vec<(&str, &str)> {
        self.report.findings.iter().map(|finding| (&*finding.field, &*finding.message)).collect()
    }

    fn only_finding(&self) -> &Diagnostic {
        let [finding] = &self.report.findings[..] else { panic!("{:#?}", self.report.findings) };
        finding
    }

    /// The route as callers of `web` are told of it.
    fn told(&self) -> Option<Value> {
        let web = self.snapshot.get(DESTINATION, "shop/web").expect("web is there");
        let routes = Destination::decode(web.body.clone()).unwrap().routes;
        assert!(routes.len() <= 1);
        routes.first().map(|route| serde_json::from_str(&route.document).unwrap())
    }

    /// The ports of the application at which the called side knows the route.
    fn named_at(&self) -> Vec<u32> {
        let view = self.snapshot.get(INBOUND, "shop/web-1").expect("web-1 is there");
        let ports = Inbound::decode(view.body.clone()).unwrap().ports;
        ports.into_iter().filter(|port| !port.routes.is_empty()).map(|port| port.port).collect()
    }
}

#[test]
fn a_route_is_for_the_port_that_its_parent_names_by_number_or_name() {
    let of = |more: &str| PARENT.replace('}', more);
    let (service, mut named) = (json!({"kind": "Service", "name": "web", "namespace": "shop"}), Vec::new());
    let port = |port: u16| {
        let mut parent = service.clone();
        parent["port"] = port.into();
        json!([parent])
    };
    for (parents, told, at) in [
        (of("}"), Some(json!([service])), vec![7070, 8080]),
        (of(", port: 80}"), Some(port(80)), vec![8080]),
        (of(", sectionName: grpc}"), Some(port(7070)), vec![7070]),
        (
            of(", sectionName: ''}"),
            Some(json!([{"kind": "Service", "name": "web", "namespace": "shop", "sectionName": ""}])),
            vec![7070, 8080],
        ),
        (of(", sectionName: grpc, port: 7070}"), Some(port(7070)), vec![7070]),
        (of(", sectionName: grpc, port: 80}"), None, vec![]),
        (of(", sectionName: nothing}"), None, vec![]),
        (of(", port: 81}"), None, vec![]),
        (of(", port: 53}"), None, vec![]),
    ] {
        let mesh = Mesh::of(&[("a.yaml", WEB), ("r.yaml", &route(&parents, ""))]);
        assert_eq!(mesh.told().map(|told| told["parentRefs"].clone()), told, "{parents}");
        assert_eq!(mesh.named_at(), at, "{parents}");
        assert_eq!(mesh.findings().len(), usize::from(told.is_none()), "{parents}: {:?}", mesh.findings());
        named.extend(mesh.findings().into_iter().map(|(field, message)| format!("{field}: {message}")));
    }
    let expected = [
        "spec.parentRefs[0].sectionName: Service 'web' has no port 80 with the name 'grpc'",
        "spec.parentRefs[0].sectionName: Service 'web' has no port with the name 'nothing'",
        "spec.parentRefs[0].port: Service 'web' has no port 81",
        "spec.parentRefs[0].port: Service 'web' has no port 53",
    ];
    assert_eq!(named, expected);
}

#[test]
fn a_port_that_gets_its_name_later_has_the_route_then() {
    let mut mesh = Mesh::of(&[("a.yaml", WEB), ("r.yaml", &route(&PARENT.replace('}', ", sectionName: api}"), ""))]);
    assert_eq!((mesh.told(), mesh.findings().len()), (None, 1));
    mesh.write(&[("a.yaml", &WEB.replace("grpc", "api"))]);
    assert_eq!((mesh.told().unwrap()["parentRefs"][0]["port"].clone(), mesh.findings().len()), (7070.into(), 0));
}

#[test]
fn a_gateway_beside_a_service_is_left_alone() {
    let gateway = "{kind: Gateway, name: web}";
    let mut mesh = Mesh::of(&[("a.yaml", WEB), ("r.yaml", &route(&format!("{gateway}, {PARENT}"), ""))]);
    assert_eq!((mesh.findings(), mesh.named_at()), (vec![], vec![7070, 8080]));
    assert_eq!(mesh.told().unwrap()["parentRefs"].as_array().unwrap().len(), 1, "older sidecars look at names alone");
    mesh.write(&[("r.yaml", &route(gateway, ""))]);
    assert_eq!((mesh.told(), mesh.findings()), (None, vec![]), "as in a cluster");
}

#[test]
fn a_service_of_another_namespace_may_stand_beside_one_of_its_own_and_nobody_shapes_the_calls_of_others() {
    let abroad = "{kind: Service, name: ledger, namespace: bank}";
    let mut mesh = Mesh::of(&[("a.yaml", WEB), ("r.yaml", &route(&format!("{abroad}, {PARENT}"), ""))]);
    assert_eq!((mesh.named_at(), mesh.findings()), (vec![7070, 8080], vec![]));
    let told = mesh.told().map(|told| told["parentRefs"].clone());
    assert_eq!(told, Some(json!([{"kind": "Service", "name": "web", "namespace": "shop"}])));
    assert_eq!([seen_from(&mesh, "bank"), seen_from(&mesh, "office")], [vec![], vec![]]);
    assert_eq!(seen_from(&mesh, "shop"), [("shop/r".to_owned(), json!([null]))]);
    mesh.write(&[("r.yaml", &route(abroad, ""))]);
    assert_eq!((mesh.told(), mesh.findings().len()), (None, 0), "{:?}", mesh.findings());
}

#[test]
fn routes_of_a_cluster_for_gateways_are_nobodys_business_here() {
    let mut mesh = Mesh::of(&[("a.yaml", WEB)]);
    for (version, parents) in [
        (1, json!([{"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "web"}])),
        (2, json!([{"name": "web"}])),
        (3, json!([{"name": "web"}, {"kind": "Gateway", "name": "web", "sectionName": "https", "namespace": "infra"}])),
    ] {
        let document = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "r", "namespace": "shop"}, "spec": {"parentRefs": parents},
        });
        let name: Arc<str> = "cluster east: HTTPRoute shop/r".into();
        let version = ClusterObject {
            name: name.clone(),
            uid: "1".into(),
            resource_version: format!("{version}").into(),
            manager: Arc::default(),
            generation: version,
        };
        mesh.store.take("east", Change::Put(name, Reading::of_cluster(&document, version)));
        mesh.store.take("east", Change::Complete);
        mesh.complete();
        assert_eq!((mesh.told(), mesh.findings()), (None, vec![]), "{parents}");
    }
}

#[test]
fn a_parent_in_a_file_says_what_it_is_and_what_was_accepted_before_stays_until_it_does() {
    let (state, unsaid) = (tempfile::tempdir().unwrap(), route("{name: web}", "{name: newer}"));
    let memory = || Memory::new(state.path(), "mesh".as_ref());
    let first = Mesh::of(&[("mesh/a.yaml", WEB), ("mesh/r.yaml", &unsaid)]);
    assert_eq!(first.told(), None, "it is nothing that could be guessed");
    let finding = first.only_finding();
    assert_eq!((finding.severity, &*finding.field), (Severity::Error, "spec.parentRefs[0]"));
    assert!(finding.hint.contains("kind: Service, group: \"\""), "{finding}");

    // The form of the release before, which took it for a service.
    let texts = json!({
        "configDir": std::path::absolute("mesh").unwrap(),
        "texts": [
            {"file": "a.yaml", "text": WEB, "objects": [{"kind": "Service", "namespace": "shop", "name": "web", "generation": 1}]},
            {"file": "r.yaml", "text": route("{name: web}", "{name: older}"), "objects": [
                {"kind": "HTTPRoute", "namespace": "shop", "name": "r", "generation": 7},
            ]},
        ],
        "gone": [],
    });
    std::fs::write(state.path().join("last-good.json"), texts.to_string()).unwrap();
    for start in ["after the release before", "after this one"] {
        let mut mesh =
            Mesh::with(Store::new("mesh.local").remember(&memory()), &[("mesh/a.yaml", WEB), ("mesh/r.yaml", &unsaid)]);
        assert_eq!(mesh.told().expect(start)["rules"][0]["name"], "older", "{start}");
        assert_eq!(mesh.only_finding().field, "spec.parentRefs[0]", "{start}");
        memory().save(&mesh.store.unsaved().unwrap_or_default()).unwrap();
        mesh.write(&[("mesh/r.yaml", &route(PARENT, "{name: newer}"))]);
        assert_eq!(mesh.told().unwrap()["rules"][0]["name"], "newer", "{start}");
        assert_eq!(mesh.findings(), []);
    }
}

#[test]
fn the_older_name_of_the_gateway_api_is_read_too() {
    let older = |text: &str| text.replace("k8s.io/v1\n", "k8s.io/v1beta1\n");
    let mesh = Mesh::of(&[("a.yaml", WEB), ("r.yaml", &older(&route(PARENT, LEDGER))), ("g.yaml", &older(&grant("")))]);
    assert_eq!(mesh.findings(), []);
    assert_eq!(mesh.told().unwrap()["rules"][0]["backendRefs"][0]["kind"], "Service");
    let unknown = route(PARENT, "").replace("k8s.io/v1\n", "k8s.io/v1alpha2\n");
    assert_eq!(Mesh::of(&[("a.yaml", WEB), ("r.yaml", &unknown)]).only_finding().field, "apiVersion");
}

const LEDGER: &str = "{backendRefs: [{name: ledger, namespace: bank, port: 80, weight: 3}, {name: web, port: 80}]}";

/// A grant of `bank` for routes of `shop`, to all services or, as `more` says, to one.
fn grant(more: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: bank}}\nspec:\n  \
         from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}}]\n  to: [{{group: '', kind: \
         Service{more}}}]\n"
    )
}

#[test]
fn a_namespace_opens_its_services_to_routes_of_others_and_closes_them_again() {
    let mut mesh = Mesh::of(&[("a.yaml", WEB), ("r.yaml", &route(PARENT, LEDGER))]);
    let first = |mesh: &Mesh| mesh.told().unwrap()["rules"][0]["backendRefs"][0].clone();
    let closed = json!({"group": "selvedge.dev", "kind": "NotGranted", "name": "ledger", "namespace": "bank", "port": 80, "weight": 3});
    let open = json!({"kind": "Service", "name": "ledger", "namespace": "bank", "port": 80, "weight": 3});
    assert_eq!(first(&mesh), closed);
    assert_eq!(mesh.told().unwrap()["rules"][0]["backendRefs"][1]["kind"], "Service", "the others go on");
    let wanted = mesh.only_finding();
    assert_eq!((wanted.severity, &*wanted.field), (Severity::Warning, "spec.rules[0].backendRefs[0]"));
    let yaml = wanted.hint.split_once("a grant there: ").unwrap().1.to_owned();

    for (what, text, is_open) in [
        ("what the finding says", yaml, true),
        ("to every service", grant(""), true),
        ("to another service", grant(", name: vault"), false),
        ("to this service", grant(", name: ledger"), true),
        ("for another namespace", grant("").replace("namespace: shop", "namespace: hop"), false),
        ("for another kind", grant("").replace("HTTPRoute", "GRPCRoute"), false),
        ("to another kind", grant("").replace("Service", "Secret"), false),
        ("from another namespace", grant("").replace("namespace: bank", "namespace: shop"), false),
    ] {
        mesh.write(&[("g.yaml", &text)]);
        assert_eq!(first(&mesh), if is_open { open.clone() } else { closed.clone() }, "{what}");
        let told = mesh.findings().into_iter().filter(|(field, _)| field.starts_with("spec.")).count();
        assert_eq!(told, usize::from(!is_open), "{what}: {:?}", mesh.findings());
        mesh.store.take("files", Change::Remove("g.yaml".into()));
        mesh.complete();
        assert_eq!(first(&mesh), closed, "{what}: access ends with the grant");
    }
}

#[test]
fn what_a_mesh_cannot_do_of_a_route_leaves_the_rest_in_force() {
    let rules = "{name: mirrored, matches: [{path: {value: /a}}], filters: [{type: RequestMirror}]}, {name: rest}";
    let mesh = Mesh::of(&[("a.yaml", WEB), ("r.yaml", &route(PARENT, rules))]);
    let finding = mesh.only_finding();
    assert_eq!((finding.severity, &*finding.field), (Severity::Warning, "spec.rules[0].filters[0].type"));
    let object = mesh.report.objects.iter().find(|object| object.kind == "HTTPRoute").unwrap();
    assert_eq!((object.current, object.problems.len()), (true, 1), "the status names it");
    let told = mesh.told().unwrap();
    let answer = json!([{"group": "selvedge.dev", "kind": "UnsupportedFilter", "name": "RequestMirror", "weight": 1}]);
    assert_eq!((&told["rules"][0]["backendRefs"], &told["rules"][1]), (&answer, &json!({"name": "rest"})));
    assert_eq!(told["rules"][0]["matches"][0]["path"]["value"], "/a");
}

#[test]
fn ports_that_the_mesh_does_not_carry_are_left_alone() {
    let dns = "apiVersion: v1\nkind: Service\nmetadata: {name: dns, namespace: shop}\nspec: {clusterIP: 10.0.0.10, ports: \
               [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}, {name: x, port: 9, \
               protocol: SCTP}]}\n";
    let datagrams = dns.replace("name: dns, namespace", "name: logs, namespace").replace("10.0.0.10", "10.0.0.11");
    let datagrams = datagrams.replace(", {name: dns-tcp, port: 53, protocol: TCP}", "");
    let mesh = Mesh::of(&[("a.yaml", WEB), ("dns.yaml", dns), ("logs.yaml", &datagrams)]);
    assert_eq!(mesh.findings(), []);
    let destination =
        |name: &str| Destination::decode(mesh.snapshot.get(DESTINATION, name).unwrap().body.clone()).unwrap();
    let ports =
        |name: &str| destination(name).ports.iter().map(|port| (port.port, port.name.clone())).collect::<Vec<_>>();
    assert_eq!(ports("10.0.0.10:53"), [(53, "dns-tcp".to_owned())]);
    assert_eq!(ports("logs.shop"), []);
    assert!(mesh.snapshot.get(DESTINATION, "10.0.0.11:53").is_none(), "nothing of it is the mesh's");
    assert!(mesh.snapshot.get(ENDPOINTS, "shop/web:53").is_none());
    let twice = dns.replace("protocol: UDP", "protocol: TCP");
    assert_eq!(Mesh::of(&[("dns.yaml", &twice)]).only_finding().field, "spec.ports[1].port");
}

/// The routes to `bank/ledger` that callers of a namespace have, each with the ports that it is for.
fn seen_from(mesh: &Mesh, namespace: &str) -> Vec<(String, Value)> {
    let ledger = mesh.snapshot.seen_from(namespace, DESTINATION, "ledger.bank").expect("the ledger is there");
    let routes = Destination::decode(ledger.body.clone()).unwrap().routes;
    let route = |route: &selvedge_xds::proto::mesh::Attachment| {
        let origin = route.origin.clone().unwrap();
        let document: Value = serde_json::from_str(&route.document).unwrap();
        let ports = document["parentRefs"].as_array().unwrap().iter().map(|parent| parent["port"].clone());
        (format!("{}/{}", origin.namespace, origin.name), ports.collect())
    };
    routes.iter().map(route).collect()
}

#[test]
fn routes_of_callers_take_the_place_of_others_at_the_ports_that_they_are_for() {
    const TWO_PORTS: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: ledger, namespace: bank}\nspec: {ports: [{name: a, port: \
                             80}, {name: b, port: 81}]}\n";
    let of = |namespace: &str, parents: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: {namespace}}}\nspec: \
             {{parentRefs: [{parents}], rules: [{{backendRefs: [{{name: ledger, namespace: bank, port: 80}}]}}]}}\n"
        )
    };
    let ledger = |more: &str| format!("{{kind: Service, name: ledger, namespace: bank{more}}}");
    let files = [
        ("a.yaml", TWO_PORTS.to_owned()),
        ("bank.yaml", of("bank", &ledger(""))),
        ("shop.yaml", of("shop", &ledger(""))),
        ("office.yaml", of("office", &ledger(", sectionName: b"))),
        ("gone.yaml", of("gone", &ledger(", port: 82"))),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mut mesh = Mesh::of(&files);
    let bank = |ports: Value| ("bank/r".to_owned(), ports);
    let everywhere = json!([null]);
    for (namespace, expected) in [
        ("bank", vec![bank(everywhere.clone())]),
        ("other", vec![bank(everywhere.clone())]),
        ("shop", vec![("shop/r".to_owned(), everywhere.clone())]),
        ("office", vec![("office/r".to_owned(), json!([81])), bank(json!([80]))]),
        ("gone", vec![bank(everywhere.clone())]),
    ] {
        assert_eq!(seen_from(&mesh, namespace), expected, "{namespace}");
    }
    assert_eq!(mesh.only_finding().object, "HTTPRoute gone/r", "nobody needs leave to call what was called");
    mesh.store.take("files", Change::Remove("office.yaml".into()));
    mesh.complete();
    assert_eq!(seen_from(&mesh, "office"), [bank(everywhere)]);
    let names = mesh.snapshot.resources(DESTINATION).map(|resource| resource.name.clone());
    assert_eq!(names.filter(|name| name.contains('@')).collect::<Vec<_>>(), ["bank/ledger@shop"]);
}

#[test]
fn a_service_elsewhere_that_was_not_called_needs_leave_of_routes_of_callers_too() {
    let text = WEB.replace("name: vault", "name: other");
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: {parentRefs: \
                 [{kind: Service, name: ledger, namespace: bank}], rules: [{backendRefs: [{name: other, namespace: bank, port: 80}, \
                 {name: web, port: 80}]}]}\n";
    let mesh = Mesh::of(&[("a.yaml", &text), ("r.yaml", route)]);
    assert_eq!(mesh.only_finding().field, "spec.rules[0].backendRefs[0]");
    assert!(mesh.only_finding().message.contains("namespace 'bank' does not open Service 'other'"));
}
