//! What a rule leaves out: an ALLOW rule leaves out in doubt too, a DENY rule only what is certain.

use selvedge_policies::{
    policy::Posture,
    testing::{Clock, Request},
};
use serde_json::{Value, json};

use crate::{Target, assert_complaints, attach};

fn target(action: &str, operation: &Value) -> Target {
    let spec = json!({ "action": action, "rules": [{ "to": [operation] }] });
    Target::new(&[attach("AuthorizationPolicy", "shop/p", spec)], Posture::Allow)
}

/// Whether an ALLOW with this operation lets the request pass, and a DENY refuses it.
fn matches(operation: &Value, request: &Request) -> (bool, bool) {
    let refuses = |action| target(action, operation).refusal(request, Clock::default().now()).is_some();
    (!refuses("ALLOW"), refuses("DENY"))
}

#[test]
fn what_is_left_out_does_not_match() {
    let get = |path: &str| Request::new("GET", path).port(8080).host("a.shop");
    let (paths, methods) = (json!({ "notPaths": ["/healthz", "/public/*"] }), json!({ "notMethods": ["GET"] }));
    let (hosts, ports) = (json!({ "notHosts": ["*.shop"] }), json!({ "notPorts": [9090] }));
    let absent = json!({ "absentHeaders": ["X-Debug"] });
    let both = json!({ "paths": ["/a/*"], "notPaths": ["/a/b"], "notPorts": [9090] });
    for (operation, request, expected) in [
        (&paths, get("/x"), (true, true)),
        (&paths, get("/healthz"), (false, false)),
        (&paths, get("/public/a"), (false, false)),
        (&paths, get("/Healthz"), (false, true)),
        (&methods, Request::new("POST", "/"), (true, true)),
        (&methods, Request::new("GET", "/"), (false, false)),
        (&methods, Request::new("get", "/"), (false, true)),
        (&hosts, get("/").host("b.test"), (true, true)),
        (&hosts, get("/"), (false, false)),
        (&ports, get("/"), (true, true)),
        (&ports, get("/").port(9090), (false, false)),
        (&absent, get("/"), (true, true)),
        (&absent, get("/").header("x-debug", "1"), (false, false)),
        (&absent, get("/").header("x_debug", "1"), (false, true)),
        (&both, get("/a/c"), (true, true)),
        (&both, get("/a/b"), (false, false)),
        (&both, get("/b"), (false, false)),
        (&both, get("/a/c").port(9090), (false, false)),
    ] {
        assert_eq!(matches(operation, &request), expected, "{operation} {request:?}");
    }
}

#[test]
fn what_cannot_be_seen_is_decided_against_the_caller() {
    let connection = |operation: &Value, request: &Request| {
        let refuses = |action| target(action, operation).connection_refusal(request, Clock::default().now()).is_some();
        (!refuses("ALLOW"), refuses("DENY"))
    };
    let caller = || Request::new("GET", "/").port(8080);
    for operation in
        [json!({ "notPaths": ["/a"] }), json!({ "notMethods": ["GET"] }), json!({ "absentHeaders": ["x"] })]
    {
        assert_eq!(connection(&operation, &caller()), (false, true), "{operation}");
    }
    let (ports, hosts) = (json!({ "notPorts": [9090] }), json!({ "notHosts": ["a.shop"] }));
    assert_eq!(connection(&ports, &caller()), (true, true));
    assert_eq!(connection(&ports, &caller().port(9090)), (false, false));
    assert_eq!(connection(&hosts, &caller()), (false, true));
    assert_eq!(connection(&hosts, &caller().server_name("b.shop")), (true, true));
    assert_eq!(connection(&hosts, &caller().server_name("a.shop")), (false, false));
}

#[test]
fn what_is_left_out_is_checked_as_what_is_named() {
    let operation = json!({
        "notMethods": ["get"], "notPaths": ["a"], "notHosts": ["a:80"], "notPorts": [0], "absentHeaders": ["x tenant"],
    });
    assert_complaints(
        "AuthorizationPolicy",
        &json!({ "action": "DENY", "rules": [{ "to": [operation] }] }),
        &[
            ("rules[0].to[0].notMethods[0]", "did you mean 'GET'"),
            ("rules[0].to[0].notPaths[0]", "begin with '/'"),
            ("rules[0].to[0].notHosts[0]", "write 'a'"),
            ("rules[0].to[0].notPorts[0]", "1 to 65535"),
            ("rules[0].to[0].absentHeaders[0]", "token"),
        ],
    );
    assert!(target("ALLOW", &json!({ "notPaths": ["/a"] })).0.needs().paths, "ambiguous paths are refused");
}
