//! `RateLimit`: quotas are kept to the request, keys are apart, and hostile keys neither grow memory nor get through.

use std::{net::IpAddr, time::Duration};

use proptest::prelude::*;
use selvedge_policies::{
    facts::ConnectionFacts,
    policy::Posture,
    reason::Reason,
    request::PolicySet,
    testing::{Clock, Request},
    verdict::Verdict,
};
use serde_json::{Value, json};

use crate::{Target, assert_complaints, attach};

fn target(limits: Value) -> Target {
    Target::new(&[attach("RateLimit", "shop/limit", json!({ "limits": limits }))], Posture::Allow)
}

fn passes(target: &Target, request: &Request, clock: &Clock) -> bool {
    target.refusal(request, clock.now()).is_none()
}

#[test]
fn a_burst_passes_then_the_rate() {
    let target = target(json!([{ "requests": 5, "per": "1s" }]));
    let (mut clock, request) = (Clock::default(), Request::new("GET", "/"));
    let passed = (0..10).filter(|_| passes(&target, &request, &clock)).count();
    assert_eq!(passed, 5);
    let answer = target.refusal(&request, clock.now()).expect("it is over the limit");
    assert_eq!((answer.reason, &*answer.policy), (Some(Reason::RateLimited), "shop/limit"));
    assert_eq!(answer.retry_after, Some(Duration::from_secs(1)));
    clock.advance(Duration::from_millis(199));
    assert!(!passes(&target, &request, &clock));
    clock.advance(Duration::from_millis(1));
    assert!(passes(&target, &request, &clock));
    assert!(!passes(&target, &request, &clock));
}

#[test]
fn the_time_to_wait_is_rounded_up_to_whole_seconds() {
    let target = target(json!([{ "requests": 1, "per": "2500ms" }]));
    let (clock, request) = (Clock::default(), Request::new("GET", "/"));
    assert!(passes(&target, &request, &clock));
    let answer = target.refusal(&request, clock.now()).unwrap();
    assert_eq!(answer.retry_after, Some(Duration::from_secs(3)));
}

#[test]
fn keys_have_buckets_of_their_own() {
    let request = || Request::new("GET", "/");
    let cases = [
        ("identity", json!(["identity"]), request().from("shop/web"), request().from("shop/api")),
        ("no identity", json!(["identity"]), request(), request().from("shop/api")),
        ("route", json!(["route"]), request().route("shop/r/0"), request().route("shop/r/1")),
        ("address", json!(["address"]), request(), request().address(IpAddr::from([10, 0, 0, 1]))),
        (
            "header",
            json!([{ "header": "X-Tenant" }]),
            request().header("x-tenant", "a"),
            request().header("x-tenant", "b"),
        ),
        (
            "a header with several lines",
            json!([{ "header": "x-tenant" }]),
            request().header("x-tenant", "a").header("x-tenant", "b"),
            request().header("x-tenant", "a").header("x-tenant", "c"),
        ),
        (
            "one line and two",
            json!([{ "header": "x-tenant" }]),
            request().header("x-tenant", "a"),
            request().header("x-tenant", "a").header("x-tenant", ""),
        ),
        ("no header", json!([{ "header": "x-tenant" }]), request(), request().header("x-tenant", "b")),
        ("two", json!(["identity", "route"]), request().from("a/a").route("r"), request().from("a/a").route("s")),
    ];
    for (name, key, one, other) in cases {
        let target = target(json!([{ "requests": 1, "per": "1m", "key": key }]));
        let clock = Clock::default();
        assert!(passes(&target, &one, &clock) && passes(&target, &other, &clock), "{name}: apart");
        assert!(!passes(&target, &one, &clock) && !passes(&target, &other, &clock), "{name}: limited");
    }
}

#[test]
fn a_connection_of_which_more_becomes_known_takes_no_second_token_of_a_bucket() {
    let target = target(json!([
        { "requests": 3, "per": "1h" },
        { "requests": 1, "per": "1h", "key": ["identity"] },
        { "requests": 1, "per": "1h", "match": [{ "hosts": ["api.shop"] }] },
    ]));
    let asked = |earlier: Option<&Request>, now: &Request| {
        let earlier = earlier.map(Request::connection);
        let facts = ConnectionFacts { earlier: earlier.as_ref(), ..now.connection() };
        target.0.on_connection(&facts, &mut Clock::default().context()) == Verdict::Continue
    };
    let (stranger, known) = (Request::new("GET", "/"), Request::new("GET", "/").from("shop/web"));
    let named = known.clone().server_name("api.shop");
    assert!(asked(None, &stranger), "the first that come");
    assert!(asked(Some(&stranger), &known), "the bucket of its identity is another");
    assert!(asked(Some(&known), &named), "the limit of a host has not counted it yet");
    assert!(!asked(None, &known), "its identity's bucket is empty");
    assert!(!asked(Some(&known), &named), "the host's is");
    assert!(asked(None, &known.clone().from("shop/api")), "of all together one was left");
    assert!(!asked(None, &known.from("shop/pay")));
}

