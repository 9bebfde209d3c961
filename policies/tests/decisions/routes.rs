//! `HTTPRoute`: precedence, shares, header changes, and the index against a plain reading of the Gateway API.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, Method};
use proptest::prelude::*;
use selvedge_policies::{
    kind::{self, Attached},
    matching::{
        header::HeaderMatch,
        path::{PathMatch, PathMatchType},
        query::QueryParamMatch,
        text::ValueMatchType,
    },
    policy::{Bound, Relation, Target},
    registry,
    route::{
        Conditions, Considered, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, Outcome, ParentRef, RouteTable,
        RouteTimeouts,
    },
    testing::{Request, deviation, shares},
};
use serde_json::{Value, json};

use crate::assert_complaints;

fn route(name: &str, spec: Value) -> Attached<HttpRouteSpec> {
    Attached { name: Arc::from(name), spec: kind::parse(&spec).expect("the route is sound") }
}

fn table(rules: Value) -> RouteTable {
    let spec = json!({ "parentRefs": [{ "kind": "Service", "name": "ui" }], "rules": rules });
    RouteTable::compile(&[route("shop/ui", spec)]).expect("the rules compile")
}

fn chosen(table: &RouteTable, request: &Request) -> Option<String> {
    let facts = request.facts();
    let rule = table.select(facts.host, facts.method, facts.path, facts.query, facts.headers);
    rule.map(|rule| rule.name.to_string())
}

fn explain(routes: &[Attached<HttpRouteSpec>], request: &Request, taken: Option<&str>) -> Vec<Considered> {
    routes.iter().flat_map(|route| Conditions::of(route).explain(&request.facts(), taken)).collect()
}

#[test]
fn without_routes_or_rules() {
    assert!(RouteTable::compile(&[]).unwrap().is_empty());
    let table = table(json!([]));
    let rule = table.select("ui", &Method::GET, "/x", None, &HeaderMap::new()).expect("the default rule matches");
    assert!(rule.to_parent && rule.backends.is_empty());
    assert_eq!(&*rule.name, "shop/ui/0");
}

#[test]
fn the_first_condition_that_fails_is_named() {
    let spec = json!({ "parentRefs": [{ "kind": "Service", "name": "ui" }], "hostnames": ["ui.shop"], "rules": [
        { "name": "beta", "matches": [
            { "path": { "value": "/a" }, "headers": [{ "name": "x-a", "value": "1" }, { "name": "x-b", "value": "2" }] },
            { "method": "POST", "queryParams": [{ "name": "q", "value": "1" }] },
        ] },
        { "name": "long", "matches": [{ "path": { "value": "/a/b" } }] },
        { "name": "all" },
    ] });
    let routes = [route("shop/ui", spec)];
    let outcomes = |request: Request| {
        let request = request.host("ui.shop");
        let taken = chosen(&RouteTable::compile(&routes).unwrap(), &request);
        let considered = explain(&routes, &request, taken.as_deref());
        considered.into_iter().map(|found| found.outcome).collect::<Vec<_>>()
    };
    let fails = |field: &str| Outcome::Fails(field.to_owned());
    let (b, q) = (fails("rules[0].matches[0].headers[1]"), fails("rules[0].matches[1].queryParams[0]"));
    let post = Request::new("POST", "/a/b").header("x-a", "1");
    assert_eq!(outcomes(post), [b, q.clone(), Outcome::Taken, Outcome::Preceded]);
    let (path, method) = (fails("rules[0].matches[0].path"), fails("rules[0].matches[1].method"));
    assert_eq!(outcomes(Request::new("GET", "/")), [path, method, fails("rules[1].matches[0].path"), Outcome::Taken]);
    let other = explain(&routes, &Request::new("GET", "/").host("ui"), None);
    assert!(other.iter().all(|found| found.outcome == fails("hostnames")), "{other:?}");
    assert_eq!((&*other[0].rule, &*other[1].at, &*other[3].at), ("shop/ui/beta", "rules[0].matches[1]", "rules[2]"));
}

