//! The registry: what is known by which name, and how documents that are not sound are told apart.

use proptest::prelude::*;
use selvedge_policies::{
    kind,
    policy::{Place, Posture, Role, Target},
    registry,
    request::PolicySet,
    route::HttpRouteSpec,
    testing::Clock,
};
use serde_json::{Map, Value, json};

use crate::{assert_complaints, attach, complaints_of_close};

#[test]
fn every_kind_is_found_by_its_name_and_has_a_schema() {
    let names: Vec<&str> = registry::kinds().map(|kind| kind.name).collect();
    assert_eq!(names, ["AuthorizationPolicy", "RateLimit", "FaultInjection", "TrafficPolicy", "HTTPRoute"]);
    for kind in registry::kinds() {
        assert_eq!(registry::find(kind.name).map(|found| found.kind.name), Some(kind.name));
        assert!((kind.schema)().get("properties").is_some(), "{}", kind.name);
        assert!(!kind.summary.is_empty());
    }
    assert!(registry::find("Gateway").is_none());
}

#[test]
fn what_decides_is_compiled_in_its_order_and_what_cannot_be_enforced_is_refused() {
    let limit = json!({ "limits": [{ "requests": 1, "per": "1s" }] });
    let allow = json!({ "action": "ALLOW", "rules": [{}] });
    let attached = [attach("RateLimit", "shop/limit", limit), attach("AuthorizationPolicy", "shop/allow", allow)];
    let compile = |end, documents: &[_], posture| registry::compile(end, documents, posture, &PolicySet::new());
    let compiled = compile(Place::Called, &attached, Posture::Allow).unwrap();
    assert_eq!(compiled.kinds().collect::<Vec<_>>(), ["AuthorizationPolicy", "RateLimit"]);
    assert!(compile(Place::Called, &[], Posture::Allow).unwrap().is_empty());
    assert_eq!(compile(Place::Called, &[], Posture::Deny).unwrap().kinds().count(), 1, "the posture is a decision");
    for (end, kind) in [(Place::Called, "TrafficPolicy"), (Place::Called, "Future"), (Place::Caller, "RateLimit")] {
        let unsound = compile(end, &[attach(kind, "shop/x", json!({}))], Posture::Allow).unwrap_err();
        assert_eq!((unsound.len(), &*unsound[0].kind), (1, kind));
        assert!(unsound[0].problems[0].message.starts_with("shop/x: this version of the sidecar cannot enforce"));
    }
}

#[test]
fn kinds_say_what_they_are_attached_to() {
    for policy in registry::KINDS {
        let document = match policy.role {
            Role::Routes(_) => json!({ "parentRefs": [{ "kind": "Service", "name": "a", "port": 1 }] }),
            Role::Decides(..) | Role::Tries => json!({ "targetRef": { "name": "a", "port": 1 } }),
        };
        let bound = (policy.bind)(&document, "shop").unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_eq!(bound.targets(), [Target::Service("shop".into(), "a".into())], "{}", policy.kind.name);
        assert_eq!(bound.references[0].port, Some(1), "{}", policy.kind.name);
    }
}

#[test]
fn problems_of_all_documents_come_at_once_and_name_their_object() {
    let attached = [
        attach("AuthorizationPolicy", "shop/a", json!({ "action": "ALLOW", "rules": [{ "to": [{ "ports": [0] }] }] })),
        attach("AuthorizationPolicy", "shop/b", json!({ "action": "MAYBE" })),
        attach("RateLimit", "shop/c", json!({ "limits": [{ "requests": 0, "per": "1s" }] })),
    ];
    let unsound = registry::compile(Place::Called, &attached, Posture::Allow, &PolicySet::new()).unwrap_err();
    let problems: Vec<_> = unsound.into_iter().flat_map(|unsound| unsound.problems).collect();
    for name in ["shop/b: ", "shop/c: "] {
        assert!(problems.iter().any(|problem| problem.message.starts_with(name)), "{name} {problems:?}");
    }
}

