//! Rules that are said to make no difference: which they are, and that nothing changes without them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::Method;
use proptest::prelude::*;
use selvedge_policies::{
    kind::{self, Attached},
    policy::{Posture, Shadowed},
    registry,
    route::RouteTable,
    testing::{Clock, Request},
    verdict::Answer,
};
use serde_json::{Value, json};

use crate::{Target, answer, attach, context};

const AUTHORIZATION: &str = "AuthorizationPolicy";
const ROUTE: &str = "HTTPRoute";

fn shadows(kind: &str, documents: &[(&str, Value)]) -> Vec<Shadowed> {
    let attached = documents.iter().map(|(name, spec)| Attached { name: Arc::from(*name), spec: spec.clone() });
    (registry::find(kind).unwrap().shadows)(&attached.collect::<Vec<_>>())
}

/// `object at < object at`, for each.
fn told(kind: &str, documents: &[(&str, Value)]) -> Vec<String> {
    let told = shadows(kind, documents).into_iter();
    told.map(|Shadowed { object, at, by, by_at, how }| format!("{object} {at}: {by} {by_at} {how}")).collect()
}

/// The documents without what is said to make no difference.
fn without(documents: &[(String, Value)], shadowed: &[Shadowed]) -> Vec<(String, Value)> {
    let fields: BTreeSet<(&str, &str)> = shadowed.iter().map(|found| (&*found.object, &*found.at)).collect();
    let kept = documents.iter().filter_map(|(name, spec)| {
        let mut spec = spec.clone();
        let mut number = 0..;
        let rules = spec["rules"].as_array_mut().unwrap();
        rules.retain_mut(|rule| {
            let at = format!("rules[{}]", number.next().unwrap());
            let Some(matches) = rule.get_mut("matches").and_then(Value::as_array_mut) else {
                return !fields.contains(&(&**name, &*at));
            };
            let mut number = 0..;
            matches.retain(|_| !fields.contains(&(&**name, &*format!("{at}.matches[{}]", number.next().unwrap()))));
            !matches.is_empty()
        });
        // An HTTPRoute without rules would take everything.
        let is_route = spec.get("parentRefs").is_some();
        (!is_route || !spec["rules"].as_array().unwrap().is_empty()).then_some((name.clone(), spec))
    });
    kept.collect()
}

#[test]
fn rules_of_policies_that_others_leave_nothing_to_are_found() {
    let wide = json!({ "from": [{ "namespaces": ["shop"] }], "to": [{ "paths": ["/a*"] }] });
    let narrow = json!({
        "from": [{ "namespaces": ["shop"], "serviceAccounts": ["ui"] }],
        "to": [{ "paths": ["/a", "/a/*"], "methods": ["GET"] }],
    });
    let of = |action: &str, rules: &[&Value]| json!({ "action": action, "rules": rules });
    let is = |expected: &[&str], documents: &[(&str, Value)]| assert_eq!(told(AUTHORIZATION, documents), expected);
    is(
        &["shop/p rules[1]: shop/p rules[0] matches all that this matches"],
        &[("shop/p", of("ALLOW", &[&wide, &narrow]))],
    );
    is(
        &["shop/p rules[0]: shop/p rules[1] matches all that this matches"],
        &[("shop/p", of("DENY", &[&narrow, &wide]))],
    );
    is(
        &["shop/b rules[0]: shop/a rules[0] refuses all that this would let pass"],
        &[("shop/b", of("ALLOW", &[&narrow])), ("shop/a", of("DENY", &[&wide]))],
    );
    is(
        &["shop/b rules[0]: shop/c rules[0] refuses all that this would note"],
        &[("shop/b", of("AUDIT", &[&wide])), ("shop/c", of("DENY", &[&wide]))],
    );
    is(
        &["shop/b rules[0]: shop/a rules[0] matches all that this matches"],
        &[("shop/a", of("DENY", &[&wide])), ("shop/b", of("DENY", &[&wide]))],
    );
    // What lets pass takes nothing from what refuses; the first refusal is the one that is named; and one that ends
    // leaves the rest to the other.
    is(&[], &[("shop/a", of("ALLOW", &[&wide])), ("shop/b", of("DENY", &[&narrow]))]);
    is(&[], &[("shop/a", of("DENY", &[&narrow])), ("shop/b", of("DENY", &[&wide]))]);
    let mut ends = of("ALLOW", &[&wide]);
    ends["expires"] = "2030-01-01T00:00:00Z".into();
    is(&[], &[("shop/a", ends), ("shop/b", of("ALLOW", &[&narrow]))]);
}