#[test]
fn the_most_specific_match_wins() {
    let table = table(json!([
        { "name": "all" },
        { "name": "prefix", "matches": [{ "path": { "value": "/a" } }] },
        { "name": "long", "matches": [{ "path": { "value": "/a/b/" } }] },
        { "name": "exact", "matches": [{ "path": { "type": "Exact", "value": "/a/b" } }] },
        { "name": "regex", "matches": [{ "path": { "type": "RegularExpression", "value": "/a/[0-9]+" } }] },
        { "name": "post", "matches": [{ "path": { "value": "/a" }, "method": "POST" }] },
        { "name": "header", "matches": [{ "path": { "value": "/a" }, "headers": [{ "name": "X-Plan", "value": "pro" }] }] },
        { "name": "query", "matches": [{ "path": { "value": "/a" }, "queryParams": [{ "name": "q", "value": "1" }] }] },
    ]));
    for (request, expected) in [
        (Request::new("GET", "/"), "all"),
        (Request::new("GET", "/ab"), "all"),
        (Request::new("GET", "/a"), "prefix"),
        (Request::new("GET", "/a/c"), "prefix"),
        (Request::new("GET", "/a/b"), "exact"),
        (Request::new("GET", "/a/b/c"), "long"),
        (Request::new("POST", "/a/b/c"), "long"),
        (Request::new("GET", "/a/12"), "regex"),
        (Request::new("POST", "/a/12"), "regex"),
        (Request::new("POST", "/a/x?q=1").header("x-plan", "pro"), "post"),
        (Request::new("GET", "/a/x?q=1").header("x-plan", "pro"), "header"),
        (Request::new("GET", "/a/x?q=1"), "query"),
    ] {
        assert_eq!(chosen(&table, &request).as_deref(), Some(&*format!("shop/ui/{expected}")), "{request:?}");
    }
}

#[test]
fn ties_go_to_the_first_route_by_name_and_hosts_to_the_most_specific() {
    let spec = |hosts: Value| json!({ "parentRefs": [{ "kind": "Service", "name": "ui" }], "hostnames": hosts, "rules": [{}] });
    let table = RouteTable::compile(&[
        route("shop/z", spec(json!([]))),
        route("shop/b", spec(json!([]))),
        route("shop/wild", spec(json!(["*.example.com"]))),
        route("shop/exact", spec(json!(["A.example.com", "b.example.com"]))),
    ])
    .unwrap();
    for (host, expected) in [
        ("ui", "shop/b/0"),
        ("x.example.com", "shop/wild/0"),
        ("a.example.com", "shop/exact/0"),
        ("b.example.com", "shop/exact/0"),
        ("example.com", "shop/b/0"),
    ] {
        assert_eq!(chosen(&table, &Request::new("GET", "/").host(host)).as_deref(), Some(expected), "{host}");
    }
}

#[test]
fn no_match_is_no_rule() {
    let table = table(json!([{ "matches": [{ "path": { "value": "/a" }, "method": "GET" }] }]));
    assert_eq!(chosen(&table, &Request::new("GET", "/b")), None);
    assert_eq!(chosen(&table, &Request::new("POST", "/a")), None);
}

#[test]
fn backends_get_their_share_by_weight() {
    let table = table(json!([{ "backendRefs": [
        { "name": "ui-v1", "port": 80, "weight": 90 },
        { "name": "ui-v2", "port": 80, "weight": 10, "namespace": "canary" },
        { "name": "ui-v3", "port": 80, "weight": 0 },
    ] }]));
    let rule = table.select("ui", &Method::GET, "/", None, &HeaderMap::new()).unwrap();
    assert!(!rule.to_parent);
    assert_eq!((rule.backends[0].service.namespace(), rule.backends[1].service.namespace()), ("shop", "canary"));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let place = |name: &str| rule.backends.iter().position(|backend| backend.service.name() == name).unwrap();
    let shares = shares(3, (0..20_000).map(|_| place(rule.choose(&mut chance).unwrap().service.name())));
    assert!(deviation(&shares, &[90, 10, 0]) < 0.015, "{shares:?}");
    assert_eq!(shares[2], 0.0);
}

#[test]
fn backends_without_weight_get_nothing() {
    let table = table(json!([{ "backendRefs": [{ "name": "ui-v1", "port": 80, "weight": 0 }] }]));
    let rule = table.select("ui", &Method::GET, "/", None, &HeaderMap::new()).unwrap();
    assert!(rule.choose(&mut fastrand::Rng::with_seed(1)).is_none());
    assert!(!rule.to_parent);
}

