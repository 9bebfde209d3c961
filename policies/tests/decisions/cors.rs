//! The filter `CORS`: who is told what, preflights and the requests after them, and what cannot be written.

use http::HeaderMap;
use selvedge_policies::{
    kind::{self, Attached},
    route::{HttpRouteSpec, RouteTable},
    testing::{Clock, Request},
    verdict::Verdict,
};
use serde_json::{Value, json};

use crate::assert_complaints;

fn document(cors: &Value) -> Value {
    let filters = json!([{ "type": "CORS", "cors": cors }]);
    json!({ "parentRefs": [{ "kind": "Service", "name": "api" }], "rules": [{ "filters": filters }] })
}

/// What the mesh answers itself, as status and fields; or the fields of the service's response after the filter.
fn outcome(cors: &Value, request: &Request, response: &[(&str, &str)]) -> (Option<u16>, Vec<String>) {
    let spec: HttpRouteSpec = kind::parse(&document(cors)).unwrap();
    let table = RouteTable::compile(&[Attached { name: "shop/api".into(), spec }]).unwrap();
    let facts = request.facts();
    let rule = table.select(facts.host, facts.method, facts.path, facts.query, facts.headers).unwrap();
    let mut context = Clock::default().context();
    match rule.filters.on_request(&facts, &mut context) {
        Verdict::Continue => {
            let mut headers = HeaderMap::new();
            for (name, value) in response {
                headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
            }
            context.take_changes().iter().for_each(|changes| changes.response.apply(&mut headers));
            rule.filters.change_response(&mut headers);
            (None, lines(&headers))
        }
        Verdict::Answer(answer) => {
            assert_eq!((answer.reason, &*answer.body), (None, &b""[..]), "it is no error");
            (Some(answer.status.as_u16()), lines(&answer.headers))
        }
        pause => panic!("{pause:?}"),
    }
}

fn lines(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

/// `lines`, with what their names have in common left out.
fn shared(lines: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = lines.iter().map(|line| format!("access-control-{line}")).collect();
    lines.push("vary: Origin".to_owned());
    lines.sort();
    lines
}

fn get(origin: &str) -> Request {
    Request::new("GET", "/").header("origin", origin)
}

fn preflight(origin: &str, method: &str) -> Request {
    Request::new("OPTIONS", "/")
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "x-a,content-type")
}

const SHOP: &str = "https://shop.example.com";

/// The configuration that GEP-1767 explains itself by, and what it says of each field.
fn listed() -> Value {
    json!({
        "allowOrigins": ["https://foo.example", SHOP, "https://*.bar.example:8443"],
        "allowCredentials": true,
        "allowMethods": ["GET", "PUT", "DELETE"],
        "allowHeaders": ["DNT", "Content-Type", "x-a"],
        "exposeHeaders": ["Content-Security-Policy", "x-b"],
        "maxAge": 1728000,
    })
}

#[test]
fn a_preflight_is_answered_with_all_that_is_allowed() {
    for origin in [SHOP, "https://foo.example", "https://a.b.bar.example:8443"] {
        let told = shared(&[
            &format!("allow-origin: {origin}"),
            "allow-credentials: true",
            "allow-methods: GET, PUT, DELETE",
            "allow-headers: DNT, Content-Type, x-a",
            "max-age: 1728000",
        ]);
        assert_eq!(outcome(&listed(), &preflight(origin, "PUT"), &[]), (Some(204), told));
    }
    let brief = shared(&[&format!("allow-origin: {SHOP}"), "max-age: 5"]);
    assert_eq!(outcome(&json!({ "allowOrigins": [SHOP] }), &preflight(SHOP, "PUT"), &[]), (Some(204), brief));
}

#[test]
fn a_request_after_it_goes_on_and_its_response_may_be_read() {
    let read =
        [&format!("allow-origin: {SHOP}"), "allow-credentials: true", "expose-headers: Content-Security-Policy, x-b"];
    assert_eq!(outcome(&listed(), &get(SHOP), &[]), (None, shared(&read)));
    let without = shared(&[&format!("allow-origin: {SHOP}")]);
    assert_eq!(outcome(&json!({ "allowOrigins": [SHOP] }), &get(SHOP), &[]), (None, without));
}