#[test]
fn what_a_condition_leaves_out_is_not_taken_for_covered() {
    let rules = |one: Value, other: Value| json!({ "action": "ALLOW", "rules": [one, other] });
    for (one, other) in [
        (json!({ "from": [{ "notNamespaces": ["evil"] }] }), json!({})),
        (json!({ "to": [{ "paths": ["/a*"] }] }), json!({ "to": [{ "paths": ["*a"] }] })),
        (json!({ "from": [{ "serviceAccounts": ["ui"] }] }), json!({ "from": [{ "namespaces": ["shop"] }] })),
        (
            json!({ "to": [{ "headers": [{ "name": "x-a", "value": "1" }] }] }),
            json!({ "to": [{ "headers": [{ "name": "x-a", "value": "2" }] }] }),
        ),
    ] {
        let found = told(AUTHORIZATION, &[("shop/p", rules(one.clone(), other.clone()))]);
        assert!(
            found.iter().all(|told| told.starts_with("shop/p rules[0]: shop/p rules[1]")),
            "{one} {other}: {found:?}"
        );
    }
    let exception = json!({ "from": [{ "notNamespaces": ["evil", "odd"] }] });
    let fewer = json!({ "from": [{ "notNamespaces": ["evil"] }] });
    let found = told(AUTHORIZATION, &[("shop/p", rules(exception, fewer))]);
    assert_eq!(found, ["shop/p rules[0]: shop/p rules[1] matches all that this matches"]);
}

#[test]
fn matches_of_routes_that_no_request_gets_to_are_found() {
    let of = |rules: Value| json!({ "parentRefs": [{ "kind": "Service", "name": "web" }], "rules": rules });
    let cart = |path: &str| json!({ "path": { "value": path } });
    let is = |expected: &[&str], documents: &[(&str, Value)]| assert_eq!(told(ROUTE, documents), expected);
    is(
        &["shop/b rules[0].matches[1]: shop/a rules[0].matches[0] takes every request that this matches"],
        &[
            ("shop/b", of(json!([{ "matches": [cart("/other"), cart("/cart/")] }]))),
            ("shop/a", of(json!([{ "matches": [cart("/cart")] }]))),
        ],
    );
    is(
        &["shop/a rules[2]: shop/a rules[0] takes every request that this matches"],
        &[("shop/a", of(json!([{}, { "matches": [{ "method": "GET" }] }, {}])))],
    );
    let everything = json!({ "matches": [{ "path": { "type": "RegularExpression", "value": ".*" } }] });
    is(
        &["shop/a rules[0].matches[0]: shop/a rules[1].matches[0] takes every request that this matches"],
        &[("shop/a", of(json!([{ "matches": [cart("/cart")] }, everything])))],
    );
    let mut named = of(json!([{}]));
    named["hostnames"] = json!(["web.shop"]);
    is(&[], &[("shop/a", of(json!([{}]))), ("shop/b", named)]);
    is(&[], &[("shop/a", of(json!([{ "matches": [cart("/")] }, { "matches": [cart("/cart")] }])))]);
}

fn some(pool: &'static [&'static str], at_most: usize) -> impl Strategy<Value = Vec<Value>> {
    let one = prop::sample::select(pool).prop_map(|text| serde_json::from_str(text).expect("JSON"));
    prop::collection::vec(one, 0..=at_most)
}

