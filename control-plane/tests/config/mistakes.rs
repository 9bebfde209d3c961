//! Mistakes that people make, and what `selvedge lint` says of each: the code, the line, and what to write instead.

use std::fs;

use selvedge_control_plane::{
    diagnostic::Severity::{self, Error, Note, Warning},
    source::{Change, files},
    store::Store,
};
use selvedge_policies::finding::Code;

use crate::linted::linted;

/// A small mesh without a mistake, on 19 lines.
const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata: { name: api, namespace: shop }
spec: { selector: { app: api }, ports: [{ name: http, port: 80, targetPort: 8080, appProtocol: http }] }
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: { name: api-1, namespace: shop, labels: { app: api } }
spec: { serviceAccount: api, address: 192.0.2.1, ports: [{ port: 8080 }] }
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: { name: web-1, namespace: shop, labels: { app: web } }
spec: { serviceAccount: web, address: 192.0.2.2 }
---
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: { name: default, namespace: shop }
spec: { defaultPosture: deny }
";

/// An object of `shop` behind it: `metadata` on its line 4, `spec` on its line 5.
fn object(kind: &str, name: &str, spec: &str) -> String {
    let version = match kind {
        "Service" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "HTTPRoute" | "ReferenceGrant" => "gateway.networking.k8s.io/v1",
        _ => "selvedge.dev/v1alpha1",
    };
    format!(
        "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ {spec} }}\n"
    )
}

/// A policy for the service.
fn policy(spec: &str) -> String {
    object("AuthorizationPolicy", "p", &format!("targetRef: {{ kind: Service, name: api }}, {spec}"))
}

/// An ALLOW policy with one rule.
fn allow(rule: &str) -> String {
    policy(&format!("action: ALLOW, rules: [{{ {rule} }}]"))
}

