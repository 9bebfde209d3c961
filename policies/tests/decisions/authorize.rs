//! `AuthorizationPolicy`: a table of meanings, and the index against a plain reading of the documents.

use proptest::prelude::*;
use selvedge_policies::{
    context::Audited,
    facts::{Moment, RequestFacts},
    kind::Attached,
    matching::{
        operation::Operation,
        rule::{Rule, Source},
    },
    policy::Posture,
    reason::Reason,
    request::authorize::{self, Action, AuthorizationPolicySpec},
    testing::{Clock, Request},
    verdict::{Answer, Verdict},
};
use serde_json::{Value, json};

use crate::{Target, assert_complaints, attach, complaints_of_close};

fn target(policies: &[(&str, Value)], posture: Posture) -> Target {
    let attached: Vec<_> =
        policies.iter().map(|(name, spec)| attach("AuthorizationPolicy", name, spec.clone())).collect();
    Target::new(&attached, posture)
}

fn reason(target: &Target, request: &Request) -> Option<Reason> {
    target.refusal(request, Clock::default().now()).and_then(|answer| answer.reason)
}

/// What fails of each rule of a document.
fn looked(name: &str, spec: &Value, request: &Request) -> Vec<Option<String>> {
    let document = Attached { name: name.into(), spec: spec.clone() };
    let looked = (authorize::KIND.explain)(&document, &request.facts(), Clock::default().now());
    looked.into_iter().map(|looked| looked.fails).collect()
}

#[test]
fn the_condition_that_fails_is_named() {
    let rules = json!([
        { "from": [{ "namespaces": ["pay"] }, { "serviceAccounts": ["ui"], "namespaces": ["shop"] }] },
        { "from": [{ "namespaces": ["shop"] }], "to": [{ "paths": ["/a"], "methods": ["POST"], "ports": [8080] }] },
        {},
    ]);
    let spec = json!({ "action": "DENY", "rules": rules });
    let request = Request::new("GET", "/a").from("shop/web");
    let fails = ["rules[0].from[0].namespaces", "rules[1].to[0].methods"].map(|field| Some(field.to_owned()));
    let [first, second] = fails;
    assert_eq!(looked("shop/x", &spec, &request), [first, second, None]);
    let mut expired = spec.clone();
    expired["expires"] = "2020-01-01T00:00:00Z".into();
    assert_eq!(looked("shop/x", &expired, &request), vec![Some("expires".to_owned()); 3]);
    // Doubt is decided against the caller, in what is said as in what is decided.
    let negated = |action: &str| json!({ "action": action, "rules": [{ "from": [{ "notNamespaces": ["x"] }] }] });
    let anonymous = Request::new("GET", "/");
    assert_eq!(looked("shop/x", &negated("DENY"), &anonymous), [None]);
    assert_eq!(looked("shop/x", &negated("ALLOW"), &anonymous), [Some("rules[0].from[0].notNamespaces".to_owned())]);
    assert_eq!(looked("shop/x", &json!("no policy"), &anonymous), []);
}

#[test]
fn without_policies_the_posture_decides() {
    let request = Request::new("GET", "/");
    assert_eq!(reason(&target(&[], Posture::Allow), &request), None);
    assert_eq!(reason(&target(&[], Posture::Deny), &request), Some(Reason::PolicyDefaultDeny));
}

#[test]
fn a_rehearsal_of_deny_refuses_nothing_and_notes_what_deny_would_refuse() {
    let (request, now) = (Request::new("GET", "/").from("shop/web"), Clock::default().now());
    let audited = |policies: &[(&str, Value)]| {
        let target = target(policies, Posture::Audit);
        let mut context = crate::context(now);
        let refused = crate::answer(target.0.on_request(&request.facts(), &mut context)).is_some();
        let mut of_connection = crate::context(now);
        let closed = crate::answer(target.0.on_connection(&request.connection(), &mut of_connection)).is_some();
        assert_eq!((refused, &context.audited), (closed, &of_connection.audited), "connections as requests");
        (refused, context.audited.map(|audited| (audited.policy.to_string(), audited.reason)))
    };
    let noted = |policy: &str, reason| (false, Some((policy.to_owned(), reason)));
    assert_eq!(audited(&[]), noted("defaultPosture", Reason::PolicyDefaultDeny));
    let of = |action: &str, account: &str| json!({ "action": action, "rules": [{ "from": [{ "serviceAccounts": [account] }] }] });
    assert_eq!(audited(&[("shop/p", of("ALLOW", "web"))]), (false, None), "who is named would pass");
    assert_eq!(audited(&[("shop/p", of("ALLOW", "ui"))]), (true, None), "an ALLOW policy closes its target as ever");
    assert_eq!(audited(&[("shop/p", of("DENY", "web"))]), (true, None));
    assert_eq!(audited(&[("shop/p", of("DENY", "ui"))]), noted("defaultPosture", Reason::PolicyDefaultDeny));
    assert_eq!(audited(&[("shop/p", of("AUDIT", "web"))]), noted("shop/p", Reason::PolicyDenied));
}