const SOURCES: &[&str] = &[
    r#"{"namespaces": ["a"]}"#,
    r#"{"namespaces": ["a"], "serviceAccounts": ["x"]}"#,
    r#"{"serviceAccounts": ["a/x", "b/y"]}"#,
    r#"{"serviceAccounts": ["x"]}"#,
    r#"{"identities": ["*"]}"#,
    r#"{"identities": ["spiffe://mesh.local/ns/a/*"]}"#,
    r#"{"identities": ["spiffe://mesh.local/ns/a/sa/x"]}"#,
    r#"{"notNamespaces": ["b"]}"#,
    r#"{"notNamespaces": ["b", "c"]}"#,
    r#"{"notIdentities": ["spiffe://mesh.local/ns/a/sa/x"], "namespaces": ["a", "b"]}"#,
    r#"{"notIdentities": ["spiffe://mesh.local/ns/a/*"]}"#,
];
const OPERATIONS: &[&str] = &[
    r#"{"methods": ["GET"]}"#,
    r#"{"methods": ["GET", "POST"]}"#,
    r#"{"paths": ["/a"]}"#,
    r#"{"paths": ["/a*"]}"#,
    r#"{"paths": ["/a/*", "/a"], "methods": ["GET"]}"#,
    r#"{"paths": ["*b"]}"#,
    r#"{"ports": [8080]}"#,
    r#"{"hosts": ["shop"]}"#,
    r#"{"hosts": ["*p"], "ports": [8080, 81]}"#,
    r#"{"headers": [{"name": "x-a", "value": "1"}]}"#,
    r#"{"headers": [{"name": "x-a", "value": "1"}, {"name": "x-b", "value": "1"}]}"#,
];

fn policies() -> impl Strategy<Value = Vec<(String, Value)>> {
    let rule = (some(SOURCES, 2), some(OPERATIONS, 2)).prop_map(|(from, to)| {
        let fields = [("from", from), ("to", to)].into_iter().filter(|(_, list)| !list.is_empty());
        fields.map(|(name, list)| (name.to_owned(), Value::from(list))).collect::<serde_json::Map<_, _>>()
    });
    let rules = prop::collection::vec(rule, 1..4);
    let action = prop::sample::select(&["ALLOW", "DENY", "AUDIT"][..]);
    let expires = prop::sample::select(&[None, None, Some("2023-11-14T23:00:00Z"), Some("2023-11-15T00:00:00Z")][..]);
    let policy = (prop::sample::select(&["a", "b"][..]), action, expires, rules);
    prop::collection::vec(policy, 1..4).prop_map(|policies| {
        let named = policies.into_iter().enumerate().map(|(n, (namespace, action, expires, rules))| {
            let mut spec = json!({ "action": action, "rules": rules });
            if let Some(expires) = expires {
                spec["expires"] = expires.into();
            }
            (format!("{namespace}/p{n}"), spec)
        });
        named.collect()
    })
}

fn borrowed(documents: &[(String, Value)]) -> Vec<(&str, Value)> {
    documents.iter().map(|(name, spec)| (name.as_str(), spec.clone())).collect()
}

/// Every request and connection that tells the conditions apart, before and after the policies end.
fn decisions(documents: &[(String, Value)], posture: Posture) -> Vec<String> {
    let attached: Vec<_> = documents.iter().map(|(name, spec)| attach(AUTHORIZATION, name, spec.clone())).collect();
    let target = Target::new(&attached, posture);
    let mut decided = Vec::new();
    for request in requests() {
        let mut clock = Clock::default();
        for _ in 0..3 {
            let now = clock.advance(Duration::from_secs(2_000));
            let mut context = context(now);
            // Which rule is the nearest, or which place one has among others, is for people.
            let alike = |answer: Answer| Answer { rule: None, ..answer.because(String::new()) };
            let verdict = answer(target.0.on_request(&request.facts(), &mut context)).map(alike);
            let connection = target.connection_refusal(&request, now).map(alike);
            let audited = context.audited.map(|audited| (audited.policy, audited.reason));
            decided.push(format!("{verdict:?} {audited:?} {connection:?}"));
        }
    }
    decided
}

fn requests() -> Vec<Request> {
    let mut requests = Vec::new();
    for caller in [None, Some("a/x"), Some("a/z"), Some("b/y"), Some("c/x")] {
        for (method, path) in [("GET", "/a"), ("POST", "/a/b"), ("PUT", "/b"), ("GET", "/ab")] {
            for (host, port, headers) in [("shop", 8080, 0), ("xp", 81, 1), ("x", 80, 2)] {
                let request = Request::new(method, path).host(host).port(port);
                let request =
                    ["x-a", "x-b"].iter().take(headers).fold(request, |request, name| request.header(name, "1"));
                requests.push(match caller {
                    Some(caller) => request.from(caller),
                    None => request,
                });
            }
        }
    }
    requests
}