#[test]
fn headers_are_changed_and_timeouts_read() {
    let changes = json!({
        "set": [{ "name": "X-Set", "value": "1" }],
        "add": [{ "name": "x-add", "value": "2" }],
        "remove": ["X-Gone"],
    });
    let filters = json!([
        { "type": "RequestHeaderModifier", "requestHeaderModifier": changes },
        { "type": "ResponseHeaderModifier", "responseHeaderModifier": { "remove": ["server"] } },
    ]);
    let table = table(json!([{
        "filters": filters,
        "timeouts": { "request": "2s", "backendRequest": "0s" },
        "backendRefs": [{ "name": "ui", "port": 80, "filters": [filters[0]] }],
    }]));
    let rule = table.select("ui", &Method::GET, "/", None, &HeaderMap::new()).unwrap();
    let request =
        Request::new("GET", "/").header("x-set", "0").header("x-set", "9").header("x-add", "0").header("x-gone", "0");
    let mut headers = request.facts().headers.clone();
    rule.filters.change_request(&mut headers);
    let mut lines = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in &headers {
        lines.entry(name.to_string()).or_default().push(value.to_str().unwrap().to_owned());
    }
    let expected = [("x-add", vec!["0", "2"]), ("x-set", vec!["1"])];
    let expected = expected.map(|(name, values)| (name.to_owned(), values.into_iter().map(str::to_owned).collect()));
    assert_eq!(lines, BTreeMap::from(expected));
    let back = Request::new("GET", "/").header("server", "x").header("x-gone", "0");
    let changed = |change: &dyn Fn(&mut HeaderMap)| {
        let mut headers = back.facts().headers.clone();
        change(&mut headers);
        ["server", "x-gone"].map(|name| headers.contains_key(name))
    };
    assert_eq!(changed(&|headers| rule.filters.change_response(headers)), [false, true]);
    let backend = &rule.backends[0].filters;
    assert_eq!(changed(&|headers| backend.change_response(headers)), [true, true]);
    assert_eq!(changed(&|headers| backend.change_request(headers)), [true, false]);
    assert_eq!(rule.timeouts, Some(RouteTimeouts { request: Some(Duration::from_secs(2)), backend_request: None }));
}