#[test]
fn a_refusal_by_default_says_why_and_names_the_nearest_rule() {
    let now = Clock::default().now();
    let detail = |policies: &[(&str, Value)], posture, request: &Request| {
        let target = target(policies, posture);
        let told = [target.refusal(request, now), target.connection_refusal(request, now)];
        told.map(|answer| answer.expect("it is refused").detail)
    };
    let get = Request::new("GET", "/a").from("shop/web");
    let [of_request, of_connection] = detail(&[], Posture::Deny, &get);
    assert_eq!(
        (&*of_request, &of_connection),
        ("No ALLOW policy covers this, and the default posture is deny.", &of_request)
    );
    let none = json!({ "action": "ALLOW" });
    assert_eq!(
        detail(&[("shop/none", none)], Posture::Allow, &get)[0],
        "No ALLOW rule matches: shop/none covers this and has none."
    );
    let from = |account: &str| json!([{ "serviceAccounts": [account] }]);
    let paths = |path: &str| json!([{ "paths": [path] }]);
    let rules = |rules: Value| json!({ "action": "ALLOW", "rules": rules });
    let mut ended = rules(json!([{ "from": from("web") }]));
    ended["expires"] = "2020-01-01T00:00:00Z".into();
    for (spec, words) in [
        (
            rules(json!([{ "from": from("ui"), "to": paths("/b") }])),
            "rules[0] of shop/p, of which neither 'from' nor 'to' matches.",
        ),
        (
            rules(json!([{ "from": from("ui") }, { "from": from("web"), "to": paths("/b") }])),
            "rules[1] of shop/p, of which 'to' does not match.",
        ),
        (
            rules(json!([{ "from": from("ui"), "to": paths("/b") }, { "from": from("ui") }])),
            "rules[1] of shop/p, of which 'from' does not match.",
        ),
        (ended, "rules[0] of shop/p, which has expired."),
    ] {
        assert_eq!(
            detail(&[("shop/p", spec)], Posture::Allow, &get)[0],
            format!("No ALLOW rule matches: the nearest is {words}")
        );
    }
}

#[test]
fn one_allow_policy_closes_its_target() {
    let target = target(
        &[("shop/web", json!({ "action": "ALLOW", "rules": [{ "from": [{ "serviceAccounts": ["web"] }] }] }))],
        Posture::Allow,
    );
    assert_eq!(reason(&target, &Request::new("GET", "/").from("shop/web")), None);
    assert_eq!(reason(&target, &Request::new("GET", "/").from("shop/admin")), Some(Reason::PolicyDefaultDeny));
    assert_eq!(reason(&target, &Request::new("GET", "/").from("other/web")), Some(Reason::PolicyDefaultDeny));
    assert_eq!(reason(&target, &Request::new("GET", "/")), Some(Reason::PolicyDefaultDeny));
}

