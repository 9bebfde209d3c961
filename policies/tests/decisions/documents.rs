//! The registry: what is known by which name, and how documents that are not sound are told apart.

use selvedge_policies::{kind, registry, request::Posture, route::HttpRouteSpec};
use serde_json::json;

use crate::{assert_complaints, attach};

#[test]
fn every_kind_is_found_by_its_name_and_has_a_schema() {
    let names: Vec<&str> = registry::kinds().map(|kind| kind.name).collect();
    assert_eq!(names, ["AuthorizationPolicy", "RateLimit", "TrafficPolicy", "HTTPRoute"]);
    for kind in registry::kinds() {
        assert_eq!(registry::find(kind.name).map(|found| found.name), Some(kind.name));
        assert!((kind.schema)().get("properties").is_some(), "{}", kind.name);
        assert!(!kind.summary.is_empty());
    }
    assert!(registry::find("Gateway").is_none());
}

#[test]
fn request_policies_are_compiled_in_their_order_and_others_passed_over() {
    let limit = json!({ "limits": [{ "requests": 1, "per": "1s" }] });
    let allow = json!({ "action": "ALLOW", "rules": [{}] });
    let attached = [
        attach("RateLimit", "shop/limit", limit),
        attach("TrafficPolicy", "shop/traffic", json!({})),
        attach("AuthorizationPolicy", "shop/allow", allow),
    ];
    let compiled = registry::compile_request(&attached, Posture::Allow).unwrap();
    let kinds: Vec<&str> = compiled.iter().map(|policy| policy.kind()).collect();
    assert_eq!(kinds, ["AuthorizationPolicy", "RateLimit"]);
    assert!(registry::compile_request(&[], Posture::Allow).unwrap().is_empty());
}

#[test]
fn problems_of_all_documents_come_at_once_and_name_their_object() {
    let attached = [
        attach("AuthorizationPolicy", "shop/a", json!({ "action": "ALLOW", "rules": [{ "to": [{ "ports": [0] }] }] })),
        attach("AuthorizationPolicy", "shop/b", json!({ "action": "MAYBE" })),
        attach("RateLimit", "shop/c", json!({ "limits": [{ "requests": 0, "per": "1s" }] })),
    ];
    let problems = registry::compile_request(&attached, Posture::Allow).err().unwrap();
    for name in ["shop/b: ", "shop/c: "] {
        assert!(problems.iter().any(|problem| problem.message.starts_with(name)), "{name} {problems:?}");
    }
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
        "targetRef": { "kind": "Workload", "name": "content" },
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