#[test]
fn what_is_wrong_or_not_supported_is_reported_where_it_is() {
    let spec = json!({
        "parentRefs": [
            { "kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "GW" },
            { "name": "ui" },
            { "kind": "Service", "group": "gateway.networking.k8s.io", "name": "ui" },
            { "kind": "Servce", "name": "ui" },
            { "kind": "Service", "group": "serving.knative.dev", "name": "UI" },
            { "kind": "Service", "name": "UI", "namespace": "a/b" },
        ],
        "hostnames": ["a:80"],
        "rules": [
            {
                "name": "one",
                "matches": [
                    { "path": { "type": "Exact", "value": "x" }, "method": "get" },
                    { "headers": [{ "name": "", "value": "" }], "queryParams": [{ "name": "", "value": "" }] },
                    { "path": { "type": "RegularExpression", "value": "a)|(b" } },
                ],
                "filters": [
                    { "type": "URLRewrite", "urlRewrite": {} },
                    { "type": "RequestHeaderModifer" },
                    { "type": "RequestHeaderModifier", "requestHeaderModifer": {} },
                    { "type": "ResponseHeaderModifier", "responseHeaderModifier": {
                        "set": [{ "name": "Content-Length", "value": "1" }, { "name": "x", "value": "a\nb" }],
                        "remove": ["selvedge-reason"],
                    } },
                ],
                "backendRefs": [{ "name": "ui" }, { "name": "Bad", "port": 80, "kind": "Servce" }],
                "timeouts": { "request": "1s", "backendRequest": "2s" },
            },
            { "name": "one" },
        ],
    });
    assert_complaints(
        "HTTPRoute",
        &spec,
        &[
            ("parentRefs[1]", "expected kind: Service, group: \"\""),
            ("parentRefs[2].group", "expected group: \"\""),
            ("parentRefs[3].kind", "did you mean 'Service'?"),
            ("parentRefs[5].name", "'UI'"),
            ("parentRefs[5].namespace", "'a/b'"),
            ("hostnames[0]", "without port"),
            ("rules[0].matches[0].path.value", "begin with '/'"),
            ("rules[0].matches[0].method", "did you mean 'GET'"),
            ("rules[0].matches[1].headers[0].name", "not a header name"),
            ("rules[0].matches[1].queryParams[0].name", "empty"),
            ("rules[0].matches[2].path.value", "regular expression"),
            ("rules[0].filters[1].type", "did you mean 'RequestHeaderModifier'?"),
            ("rules[0].filters[2].requestHeaderModifier", "needs it"),
            ("rules[0].filters[2].requestHeaderModifer", "did you mean"),
            ("rules[0].filters[3].responseHeaderModifier.set[0].name", "content-length"),
            ("rules[0].filters[3].responseHeaderModifier.set[1].value", "no header value"),
            ("rules[0].filters[3].responseHeaderModifier.remove[0]", "selvedge-reason"),
            ("rules[0].backendRefs[0].port", "port"),
            ("rules[0].backendRefs[1].kind", "did you mean 'Service'?"),
            ("rules[0].timeouts.backendRequest", "longer"),
            ("rules[1].name", "already the name of rules[0]"),
        ],
    );
}

/// What `spec` of namespace `shop` is bound to.
fn bound(spec: &Value) -> Bound {
    let kind = registry::find("HTTPRoute").unwrap();
    assert_eq!((kind.kind.check)(spec), []);
    (kind.bind)(spec, "shop").unwrap()
}

#[test]
fn services_are_routed_and_what_belongs_to_others_is_left_alone() {
    let service = Target::Service("shop".into(), "ui".into());
    for (parent, is_ours) in [
        (json!({ "kind": "Service", "group": "" }), true),
        (json!({ "kind": "Service", "group": "core" }), true),
        (json!({ "kind": "Service" }), true),
        (json!({ "kind": "Gateway" }), false),
        (json!({ "kind": "Gateway", "group": "gateway.networking.k8s.io", "sectionName": "https" }), false),
        (json!({ "kind": "ListenerSet", "group": "gateway.networking.k8s.io" }), false),
        (json!({ "kind": "OfTomorrow", "group": "gateway.networking.k8s.io" }), false),
        (json!({ "kind": "Service", "group": "serving.knative.dev" }), false),
        (json!({ "kind": "ServiceImport", "group": "multicluster.x-k8s.io" }), false),
    ] {
        let mut alone = parent.clone();
        alone["name"] = "ui".into();
        let beside = json!({ "kind": "Service", "name": "api" });
        let bound = bound(&json!({ "parentRefs": [alone, beside] }));
        let targets = bound.targets();
        assert_eq!(targets.contains(&service), is_ours, "{parent}");
        assert!(targets.contains(&Target::Service("shop".into(), "api".into())), "{parent}");
        let told = bound.document["parentRefs"].as_array().unwrap();
        assert_eq!(told.len(), targets.len(), "whoever looks at names alone must not take it for a service: {told:?}");
    }
}

#[test]
fn what_cannot_be_done_is_answered_with_an_error_in_its_place() {
    let mirror = json!({ "type": "RequestMirror", "requestMirror": { "backendRef": { "name": "x", "port": 80 } } });
    let cors = json!({ "type": "CORS", "cors": {} });
    let spec = json!({ "parentRefs": [{ "kind": "Service", "name": "ui" }], "rules": [
        {
            "matches": [{ "path": { "value": "/mirrored" } }],
            "filters": [mirror],
            "backendRefs": [{ "name": "ui", "port": 80 }],
        },
        {
            "matches": [{ "path": { "value": "/backends" } }],
            "backendRefs": [
                { "name": "ui", "port": 80, "weight": 2 },
                { "name": "b", "kind": "Bucket", "group": "s3.example.com", "weight": 3 },
                { "name": "ui", "port": 80, "weight": 4, "filters": [mirror] },
                { "name": "ui", "port": 80, "weight": 5, "filters": [cors] },
            ],
        },
        {},
    ] });
    let bound = bound(&spec);
    let warned: Vec<_> = bound.warnings.iter().map(|problem| &*problem.path).collect();
    let expected = [
        "rules[0].filters[0].type",
        "rules[1].backendRefs[1].kind",
        "rules[1].backendRefs[2].filters[0].type",
        "rules[1].backendRefs[3].filters[0].type",
    ];
    assert_eq!(warned, expected);
    assert!(bound.warnings.iter().all(|problem| problem.message.contains("500 (invalid_route)")));
    let sent = bound.references.iter().filter(|reference| reference.relation == Relation::SendsTo);
    assert_eq!(sent.map(|reference| &*reference.path).collect::<Vec<_>>(), ["rules[1].backendRefs[0]"]);

    let table = RouteTable::compile(&[route("shop/ui", bound.document.clone())]).unwrap();
    let unusable = |path: &str| {
        let rule = table.select("ui", &Method::GET, path, None, &HeaderMap::new()).unwrap();
        let backends = rule.backends.iter().map(|backend| (backend.weight, backend.unusable.as_deref().unwrap_or("")));
        backends.collect::<Vec<_>>()
    };
    assert_eq!(
        unusable("/mirrored/x"),
        [(1, "the filter RequestMirror is not supported")],
        "it falls to no other rule"
    );
    let expected = [
        (2, ""),
        (3, "the backend Bucket shop/b is no Service"),
        (4, "the filter RequestMirror is not supported"),
        (5, "the filter CORS is not supported"),
    ];
    assert_eq!(unusable("/backends"), expected);
    assert_eq!(unusable("/"), []);
    let again = bound_again(&bound.document);
    assert_eq!(
        (again.document, again.references),
        (bound.document, bound.references),
        "sidecars bind what they are told"
    );
}

fn bound_again(document: &Value) -> Bound {
    (registry::find("HTTPRoute").unwrap().bind)(document, "shop").unwrap()
}

/// The precedence of the Gateway API, read off its text: every match is compared, nothing is indexed.
mod naive {
    use super::*;

    pub(super) fn select(routes: &[Attached<HttpRouteSpec>], request: &Request) -> Option<String> {
        let mut sorted: Vec<&Attached<HttpRouteSpec>> = routes.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let mut best: Option<(Rank, String)> = None;
        for route in sorted {
            for (number, rule) in route.spec.rules.iter().enumerate() {
                for rank in rule.matches.iter().filter_map(|one| rank(&route.spec.hostnames, one, request)) {
                    if best.as_ref().is_none_or(|(highest, _)| rank > *highest) {
                        best = Some((rank, format!("{}/{number}", route.name)));
                    }
                }
            }
        }
        best.map(|(_, name)| name)
    }

    /// Larger wins; equal ranks go to the earlier one.
    type Rank = (usize, usize, usize, bool, usize, usize);

    fn rank(hostnames: &[String], condition: &HttpRouteMatch, request: &Request) -> Option<Rank> {
        let facts = request.facts();
        let host = host_rank(hostnames, facts.host)?;
        let path = condition.path.clone().unwrap_or_default();
        let (class, length) = path_rank(&path, facts.path)?;
        let method = condition.method.as_ref();
        let query: Vec<&str> = facts.query.unwrap_or_default().split('&').collect();
        let matches = method.is_none_or(|method| method == facts.method.as_str())
            && condition.headers.iter().all(|header| {
                let value = facts.headers.get(header.name.as_str()).map(|value| value.to_str().unwrap());
                value == Some(header.value.as_str())
            })
            && condition.query_params.iter().all(|one| query.contains(&format!("{}={}", one.name, one.value).as_str()));
        let rank = (host, class, length, method.is_some(), condition.headers.len(), condition.query_params.len());
        matches.then_some(rank)
    }

    fn host_rank(hostnames: &[String], host: &str) -> Option<usize> {
        if hostnames.is_empty() {
            return Some(0);
        }
        let rank = |pattern: &String| match pattern.strip_prefix('*') {
            Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some(suffix.len()),
            None => (pattern == host).then_some(1_000),
        };
        hostnames.iter().filter_map(rank).max()
    }

    fn path_rank(condition: &PathMatch, path: &str) -> Option<(usize, usize)> {
        let elements = |path: &str| path.split('/').filter(|e| !e.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        match condition.kind {
            PathMatchType::Exact => (condition.value == path).then_some((2, 0)),
            PathMatchType::RegularExpression => {
                let regex = regex::Regex::new(&format!("^(?:{})$", condition.value)).unwrap();
                regex.is_match(path).then_some((1, condition.value.len()))
            }
            PathMatchType::PathPrefix => {
                let prefix = elements(&condition.value);
                let length = prefix.iter().map(|element| element.len() + 1).sum();
                elements(path).starts_with(&prefix).then_some((0, length))
            }
        }
    }
}

fn matches() -> impl Strategy<Value = HttpRouteMatch> {
    let path = prop_oneof![
        2 => Just(None),
        4 => prop::sample::select(&["/", "/a", "/a/", "/a/b", "/b", "/ab"][..])
            .prop_map(|value| Some(PathMatch { kind: PathMatchType::PathPrefix, value: value.into() })),
        3 => prop::sample::select(&["/", "/a", "/a/b", "/a/"][..])
            .prop_map(|value| Some(PathMatch { kind: PathMatchType::Exact, value: value.into() })),
        1 => prop::sample::select(&["/a.*", "/[ab]", "/a/(b|c)"][..])
            .prop_map(|value| Some(PathMatch { kind: PathMatchType::RegularExpression, value: value.into() })),
    ];
    let header = prop::sample::select(&[("x-a", "1"), ("x-a", "2"), ("x-b", "1")][..])
        .prop_map(|(name, value)| HeaderMatch { kind: ValueMatchType::Exact, name: name.into(), value: value.into() });
    let query = prop::sample::select(&[("p", "1"), ("p", "2"), ("q", "1")][..]).prop_map(|(name, value)| {
        QueryParamMatch { kind: ValueMatchType::Exact, name: name.into(), value: value.into() }
    });
    let method = prop::option::weighted(0.3, prop::sample::select(&["GET", "POST"][..]).prop_map(str::to_owned));
    (path, prop::collection::vec(header, 0..2), prop::collection::vec(query, 0..2), method)
        .prop_map(|(path, headers, query_params, method)| HttpRouteMatch { path, headers, query_params, method })
}

fn routes() -> impl Strategy<Value = Vec<Attached<HttpRouteSpec>>> {
    let rule = prop::collection::vec(matches(), 1..4)
        .prop_map(|matches| HttpRouteRule { matches, ..HttpRouteRule::default() });
    let hosts = prop::collection::vec(prop::sample::select(&["a.b.c", "*.b.c", "*.c", "ui"][..]), 0..3);
    let route = (hosts, prop::collection::vec(rule, 1..4));
    prop::collection::vec(route, 0..5).prop_map(|routes| {
        let parent = ParentRef { kind: Some("Service".into()), name: "ui".into(), ..ParentRef::default() };
        let routes = routes.into_iter().enumerate().map(|(n, (hostnames, rules))| Attached {
            // Names fall while numbers rise, so that neither order is the other by chance.
            name: Arc::from(format!("shop/r{}", 9 - n)),
            spec: HttpRouteSpec {
                parent_refs: vec![parent.clone()],
                hostnames: hostnames.into_iter().map(str::to_owned).collect(),
                rules,
            },
        });
        routes.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn the_index_selects_as_a_plain_reading_does(
        routes in routes(),
        host in prop::sample::select(&["a.b.c", "x.b.c", "b.c", "c", "ui"][..]),
        method in prop::sample::select(&["GET", "POST"][..]),
        path in prop::sample::select(&["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/b", "/a/c"][..]),
        query in prop::sample::select(&["", "?p=1", "?q=1&p=1", "?p=2"][..]),
        x_a in prop::option::of(prop::sample::select(&["1", "2"][..])),
        x_b in prop::option::of(Just("1")),
    ) {
        let mut request = Request::new(method, &format!("{path}{query}")).host(host);
        for (name, given) in [("x-a", x_a), ("x-b", x_b)] {
            if let Some(value) = given {
                request = request.header(name, value);
            }
        }
        let table = RouteTable::compile(&routes).unwrap();
        let chosen = chosen(&table, &request);
        prop_assert_eq!(&chosen, &naive::select(&routes, &request));
        let considered = explain(&routes, &request, chosen.as_deref());
        let matching = considered.iter().filter(|found| !matches!(found.outcome, Outcome::Fails(_)));
        prop_assert_eq!(chosen.is_some(), matching.count() > 0, "{:?}", considered);
        let taken = considered.iter().filter(|found| found.outcome == Outcome::Taken);
        let taken: BTreeSet<&str> = taken.map(|found| &*found.rule).collect();
        prop_assert_eq!(chosen.iter().map(|name| &**name).collect::<BTreeSet<_>>(), taken);
    }
}