/// Compiles limits of one object, and hands over what was there before.
fn edited(before: Option<&Target>, objects: &[(&str, Value)], posture: Posture) -> Target {
    let attached: Vec<_> =
        objects.iter().map(|(name, limits)| attach("RateLimit", name, json!({ "limits": limits }))).collect();
    Target::after(&attached, posture, before.map_or(&PolicySet::new(), |target| &target.0))
}

#[test]
fn only_a_change_of_that_very_limit_resets_it() {
    let (once, thrice) =
        (json!({ "requests": 1, "per": "1h", "key": ["identity"] }), json!({ "requests": 3, "per": "1h" }));
    let (clock, request) = (Clock::default(), Request::new("GET", "/").from("shop/web"));
    let refills = |objects: &[(&str, Value)], posture| {
        let before = edited(None, &[("shop/limit", json!([once]))], Posture::Allow);
        assert!(passes(&before, &request, &clock) && !passes(&before, &request, &clock));
        passes(&edited(Some(&before), objects, posture), &request, &clock)
    };
    let same = ("shop/limit", json!([once]));
    assert!(!refills(&[("shop/a", json!([thrice])), same.clone(), ("shop/z", json!([thrice]))], Posture::Allow));
    assert!(!refills(&[same], Posture::Deny), "another posture");
    assert!(!refills(&[("shop/limit", json!([thrice, once]))], Posture::Allow), "a limit beside it in its object");
    assert!(refills(&[("shop/limit", json!([{ "requests": 2, "per": "1h", "key": ["identity"] }]))], Posture::Allow));
    assert!(refills(&[("shop/other", json!([once]))], Posture::Allow), "another object");
}

#[test]
fn equal_limits_of_one_object_keep_a_bucket_each() {
    let limit = json!({ "requests": 2, "per": "1h" });
    let before = edited(None, &[("shop/limit", json!([limit, limit]))], Posture::Allow);
    let (clock, request) = (Clock::default(), Request::new("GET", "/"));
    assert!(passes(&before, &request, &clock));
    let after = edited(Some(&before), &[("shop/limit", json!([limit, limit]))], Posture::Allow);
    assert!(passes(&after, &request, &clock) && !passes(&after, &request, &clock));
}

#[test]
fn a_limit_may_be_about_some_requests_only() {
    let target = target(json!([
        { "requests": 1, "per": "1m", "match": [{ "methods": ["POST"], "paths": ["/orders/*"] }] },
        { "requests": 3, "per": "1m" },
    ]));
    let clock = Clock::default();
    let (order, other) = (Request::new("POST", "/orders/1"), Request::new("GET", "/orders/1"));
    assert!(passes(&target, &order, &clock));
    assert!(!passes(&target, &order, &clock));
    assert!(passes(&target, &other, &clock) && passes(&target, &other, &clock));
    assert!(!passes(&target, &other, &clock));
}

#[test]
fn a_connection_counts_as_a_request_where_the_limit_is_not_about_http() {
    let target = target(json!([
        { "requests": 1, "per": "1m", "key": ["identity"], "match": [{ "ports": [5432] }] },
        { "requests": 1, "per": "1m", "match": [{ "methods": ["GET"] }] },
    ]));
    let now = Clock::default().now();
    let caller = Request::new("GET", "/").from("shop/web").port(5432);
    assert_eq!(target.connection_refusal(&caller, now), None);
    assert_eq!(target.connection_refusal(&caller, now).and_then(|answer| answer.reason), Some(Reason::RateLimited));
    let elsewhere = Request::new("GET", "/").from("shop/web").port(80);
    assert_eq!(target.connection_refusal(&elsewhere, now), None);
    assert_eq!(target.connection_refusal(&elsewhere, now), None);
}