#[test]
fn deny_wins_and_names_the_first_policy() {
    let everything = json!([{}]);
    let target = target(
        &[
            ("shop/b-deny", json!({ "action": "DENY", "rules": [{ "to": [{ "paths": ["/admin/*"] }] }] })),
            ("shop/a-deny", json!({ "action": "DENY", "rules": [{ "to": [{ "methods": ["DELETE"] }] }] })),
            ("shop/allow", json!({ "action": "ALLOW", "rules": everything })),
            ("shop/audit", json!({ "action": "AUDIT", "rules": everything })),
        ],
        Posture::Deny,
    );
    let now = Clock::default().now();
    assert_eq!(target.refusal(&Request::new("GET", "/"), now), None);
    for (method, path, policy) in
        [("GET", "/admin/x", "shop/b-deny"), ("DELETE", "/x", "shop/a-deny"), ("DELETE", "/admin/x", "shop/a-deny")]
    {
        let answer = target.refusal(&Request::new(method, path), now).expect("it is denied");
        assert_eq!((answer.reason, &*answer.policy), (Some(Reason::PolicyDenied), policy), "{method} {path}");
    }
}

#[test]
fn a_policy_without_rules_matches_nothing() {
    let request = Request::new("GET", "/");
    let allow = target(&[("shop/none", json!({ "action": "ALLOW" }))], Posture::Allow);
    assert_eq!(reason(&allow, &request), Some(Reason::PolicyDefaultDeny));
    let deny = target(&[("shop/none", json!({ "action": "DENY" }))], Posture::Allow);
    assert_eq!(reason(&deny, &request), None);
}

/// Such a document was accepted by older versions of both programs; no check stands before the compiler here.
#[test]
fn a_rule_with_what_is_written_and_empty_opens_nothing_and_closes_everything() {
    let caller = Request::new("GET", "/").from("shop/web");
    let lists =
        ["identities", "serviceAccounts", "namespaces", "ipBlocks"].map(|field| json!({ "from": [{ field: [] }] }));
    let negated = ["notIdentities", "notServiceAccounts", "notNamespaces", "notIpBlocks"];
    let negated = negated.map(|field| json!({ "from": [{ "namespaces": ["shop"], field: [] }] }));
    let operations = ["methods", "paths", "hosts", "ports", "headers"].map(|field| json!({ "to": [{ field: [] }] }));
    let whole =
        [json!({ "from": [] }), json!({ "to": [] }), json!({ "from": [{}] }), json!({ "to": [{ "ports": [1] }, {}] })];
    for rule in lists.into_iter().chain(negated).chain(operations).chain(whole) {
        let rules = |action: &str| json!({ "action": action, "rules": [rule] });
        let told = complaints_of_close("AuthorizationPolicy", &rules("ALLOW"));
        assert!(told.len() == 1 && told[0].starts_with("rules[0].") && told[0].contains("leave "), "{told:?}");
        let allow = target(&[("shop/p", rules("ALLOW"))], Posture::Allow);
        assert_eq!(reason(&allow, &caller), Some(Reason::PolicyDefaultDeny), "ALLOW {rule}");
        let both = json!({ "action": "ALLOW", "rules": [rule, { "from": [{ "serviceAccounts": ["web"] }] }] });
        assert_eq!(reason(&target(&[("shop/p", both)], Posture::Allow), &caller), None, "the other rules hold: {rule}");
        let deny = target(&[("shop/p", rules("DENY"))], Posture::Allow);
        assert_eq!(reason(&deny, &caller), Some(Reason::PolicyDenied), "DENY {rule}");
        assert_eq!(reason(&deny, &Request::new("PUT", "/x").port(9)), Some(Reason::PolicyDenied), "DENY {rule}");
    }
    for meant in [json!({ "action": "ALLOW", "rules": [{}] }), json!({ "action": "DENY", "rules": [] })] {
        assert_eq!(complaints_of_close("AuthorizationPolicy", &meant), [""; 0]);
        assert_eq!(reason(&target(&[("shop/p", meant)], Posture::Allow), &caller), None);
    }
}