/// How bad, which code, on which line, and a part of what to write instead.
type Due = (Severity, Code, usize, &'static str);

/// What lint says of the shop with these documents behind it.
fn lint(documents: &str) -> Vec<(Severity, Code, usize, String)> {
    let found = linted(&[("mesh.yaml", &[SHOP, documents].concat())]);
    found
        .into_iter()
        .map(|found| (found.severity, found.code, found.place.line, format!("{}: {}", found.message, found.hint)))
        .collect()
}

fn check(table: &[(&str, String, &[Due])]) {
    for (name, documents, due) in table {
        let found = lint(documents);
        let is_due = |((severity, code, line, text), due): (&(Severity, Code, usize, String), &Due)| {
            (*severity, *code, *line) == (due.0, due.1, due.2) && text.contains(due.3)
        };
        assert!(found.len() == due.len() && found.iter().zip(*due).all(is_due), "{name}: {found:#?}");
    }
}

#[test]
fn mistakes_about_callers_are_told() {
    let account = |text: &str| allow(&format!("from: [{{ serviceAccounts: [{text}] }}]"));
    let elsewhere =
        object("AuthorizationPolicy", "p", "action: ALLOW, rules: [{ from: [{ serviceAccounts: [web] }] }]")
            .replace("namespace: shop", "namespace: shp");
    check(&[
        ("a clean mesh", String::new(), &[]),
        ("01 a misspelt account", account("wbe"), &[(Warning, Code::UnknownIdentity, 24, "did you mean 'web'?")]),
        (
            "03 a misspelt namespace",
            allow("from: [{ namespaces: [shpo] }]"),
            &[(Warning, Code::UnknownNamespace, 24, "did you mean 'shop'?")],
        ),
        (
            "04 a policy in another namespace",
            elsewhere,
            &[
                (Warning, Code::CoversNothing, 23, "covers namespace 'shp', which has no Workload"),
                (Warning, Code::UnknownIdentity, 24, "did you mean 'shop/web'?"),
            ],
        ),
        (
            "06 everyone",
            policy("action: ALLOW, rules: [{}]"),
            &[(Warning, Code::AllowAll, 24, "who may call in 'from'")],
        ),
        (
            "07 conditions that ask nothing",
            allow("from: [{}], to: [{}]"),
            &[
                (Error, Code::EmptyValue, 24, "leave 'from' out where any is meant"),
                (Error, Code::EmptyValue, 24, "leave 'to' out where any is meant"),
            ],
        ),
        (
            "08 an empty list",
            allow("from: [{ serviceAccounts: [] }]"),
            &[(Error, Code::EmptyValue, 24, "leave the field out where any is meant")],
        ),
        (
            "22 a contradiction",
            allow("from: [{ serviceAccounts: [web], notServiceAccounts: [web] }]"),
            &[(Warning, Code::MatchesNothing, 24, "expected one of the two to be changed")],
        ),
        (
            "23 anyone among others",
            allow("from: [{ identities: ['spiffe://mesh.local/ns/shop/sa/web', '*'] }]"),
            &[(Warning, Code::NoDifference, 24, "expected it alone, or left out")],
        ),
        (
            "27 an account of three parts",
            account("shop/web/x"),
            &[(Error, Code::InvalidValue, 24, "expected NAME or NAMESPACE/NAME")],
        ),
        (
            "29 a pattern of namespaces",
            allow("from: [{ namespaces: ['*'] }]"),
            &[(Error, Code::InvalidValue, 24, "expected its plain name")],
        ),
        (
            "another trust domain",
            allow("from: [{ identities: ['spiffe://cluster.local/ns/shop/sa/web'] }]"),
            &[(Warning, Code::UnknownTrustDomain, 24, "did you mean 'spiffe://mesh.local/ns/shop/sa/web'?")],
        ),
        (
            "an identity of nobody",
            allow("from: [{ identities: ['spiffe://mesh.local/ns/shop/sa/wbe', 'spiffe://mesh.local/ns/shop/*'] }]"),
            &[(Warning, Code::UnknownIdentity, 24, "did you mean 'spiffe://mesh.local/ns/shop/sa/web'?")],
        ),
        ("everyone, and meant", allow("from: [{ ipBlocks: [0.0.0.0/0, '::/0'] }]"), &[]),
    ]);
}

#[test]
fn mistakes_about_networks_are_told() {
    check(&[
        (
            "19 a network that is none",
            allow("from: [{ ipBlocks: ['10.0.0.0/33'] }]"),
            &[(Error, Code::InvalidValue, 24, "such as 10.0.0.0/8")],
        ),
        (
            "bits that do not count",
            allow("from: [{ ipBlocks: [10.1.2.3/8] }]"),
            &[(Warning, Code::HostBits, 24, "write '10.0.0.0/8'")],
        ),
    ]);
}

#[test]
fn mistakes_about_what_is_called_are_told() {
    let to = |operation: &str| allow(&format!("from: [{{ serviceAccounts: [web] }}], to: [{{ {operation} }}]"));
    check(&[
        ("11 a method in small letters", to("methods: [get]"), &[(Error, Code::InvalidValue, 24, "did you mean 'GET'?")]),
        (
            "12 the port of the Service",
            to("ports: [80]"),
            &[(Note, Code::ServicePort, 24, "80 is the port of Service shop/api, which is port 8080 of its workloads")],
        ),
        (
            "12 the port of the Service, and of another of its ports",
            [
                to("ports: [80]").replace("name: api }", "name: two }"),
                object("Service", "two", "selector: { app: api }, ports: [{ name: a, port: 80, targetPort: 8080 }, { name: b, port: 81, targetPort: 80 }]"),
            ]
            .concat(),
            &[
                (Warning, Code::ServicePort, 24, "here it is the workloads' own: expected 8080"),
                (Warning, Code::UnlistedPort, 29, "expected one that they list, as Workload shop/api-1 does 8080"),
            ],
        ),
        (
            "31 everything but a path",
            allow("to: [{ notPaths: ['/healthz'] }]"),
            &[(Warning, Code::AllowAll, 24, "lets everyone call everything but /healthz")],
        ),
        (
            "a path that is left out again",
            to("paths: [/a], notPaths: ['/a*']"),
            &[
                (Warning, Code::MatchesNothing, 24, "this leaves out what paths names"),
                (Warning, Code::PathPrefix, 24, "expected '/a' and '/a/*'"),
            ],
        ),
        (
            "14 a path with a query",
            to("paths: ['/orders?id=*']"),
            &[(Error, Code::InvalidValue, 24, "which are not part of a path")],
        ),
        ("15 a host with a port", to("hosts: ['api:80']"), &[(Error, Code::InvalidValue, 24, "write 'api'")]),
        (
            "16 a star inside",
            to("paths: ['/a/*/b']"),
            &[(Error, Code::InvalidValue, 24, "only one, at the start or at the end")],
        ),
        (
            "a pattern that ends inside a segment",
            to("paths: ['/api*']"),
            &[(Warning, Code::PathPrefix, 24, "expected '/api' and '/api/*'")],
        ),
        (
            "09 a rule behind another",
            policy(
                "action: ALLOW, rules: [{ from: [{ serviceAccounts: [web] }] }, { from: [{ serviceAccounts: [web] }], \
                 to: [{ methods: [GET] }] }]",
            ),
            &[(Warning, Code::NoDifference, 24, "expected one of the two to be changed or taken away")],
        ),
        (
            "10 a DENY of everything",
            [
                allow("from: [{ serviceAccounts: [web] }]"),
                object("AuthorizationPolicy", "d", "targetRef: { kind: Service, name: api }, action: DENY, rules: [{}]"),
            ]
            .concat(),
            &[(Warning, Code::NoDifference, 24, "refuses all that this would let pass")],
        ),
    ]);
}

#[test]
fn mistakes_in_the_form_of_a_policy_are_told() {
    let istio = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: shop }\n\
                 spec: { selector: { matchLabels: { app: api } }, rules: [{ from: [{ source: { principals: [a] } }] }] }\n";
    let twice = allow("from: [{ serviceAccounts: [web] }]");
    let kubernetes = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: { name: web, namespace: shop }\n---\n\
                      apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: web, namespace: shop }\nspec: {}\n";
    check(&[
        (
            "05 a misspelt target",
            policy("action: ALLOW, rules: []").replace("name: api }", "name: apii }"),
            &[(Error, Code::UnknownName, 24, "did you mean 'api'?")],
        ),
        ("24 no action", policy("rules: [{}]"), &[(Error, Code::MissingField, 24, "missing field 'action'")]),
        (
            "25 a selector",
            object("AuthorizationPolicy", "p", "selector: { matchLabels: { app: api } }, action: ALLOW, rules: []"),
            &[(Error, Code::UnknownField, 24, "expected one of action, expires, onUnsupported, rules, targetRef")],
        ),
        (
            "26 the kind of another mesh",
            istio.to_owned(),
            &[
                (Error, Code::InvalidValue, 21, "expected selvedge.dev/v1alpha1"),
                (Error, Code::MissingField, 24, "missing field 'action'"),
                (Error, Code::UnknownField, 24, "unknown field 'selector'"),
                (Error, Code::UnknownField, 24, "expected one of identities, ipBlocks"),
            ],
        ),
        (
            "30 when",
            allow("when: [{ key: 'request.headers[x]', values: [a] }]"),
            &[(Error, Code::UnknownField, 24, "expected one of from, to")],
        ),
        (
            "32 the namespace of a target",
            policy("action: ALLOW, rules: []").replace("name: api }", "name: api, namespace: shop }"),
            &[(Error, Code::UnknownField, 24, "expected one of kind, name, port")],
        ),
        (
            "34 the port of the workload",
            policy("action: ALLOW, rules: []").replace("name: api }", "name: api, port: 8080 }"),
            &[(Error, Code::UnknownPort, 24, "expected 80")],
        ),
        (
            "35 twice",
            [twice.clone(), twice].concat(),
            &[(Error, Code::DuplicateObject, 28, "AuthorizationPolicy shop/p is written twice")],
        ),
        (
            "37 the whole mesh from another namespace",
            object("MeshPolicy", "zz", "targetRef: { kind: Mesh }, defaultPosture: deny"),
            &[(Error, Code::InvalidValue, 24, "expected namespace selvedge-system, or no targetRef")],
        ),
        (
            "38 callers of a limit",
            object(
                "RateLimit",
                "r",
                "targetRef: { kind: Service, name: api }, limits: [{ requests: 10, per: 1s, match: [{ paths: [/x], from: [web] }] }]",
            ),
            &[(Error, Code::UnknownField, 24, "expected one of absentHeaders, headers, hosts, methods, ")],
        ),
        (
            "42 kinds of Kubernetes",
            kubernetes.to_owned(),
            &[(
                Note,
                Code::PassedOver,
                0,
                "2 documents are not of the mesh and passed over: 1 Deployment, 1 ServiceAccount",
            )],
        ),
    ]);
}