const MATCHES: &[&str] = &[
    r#"{}"#,
    r#"{"path": {"value": "/"}}"#,
    r#"{"path": {"value": "/a"}}"#,
    r#"{"path": {"value": "/a/"}}"#,
    r#"{"path": {"type": "Exact", "value": "/a"}}"#,
    r#"{"path": {"type": "RegularExpression", "value": ".*"}}"#,
    r#"{"path": {"type": "RegularExpression", "value": "/a|/b"}}"#,
    r#"{"method": "GET"}"#,
    r#"{"path": {"value": "/a"}, "method": "GET"}"#,
    r#"{"headers": [{"name": "x-a", "value": "1"}]}"#,
    r#"{"headers": [{"name": "x-a", "value": "1"}], "path": {"type": "RegularExpression", "value": ".*"}}"#,
    r#"{"queryParams": [{"name": "q", "value": "1"}], "method": "GET"}"#,
];

fn routes() -> impl Strategy<Value = Vec<(String, Value)>> {
    let hosts = prop::collection::vec(prop::sample::select(&["a.b.c", "A.b.c", "*.b.c", "*.c"][..]), 0..3);
    let rules = prop::collection::vec(some(MATCHES, 3), 1..4);
    prop::collection::vec((hosts, rules), 1..4).prop_map(|routes| {
        let named = routes.into_iter().enumerate().map(|(n, (hosts, rules))| {
            let rules = rules.into_iter().enumerate();
            let rules: Vec<Value> = rules
                .map(|(n, matches)| match matches.is_empty() {
                    true => json!({ "name": format!("r{n}") }),
                    false => json!({ "name": format!("r{n}"), "matches": matches }),
                })
                .collect();
            let spec =
                json!({ "parentRefs": [{ "kind": "Service", "name": "web" }], "hostnames": hosts, "rules": rules });
            (format!("shop/w{}", 9 - n), spec)
        });
        named.collect()
    })
}

/// The rule of every request that tells the conditions apart.
fn selected(documents: &[(String, Value)]) -> Vec<Option<String>> {
    let routes = documents
        .iter()
        .map(|(name, spec)| Attached { name: Arc::from(name.as_str()), spec: kind::parse(spec).expect("a route") });
    let table = RouteTable::compile(&routes.collect::<Vec<_>>()).expect("the routes are sound");
    let mut selected = Vec::new();
    for host in ["a.b.c", "x.b.c", "x.c", "web"] {
        for (method, path) in [(Method::GET, "/a"), (Method::POST, "/a/b"), (Method::GET, "/b"), (Method::PUT, "/ab")] {
            for (query, headers) in [(None, 0), (Some("q=1"), 1), (Some("q=2"), 1), (Some("q=1"), 0)] {
                let request = Request::new(method.as_str(), path);
                let request = if headers == 0 { request } else { request.header("x-a", "1") };
                let rule = table.select(host, &method, path, query, request.facts().headers);
                selected.push(rule.map(|rule| rule.name.to_string()));
            }
        }
    }
    selected
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn no_request_and_no_connection_misses_a_rule_that_is_said_to_make_no_difference(
        policies in policies(),
        deny in any::<bool>(),
    ) {
        let posture = if deny { Posture::Deny } else { Posture::Allow };
        let shadowed = shadows(AUTHORIZATION, &borrowed(&policies));
        if shadowed.is_empty() {
            return Ok(());
        }
        let left = without(&policies, &shadowed);
        let changed = decisions(&policies, posture).into_iter().zip(decisions(&left, posture)).find(|(a, b)| a != b);
        prop_assert_eq!(changed, None, "{:?}", shadowed);
    }

    #[test]
    fn no_request_misses_a_match_that_is_said_to_make_no_difference(routes in routes()) {
        let shadowed = shadows(ROUTE, &borrowed(&routes));
        let left = selected(&without(&routes, &shadowed));
        let changed = selected(&routes).into_iter().zip(left).find(|(a, b)| a != b);
        prop_assert_eq!(changed, None, "{:?}", shadowed);
    }
}