#[test]
fn everything_is_said_as_a_star_or_where_credentials_are_allowed_as_what_was_asked() {
    let every = |credentials: bool| {
        json!({
            "allowOrigins": ["*"], "allowMethods": ["*"], "allowHeaders": ["*"], "allowCredentials": credentials,
        })
    };
    for origin in [SHOP, "https://elsewhere.example:1", "chrome-extension://abcdefgh"] {
        let star = shared(&["allow-origin: *", "allow-methods: *", "allow-headers: *", "max-age: 5"]);
        assert_eq!(outcome(&every(false), &preflight(origin, "PATCH"), &[]), (Some(204), star));
        let asked = shared(&[
            &format!("allow-origin: {origin}"),
            "allow-credentials: true",
            "allow-methods: PATCH",
            "allow-headers: x-a,content-type",
            "max-age: 5",
        ]);
        assert_eq!(outcome(&every(true), &preflight(origin, "PATCH"), &[]), (Some(204), asked));
    }
    let star = shared(&["allow-origin: *"]);
    assert_eq!(outcome(&every(false), &get("null"), &[]), (None, star), "what everybody may read");
    for none in ["null", "", "*", "https", "https://", "://x"] {
        assert_eq!(outcome(&every(true), &get(none), &[]), (None, shared(&[])), "{none:?} is no origin");
        assert_eq!(outcome(&every(true), &preflight(none, "PUT"), &[]), (Some(204), shared(&[])), "{none:?}");
    }
    let bare = Request::new("OPTIONS", "/").header("origin", SHOP).header("access-control-request-method", "GET");
    let (_, told) = outcome(&every(true), &bare, &[]);
    assert!(!told.iter().any(|line| line.starts_with("access-control-allow-headers")), "nothing was asked: {told:?}");
    let readable = json!({ "allowOrigins": ["*"], "exposeHeaders": ["*"] });
    assert_eq!(outcome(&readable, &get(SHOP), &[]), (None, shared(&["allow-origin: *", "expose-headers: *"])));
}

#[test]
fn other_origins_are_told_nothing() {
    for origin in [
        "null",
        "https://shop.example.com.evil.com",
        "https://evilshop.example.com",
        "http://shop.example.com",
        "https://shop.example.com:444",
        "https://shop.example.com/",
        "https://bar.example:8443",
        "https://a.bar.example",
    ] {
        assert_eq!(outcome(&listed(), &preflight(origin, "PUT"), &[]), (Some(204), shared(&[])), "{origin}");
        assert_eq!(outcome(&listed(), &get(origin), &[]), (None, shared(&[])), "{origin}");
    }
    let two = get(SHOP).header("origin", "https://evil.com");
    assert_eq!(outcome(&listed(), &two, &[]), (None, shared(&[])), "two origins");
    assert_eq!(outcome(&json!({}), &preflight(SHOP, "GET"), &[]), (Some(204), shared(&[])), "nobody was named");
}

#[test]
fn what_the_service_says_of_sharing_is_taken_out() {
    let own = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-secret"),
        ("x-else", "1"),
    ];
    let mut with_else = shared(&[&format!("allow-origin: {SHOP}")]);
    with_else.push("x-else: 1".to_owned());
    let cors = json!({ "allowOrigins": [SHOP] });
    assert_eq!(outcome(&cors, &get(SHOP), &own), (None, with_else), "credentials stay out");
    for untold in [get("https://evil.com"), Request::new("GET", "/")] {
        assert_eq!(
            outcome(&cors, &untold, &own),
            (None, vec!["vary: Origin".into(), "x-else: 1".into()]),
            "{untold:?}"
        );
    }
}

#[test]
fn what_is_no_preflight_goes_on() {
    for (request, told) in [
        (Request::new("OPTIONS", "/"), shared(&[])),
        (Request::new("OPTIONS", "/").header("access-control-request-method", "PUT"), shared(&[])),
        (Request::new("OPTIONS", "/").header("origin", SHOP), shared(&[&format!("allow-origin: {SHOP}")])),
        (get(SHOP).header("access-control-request-method", "PUT"), shared(&[&format!("allow-origin: {SHOP}")])),
        (Request::new("GET", "/"), shared(&[])),
    ] {
        assert_eq!(outcome(&json!({ "allowOrigins": [SHOP] }), &request, &[]), (None, told), "{request:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_a_finding() {
    let many: Vec<String> = (0..65).map(|n| format!("x-{n}")).collect();
    assert_complaints(
        "HTTPRoute",
        &document(&json!({
            "allowOrigins": ["*", SHOP, "null", "shop.example.com"],
            "allowCredentials": true,
            "allowMethods": ["*", "put"],
            "allowHeaders": many,
            "exposeHeaders": ["*"],
        })),
        &[
            ("rules[0].filters[0].cors.allowMethods[0]", "leave the other entries out"),
            ("rules[0].filters[0].cors.allowMethods[1]", "did you mean 'PUT'"),
            ("rules[0].filters[0].cors.allowHeaders", "more than 64"),
            ("rules[0].filters[0].cors.allowOrigins[0]", "leave the other entries out"),
            ("rules[0].filters[0].cors.allowOrigins[2]", "'null' is no origin"),
            ("rules[0].filters[0].cors.allowOrigins[3]", "is no origin"),
            ("rules[0].filters[0].cors.exposeHeaders[0]", "list the fields"),
        ],
    );
    assert_complaints("HTTPRoute", &document(&json!({ "maxAge": 0 })), &[("rules[0].filters[0].cors.maxAge", "1")]);
    let mut twice = document(&json!({ "allowOrigins": [SHOP] }));
    let filter = twice["rules"][0]["filters"][0].clone();
    twice["rules"][0]["filters"] = json!([filter, filter]);
    assert_complaints("HTTPRoute", &twice, &[("rules[0].filters[1].cors", "already")]);
    assert_complaints("HTTPRoute", &document(&listed()), &[]);
}
