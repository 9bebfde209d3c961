//! What users' documents come to, end to end but for the bytes: from YAML to a sidecar's decision.

use std::time::Duration;

use selvedge_decide::trace::{Ending, Place};
use selvedge_policies::{reason::Reason, route::Outcome, testing::Request};
#[path = "logic/mesh.rs"]
mod mesh;

use mesh::LogicMesh;

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-next, namespace: shop}
spec: {selector: {app: web-next}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccount: web, address: 10.0.0.1}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: next-1, namespace: shop, labels: {app: web-next}}
spec: {serviceAccount: web, address: 10.0.0.2}
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: client-1, namespace: shop, labels: {app: client}}
spec: {serviceAccount: client, address: 10.0.0.3}
";

const ALLOW_CLIENT: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  targetRef: {kind: Service, name: web}
  action: ALLOW
  rules: [{from: [{serviceAccounts: [client]}], to: [{methods: [GET], paths: ['/public/*']}]}]
";

const SPLIT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{kind: Service, name: web}]
  rules:
    - name: beta
      matches: [{headers: [{name: x-beta, value: 'on'}]}]
      backendRefs: [{name: web-next, port: 80}]
    - name: all
      backendRefs: [{name: web, port: 80, weight: 3}, {name: web-next, port: 80, weight: 1}]
";

fn get(path: &str, account: &str) -> Request {
    Request::new("GET", path).from(account)
}

#[test]
fn the_mesh_in_memory_says_why_a_request_ends_as_it_does() {
    let mut mesh = LogicMesh::new();
    mesh.write("shop.yaml", SHOP);
    mesh.write("policy.yaml", ALLOW_CLIENT);
    mesh.write("route.yaml", SPLIT);
    let context = mesh.clock.context();
    let in_memory = mesh.in_memory();
    let why = |request: Request| in_memory.why("shop/client-1", "web.shop:80", &request.port(80).facts(), &context);

    let trace = why(Request::new("GET", "/public/a").header("x-beta", "on"));
    assert_eq!(trace.identity.unwrap().to_string(), "spiffe://mesh.local/ns/shop/sa/client");
    assert_eq!((trace.destination.as_deref(), trace.route.as_deref()), (Some("shop/web"), Some("shop/web/beta")));
    let outcomes: Vec<_> = trace.considered.into_iter().map(|found| found.what.outcome).collect();
    assert_eq!(outcomes, [Outcome::Taken, Outcome::Preceded]);
    let [way] = &trace.ways[..] else { panic!("{:?}", trace.ways) };
    let arrival = way.arrival.as_ref().unwrap();
    assert_eq!((&*way.cluster, way.share, &*arrival.workload), ("shop/web-next:80", 1.0, "shop/next-1"));
    assert_eq!((arrival.port, arrival.policies.len(), way.ending.status), (8080, 0, None), "no policy covers it");

    let trace = why(Request::new("GET", "/private"));
    assert_eq!(trace.considered[0].what.outcome, Outcome::Fails("rules[0].matches[0].headers[0]".to_owned()));
    let shares: Vec<_> = trace.ways.iter().map(|way| (&*way.cluster, way.share, way.ending.reason)).collect();
    assert_eq!(shares, [("shop/web:80", 0.75, Some(Reason::PolicyDefaultDeny)), ("shop/web-next:80", 0.25, None)]);
    let policies = &trace.ways[0].arrival.as_ref().unwrap().policies;
    let origin = &policies[0].origin;
    assert_eq!((&*origin.kind, &*origin.name, origin.generation), ("AuthorizationPolicy", "web", 1));
    assert_eq!(policies[0].rules[0].what.fails.as_deref(), Some("rules[0].to[0].paths"));
    assert_eq!(trace.endings().len(), 2, "chance decides between them");

    let unknown = in_memory.why("shop/client-1", "shop/absent", &Request::new("GET", "/").facts(), &context);
    assert_eq!(unknown.endings(), [&Ending::of(Reason::UnknownDestination)]);
    let plaintext = Request::new("GET", "/").port(8080);
    let (_, ending) = in_memory.why_received("shop/web-1", &plaintext.facts(), &context).unwrap();
    assert_eq!(ending.reason, Some(Reason::PlaintextRefused));
}