/// Each case: a rule, and requests with whether the rule matches them when it allows and when it denies.
#[test]
fn conditions_mean_what_the_reference_says() {
    let request = |target: &str| Request::new("GET", target).from("shop/web");
    let cases = [
        (json!({ "from": [{ "identities": ["*"] }] }), Request::new("GET", "/"), false, false),
        (json!({ "from": [{ "identities": ["*"] }] }), request("/"), true, true),
        (json!({ "from": [{ "identities": ["spiffe://mesh.local/ns/shop/*"] }] }), request("/"), true, true),
        (json!({ "from": [{ "notIdentities": ["*"] }] }), Request::new("GET", "/"), false, true),
        (json!({ "from": [{ "notNamespaces": ["shop"] }] }), request("/"), false, false),
        (json!({ "from": [{ "notNamespaces": ["evil"] }] }), request("/"), true, true),
        (json!({ "from": [{ "notNamespaces": ["evil"] }] }), Request::new("GET", "/"), false, true),
        (json!({ "from": [{ "namespaces": ["shop"], "notServiceAccounts": ["web"] }] }), request("/"), false, false),
        (json!({ "from": [{ "ipBlocks": ["127.0.0.0/8"] }] }), request("/"), true, true),
        (json!({ "from": [{ "notIpBlocks": ["127.0.0.1"] }] }), request("/"), false, false),
        (json!({ "from": [{ "namespaces": ["a"] }, { "namespaces": ["shop"] }] }), request("/"), true, true),
        (json!({ "to": [{ "methods": ["POST"] }, { "paths": ["/x"] }] }), request("/x"), true, true),
        (json!({ "to": [{ "methods": ["POST"], "paths": ["/x"] }] }), request("/x"), false, false),
        (json!({ "to": [{ "paths": ["/v1/*", "*/health"] }] }), request("/a/health"), true, true),
        (json!({ "to": [{ "paths": ["/v1/*"] }] }), request("/v1?x=1"), false, false),
        (json!({ "to": [{ "hosts": ["SHOP"] }] }), request("/"), true, true),
        (json!({ "to": [{ "hosts": ["*.internal"] }] }), request("/").host("a.internal"), true, true),
        (json!({ "to": [{ "ports": [8080] }] }), request("/"), true, true),
        (json!({ "to": [{ "ports": [80] }] }), request("/"), false, false),
        (
            json!({ "to": [{ "headers": [{ "name": "X-Plan", "value": "pro" }] }] }),
            request("/").header("x-plan", "pro"),
            true,
            true,
        ),
        (
            json!({ "to": [{ "headers": [{ "name": "x-plan", "value": "pro" }] }] }),
            request("/").header("x-plan", "pro").header("x-plan", "free"),
            false,
            true,
        ),
    ];
    for (rule, request, allows, denies) in cases {
        let allow = target(&[("shop/p", json!({ "action": "ALLOW", "rules": [rule] }))], Posture::Allow);
        let deny = target(&[("shop/p", json!({ "action": "DENY", "rules": [rule] }))], Posture::Allow);
        assert_eq!(reason(&allow, &request).is_none(), allows, "ALLOW {rule} for {request:?}");
        assert_eq!(reason(&deny, &request).is_some(), denies, "DENY {rule} for {request:?}");
    }
}

#[test]
fn audit_names_what_a_deny_with_the_same_rules_would_refuse_and_refuses_nothing() {
    let now = Clock::default().now();
    let rules = json!([{ "from": [{ "notServiceAccounts": ["web"] }], "to": [{ "paths": ["/admin/*"] }] }]);
    let with = |action: &str| target(&[("shop/p", json!({ "action": action, "rules": rules }))], Posture::Allow);
    let (audit, deny) = (with("AUDIT"), with("DENY"));
    for request in [
        Request::new("GET", "/admin/x"),
        Request::new("GET", "/admin/x").from("shop/web"),
        Request::new("GET", "/admin/x").from("shop/other"),
        Request::new("GET", "/").from("shop/other"),
    ] {
        let would = |refused: Option<Answer>| {
            refused.map(|answer| {
                assert_eq!(answer.rule, Some(0), "it names its rule");
                let reason = answer.reason.expect("it is an error");
                Audited { policy: answer.policy, rule: answer.rule, reason }
            })
        };
        let mut context = crate::context(now);
        assert_eq!(audit.0.on_request(&request.facts(), &mut context), Verdict::Continue);
        assert_eq!(context.audited, would(deny.refusal(&request, now)), "{:?}", request.facts());
        let mut context = crate::context(now);
        assert_eq!(audit.0.on_connection(&request.connection(), &mut context), Verdict::Continue);
        assert_eq!(context.audited, would(deny.connection_refusal(&request, now)));
    }
}

