//! `FaultInjection`: how often what happens, to whom, and until when.

use std::time::Duration;

use selvedge_policies::{
    context::{Context, Resumed},
    facts::ConnectionFacts,
    policy::{Place, Posture},
    reason::Reason,
    registry,
    request::PolicySet,
    testing::{Clock, Request},
    verdict::{Answer, Verdict},
};
use serde_json::{Value, json};

use crate::{assert_complaints, attach, complaints_of_close};

/// One second after the clock of the tests begins.
const SOON: &str = "2023-11-14T22:13:21Z";
const LATER: &str = "2023-11-15T00:00:00Z";

/// How long a call had to wait, and how it failed.
type Met = (Duration, Option<Answer>);

fn spec(expires: &str, faults: &Value) -> Value {
    json!({ "targetRef": { "name": "api" }, "expires": expires, "faults": faults })
}

fn set(objects: &[(&str, Value)]) -> PolicySet {
    let attached: Vec<_> = objects.iter().map(|(name, spec)| attach("FaultInjection", name, spec.clone())).collect();
    registry::compile(Place::Caller, &attached, Posture::Allow, &PolicySet::new()).unwrap()
}

fn faults(faults: &Value) -> PolicySet {
    set(&[("shop/chaos", spec(LATER, faults))])
}

/// Time passes at once.
fn met(context: &mut Context, decide: impl Fn(&mut Context) -> Verdict) -> Met {
    let mut waited = Duration::ZERO;
    loop {
        match decide(context) {
            Verdict::Continue => return (waited, None),
            Verdict::Answer(answer) => return (waited, Some(answer)),
            Verdict::Wait(time) => {
                waited += time;
                context.resume(Resumed::Waited);
            }
            Verdict::Ask(question) => panic!("{question:?}"),
        }
    }
}

/// One for each call, all drawn from the same chance.
fn contexts(seed: u64) -> impl Iterator<Item = Context> {
    let mut chance = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(move || Context::new(Clock::default().now(), chance.fork()))
}

fn call(set: &PolicySet, request: &Request, context: &mut Context) -> Met {
    met(context, |context| set.on_request(&request.facts(), context))
}

fn connect(set: &PolicySet, request: &Request) -> Met {
    met(&mut Clock::default().context(), |context| set.on_connection(&request.connection(), context))
}

/// Whether a call fails where all that match do.
fn fails(faults_: &Value, request: &Request) -> bool {
    call(&faults(faults_), request, &mut Clock::default().context()).1.is_some()
}

fn always(more: &Value) -> Value {
    let mut fault = json!({ "abort": { "percentage": 100, "httpStatus": 503 } });
    fault.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([fault])
}

const GET: fn() -> Request = || Request::new("GET", "/orders/7").from("shop/web");

#[test]
fn shares_are_kept() {
    let set = faults(&json!([
        { "delay": { "percentage": 30, "duration": "2s" }, "abort": { "percentage": 10, "httpStatus": 503 } },
        { "delay": { "percentage": 0.5, "duration": "100ms" } },
        { "abort": { "percentage": 0, "httpStatus": 500 }, "delay": { "percentage": 0, "duration": "5m" } },
    ]));
    for seed in [1, 7, 4711] {
        let calls: Vec<_> = contexts(seed).take(40_000).map(|mut context| call(&set, &GET(), &mut context)).collect();
        let share = |wanted: &dyn Fn(&Met) -> bool| {
            calls.iter().filter(|call| wanted(call)).count() as f64 / calls.len() as f64
        };
        let long = |(delay, _): &Met| *delay >= Duration::from_secs(2);
        let short = |(delay, _): &Met| delay.subsec_millis() == 100;
        let fails = |(_, answer): &Met| answer.is_some();
        // Six standard deviations of 40 000 draws.
        for (what, found, expected, room) in [
            ("long", share(&long), 0.3, 0.014),
            ("short", share(&short), 0.005, 0.002_2),
            ("fails", share(&fails), 0.1, 0.009),
            ("long and fails", share(&|call| long(call) && fails(call)), 0.03, 0.005_2),
        ] {
            assert!((found - expected).abs() < room, "{what}: {found}, not {expected}, seed {seed}");
        }
        assert!(calls.iter().all(|(delay, _)| *delay <= Duration::from_millis(2100)), "0 of a hundred is nobody");
    }
}