#[test]
fn moments_in_the_past_are_told() {
    let expired = |action: &str, rules: &str| {
        policy(&format!("action: {action}, expires: '2020-01-01T00:00:00Z', rules: [{{ {rules} }}]"))
    };
    check(&[
        (
            "17 an ALLOW",
            expired("ALLOW", "from: [{ serviceAccounts: [web] }]"),
            &[(
                Warning,
                Code::Expired,
                24,
                "lets nobody pass any more: expected a later moment, or the policy removed",
            )],
        ),
        ("18 a DENY", expired("DENY", ""), &[(Warning, Code::Expired, 24, "refuses nothing any more")]),
    ]);
}

/// A document with fields beside `spec`, or none of it, in no namespace that is not written.
fn raw(version: &str, kind: &str, rest: &str) -> String {
    format!("---\napiVersion: {version}\nkind: {kind}\n{rest}\n")
}

#[test]
fn mistakes_in_the_nouns_of_the_mesh_are_told() {
    let workload = |name: &str, spec: &str| {
        object("Workload", name, spec).replace("namespace: shop }", "namespace: shop, labels: { app: api } }")
    };
    let slice = |rest: &str| {
        raw("discovery.k8s.io/v1", "EndpointSlice", &format!("metadata: {{ name: s, namespace: shop }}\n{rest}"))
    };
    check(&[
        (
            "Service: a port that nobody lists",
            object("Service", "s", "selector: { app: api }, ports: [{ port: 8081 }]"),
            &[(Warning, Code::UnlistedPort, 24, "expected one that they list, as Workload shop/api-1 does 8080")],
        ),
        (
            "Service: labels of nobody",
            object("Service", "s", "selector: { app: apo }, ports: [{ port: 80 }]"),
            &[(Warning, Code::CoversNothing, 24, "no Workload of namespace 'shop' has these labels")],
        ),
        (
            "Workload: the port of its service is not listed",
            workload("api-2", "serviceAccount: api, address: 192.0.2.3, ports: [{ port: 9090 }]"),
            &[(Warning, Code::UnlistedPort, 24, "expected it among the ports, or another label")],
        ),
        (
            "Workload: the address of another",
            workload("api-2", "serviceAccount: api, address: 192.0.2.1"),
            &[(Warning, Code::ClaimedTwice, 24, "192.0.2.1:8080 is where Workload 'api-1' is called, too")],
        ),
        (
            "EndpointSlice: an address that is none",
            slice("addressType: IPv4\nendpoints: [{ addresses: [here] }]"),
            &[(Error, Code::InvalidValue, 21, "'here' is not an IP address")],
        ),
        (
            "EndpointSlice: a type of addresses that is none",
            slice("addressType: IPv5\nendpoints: []"),
            &[(Error, Code::InvalidValue, 21, "did you mean 'IPv4'?")],
        ),
        (
            "Node: in a namespace",
            raw("v1", "Node", "metadata: { name: n, namespace: shop }\nspec: {}"),
            &[(Error, Code::InvalidValue, 23, "a Node is in no namespace: leave it out")],
        ),
        (
            "Node: a network that is none",
            raw("v1", "Node", "metadata: { name: n }\nspec: { podCIDRs: [10.0.0.0/33] }"),
            &[(Error, Code::InvalidValue, 24, "such as 10.0.0.0/8")],
        ),
        (
            "ExternalService: the host of a Service",
            object(
                "ExternalService",
                "e",
                "hosts: [api.shop], ports: [{ port: 80 }], endpoints: [{ address: 198.51.100.1 }]",
            ),
            &[(Warning, Code::ClaimedTwice, 24, "this host is that of Service shop/api")],
        ),
        (
            "ExternalService: no host",
            object("ExternalService", "e", "ports: [{ port: 80 }], endpoints: [{ address: 198.51.100.1 }]"),
            &[(Error, Code::MissingField, 24, "missing field 'hosts'")],
        ),
        (
            "ReferenceGrant: a misspelt field",
            object("ReferenceGrant", "g", "form: [], from: [], to: []"),
            &[(Error, Code::UnknownField, 24, "did you mean 'from'?")],
        ),
        (
            "ReferenceGrant: no namespace",
            object(
                "ReferenceGrant",
                "g",
                "from: [{ group: gateway.networking.k8s.io, kind: HTTPRoute }], to: [{ group: '', kind: Service }]",
            ),
            &[(Error, Code::MissingField, 24, "missing field 'namespace'")],
        ),
    ]);
}