#[test]
fn audit_names_what_a_deny_in_its_place_would_have_refused_for_its_path() {
    let with = |operation: Value| {
        let of = |action: &str, operation: &Value| json!({ "action": action, "rules": [{ "to": [operation] }] });
        let first = of("AUDIT", &json!({ "methods": ["DELETE"] }));
        target(&[("shop/first", first), ("shop/second", of("AUDIT", &operation))], Posture::Allow)
    };
    let audited = |target: &Target, request: Request| {
        let mut context = crate::context(Clock::default().now());
        assert_eq!(target.0.on_request(&request.facts(), &mut context), Verdict::Continue);
        context.audited.map(|audited| (audited.policy.to_string(), audited.reason))
    };
    let paths = with(json!({ "paths": ["/admin"] }));
    let named = Some(("shop/second".to_owned(), Reason::MalformedPath));
    assert_eq!(audited(&paths, Request::new("GET", "/x;y").ambiguous()), named);
    assert_eq!(audited(&paths, Request::new("DELETE", "/x;y").ambiguous()), named, "its path is looked at first");
    assert_eq!(audited(&paths, Request::new("GET", "/x;y")), None, "a setting lets it pass");
    let methods = with(json!({ "methods": ["PUT"] }));
    assert_eq!(audited(&methods, Request::new("GET", "/x;y").ambiguous()), None, "no path is looked at");
}

#[test]
fn on_opaque_connections_conditions_on_http_count_against_the_caller() {
    let now = Clock::default().now();
    let caller = Request::new("GET", "/").from("shop/web").port(5432);
    for (to, allows, denies) in [
        (json!([{ "ports": [5432] }]), true, true),
        (json!([{ "ports": [80] }]), false, false),
        (json!([{ "ports": [5432], "methods": ["GET"] }]), false, true),
        (json!([{ "ports": [80], "paths": ["/x"] }]), false, false),
        (json!([{ "headers": [{ "name": "x-tenant", "value": "acme" }] }]), false, true),
        (
            json!([{ "ports": [5432], "headers": [{ "name": "x", "type": "RegularExpression", "value": ".*" }] }]),
            false,
            true,
        ),
        (json!([{ "paths": ["/x"] }, { "ports": [5432] }]), true, true),
        (Value::Null, true, true),
    ] {
        let mut rules = json!([{ "from": [{ "serviceAccounts": ["web"] }] }]);
        if !to.is_null() {
            rules[0]["to"] = to.clone();
        }
        let allow = target(&[("shop/p", json!({ "action": "ALLOW", "rules": rules }))], Posture::Allow);
        let deny = target(&[("shop/p", json!({ "action": "DENY", "rules": rules }))], Posture::Allow);
        assert_eq!(allow.connection_refusal(&caller, now).is_none(), allows, "ALLOW {to}");
        assert_eq!(deny.connection_refusal(&caller, now).is_some(), denies, "DENY {to}");
    }
}

#[test]
fn hosts_are_server_names_of_application_tls() {
    let now = Clock::default().now();
    let caller = || Request::new("GET", "/").from("shop/web").port(8443);
    let named = |name| caller().server_name(name);
    for (to, connection, allows, denies) in [
        (json!([{ "hosts": ["api.shop"] }]), named("api.shop"), true, true),
        (json!([{ "hosts": ["api.shop"] }]), named("admin.shop"), false, false),
        (json!([{ "hosts": ["*.shop"] }]), named("api.shop"), true, true),
        (json!([{ "hosts": ["API.shop"], "ports": [8443] }]), named("api.shop"), true, true),
        (json!([{ "hosts": ["api.shop"], "ports": [80] }]), named("api.shop"), false, false),
        (json!([{ "hosts": ["api.shop"], "methods": ["GET"] }]), named("api.shop"), false, true),
        (json!([{ "hosts": ["api.shop"], "methods": ["GET"] }]), named("admin.shop"), false, false),
        (json!([{ "hosts": ["api.shop"] }]), caller(), false, true),
    ] {
        let rules = json!([{ "to": to }]);
        let of = |action: &str| {
            let target = target(&[("shop/p", json!({ "action": action, "rules": rules }))], Posture::Allow);
            assert!(target.0.needs().server_name, "{action} {to}");
            target
        };
        let refused = |action| of(action).connection_refusal(&connection, now).is_some();
        let name = connection.connection();
        let mut context = crate::context(now);
        assert_eq!(of("AUDIT").0.on_connection(&name, &mut context), Verdict::Continue);
        assert_eq!(!refused("ALLOW"), allows, "ALLOW {to} {name:?}");
        assert_eq!((refused("DENY"), context.audited.is_some()), (denies, denies), "DENY and AUDIT {to} {name:?}");
    }
}