#[test]
fn a_million_hostile_keys_get_no_more_than_the_table_and_take_no_bucket_from_others() {
    let target = target(json!([{ "requests": 2, "per": "1h", "key": [{ "header": "x-tenant" }] }]));
    let clock = Clock::default();
    let honest = Request::new("GET", "/").header("x-tenant", "honest");
    assert!(passes(&target, &honest, &clock));
    let hostile = (0..1_000_000).filter(|n| {
        let request = Request::new("GET", "/").header("x-tenant", &n.to_string());
        passes(&target, &request, &clock)
    });
    let passed = hostile.count();
    assert!((10_000..=16_384 + 2).contains(&passed), "{passed} of a million invented tenants passed");
    assert!(passes(&target, &honest, &clock), "the honest tenant kept its second request");
    assert!(!passes(&target, &honest, &clock), "and has no third");
}

#[test]
fn workers_share_a_quota() {
    let target = target(json!([{ "requests": 1000, "per": "1h", "key": ["identity"] }]));
    let passed: usize = std::thread::scope(|scope| {
        let count = || {
            let (clock, request) = (Clock::default(), Request::new("GET", "/").from("shop/web"));
            (0..1_000).filter(|_| passes(&target, &request, &clock)).count()
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(passed, 1000);
}

#[test]
fn keys_that_are_idle_give_their_place_away() {
    let target = target(json!([{ "requests": 1, "per": "1s", "key": [{ "header": "x-tenant" }] }]));
    let mut clock = Clock::default();
    for round in 0..3 {
        for n in 0..10_000 {
            let request = Request::new("GET", "/").header("x-tenant", &format!("{round}-{n}"));
            // At most a few keys meet a full shelf and share the overflow bucket.
            let _ = passes(&target, &request, &clock);
        }
        clock.advance(Duration::from_secs(2));
        let fresh = (0..100).filter(|n| {
            passes(&target, &Request::new("GET", "/").header("x-tenant", &format!("fresh-{round}-{n}")), &clock)
        });
        assert_eq!(fresh.count(), 100, "round {round}");
    }
}

#[test]
fn every_problem_is_reported_where_it_is() {
    let spec = json!({
        "targetRef": { "kind": "ExternalService", "name": "x" },
        "limits": [
            { "requests": 1, "per": "0s" },
            { "requests": 1, "per": "1s", "burst": 0 },
            { "requests": 1, "per": "99999h", "burst": 4_000_000_000u32 },
            { "requests": 1, "per": "1s", "key": [{ "header": "x y" }] },
            { "requests": 1, "per": "1s", "match": [{ "methods": ["get"] }] },
        ],
    });
    assert_complaints(
        "RateLimit",
        &spec,
        &[
            ("targetRef.kind", "Service or Workload"),
            ("limits[0].per", "0s"),
            ("limits[1].burst", "at least 1"),
            ("limits[2].per", "more than a year"),
            ("limits[3].key[0].header", "token"),
            ("limits[4].match[0].methods[0]", "'GET'"),
        ],
    );
    let structural = json!({ "limits": [{ "requests": 0, "per": "1 s", "keys": [], "key": ["identiy"] }] });
    assert_complaints(
        "RateLimit",
        &structural,
        &[
            ("limits[0].requests", "at least 1"),
            ("limits[0].per", "1m30s"),
            ("limits[0].keys", "did you mean 'key'?"),
            ("limits[0].key[0]", "did you mean 'identity'?"),
        ],
    );
}

proptest! {
    #[test]
    fn no_window_lets_more_pass_than_burst_and_rate(
        requests in 1u32..20,
        per_millis in 1u64..3_000,
        burst in 1u32..30,
        gaps in prop::collection::vec(0u64..400, 1..200),
    ) {
        let limits = json!([{ "requests": requests, "per": format!("{per_millis}ms"), "burst": burst }]);
        let (target, mut clock, request) = (target(limits), Clock::default(), Request::new("GET", "/"));
        let mut passed = Vec::new();
        for gap in gaps {
            clock.advance(Duration::from_millis(gap));
            if passes(&target, &request, &clock) {
                passed.push(clock.now().nanos);
            }
        }
        let each = per_millis * 1_000_000 / u64::from(requests);
        for (first, start) in passed.iter().enumerate() {
            for (last, end) in passed.iter().enumerate().skip(first) {
                let most = u64::from(burst) + (end - start) / each;
                prop_assert!((last - first) as u64 <= most, "{} in {} ns", last - first + 1, end - start);
            }
        }
    }
}