#[test]
fn whoever_asks_why_plaintext_passes_is_told_that_nobody_closed_a_pod() {
    let mut mesh = LogicMesh::new();
    let mode = |mesh: &LogicMesh| {
        let plaintext = Request::new("GET", "/").port(8080);
        let received = mesh.in_memory().why_received("shop/web-1", &plaintext.facts(), &mesh.clock.context());
        received.map(|(arrival, _)| arrival.mode.to_string()).unwrap()
    };
    mesh.write("shop.yaml", SHOP);
    assert_eq!(mode(&mesh), "STRICT, the built-in default");
    mesh.write("shop.yaml", &SHOP.replace("serviceAccount: web,", "serviceAccount: web, pod: true,"));
    assert_eq!(mode(&mesh), "PERMISSIVE, the default of pods");
    mesh.write(
        "strict.yaml",
        "
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: {name: strict, namespace: shop}
spec: {mtls: {inbound: STRICT}}
",
    );
    assert_eq!(mode(&mesh), "STRICT, by spec.mtls.inbound of MeshPolicy shop/strict (strict.yaml:5)");
}

#[test]
fn whoever_asks_why_is_told_the_file_and_line_of_what_decided() {
    const CLOSED: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: {name: mesh, namespace: selvedge-system}
spec:
  targetRef: {kind: Mesh}
  defaultPosture: deny
";
    let mut mesh = LogicMesh::new();
    mesh.write("shop.yaml", SHOP);
    mesh.write("policy.yaml", ALLOW_CLIENT);
    mesh.write("route.yaml", SPLIT);
    let trace = |mesh: &LogicMesh| {
        let request = Request::new("GET", "/private").port(80);
        mesh.in_memory().why("shop/client-1", "web.shop:80", &request.facts(), &mesh.clock.context())
    };
    let default = |mesh: &LogicMesh| trace(mesh).ways[0].arrival.as_ref().unwrap().default.to_string();
    let place = |place: Option<Place>| place.unwrap().to_string();

    assert_eq!(default(&mesh), "allow, the built-in default");
    mesh.write("closed.yaml", CLOSED);
    assert_eq!(default(&mesh), "deny, by spec.defaultPosture of MeshPolicy selvedge-system/mesh (closed.yaml:7)");
    mesh.write("closed.yaml", &format!("\n{CLOSED}"));
    assert_eq!(default(&mesh), "deny, by spec.defaultPosture of MeshPolicy selvedge-system/mesh (closed.yaml:8)");
    mesh.write(
        "open.yaml",
        "
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: {name: open, namespace: shop}
spec: {defaultPosture: allow}
",
    );
    assert_eq!(default(&mesh), "allow, by spec.defaultPosture of MeshPolicy shop/open (open.yaml:5)");

    let found = trace(&mesh);
    let considered: Vec<_> = found.considered.into_iter().map(|found| place(found.place)).collect();
    assert_eq!(considered, ["route.yaml:9", "route.yaml:11"], "the match, and the rule without one");
    let rule = found.ways[0].arrival.clone().unwrap().policies.remove(0).rules.remove(0);
    assert_eq!(rule.what.fails.as_deref(), Some("rules[0].to[0].paths"));
    assert_eq!(place(rule.place), "policy.yaml:8");
}

#[test]
fn a_policy_is_in_force_for_whom_it_names_and_gone_when_it_is_removed() {
    let mut mesh = LogicMesh::new();
    mesh.write("shop.yaml", SHOP);
    let mut web = mesh.sidecar("shop/web-1", &[]);
    assert_eq!(web.receive(&mesh.clock, &get("/anything", "shop/stranger"), 8080), None, "no policy, no posture");

    mesh.write("policy.yaml", ALLOW_CLIENT);
    mesh.sync(&mut web);
    assert_eq!(web.receive(&mesh.clock, &get("/public/a", "shop/client"), 8080), None);
    for (path, account) in [("/private", "shop/client"), ("/public/a", "shop/stranger")] {
        let verdict = web.receive(&mesh.clock, &get(path, account), 8080);
        assert_eq!(verdict, Some(Reason::PolicyDefaultDeny), "{account} {path}");
    }

    mesh.write("policy.yaml", "");
    mesh.sync(&mut web);
    assert_eq!(web.receive(&mesh.clock, &get("/private", "shop/client"), 8080), None);
}