#[test]
fn the_next_expiry_is_that_of_an_allow_rule() {
    let policy = |action: &str, expires: Value| json!({ "action": action, "rules": [{}], "expires": expires });
    let at = |second: u32| json!(format!("2023-11-14T22:13:{second:02}Z"));
    let target = target(
        &[
            ("shop/a", policy("ALLOW", at(40))),
            ("shop/b", policy("ALLOW", at(30))),
            ("shop/c", policy("DENY", at(25))),
            ("shop/d", json!({ "action": "ALLOW", "rules": [{}] })),
        ],
        Posture::Allow,
    );
    let next = |unix| target.0.next_expiry(Moment { nanos: 0, unix });
    // 22:13:20 is 1_700_000_000.
    assert_eq!(next(1_700_000_000), Some(1_700_000_010));
    assert_eq!(next(1_700_000_010), Some(1_700_000_020), "the first has passed");
    assert_eq!(next(1_700_000_020), None);
}

#[test]
fn what_expired_no_longer_matches_and_no_longer_opens() {
    let at = |unix| Moment { nanos: 0, unix };
    let expires = "2023-11-14T22:13:20Z"; // 1_700_000_000
    let allow = json!({ "action": "ALLOW", "rules": [{}], "expires": expires });
    let deny = json!({ "action": "DENY", "rules": [{}], "expires": expires });
    let request = Request::new("GET", "/");
    let allowed = |unix| target(&[("shop/p", allow.clone())], Posture::Allow).refusal(&request, at(unix)).is_none();
    let denied = |unix| target(&[("shop/p", deny.clone())], Posture::Allow).refusal(&request, at(unix)).is_some();
    assert_eq!((allowed(1_699_999_999), allowed(1_700_000_000)), (true, false));
    assert_eq!((denied(1_699_999_999), denied(1_700_000_000)), (true, false));
}

#[test]
fn every_problem_is_reported_where_it_is() {
    let spec = json!({
        "targetRef": { "kind": "ExternalService", "name": "Bad Name" },
        "action": "ALLOW",
        "expires": "tomorrow",
        "rules": [{
            "from": [{ "identities": ["web"], "serviceAccounts": ["a/b/c"], "namespaces": ["a b"] }],
            "to": [
                { "methods": ["get"], "paths": ["v1/*", "/a/*/b", "/a/../b"], "ports": [0] },
                { "hosts": ["good.test", "evil.test:80"] },
                { "headers": [{ "name": "x y", "value": "1" }, { "type": "RegularExpression", "name": "x", "value": "(" }] },
            ],
        }],
    });
    assert_complaints(
        "AuthorizationPolicy",
        &spec,
        &[
            ("targetRef.kind", "Service or Workload"),
            ("targetRef.name", "'Bad Name'"),
            ("expires", "RFC 3339"),
            ("rules[0].from[0].identities[0]", "spiffe://"),
            ("rules[0].from[0].serviceAccounts[0]", "NAMESPACE/NAME"),
            ("rules[0].from[0].namespaces[0]", "'a b'"),
            ("rules[0].to[0].methods[0]", "did you mean 'GET'"),
            ("rules[0].to[0].paths[0]", "begin with '/'"),
            ("rules[0].to[0].paths[1]", "'*'"),
            ("rules[0].to[0].paths[2]", "write '/b'"),
            ("rules[0].to[0].ports[0]", "1 to 65535"),
            ("rules[0].to[1].hosts[1]", "write 'evil.test'"),
            ("rules[0].to[2].headers[0].name", "token"),
            ("rules[0].to[2].headers[1].value", "regular expression"),
        ],
    );
}

