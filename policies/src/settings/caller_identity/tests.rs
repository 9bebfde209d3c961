use serde_json::json;

use super::*;
use crate::{
    request::PolicySet,
    testing::{Clock, Request},
};

const OWN: &str = "spiffe://mesh.local/ns/shop/sa/web";
const UI: &str = "spiffe://mesh.local/ns/shop/sa/ui";
const GATEWAY: &str = "spiffe://mesh.local/ns/edge/sa/gateway";
const FINGERPRINT: &str = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";

/// The setting as it is in force; `null` where nobody writes it.
fn set(value: &Value) -> PolicySet {
    let own = Arc::new(OWN.parse().unwrap());
    PolicySet::of(compile(Some(value).filter(|value| !value.is_null()), Some(&own)).unwrap())
}

/// The fields that the application is given of a request, in order of their names, and how many changes were asked for.
fn given(set: &PolicySet, request: Request) -> Vec<String> {
    let request = request.sanitized(set);
    let (facts, mut context) = (request.facts(), Clock::default().context());
    assert_eq!(set.on_request(&facts, &mut context), Verdict::Continue);
    let mut headers = facts.headers.clone();
    if let Some(changes) = context.take_changes() {
        changes.request.apply(&mut headers);
    }
    let mut lines: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

fn request(from: &str) -> Request {
    let request = Request::new("GET", "/").header("x-else", "1");
    if from.is_empty() { request } else { request.from(from).fingerprint(FINGERPRINT) }
}

fn element(caller: &str) -> String {
    format!("By={OWN};Hash={FINGERPRINT};URI={caller}")
}

#[test]
fn the_application_is_told_who_calls_in_the_usual_format_or_a_field_of_its_own() {
    let both = set(&json!({"headers": {"x-forwarded-client-cert": "SET", "x-caller": "SET"}}));
    let told = [format!("x-caller: {UI}"), "x-else: 1".into(), format!("x-forwarded-client-cert: {}", element(UI))];
    assert_eq!(given(&both, request("shop/ui")), told);
    assert_eq!(given(&both, request("")), ["x-else: 1"], "who has proven nothing is told of in no field");

    let unknown = PolicySet::of(compile(Some(&json!({"headers": {"x-forwarded-client-cert": "SET"}})), None).unwrap());
    let told = given(&unknown, Request::new("GET", "/").from("shop/ui"));
    assert_eq!(told, [format!("x-forwarded-client-cert: URI={UI}")], "what is not known is left out");
}

#[test]
fn what_strangers_say_is_gone_however_it_is_spelt_and_whatever_is_set() {
    let settings = [
        Value::Null,
        json!({"headers": {"x-caller": "REMOVE"}}),
        json!({"headers": {"x-caller": "SET"}}),
        json!({"headers": {"x-forwarded-client-cert": "REMOVE", "x-caller": "SET"}, "trustedProxies": [GATEWAY]}),
        json!({"headers": {"x-forwarded-client-cert": "SET", "x-caller": "SET"}, "trustedProxies": [GATEWAY]}),
    ];
    let names =
        ["x-forwarded-client-cert", "x_forwarded_client_cert", "x_forwarded-client.cert", "X-Forwarded-Client~Cert"];
    for value in &settings {
        let set = set(value);
        let named = value["headers"]["x-caller"].is_string();
        for (from, name) in ["", "shop/ui"].iter().flat_map(|from| names.map(|name| (*from, name))) {
            let plain = given(&set, request(from));
            let forged = request(from).header(name, "forged").header(name, "again");
            assert_eq!(given(&set, forged), plain, "{value} {name} from '{from}'");
            let own = given(&set, request(from).header("x-caller", "forged").header("X_CALLER", "forged"));
            assert_eq!(own == plain, named, "{value} from '{from}': {own:?}");
        }
    }
}

#[test]
fn nobody_says_who_calls_behind_the_content() {
    let set = set(&json!({"headers": {"x-caller": "SET"}, "trustedProxies": [GATEWAY]}));
    let names = ["x-forwarded-client-cert", "x_forwarded_client_cert", "x-caller", "x_caller", "x-sum"];
    let mut trailers: HeaderMap =
        names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).into_iter().collect();
    set.sanitize(Section::Trailer, &mut trailers);
    assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
}