#[test]
fn mistakes_in_the_policies_of_the_mesh_are_told() {
    let database =
        object("Service", "db", "selector: { app: api }, ports: [{ port: 5432, targetPort: 8080, appProtocol: tcp }]");
    let db = |kind: &str, spec: &str| [database.clone(), object(kind, "p", spec)].concat();
    let limit = |spec: &str| format!("targetRef: {{ kind: Service, name: db }}, limits: [{{ per: 1s, {spec} }}]");
    let faults = "faults: [{ from: [{ serviceAccounts: [web] }], delay: { percentage: 1, duration: 1s } }]";
    check(&[
        (
            "MeshPolicy: a second one for the namespace",
            object("MeshPolicy", "open", "defaultPosture: allow"),
            &[(Warning, Code::Overridden, 24, "MeshPolicy shop/default sets defaultPosture of the same target")],
        ),
        (
            "MeshPolicy: no namespace",
            raw("selvedge.dev/v1alpha1", "MeshPolicy", "metadata: { name: all }\nspec: { defaultPosture: deny }"),
            &[(Warning, Code::NoNamespace, 23, "or selvedge-system with targetRef {kind: Mesh}")],
        ),
        (
            "AuthorizationPolicy: paths where there are none",
            db(
                "AuthorizationPolicy",
                "targetRef: { kind: Service, name: db }, action: DENY, rules: [{ to: [{ paths: [/a] }] }]",
            ),
            &[(Warning, Code::HttpOnTcp, 29, "expected conditions on callers, ports or hosts")],
        ),
        (
            "AuthorizationPolicy: the port of a Service, for a workload",
            object(
                "AuthorizationPolicy",
                "p",
                "targetRef: { kind: Workload, name: api-1 }, action: DENY, rules: [{ to: [{ ports: [80] }] }]",
            ),
            &[(Warning, Code::ServicePort, 24, "did you mean '8080'?")],
        ),
        (
            "RateLimit: paths where there are none",
            db("RateLimit", &limit("requests: 1, match: [{ paths: [/a] }]")),
            &[(Warning, Code::HttpOnTcp, 29, "so this counts nothing")],
        ),
        (
            "RateLimit: nothing",
            db("RateLimit", &limit("requests: 0")),
            &[(Error, Code::InvalidValue, 29, "expected at least 1")],
        ),
        (
            "FaultInjection: over",
            object(
                "FaultInjection",
                "f",
                &format!("targetRef: {{ kind: Service, name: api }}, expires: '2020-01-01T00:00:00Z', {faults}"),
            ),
            &[(Warning, Code::Expired, 24, "so no fault happens any more")],
        ),
        (
            "FaultInjection: nobody",
            object(
                "FaultInjection",
                "f",
                &format!("targetRef: {{ kind: Service, name: api }}, expires: '2999-01-01T00:00:00Z', {faults}")
                    .replace("[web]", "[wbe]"),
            ),
            &[(Warning, Code::UnknownIdentity, 24, "did you mean 'web'?")],
        ),
    ]);
}