#[test]
fn structural_problems_come_with_suggestions() {
    let spec = json!({
        "action": "Allow",
        "rule": [],
        "rules": [{ "form": [], "from": [{ "serviceAccount": ["web"], "ipBlocks": ["10.0.0.0/99"] }] }],
    });
    assert_complaints(
        "AuthorizationPolicy",
        &spec,
        &[
            ("action", "did you mean 'ALLOW'?"),
            ("rule", "did you mean 'rules'?"),
            ("rules[0].form", "did you mean 'from'?"),
            ("rules[0].from[0].serviceAccount", "did you mean 'serviceAccounts'?"),
            ("rules[0].from[0].ipBlocks[0]", "10.0.0.0/8"),
        ],
    );
}

/// A plain reading of the documents: no index, no compiled matcher, strings compared with strings.
mod naive {
    use super::*;

    pub(super) fn refuses(
        policies: &[(String, AuthorizationPolicySpec)],
        posture: Posture,
        request: &RequestFacts<'_>,
    ) -> Option<(Reason, String)> {
        let matching = |action| {
            let of_action = policies.iter().filter(move |(_, policy)| policy.action == action);
            of_action.filter(move |(name, policy)| {
                let home = name.split('/').next().unwrap();
                policy.rules.iter().any(|rule| rule_matches(rule, home, request, action))
            })
        };
        if let Some((name, _)) = matching(Action::Deny).min_by_key(|(name, _)| name) {
            return Some((Reason::PolicyDenied, name.clone()));
        }
        let closed = posture == Posture::Deny || policies.iter().any(|(_, policy)| policy.action == Action::Allow);
        let refused = closed && matching(Action::Allow).next().is_none();
        refused.then(|| (Reason::PolicyDefaultDeny, String::new()))
    }

    fn rule_matches(rule: &Rule, home: &str, request: &RequestFacts<'_>, action: Action) -> bool {
        if rule.from.contains(&Source::default()) || rule.to.contains(&Operation::default()) {
            return action != Action::Allow;
        }
        (rule.from.is_empty() || rule.from.iter().any(|source| source_matches(source, home, request, action)))
            && (rule.to.is_empty() || rule.to.iter().any(|operation| operation_matches(operation, request)))
    }

    fn source_matches(source: &Source, home: &str, request: &RequestFacts<'_>, action: Action) -> bool {
        let identity = request.peer.identity.as_deref();
        let uri = identity.map(ToString::to_string);
        let namespace = identity.map(|identity| identity.namespace.to_string());
        let account = identity.map(|identity| format!("{}/{}", identity.namespace, identity.service_account));
        let full = |text: &String| if text.contains('/') { text.clone() } else { format!("{home}/{text}") };
        let accounts: Vec<String> = source.service_accounts.iter().map(full).collect();
        let not_accounts: Vec<String> = source.not_service_accounts.iter().map(full).collect();
        let named = |list: &[String], value: &Option<String>| {
            list.is_empty() || value.as_ref().is_some_and(|value| list.iter().any(|glob| glob_matches(glob, value)))
        };
        let not_named = |list: &[String], value: &Option<String>| match value {
            _ if list.is_empty() => true,
            Some(value) => !list.iter().any(|glob| glob_matches(glob, value)),
            None => action == Action::Deny,
        };
        named(&source.identities, &uri)
            && named(&accounts, &account)
            && named(&source.namespaces, &namespace)
            && not_named(&source.not_identities, &uri)
            && not_named(&not_accounts, &account)
            && not_named(&source.not_namespaces, &namespace)
    }

    fn operation_matches(operation: &Operation, request: &RequestFacts<'_>) -> bool {
        let one = |list: &[String], value: &str| list.is_empty() || list.iter().any(|glob| glob_matches(glob, value));
        one(&operation.methods, request.method.as_str())
            && one(&operation.paths, request.path)
            && one(&operation.hosts, request.host)
            && (operation.ports.is_empty() || operation.ports.contains(&request.port))
    }

    fn glob_matches(glob: &str, value: &str) -> bool {
        match (glob.strip_prefix('*'), glob.strip_suffix('*')) {
            (Some(suffix), _) => value.ends_with(suffix),
            (_, Some(prefix)) => value.starts_with(prefix),
            _ => glob == value,
        }
    }
}