/// Of each kind: a document, where a value was lost, and what is left of it.
#[test]
fn what_has_no_value_is_told_and_taken_with_the_meaning_of_its_kind() {
    let limit = |more: Value| {
        let mut limit = json!({ "requests": 1, "per": "1s" });
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "limits": [limit] })
    };
    let retry = |retry: Value| json!({ "targetRef": { "name": "a" }, "retry": retry });
    let allow = |more: Value| {
        let mut policy = json!({ "action": "ALLOW" });
        policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        policy
    };
    let deny = json!({ "action": "DENY", "expires": null, "targetRef": null, "rules": [{ "from": null }] });
    let route = json!({ "rules": [{ "matches": null }] });
    for (kind, mut document, expected, left) in [
        ("TrafficPolicy", retry(json!({ "codes": null })), vec!["retry.codes"], retry(json!({}))),
        ("TrafficPolicy", retry(json!({ "backoff": null })), vec!["retry.backoff"], retry(json!({}))),
        ("RateLimit", limit(json!({ "key": null })), vec!["limits[0].key"], limit(json!({}))),
        ("RateLimit", limit(json!({ "burst": null })), vec!["limits[0].burst"], limit(json!({}))),
        ("HTTPRoute", route, vec!["rules[0].matches"], json!({ "rules": [{}] })),
        (
            "AuthorizationPolicy",
            allow(json!({ "expires": null, "rules": [{}] })),
            vec!["expires"],
            allow(json!({ "rules": [] })),
        ),
        ("AuthorizationPolicy", allow(json!({ "rules": null })), vec!["rules"], allow(json!({ "rules": [] }))),
        (
            "AuthorizationPolicy",
            deny,
            vec!["rules[0].from", "expires", "targetRef"],
            json!({ "action": "DENY", "rules": [{}] }),
        ),
    ] {
        let found = (registry::find(kind).unwrap().kind.close)(&mut document);
        let found: Vec<String> = found.into_iter().map(|problem| problem.path).collect();
        assert_eq!(found, expected, "{kind} {left}");
        assert_eq!(document, left, "{kind}");
    }
}

/// Of each kind: a document, where it says nothing, and what is left of it.
#[test]
fn what_is_written_and_empty_is_told_and_taken_with_the_meaning_of_its_kind() {
    let limit = |more: Value| {
        let mut limit = json!({ "requests": 1, "per": "1s" });
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "limits": [limit] })
    };
    let route = |rule: Value| json!({ "parentRefs": [{ "kind": "Service", "name": "a" }], "rules": [rule] });
    let retry = |retry: Value| json!({ "targetRef": { "name": "a" }, "retry": retry });
    let cases = [
        ("RateLimit", json!({ "limits": [] }), vec!["limits"], json!({ "limits": [] })),
        ("RateLimit", limit(json!({ "key": [] })), vec!["limits[0].key"], limit(json!({}))),
        (
            "RateLimit",
            limit(json!({ "match": [{}], "key": ["route"] })),
            vec!["limits[0].match[0]"],
            limit(json!({ "key": ["route"] })),
        ),
        (
            "RateLimit",
            limit(json!({ "match": [{ "methods": [], "paths": ["/x"] }, { "hosts": [] }] })),
            vec!["limits[0].match[0].methods", "limits[0].match[1].hosts"],
            limit(json!({})),
        ),
        (
            "RateLimit",
            limit(json!({ "match": [{ "paths": ["/x"] }] })),
            vec![],
            limit(json!({ "match": [{ "paths": ["/x"] }] })),
        ),
        (
            "HTTPRoute",
            json!({ "parentRefs": [{ "kind": "Service", "name": "a" }], "rules": [] }),
            vec![],
            json!({ "parentRefs": [{ "kind": "Service", "name": "a" }], "rules": [] }),
        ),
        ("HTTPRoute", route(json!({ "matches": [{}] })), vec![], route(json!({ "matches": [{}] }))),
        ("TrafficPolicy", retry(json!({ "on": [] })), vec![], retry(json!({ "on": [] }))),
        ("TrafficPolicy", retry(json!({ "codes": [] })), vec!["retry.codes"], retry(json!({}))),
    ];
    for (kind, document, expected, left) in cases {
        let mut closed = document.clone();
        let found: Vec<String> =
            (registry::find(kind).unwrap().kind.close)(&mut closed).into_iter().map(|problem| problem.path).collect();
        assert_eq!(found, expected, "{kind} {document}");
        assert_eq!(closed, left, "{kind} {document}");
    }
    let told = complaints_of_close("RateLimit", &limit(json!({ "match": [] })));
    assert!(
        told[0].contains("write them, or leave the field out") && told[0].contains("counts every request"),
        "{told:?}"
    );
    for (list, rule) in [
        ("matches", json!({ "matches": [] })),
        ("matches[0].headers", json!({ "matches": [{ "headers": [] }] })),
        ("matches[0].queryParams", json!({ "matches": [{ "queryParams": [] }] })),
        ("backendRefs", json!({ "backendRefs": [] })),
        ("filters", json!({ "filters": [] })),
        ("filters[0].requestHeaderModifier.set", json!({ "filters": [{ "requestHeaderModifier": { "set": [] } }] })),
    ] {
        let told = complaints_of_close("HTTPRoute", &route(rule));
        assert!(told.len() == 1 && told[0].starts_with(&format!("rules[0].{list}: ")), "{told:?}");
    }
    let hosts = json!({ "parentRefs": [{ "kind": "Service", "name": "a" }], "hostnames": [] });
    assert!(complaints_of_close("HTTPRoute", &hosts)[0].starts_with("hostnames: "));
}