#[test]
fn what_a_trusted_proxy_says_stays_and_who_it_is_itself_is_appended() {
    let on = set(&json!({
        "headers": {"x-forwarded-client-cert": "SET", "x-caller": "SET"}, "trustedProxies": [GATEWAY],
    }));
    let said = |from: &str| {
        let request =
            request(from).header("x-forwarded-client-cert", "URI=a").header("x-forwarded-client-cert", "URI=b;DNS=c");
        request.header("x_forwarded_client_cert", "forged").header("x-caller", "somebody").header("x_caller", "forged")
    };
    let both = format!("x-forwarded-client-cert: URI=a,URI=b;DNS=c,{}", element(GATEWAY));
    assert_eq!(given(&on, said("edge/gateway")), ["x-caller: somebody".into(), "x-else: 1".into(), both]);
    assert_eq!(given(&on, said("shop/ui")), given(&on, request("shop/ui")), "and of nobody else");
    assert_eq!(given(&on, said("")), given(&on, request("")));

    let nothing = request("edge/gateway").header("x-forwarded-client-cert", "");
    assert_eq!(given(&on, nothing), given(&on, request("edge/gateway")), "an empty element is none");
    let off = set(&json!({
        "headers": {"x-forwarded-client-cert": "REMOVE", "x-caller": "REMOVE"}, "trustedProxies": [GATEWAY],
    }));
    let kept =
        ["x-caller: somebody", "x-else: 1", "x-forwarded-client-cert: URI=a", "x-forwarded-client-cert: URI=b;DNS=c"];
    assert_eq!(given(&off, said("edge/gateway")), kept);
    let unnamed = set(&json!({"headers": {"x-forwarded-client-cert": "SET", "x-caller": "SET"}}));
    assert_eq!(
        given(&unnamed, said("edge/gateway")),
        given(&unnamed, request("edge/gateway")),
        "trust is never implied"
    );
}

#[test]
fn nothing_is_asked_for_where_nothing_is_told() {
    for value in [Value::Null, json!({"headers": {"x-caller": "REMOVE"}})] {
        let (set, mut context) = (set(&value), Clock::default().context());
        set.on_request(&request("shop/ui").facts(), &mut context);
        assert_eq!(context.take_changes(), None, "{value}");
    }
}

#[test]
fn no_identity_has_what_the_format_would_quote() {
    for (domain, namespace, name) in [("mesh,local", "a", "b"), ("a", "b;c", "d"), ("a", "b", "c=d"), ("a", "b", "\"")]
    {
        assert!(Identity::new(domain, namespace, name).is_err(), "{domain} {namespace} {name}");
    }
}

#[test]
fn bad_values_are_told_with_place_and_fix() {
    let header = |name: &str| json!({"headers": {name: "SET"}});
    for (value, path, told) in [
        (header("authorization"), "headers.authorization", "expected a name of your own, such as x-caller-id"),
        (header("host"), "headers.host", "another meaning"),
        (header("connection"), "headers.connection", "another meaning"),
        (header("content-length"), "headers.content-length", "another meaning"),
        (header("transfer-encoding"), "headers.transfer-encoding", "another meaning"),
        (header("te"), "headers.te", "another meaning"),
        (header("proxy-authorization"), "headers.proxy-authorization", "another meaning"),
        (header("selvedge-reason"), "headers.selvedge-reason", "another meaning"),
        (header("x-forwarded-for"), "headers.x-forwarded-for", "another meaning"),
        (header(":authority"), "headers.:authority", "letters, digits and '-'"),
        (header("x_caller"), "headers.x_caller", "letters, digits and '-'"),
        (header("x caller"), "headers.x caller", "letters, digits and '-'"),
        (header(""), "headers.", "letters, digits and '-'"),
        (header("X-Caller"), "headers.X-Caller", "expected x-caller"),
        (json!({"headers": {}}), "headers", "names no field"),
        (json!({"trustedProxies": []}), "trustedProxies", "leave the field out where none is trusted"),
        (json!({"trustedProxies": [GATEWAY, "edge/gateway"]}), "trustedProxies[1]", "spiffe://"),
        (json!({"trustedProxies": ["spiffe://mesh.local/ns/edge/*"]}), "trustedProxies[0]", "a pattern would trust"),
    ] {
        let problems = check(&value);
        assert_eq!(problems.iter().map(|problem| &*problem.path).collect::<Vec<_>>(), [path], "{value}");
        assert!(problems[0].message.contains(told), "{}", problems[0].message);
    }
    for name in ["x-forwarded-client-cert", "x-caller-id", "client-identity", "caller"] {
        assert_eq!(check(&header(name)), [], "{name}");
    }
    assert!(compile(Some(&json!({"headers": {"x-caller": "GUESS"}})), None).is_err(), "nothing passes without it");
}