fn some_of(values: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let some = prop::collection::vec(prop::sample::select(values), 1..4);
    prop_oneof![2 => Just(Vec::new()), 1 => some.prop_map(|some| some.into_iter().map(str::to_owned).collect())]
}

fn sources() -> impl Strategy<Value = Source> {
    let identities =
        &["*", "spiffe://mesh.local/ns/a/sa/x", "spiffe://mesh.local/ns/a/*", "spiffe://mesh.local/ns/b/sa/y*"];
    let accounts = &["x", "y", "a/x", "b/x", "b/y"];
    let positive = (some_of(identities), some_of(accounts), some_of(&["a", "b"]));
    let negative = (some_of(identities), some_of(accounts), some_of(&["a", "b"]));
    (positive, negative).prop_map(
        |((identities, service_accounts, namespaces), (not_ids, not_accounts, not_namespaces))| Source {
            identities,
            service_accounts,
            namespaces,
            not_identities: not_ids,
            not_service_accounts: not_accounts,
            not_namespaces,
            ..Source::default()
        },
    )
}

fn operations() -> impl Strategy<Value = Operation> {
    let paths = some_of(&["/", "/a", "/a/*", "/a/b", "/a*", "*/b", "*", "/b/*", "*b"]);
    let ports = prop_oneof![Just(Vec::new()), Just(vec![8080]), Just(vec![80, 81])];
    (some_of(&["GET", "POST"]), paths, some_of(&["shop", "*p", "x"]), ports)
        .prop_map(|(methods, paths, hosts, ports)| Operation { methods, paths, hosts, ports, ..Operation::default() })
}

fn policies() -> impl Strategy<Value = Vec<(String, AuthorizationPolicySpec)>> {
    let rule = (prop::collection::vec(sources(), 0..3), prop::collection::vec(operations(), 0..3));
    let rules = prop::collection::vec(rule.prop_map(|(from, to)| Rule { from, to }), 0..4);
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny), Just(Action::Audit)];
    let policy = (prop::sample::select(&["a", "b"][..]), action, rules);
    prop::collection::vec(policy, 0..6).prop_map(|policies| {
        let policies = policies.into_iter().enumerate();
        policies
            .map(|(n, (namespace, action, rules))| {
                (
                    format!("{namespace}/p{n}"),
                    AuthorizationPolicySpec { target_ref: None, action, rules, expires: None, on_unsupported: None },
                )
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn the_index_decides_as_a_plain_reading_does(
        policies in policies(),
        deny in any::<bool>(),
        caller in prop::option::of(prop::sample::select(&["a/x", "a/y", "b/x", "b/y", "c/x", "b/yy"][..])),
        method in prop::sample::select(&["GET", "POST", "PUT"][..]),
        path in prop::sample::select(&["/", "/a", "/a/", "/a/b", "/ab", "/b/b", "/b"][..]),
        port in prop::sample::select(&[80u16, 8080][..]),
    ) {
        let posture = if deny { Posture::Deny } else { Posture::Allow };
        let mut request = Request::new(method, path).port(port);
        if let Some(caller) = caller {
            request = request.from(caller);
        }
        let documents: Vec<(&str, Value)> =
            policies.iter().map(|(name, spec)| (name.as_str(), serde_json::to_value(spec).unwrap())).collect();
        let found = target(&documents, posture).refusal(&request, Clock::default().now());
        let found = found.map(|answer| (answer.reason.unwrap(), answer.policy.to_string()));
        prop_assert_eq!(&found, &naive::refuses(&policies, posture, &request.facts()));

        let applies = |action: Action| {
            let mut of_action = policies.iter().filter(|(_, spec)| spec.action == action);
            of_action.any(|(name, spec)| looked(name, &serde_json::to_value(spec).unwrap(), &request).contains(&None))
        };
        let closed = deny || policies.iter().any(|(_, spec)| spec.action == Action::Allow);
        let expected = match (applies(Action::Deny), closed && !applies(Action::Allow)) {
            (true, _) => Some(Reason::PolicyDenied),
            (false, true) => Some(Reason::PolicyDefaultDeny),
            (false, false) => None,
        };
        prop_assert_eq!(found.map(|(reason, _)| reason), expected, "what is said of single conditions is what decides");
    }
}