#[test]
fn traffic_policies_are_checked() {
    let sound = json!({
        "targetRef": { "name": "content" },
        "retry": { "attempts": 3, "on": ["5xx", "timeout"], "budget": { "percent": 50 } },
        "breaker": { "countStatus": "none" },
        "balancer": "roundRobin",
        "timeouts": { "request": "3s", "backendRequest": "1s", "connect": "250ms" },
    });
    assert_complaints("TrafficPolicy", &sound, &[]);
    let wrong = json!({
        "targetRef": { "kind": "Workload", "name": "content", "port": 80 },
        "retry": { "attempts": 11, "codes": [200], "backoff": { "base": "1s", "max": "10ms" }, "budget": { "percent": 100 } },
        "breaker": { "consecutiveFailures": 0, "openFor": "2m" },
        "timeouts": { "request": "1s", "backendRequest": "2s", "connect": "0s" },
    });
    assert_complaints(
        "TrafficPolicy",
        &wrong,
        &[("retry.attempts", "0 to 10"), ("breaker.consecutiveFailures", "at least 1")],
    );
    let mut wrong = wrong;
    wrong["retry"]["attempts"] = json!(1);
    wrong["breaker"]["consecutiveFailures"] = json!(1);
    assert_complaints(
        "TrafficPolicy",
        &wrong,
        &[
            ("targetRef.kind", "Workload"),
            ("targetRef.port", "all ports"),
            ("retry.codes[0]", "400 to 599"),
            ("retry.backoff.base", "longer than max"),
            ("breaker.openFor", "longer than maxOpen"),
            ("timeouts.backendRequest", "longer than"),
            ("timeouts.connect", "0s"),
        ],
    );
    assert_complaints(
        "TrafficPolicy",
        &json!({ "targetRef": { "name": "x" }, "balancer": "peakewma", "retry": { "on": ["5XX"] } }),
        &[("balancer", "did you mean 'peakEwma'?"), ("retry.on[0]", "did you mean '5xx'?")],
    );
}

#[test]
fn documents_survive_the_wire() {
    let spec = json!({
        "parentRefs": [{ "kind": "Service", "name": "ui", "port": 80 }],
        "rules": [{
            "name": "canary",
            "matches": [{ "path": { "type": "Exact", "value": "/x" }, "method": "GET" }],
            "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "remove": ["x-a"] } }],
            "backendRefs": [{ "kind": "Service", "name": "ui-v1", "port": 80, "weight": 90 }],
            "timeouts": { "request": "1s" },
        }],
    });
    let parsed: HttpRouteSpec = kind::parse(&spec).unwrap();
    assert_eq!(kind::document(&parsed), spec);
}

/// Words that documents are made of, and some that they are not.
const WORDS: [&str; 24] = [
    "action",
    "ALLOW",
    "DENY",
    "rules",
    "from",
    "to",
    "paths",
    "/a/*",
    "*",
    "identities",
    "spiffe://a/ns/b/sa/c",
    "limits",
    "requests",
    "per",
    "1s",
    "key",
    "identity",
    "parentRefs",
    "name",
    "matches",
    "filters",
    "type",
    "RequestHeaderModifier",
    "é*",
];

/// Documents of any shape, most of them wrong.
fn any_document() -> impl Strategy<Value = Value> {
    let word = || prop::sample::select(&WORDS[..]).prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u32..3).prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        let object = prop::collection::vec((word(), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever is in a document: no panic, and what the check accepts can be compiled.
    #[test]
    fn what_is_accepted_compiles(document in any_document()) {
        for policy in registry::KINDS {
            let kind = &policy.kind;
            let mut document = document.clone();
            let problems = (kind.check)(&document);
            (kind.close)(&mut document);
            let closed = (kind.check)(&document);
            prop_assert!(!problems.is_empty() || closed.is_empty(), "{} closes to {document}: {closed:?}", kind.name);
            let attached = [attach(kind.name, "shop/any", document.clone())];
            let compiles = match policy.role {
                Role::Decides(..) => registry::compile(policy.place, &attached, Posture::Deny, &PolicySet::new()).is_ok(),
                Role::Routes(_) | Role::Tries => true,
            };
            prop_assert!(!problems.is_empty() || compiles, "{} accepts {document}", kind.name);
            prop_assert!(!problems.is_empty() || (policy.bind)(&document, "shop").is_ok(), "{} accepts {document}", kind.name);
        }
    }
}

#[test]
fn the_longest_wait_does_not_overflow() {
    let limit = json!({ "limits": [{ "requests": 1, "per": "8784h", "burst": 1, "key": ["identity"] }] });
    assert_complaints("RateLimit", &limit, &[]);
    let target = crate::Target::new(&[attach("RateLimit", "shop/slow", limit)], Posture::Allow);
    let request = selvedge_policies::testing::Request::new("GET", "/");
    for _ in 0..3 {
        target.refusal(&request, Clock::default().now());
    }
}