#[test]
fn mistakes_about_where_calls_go_are_told() {
    let database =
        object("Service", "db", "selector: { app: api }, ports: [{ port: 5432, targetPort: 8080, appProtocol: tcp }]");
    let route = |name: &str, rule: &str| {
        object(
            "HTTPRoute",
            name,
            &format!("parentRefs: [{{ kind: Service, group: '', name: api }}], rules: [{{ {rule} }}]"),
        )
    };
    let traffic = |name: &str, attempts: u8| {
        object(
            "TrafficPolicy",
            name,
            &format!("targetRef: {{ kind: Service, name: api }}, retry: {{ attempts: {attempts}, on: [reset] }}"),
        )
    };
    check(&[
        (
            "TrafficPolicy: two of one Service",
            [traffic("a", 2), traffic("b", 3)].concat(),
            &[(Warning, Code::Overridden, 29, "TrafficPolicy shop/a sets retry.attempts of the same target")],
        ),
        (
            "TrafficPolicy: a port",
            traffic("a", 2).replace("name: api }", "name: api, port: 80 }"),
            &[(Error, Code::InvalidValue, 24, "leave the port out")],
        ),
        (
            "HTTPRoute: two that take all",
            [route("a", ""), route("b", "")].concat(),
            &[(Warning, Code::NoDifference, 29, "takes every request that this matches")],
        ),
        (
            "HTTPRoute: where there are no requests",
            [database.clone(), route("a", "").replace("name: api }", "name: db }")].concat(),
            &[(Warning, Code::HttpOnTcp, 29, "expected a port that does, or no route")],
        ),
    ]);
}