#[test]
fn a_broken_edit_leaves_the_policy_before_in_force_and_says_where_it_is_wrong() {
    let mut mesh = LogicMesh::new();
    mesh.write("shop.yaml", SHOP);
    mesh.write("policy.yaml", ALLOW_CLIENT);
    let mut web = mesh.sidecar("shop/web-1", &[]);
    let report = mesh.write("policy.yaml", &ALLOW_CLIENT.replace("action: ALLOW", "acton: ALLOW"));
    assert!(!report.findings.is_empty(), "the misspelt field is reported");
    mesh.sync(&mut web);
    let verdict = web.receive(&mesh.clock, &get("/private", "shop/client"), 8080);
    assert_eq!(verdict, Some(Reason::PolicyDefaultDeny));
}

#[test]
fn a_limit_refills_with_time_and_survives_changes_elsewhere() {
    let mut mesh = LogicMesh::new();
    mesh.write("shop.yaml", SHOP);
    mesh.write(
        "limit.yaml",
        "
apiVersion: selvedge.dev/v1alpha1
kind: RateLimit
metadata: {name: web, namespace: shop}
spec: {targetRef: {kind: Service, name: web}, limits: [{requests: 2, per: 1s, burst: 2, key: [identity]}]}
",
    );
    let mut web = mesh.sidecar("shop/web-1", &[]);
    let call = get("/", "shop/client");
    assert_eq!(web.receive(&mesh.clock, &call, 8080), None);
    assert_eq!(web.receive(&mesh.clock, &call, 8080), None);
    assert_eq!(web.receive(&mesh.clock, &call, 8080), Some(Reason::RateLimited));
    assert_eq!(web.receive(&mesh.clock, &get("/", "shop/other"), 8080), None, "each identity has its own");

    mesh.write("policy.yaml", &ALLOW_CLIENT.replace("/public/*", "/*"));
    mesh.sync(&mut web);
    assert_eq!(web.receive(&mesh.clock, &call, 8080), Some(Reason::RateLimited), "the bucket was carried over");

    // More limits and another posture, which the ALLOW policy above has made no difference of.
    mesh.write(
        "more.yaml",
        "
apiVersion: selvedge.dev/v1alpha1
kind: RateLimit
metadata: {name: all, namespace: shop}
spec: {limits: [{requests: 100, per: 1s}]}
---
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: {name: closed, namespace: shop}
spec: {defaultPosture: deny}
",
    );
    mesh.sync(&mut web);
    assert_eq!(web.receive(&mesh.clock, &get("/", "shop/other"), 8080), Some(Reason::PolicyDefaultDeny));
    assert_eq!(web.receive(&mesh.clock, &call, 8080), Some(Reason::RateLimited), "the limit was not changed");
    mesh.clock.advance(Duration::from_secs(1));
    assert_eq!(web.receive(&mesh.clock, &call, 8080), None);
}

#[test]
fn callers_route_by_the_newest_route_and_know_the_endpoints_of_its_backends() {
    let mut mesh = LogicMesh::new();
    mesh.write("shop.yaml", SHOP);
    let mut client = mesh.sidecar("shop/client-1", &["shop/web"]);
    assert!(client.config.link(&"shop/web:80".parse().unwrap()).is_some());
    mesh.write(
        "route.yaml",
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{kind: Service, name: web, group: '', port: 80}]
  rules:
    - name: beta
      matches: [{headers: [{name: x-beta, value: 'on'}]}]
      backendRefs: [{name: web-next, port: 80}]
    - name: all
      backendRefs: [{name: web, port: 80}]
",
    );
    mesh.sync(&mut client);
    let beta = get("/", "shop/client").header("x-beta", "on");
    assert_eq!(client.route("shop/web", &beta).as_deref(), Some("shop/web/beta"));
    assert_eq!(client.route("shop/web", &get("/", "shop/client")).as_deref(), Some("shop/web/all"));
    let next = client.config.link(&"shop/web-next:80".parse().unwrap()).unwrap();
    let next = &client.config.clusters[next.place()].endpoints;
    assert_eq!(next[0].address.to_string(), "10.0.0.2:8080");
    assert!(client.config.destination("web.shop").is_none(), "names nobody asked for are not known");
}