#[test]
fn the_same_chance_gives_the_same_faults() {
    let set = faults(&json!([{ "abort": { "percentage": 50, "httpStatus": 503 } }]));
    let run = |seed| -> Vec<bool> {
        contexts(seed).take(64).map(|mut context| call(&set, &GET(), &mut context).1.is_some()).collect()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn a_call_fails_as_is_written_after_it_has_waited() {
    let told = |abort: Value| {
        let set = faults(&json!([{ "delay": { "percentage": 100, "duration": "3s" }, "abort": abort }]));
        let (waited, answer) = call(&set, &GET(), &mut Clock::default().context());
        let answer = answer.unwrap();
        assert_eq!((waited, answer.reason), (Duration::from_secs(3), Some(Reason::FaultInjected)));
        assert_eq!((&*answer.policy, answer.body.len()), ("shop/chaos", 0));
        (answer.status.as_u16(), answer.grpc_status)
    };
    assert_eq!(told(json!({ "percentage": 100, "httpStatus": 429 })), (429, None));
    assert_eq!(told(json!({ "percentage": 100, "grpcStatus": "NOT_FOUND" })), (404, Some(5)));
    assert_eq!(told(json!({ "percentage": 100, "grpcStatus": "UNAUTHENTICATED" })), (401, Some(16)));
    assert_eq!(told(json!({ "percentage": 100, "grpcStatus": "CANCELLED" })), (499, Some(1)));
    assert_eq!(told(json!({ "percentage": 100, "httpStatus": 500, "grpcStatus": "UNAVAILABLE" })), (500, Some(14)));
}

#[test]
fn only_calls_that_match_meet_it() {
    for (fault, request, expected) in [
        (json!({}), GET(), true),
        (json!({}), Request::new("GET", "/"), true),
        (json!({ "to": [{ "paths": ["/orders/*"], "methods": ["GET"] }] }), GET(), true),
        (json!({ "to": [{ "paths": ["/orders/*"], "methods": ["POST"] }] }), GET(), false),
        (json!({ "to": [{ "headers": [{ "name": "x-chaos", "value": "yes" }] }] }), GET(), false),
        (
            json!({ "to": [{ "headers": [{ "name": "x-chaos", "value": "yes" }] }] }),
            GET().header("x-chaos", "yes"),
            true,
        ),
        (json!({ "to": [{ "ports": [81] }] }), GET().port(80), false),
        (json!({ "from": [{ "serviceAccounts": ["web"] }] }), GET(), true),
        (json!({ "from": [{ "serviceAccounts": ["web"] }] }), GET().from("pay/web"), false),
        (json!({ "from": [{ "namespaces": ["shop"] }] }), GET(), true),
        (json!({ "from": [{ "namespaces": ["pay"] }] }), GET(), false),
        (json!({ "from": [{ "notNamespaces": ["pay"] }] }), GET(), true),
        (json!({ "from": [{ "notNamespaces": ["pay"] }] }), Request::new("GET", "/"), false),
        (json!({ "from": [{ "identities": ["spiffe://mesh.local/ns/shop/*"] }] }), GET(), true),
    ] {
        assert_eq!(fails(&always(&fault), &request), expected, "{fault} {request:?}");
    }
}

#[test]
fn it_is_over_when_it_expires() {
    let set = set(&[("shop/chaos", spec(SOON, &always(&json!({}))))]);
    let mut clock = Clock::default();
    assert!(call(&set, &GET(), &mut clock.context()).1.is_some());
    clock.advance(Duration::from_secs(1));
    assert_eq!(call(&set, &GET(), &mut clock.context()), (Duration::ZERO, None));
    assert_eq!(set.next_expiry(Clock::default().now()), None, "nothing is refused from then on");
}

#[test]
fn a_wait_into_the_end_comes_to_nothing_more() {
    let delayed = json!([{
        "delay": { "percentage": 100, "duration": "5s" }, "abort": { "percentage": 100, "httpStatus": 503 },
    }]);
    let until_soon = set(&[("shop/chaos", spec(SOON, &delayed))]);
    let (mut clock, request) = (Clock::default(), GET());
    let mut context = clock.context();
    let waits = until_soon.on_request(&request.facts(), &mut context);
    assert_eq!(waits, Verdict::Wait(Duration::from_secs(1)), "it is over with the fault");
    context.now = clock.advance(Duration::from_secs(1));
    context.resume(Resumed::Waited);
    assert_eq!(until_soon.on_request(&request.facts(), &mut context), Verdict::Continue);

    let longer = json!([{ "delay": { "percentage": 100, "duration": "3s" } }]);
    for (first, second) in [("shop/a", "shop/b"), ("shop/b", "shop/a")] {
        let both = set(&[(first, spec(SOON, &delayed)), (second, spec(LATER, &longer))]);
        let Verdict::Wait(time) = both.on_request(&request.facts(), &mut Clock::default().context()) else { panic!() };
        assert!((3..=4).contains(&time.as_secs()), "one ends, the other goes on: {time:?}");
    }
}

#[test]
fn a_wait_ends_when_its_fault_is_taken_back() {
    let wait = |duration: &str| json!([{ "delay": { "percentage": 50, "duration": duration } }]);
    let fails = json!([{ "abort": { "percentage": 100, "httpStatus": 503 } }]);
    let of = |a: &Value, b: &Value, c: &Value| {
        set(&[("shop/a", spec(LATER, a)), ("shop/b", spec(LATER, b)), ("shop/c", spec(LATER, c))])
    };
    let before = of(&wait("3s"), &wait("2s"), &fails);
    let nothing = json!([{ "delay": { "percentage": 0, "duration": "1s" } }]);
    let (request, mut clock) = (GET(), Clock::default());
    let mut context = contexts(1).find(|context| {
        before.on_request(&request.facts(), &mut context.clone()) == Verdict::Wait(Duration::from_secs(5))
    });
    let context = context.as_mut().unwrap();
    let decide = |context: &mut Context| before.on_request(&request.facts(), context);
    decide(context);
    context.now = clock.advance(Duration::from_secs(1));
    assert!(!before.replaced(&before, context), "nothing has changed");
    assert!(before.replaced(&of(&wait("3s"), &wait("2s"), &nothing), context));
    assert_eq!(decide(context), Verdict::Wait(Duration::from_secs(4)), "the other two delays go on");
    let shorter = of(&wait("3s"), &wait("1s"), &nothing);
    assert!(before.replaced(&shorter, context) && !before.replaced(&shorter, context), "it is told once");
    assert_eq!(decide(context), Verdict::Wait(Duration::from_secs(2)), "another delay is one that was not met");
    context.now = clock.advance(Duration::from_secs(1));
    let over = set(&[("shop/a", spec(SOON, &wait("3s")))]);
    assert!(before.replaced(&over, context), "what is left of them has expired");
    assert_eq!(decide(context), Verdict::Continue, "nor does it fail by what was taken back");

    let mut context = Clock::default().context();
    let always = faults(&json!([{ "delay": { "percentage": 100, "duration": "5m" } }]));
    always.on_request(&request.facts(), &mut context);
    for _ in 0..40 {
        assert!(always.replaced(&of(&nothing, &nothing, &nothing), &mut context));
        assert!(always.replaced(&PolicySet::new(), &mut context), "there may be many changes in one wait");
    }
    assert_eq!(always.on_request(&request.facts(), &mut context), Verdict::Continue);
}

#[test]
fn no_call_is_held_up_for_long() {
    let delay = json!({ "delay": { "percentage": 100, "duration": "5m" } });
    let many = faults(&json!([delay, delay, delay]));
    assert_eq!(call(&many, &GET(), &mut Clock::default().context()), (Duration::from_secs(300), None));
    let too_long = spec(LATER, &json!([{ "delay": { "percentage": 0, "duration": "5m1ms" } }]));
    let expected = "5m1ms is too long: expected 5m at most";
    assert_complaints("FaultInjection", &too_long, &[("faults[0].delay.duration", expected)]);
}

#[test]
fn objects_hold_together_and_the_first_that_aborts_says_how() {
    let wait = |duration: &str| json!([{ "delay": { "percentage": 100, "duration": duration } }]);
    let abort = |status: u16| json!([{ "abort": { "percentage": 100, "httpStatus": status } }]);
    let both = |a: Value, b: Value| set(&[("shop/b", spec(LATER, &b)), ("shop/a", spec(LATER, &a))]);
    let met = |set: &PolicySet| call(set, &GET(), &mut Clock::default().context());
    assert_eq!(met(&both(wait("1s"), wait("2s"))), (Duration::from_secs(3), None));
    let (waited, answer) = met(&both(abort(500), abort(404)));
    let answer = answer.unwrap();
    assert_eq!((waited, answer.status.as_u16(), &*answer.policy), (Duration::ZERO, 500, "shop/a"));
    let (waited, answer) = met(&both(abort(500), wait("2s")));
    assert_eq!((waited, answer.unwrap().status.as_u16()), (Duration::from_secs(2), 500), "delays come first");
}

#[test]
fn a_connection_meets_what_does_not_ask_for_http() {
    let fault = |more: Value| {
        let mut fault = json!({ "delay": { "percentage": 100, "duration": "1s" } });
        fault.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        faults(&json!([fault, always(&more)[0]]))
    };
    let tls = || GET().server_name("api.shop");
    for (more, request, expected) in [
        (json!({}), GET(), true),
        (json!({ "to": [{ "ports": [8080] }], "from": [{ "namespaces": ["shop"] }] }), GET(), true),
        (json!({ "from": [{ "namespaces": ["pay"] }] }), GET(), false),
        (json!({ "to": [{ "paths": ["/orders/*"] }] }), GET(), false),
        (json!({ "to": [{ "hosts": ["api.shop"] }] }), tls(), true),
        (json!({ "to": [{ "hosts": ["api.shop"] }] }), GET(), false),
    ] {
        let set = fault(more.clone());
        let (waited, answer) = connect(&set, &request);
        let expected_wait = if expected { Duration::from_secs(1) } else { Duration::ZERO };
        assert_eq!((waited, answer.is_some()), (expected_wait, expected), "{more}");
        assert_eq!(set.needs().server_name, more.to_string().contains("hosts"), "{more}");
        let mut context = Clock::default().context();
        assert_eq!(set.on_open_connection(&request.connection(), &mut context), None, "what is open stays open");
        assert_eq!(set.on_open_request(&request.facts(), &mut context), None, "what is open stays open");
    }
}

#[test]
fn a_connection_of_which_more_becomes_known_meets_no_fault_twice() {
    let delay = |to: Value| json!({ "delay": { "percentage": 100, "duration": "1s" }, "to": to });
    let set = faults(&json!([delay(json!([{ "ports": [8080] }])), delay(json!([{ "hosts": ["api.shop"] }]))]));
    let (before, now) = (GET(), GET().server_name("api.shop"));
    let earlier = before.connection();
    let facts = ConnectionFacts { earlier: Some(&earlier), ..now.connection() };
    let met = met(&mut Clock::default().context(), |context| set.on_connection(&facts, context));
    assert_eq!(connect(&set, &before).0, Duration::from_secs(1));
    assert_eq!(connect(&set, &now).0, Duration::from_secs(2));
    assert_eq!(met.0, Duration::from_secs(1), "only what is about the name");
}

#[test]
fn what_cannot_be_meant_is_a_finding() {
    let bad = json!({
        "targetRef": { "kind": "Workload", "name": "api", "port": 80 },
        "expires": "tomorrow",
        "faults": [
            {},
            { "delay": { "percentage": 1, "duration": "0s" } },
            { "abort": { "percentage": 1 } },
            { "abort": { "percentage": 1, "grpcStatus": "UNAVAILABEL" } },
            { "abort": { "percentage": 1, "grpcStatus": "OK" }, "from": [{ "namespaces": ["a/b"] }] },
        ],
    });
    assert_complaints(
        "FaultInjection",
        &bad,
        &[
            ("targetRef.kind", "not a Workload"),
            ("targetRef.port", "leave the port out"),
            ("expires", "RFC 3339"),
            ("faults[0]", "expected 'delay', 'abort' or both"),
            ("faults[1].delay.duration", "0s is no delay"),
            ("faults[2].abort", "expected 'httpStatus' or 'grpcStatus'"),
            ("faults[3].abort.grpcStatus", "did you mean 'UNAVAILABLE'?"),
            ("faults[4].abort.grpcStatus", "no status with which a gRPC call fails"),
            ("faults[4].from[0].namespaces[0]", "not a namespace"),
        ],
    );
    let no_end = json!({ "targetRef": { "name": "api" }, "faults": always(&json!({})) });
    assert_complaints("FaultInjection", &no_end, &[("", "missing field 'expires'")]);
    let odd = spec(
        LATER,
        &json!([
            { "abort": { "percentage": 101, "httpStatus": 200 } }, { "delay": { "percentage": -1, "duration": "1s" } },
        ]),
    );
    assert_complaints(
        "FaultInjection",
        &odd,
        &[
            ("faults[0].abort.percentage", "0 to 100"),
            ("faults[0].abort.httpStatus", "400 to 599"),
            ("faults[1].delay.percentage", "0 to 100"),
        ],
    );
}

#[test]
fn a_fault_with_what_is_written_and_empty_happens_to_nobody() {
    for more in [
        json!({ "from": null }),
        json!({ "from": [] }),
        json!({ "to": [{}] }),
        json!({ "from": [{ "namespaces": [] }] }),
    ] {
        let told = complaints_of_close("FaultInjection", &spec(LATER, &always(&more)));
        assert!(told.len() == 1 && told[0].contains("happens to nobody"), "{told:?}");
        assert!(!fails(&always(&more), &GET()), "{more}");
    }
    let none = complaints_of_close("FaultInjection", &spec(LATER, &json!([])));
    assert!(none.len() == 1 && none[0].contains("does nothing"), "{none:?}");
}

#[test]
fn what_it_is_about_is_told() {
    let policy = registry::find("FaultInjection").unwrap();
    let document = attach(
        "FaultInjection",
        "shop/chaos",
        spec(
            SOON,
            &json!([
                { "abort": { "percentage": 1, "httpStatus": 503 } },
                { "abort": { "percentage": 1, "httpStatus": 503 }, "to": [{ "methods": ["POST"] }] },
            ]),
        ),
    )
    .1;
    let looked = |clock: &Clock| -> Vec<_> {
        let looked = (policy.explain)(&document, &GET().facts(), clock.now());
        looked.into_iter().map(|rule| (rule.at, rule.fails)).collect()
    };
    let mut clock = Clock::default();
    let methods = Some("faults[1].to[0].methods".to_owned());
    assert_eq!(looked(&clock), [("faults[0]".to_owned(), None), ("faults[1]".to_owned(), methods)]);
    clock.advance(Duration::from_secs(1));
    assert!(looked(&clock).iter().all(|(_, fails)| fails.as_deref() == Some("expires")));
}