#[test]
fn a_port_that_a_policy_for_a_service_leaves_open_is_told() {
    let open = SHOP
        .replace("defaultPosture: deny", "accessLog: all")
        .replace("ports: [{ port: 8080 }]", "ports: [{ port: 8080 }, { port: 9090 }]");
    let allow = allow("from: [{ serviceAccounts: [web] }]");
    let told = |documents: &str| -> Vec<(Code, usize)> {
        linted(&[("mesh.yaml", documents)]).iter().map(|found| (found.code, found.place.line)).collect()
    };
    assert_eq!(told(&[&*open, &allow].concat()), [(Code::OpenPort, 24)]);
    let rest = object(
        "AuthorizationPolicy",
        "rest",
        "targetRef: { kind: Workload, name: api-1, port: 9090 }, action: ALLOW, rules: []",
    );
    assert_eq!(told(&[&*open, &allow, &rest].concat()), [], "another policy covers it");
    let closed = open.replace("accessLog: all", "defaultPosture: deny");
    assert_eq!(told(&[&*closed, &allow].concat()), [], "the posture does");
}

#[test]
fn a_port_that_does_not_say_what_it_speaks_is_told_where_requests_are_looked_into() {
    let told = |shop: &str, documents: &str| -> Vec<(Severity, Code, usize)> {
        let found = linted(&[("mesh.yaml", &[shop, documents].concat())]);
        found.iter().map(|found| (found.severity, found.code, found.place.line)).collect()
    };
    let undeclared = SHOP.replace(", appProtocol: http", "");
    let note = [(Note, Code::UndeclaredProtocol, 4)];
    let paths = "to: [{ paths: [/a] }]";
    let policy =
        |target: &str| object("AuthorizationPolicy", "p", &format!("{target}action: DENY, rules: [{{ {paths} }}]"));
    let limit = object("RateLimit", "l", "targetRef: { kind: Service, name: api }, limits: [{ requests: 1, per: 1s }]");
    let route = object("HTTPRoute", "r", "parentRefs: [{ kind: Service, group: '', name: api }], rules: [{}]");
    for (name, documents) in [
        ("the service", policy("targetRef: { kind: Service, name: api }, ")),
        ("a port of the service", policy("targetRef: { kind: Service, name: api, port: 80 }, ")),
        ("a workload", policy("targetRef: { kind: Workload, name: api-1 }, ")),
        ("a port of a workload", policy("targetRef: { kind: Workload, name: api-1, port: 8080 }, ")),
        ("the namespace", policy("")),
        ("a limit", limit),
        ("a route", route),
    ] {
        assert_eq!(told(&undeclared, &documents), note, "{name}");
        assert_eq!(told(SHOP, &documents), [], "{name}, declared");
        let named = undeclared.replace("name: http", "name: tcp-api");
        assert!(!told(&named, &documents).contains(&note[0]), "{name}, named tcp");
    }
    assert_eq!(
        told(&undeclared, &allow("from: [{ serviceAccounts: [web] }]")),
        [],
        "callers are known without requests"
    );
    assert_eq!(told(&undeclared, ""), [], "nothing looks into them");
}

#[test]
fn a_running_control_plane_warns_before_a_policy_expires_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let policy = policy("action: DENY, expires: '2030-01-01T00:00:00Z', rules: [{}]");
    fs::write(dir.path().join("mesh.yaml"), [SHOP, &policy].concat()).unwrap();
    let mut store = Store::new("mesh.local");
    for change in files::once(dir.path()).unwrap().into_iter().chain([Change::Complete]) {
        store.take(files::NAME, change);
    }
    store.publish();
    let expires = 1_893_456_000;
    for (now, code) in [
        (expires - 30 * 86_400, None),
        (expires - 86_400, Some(Code::ExpiresSoon)),
        (expires, Some(Code::Expired)),
        (expires + 365 * 86_400, Some(Code::Expired)),
    ] {
        let report = store.account_at(now).report();
        assert_eq!(report.findings.first().map(|finding| finding.code), code, "{now}");
        let object = report.objects.iter().find(|object| object.name == "p").unwrap();
        assert_eq!(object.problems.len(), usize::from(code.is_some()), "{now}: {:?}", object.problems);
    }
}
