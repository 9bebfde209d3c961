//! What sidecars of an earlier release are told: only what their release knows, as its own schemas have it.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use prost::Message;
use selvedge_control_plane::skew::{self, Forms, Told};
use selvedge_decide::capabilities::capabilities;
use selvedge_policies::{
    kind::{self, Attached, structure, vocabulary},
    route::RouteTable,
};
use selvedge_xds::{
    capability::Capabilities,
    kinds::{DESTINATION, ENDPOINTS, INBOUND},
    proto::mesh::{
        Attachment, Destination, Endpoint, Endpoints, Inbound, InboundPort, InternalTrafficPolicy, Origin,
        SettingOrigin, Unenforceable,
    },
    resource::Encoded,
};
use serde_json::{Value, json};

/// The schemas of the last release that says nothing of what it knows.
fn old_schemas() -> BTreeMap<&'static str, Value> {
    let schemas = [
        ("AuthorizationPolicy", include_str!("8c95c85/AuthorizationPolicy.schema.json")),
        ("HTTPRoute", include_str!("8c95c85/HTTPRoute.schema.json")),
        ("MeshPolicy", include_str!("8c95c85/MeshPolicy.schema.json")),
        ("RateLimit", include_str!("8c95c85/RateLimit.schema.json")),
        ("TrafficPolicy", include_str!("8c95c85/TrafficPolicy.schema.json")),
    ];
    schemas.into_iter().map(|(kind, schema)| (kind, serde_json::from_str(schema).unwrap())).collect()
}

fn object(kind: &str, name: &str, generation: u64) -> Origin {
    Origin { kind: kind.into(), namespace: "shop".into(), name: name.into(), generation }
}

fn attachment(kind: &str, generation: u64, document: &Value) -> Attachment {
    let origin = Some(object(kind, "it", generation));
    Attachment { origin, document: document.to_string(), stands_for: None }
}

fn inbound(policies: Vec<Attachment>) -> Encoded {
    let ports = vec![InboundPort { port: 8080, policies: policies.clone(), ..InboundPort::default() }];
    let message = Inbound { workload: "shop/web-1".into(), ports, policies, ..Inbound::default() };
    Encoded::new(INBOUND, "shop/web-1", Vec::new(), &message)
}

fn destination(routes: Vec<Attachment>, policies: Vec<Attachment>) -> Encoded {
    let message =
        Destination { namespace: "shop".into(), name: "web".into(), routes, policies, ..Destination::default() };
    Encoded::new(DESTINATION, "shop/web", vec!["web.shop".into()], &message)
}

/// What a sidecar of the old release is told of one document, and what of it cannot be enforced.
fn policies(told: &Told) -> (Vec<Attachment>, Vec<Unenforceable>) {
    let message = Inbound::decode(told.resource.as_ref().expect("it is translated").body.clone()).unwrap();
    assert_eq!(message.ports[0].policies, message.policies, "a policy is told the same wherever it is attached");
    (message.policies, message.unenforceable)
}

fn outbound(told: &Told) -> Destination {
    let encoded = told.resource.as_ref().expect("it is translated");
    assert_eq!(encoded.aliases, ["web.shop"]);
    Destination::decode(encoded.body.clone()).unwrap()
}

fn tell(resource: &Encoded, before: &Forms) -> Told {
    let told = skew::tell(resource, &skew::silent(), before);
    if let Some(translated) = &told.resource {
        assert_old_sidecars_know(translated);
    }
    told
}

/// Every document is of a kind of the old release and passes its schema.
pub(crate) fn assert_old_sidecars_know(resource: &Encoded) {
    let schemas = old_schemas();
    let attachments: Vec<Attachment> = match resource.kind {
        INBOUND => {
            let Inbound { ports, policies, .. } = Inbound::decode(resource.body.clone()).unwrap();
            let of_ports = ports.into_iter().flat_map(|port| [port.policies, port.routes]);
            of_ports.chain([policies]).flatten().collect()
        }
        _ => {
            let Destination { routes, policies, .. } = Destination::decode(resource.body.clone()).unwrap();
            [routes, policies].concat()
        }
    };
    for Attachment { origin, document, .. } in attachments {
        let kind = origin.unwrap().kind;
        let document = serde_json::from_str(&document).unwrap();
        let schema = schemas.get(&*kind).unwrap_or_else(|| panic!("{kind} is no kind of the old release"));
        let problems = structure::problems(schema, &document);
        assert!(problems.is_empty(), "{kind} {document}: {problems:?}");
    }
}

#[test]
fn a_sidecar_that_says_nothing_knows_the_schemas_of_its_release() {
    let mut expected = Capabilities::default();
    for (kind, schema) in old_schemas() {
        expected.0.insert(kind.into(), vocabulary::of(&schema));
    }
    // Where the schema takes any text, its check did not.
    let narrow = |path: &str| {
        ["parentRefs[].kind", "parentRefs[].group", "rules[].backendRefs[].kind", "rules[].backendRefs[].group"]
            .contains(&path)
            || path.ends_with("filters[].type")
    };
    let known = skew::silent();
    for (kind, words) in &expected.0 {
        let lost = words.difference(&known.0[kind]).filter(|word| !word.strip_suffix("=*").is_some_and(narrow));
        assert_eq!(lost.count(), 0, "{kind}");
        let more =
            known.0[kind].difference(words).filter(|word| !word.split_once('=').is_some_and(|(path, _)| narrow(path)));
        assert_eq!(more.count(), 0, "{kind}");
    }
    assert_eq!(known.0.len(), expected.0.len());
    assert!(!known.0["HTTPRoute"].contains("rules[].filters[].type=*"));
}

#[test]
fn what_an_old_sidecar_knows_it_is_told_byte_for_byte() {
    let deny = json!({"action": "DENY", "rules": [{"from": [{"namespaces": ["a"]}]}]});
    let limit = json!({"limits": [{"requests": 1, "per": "1s", "key": ["identity", {"header": "x"}]}]});
    let known = inbound(vec![attachment("AuthorizationPolicy", 1, &deny), attachment("RateLimit", 1, &limit)]);
    assert_eq!(tell(&known, &Forms::default()).resource, None);
    let wish = json!({"action": "DENY", "rules": [{}], "onUnsupported": "keep"});
    let (told, unenforceable) =
        policies(&tell(&inbound(vec![attachment("AuthorizationPolicy", 1, &wish)]), &Forms::default()));
    assert_eq!(told[0].document, r#"{"action":"DENY","rules":[{}]}"#, "the wish is for the control plane");
    assert!(unenforceable.is_empty());
}

#[test]
fn a_sidecar_of_this_release_is_told_everything() {
    let everything = capabilities();
    assert!(skew::is_everything(&everything) && !skew::is_everything(&skew::silent()));
    let wish = json!({"action": "DENY", "rules": [{}], "onUnsupported": "keep"});
    let resource = inbound(vec![attachment("AuthorizationPolicy", 1, &wish)]);
    assert_eq!(skew::tell(&resource, &everything, &Forms::default()).resource, None);
}

#[test]
fn a_sidecar_that_calls_every_node_is_said_to_where_calls_should_stay_on_theirs() {
    let resource = |policy: InternalTrafficPolicy| {
        let origin = Some(object("Service", "web", 7));
        let message = Destination { origin, internal_traffic_policy: policy.into(), ..Destination::default() };
        Encoded::new(DESTINATION, "shop/web", Vec::new(), &message)
    };
    let local = resource(InternalTrafficPolicy::Local);
    let told = skew::tell(&local, &skew::silent(), &Forms::default());
    let expected = "Service shop/web generation 7: 'internalTrafficPolicy: Local' is not known to it; calls go to the \
                    endpoints of every node";
    assert_eq!(told.complaints, [expected]);
    let message = Destination::decode(told.resource.expect("it says so").body).unwrap();
    assert_eq!(message.unenforceable.len(), 1);
    assert_eq!(skew::tell(&local, &capabilities(), &Forms::default()).resource, None);
    let cluster = resource(InternalTrafficPolicy::Cluster);
    assert_eq!(skew::tell(&cluster, &skew::silent(), &Forms::default()).resource, None);
}

/// What stands at an old sidecar for a policy of this kind that says something new.
fn stands(kind: &str, document: &Value, before: &Forms) -> (Option<Attachment>, Unenforceable) {
    let (mut told, mut unenforceable) = policies(&tell(&inbound(vec![attachment(kind, 2, document)]), before));
    assert!(told.len() <= 1 && unenforceable.len() == 1, "{told:?} {unenforceable:?}");
    (told.pop(), unenforceable.remove(0))
}

#[test]
fn a_policy_that_says_something_new_keeps_out_or_is_left_out() {
    let rules = json!([{"from": [{"namespaces": ["a"]}], "when": 1}]);
    let deny = r#"{"action":"DENY","rules":[{}]}"#;
    let authorize = |action: &str| ("AuthorizationPolicy", json!({"action": action, "rules": rules}));
    let limit = ("RateLimit", json!({"limits": [{"requests": 1, "per": "1s", "cost": 2}]}));
    let cases = [
        (authorize("DENY"), None, Some((deny, true)), "rules[0].when"),
        (authorize("ALLOW"), None, Some((r#"{"action":"ALLOW","rules":[]}"#, false)), "rules[0].when"),
        (authorize("AUDIT"), None, None, "rules[0].when"),
        (authorize("CHALLENGE"), None, Some((deny, true)), "action: CHALLENGE"),
        (limit.clone(), None, None, "limits[0].cost"),
        (authorize("DENY"), Some("close"), Some((deny, true)), "rules[0].when"),
        (authorize("ALLOW"), Some("close"), Some((deny, true)), "rules[0].when"),
        (authorize("AUDIT"), Some("close"), Some((deny, true)), "rules[0].when"),
        (limit.clone(), Some("close"), Some((deny, true)), "limits[0].cost"),
        (authorize("DENY"), Some("keep"), Some((deny, true)), "rules[0].when"),
        (limit, Some("keep"), None, "limits[0].cost"),
        (("TokenAuthentication", json!({"issuer": "x"})), None, Some((deny, true)), "kind: TokenAuthentication"),
    ];
    for ((kind, mut document), wish, expected, unknown) in cases {
        if let Some(wish) = wish {
            document["onUnsupported"] = wish.into();
        }
        let (told, note) = stands(kind, &document, &Forms::default());
        let told = told.map(|told| (told.document, told.stands_for.is_some()));
        assert_eq!(told.as_ref().map(|(document, stands)| (&**document, *stands)), expected, "{kind} {document}");
        assert_eq!((note.origin, &*note.unknown), (Some(object(kind, "it", 2)), unknown), "{kind} {document}");
    }
}

#[test]
fn a_closed_policy_keeps_its_target() {
    let target = json!({"kind": "Service", "name": "web", "port": 80});
    let mut newer = target.clone();
    newer["subset"] = "v1".into();
    let allow = json!({"action": "ALLOW", "targetRef": newer, "rules": [{"when": 1}]});
    let told = stands("AuthorizationPolicy", &allow, &Forms::default()).0.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&told.document).unwrap()["targetRef"], target);
}

#[test]
fn what_is_kept_is_the_last_form_that_was_known() {
    let known = json!({"action": "DENY", "rules": [{"from": [{"namespaces": ["a"]}]}], "onUnsupported": "keep"});
    let first = tell(&inbound(vec![attachment("AuthorizationPolicy", 1, &known)]), &Forms::default());
    let newer = json!({"action": "DENY", "rules": [{"when": 1}], "onUnsupported": "keep"});
    let (kept, note) = stands("AuthorizationPolicy", &newer, &first.forms);
    let kept = kept.unwrap();
    assert_eq!(kept.origin, Some(object("AuthorizationPolicy", "it", 1)));
    assert!(kept.document.contains("namespaces") && kept.stands_for.is_none());
    assert_eq!(note.instead, "generation 1 stays in force");

    let second = tell(&inbound(vec![attachment("AuthorizationPolicy", 2, &newer)]), &first.forms);
    let third = tell(&inbound(vec![attachment("AuthorizationPolicy", 3, &newer)]), &second.forms);
    assert_eq!(policies(&third).0[0].origin, Some(object("AuthorizationPolicy", "it", 1)), "however long it takes");
    let gone = tell(&inbound(Vec::new()), &third.forms);
    assert_eq!(gone.forms, Forms::default(), "what is deleted is not kept");
}

fn route(rules: &Value) -> Value {
    json!({"parentRefs": [{"kind": "Service", "name": "web"}], "rules": rules})
}

#[test]
fn routes_keep_their_last_form_and_rules_that_never_were_known_answer_with_an_error() {
    let known = route(&json!([{"backendRefs": [{"name": "v1"}]}]));
    let newer = route(&json!([
        {"name": "plain", "matches": [{"path": {"type": "PathPrefix", "value": "/a"}}], "backendRefs": [{"name": "v1"}]},
        {"name": "mirror", "matches": [{"path": {"type": "Exact", "value": "/b"}, "cookie": "x"}],
         "filters": [{"type": "RequestMirror", "requestMirror": {}}], "backendRefs": [{"name": "v2"}]},
    ]));
    let of =
        |generation, document: &Value| destination(vec![attachment("HTTPRoute", generation, document)], Vec::new());
    let first = tell(&of(1, &known), &Forms::default());
    assert_eq!(first.resource, None);
    let kept = outbound(&tell(&of(2, &newer), &first.forms));
    assert_eq!(kept.routes[0].origin, Some(object("HTTPRoute", "it", 1)));

    let closed = outbound(&tell(&of(2, &newer), &Forms::default()));
    let document: Value = serde_json::from_str(&closed.routes[0].document).unwrap();
    assert_eq!(document["rules"][0], newer["rules"][0], "what is known goes on");
    let path = json!([{"path": {"type": "Exact", "value": "/b"}}]);
    let nowhere = json!({"name": "mirror", "matches": path, "backendRefs": [{"name": "web", "weight": 0}]});
    assert_eq!(document["rules"][1], nowhere);
    assert_eq!(closed.routes[0].stands_for, Some(object("HTTPRoute", "it", 2)));
    assert_eq!(closed.unenforceable.len(), 1);

    let mut whole = newer.clone();
    whole["sessionPersistence"] = json!({});
    let closed = outbound(&tell(&of(2, &whole), &Forms::default()));
    let document: Value = serde_json::from_str(&closed.routes[0].document).unwrap();
    assert_eq!(document["rules"][0]["backendRefs"][0]["weight"], 0, "it is about the whole route");
    let partly = route(&json!([{"matches": [{"cookie": "x"}, {"path": {"type": "Exact", "value": "/b"}}]}]));
    let closed = outbound(&tell(&of(2, &partly), &Forms::default()));
    let document: Value = serde_json::from_str(&closed.routes[0].document).unwrap();
    let conditions = json!([{}, {"path": {"type": "Exact", "value": "/b"}}]);
    assert_eq!(document["rules"][0]["matches"], conditions, "a condition that is not known might be anything");
    let elsewhere = json!({"parentRefs": [{"kind": "Service", "name": "web", "sectionName": "http"}], "mode": 1});
    let unrouted = outbound(&tell(&of(2, &elsewhere), &Forms::default()));
    let document: Value = serde_json::from_str(&unrouted.routes[0].document).unwrap();
    assert_eq!(document["rules"], json!([{"backendRefs": [{"name": "web", "weight": 0}]}]));
}

#[test]
fn a_backend_that_is_no_service_gets_its_share_of_errors_at_old_sidecars_too() {
    let service = json!({"kind": "Service", "name": "v1", "namespace": "shop", "port": 80, "weight": 3});
    let closed = json!({"group": "selvedge.dev", "kind": "NotGranted", "name": "v2", "namespace": "bank", "port": 80, "weight": 2});
    let bucket = json!({"group": "s3.example.com", "kind": "Bucket", "name": "b"});
    let newest = route(&json!([{"backendRefs": [service, closed, bucket]}, {"backendRefs": [service]}]));
    let resource = destination(vec![attachment("HTTPRoute", 1, &newest)], Vec::new());
    let told = tell(&resource, &Forms::default());
    let message = outbound(&told);
    let document: Value = serde_json::from_str(&message.routes[0].document).unwrap();
    let nobody = |weight: u32| json!({"name": "nobody.invalid", "weight": weight});
    assert_eq!(document["rules"][0]["backendRefs"], json!([service, nobody(2), nobody(1)]));
    assert_eq!(document["rules"][1], newest["rules"][1]);
    assert_eq!(
        (message.unenforceable.len(), message.routes[0].stands_for.clone()),
        (0, None),
        "nothing is missing there"
    );
    assert_eq!(skew::tell(&resource, &skew::everything(), &Forms::default()).resource, None);
}

/// The rules of a route that are told to go on, by name.
fn open(document: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(document).unwrap();
    let rules = document["rules"].as_array().unwrap().iter().filter(|rule| rule["backendRefs"][0]["weight"] != 0);
    rules.map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn rules_that_might_take_the_requests_of_a_lessened_one_answer_with_an_error_too() {
    let rule =
        |name: &str, matches: Value| json!({"name": name, "matches": [matches], "backendRefs": [{"name": "v1"}]});
    let prefix = |value: &str| json!({"type": "PathPrefix", "value": value});
    let others = [
        rule("get", json!({"path": prefix("/"), "method": "GET"})),
        rule("cart", json!({"path": prefix("/cart"), "method": "GET"})),
        rule("cart-7", json!({"path": {"type": "Exact", "value": "/cart/7"}})),
    ];
    let cases = [
        (json!({"path": {"type": "Template", "value": "/{id}"}}), &[][..]),
        (json!({"path": prefix("/cart"), "cookies": [{"name": "x"}]}), &["get"]),
        (json!({"path": {"type": "Exact", "value": "/a"}, "cookies": [{"name": "x"}]}), &["get", "cart", "cart-7"]),
        (json!({"path": prefix("/cart/"), "headers": [{"name": "x", "type": "Present"}]}), &["get", "cart-7"]),
    ];
    for (lessened, expected) in cases {
        let newer = attachment("HTTPRoute", 1, &route(&json!([rule("newer", lessened.clone())])));
        let mut plain = attachment("HTTPRoute", 1, &route(&json!(others)));
        plain.origin.as_mut().unwrap().name = "plain".into();
        let told = outbound(&tell(&destination(vec![newer, plain], Vec::new()), &Forms::default()));
        assert_eq!(open(&told.routes[0].document), [""; 0], "{lessened}");
        assert_eq!(open(&told.routes[1].document), expected, "{lessened}");
        let is_noted = told.unenforceable.iter().any(|note| note.origin.as_ref().unwrap().name == "plain");
        assert_eq!(is_noted, expected.len() < others.len(), "{lessened}");
    }
}

#[test]
fn half_of_a_condition_is_not_asked_for() {
    let mut knows = skew::silent();
    assert!(knows.0.get_mut("HTTPRoute").unwrap().remove("rules[].matches[].path.type"));
    let matches = json!([{"path": {"type": "RegularExpression", "value": "/a.*"}, "method": "GET"}]);
    let resource = destination(vec![attachment("HTTPRoute", 1, &route(&json!([{"matches": matches}])))], Vec::new());
    let told = outbound(&skew::tell(&resource, &knows, &Forms::default()));
    let document: Value = serde_json::from_str(&told.routes[0].document).unwrap();
    assert_eq!(document["rules"][0]["matches"], json!([{"method": "GET"}]), "the prefix '/a.*' is something else");
}

#[test]
fn whoever_takes_any_text_takes_every_word_and_words_nobody_says_do_not_count() {
    let words =
        |all: &[&str]| Capabilities([("AuthorizationPolicy".into(), all.iter().map(|w| (*w).into()).collect())].into());
    let understood = skew::understood(&words(&["action=*", "rules", "junk"])).0.remove("AuthorizationPolicy").unwrap();
    let mut expected = vec!["action=ALLOW", "action=AUDIT", "action=DENY", "rules"];
    expected.retain(|word| understood.contains(*word));
    assert_eq!((expected.len(), understood.contains("junk")), (4, false), "{understood:?}");
    assert!(!understood.iter().any(|word| !word.starts_with("action=") && word != "rules"));
}

/// What a condition says of its path, method, header and query parameter, each absent at times.
fn condition() -> impl Strategy<Value = Value> {
    let paths = prop::sample::select(vec![
        Value::Null,
        json!({"type": "PathPrefix", "value": "/"}),
        json!({"type": "PathPrefix", "value": "/a"}),
        json!({"type": "PathPrefix", "value": "/a/b"}),
        json!({"type": "Exact", "value": "/a"}),
        json!({"type": "Exact", "value": "/a/b"}),
        json!({"type": "RegularExpression", "value": "/a.*"}),
    ]);
    let part = |kinds: &[&str]| {
        let of = |kind: &&str| json!([{"name": "x", "type": kind, "value": "1"}]);
        prop::sample::select([Value::Null].into_iter().chain(kinds.iter().map(of)).collect::<Vec<_>>())
    };
    let kinds = ["Exact", "RegularExpression"];
    let methods = prop::sample::select(vec![Value::Null, json!("GET")]);
    (paths, methods, part(&kinds), part(&kinds)).prop_map(|(path, method, headers, query)| {
        let fields = [("path", path), ("method", method), ("headers", headers), ("queryParams", query)];
        let written = fields.into_iter().filter(|(_, value)| !value.is_null());
        Value::Object(written.map(|(name, value)| (name.to_owned(), value)).collect())
    })
}

fn table(documents: &[(String, Value)]) -> RouteTable {
    let attached =
        |(name, spec): &(String, Value)| Attached { name: (&**name).into(), spec: kind::parse(spec).unwrap() };
    RouteTable::compile(&documents.iter().map(attached).collect::<Vec<_>>()).unwrap()
}

proptest! {
    /// Whatever a sidecar does not know of conditions: no request goes where another rule was to send it.
    #[test]
    fn a_request_goes_where_it_was_meant_to_or_is_answered_with_an_error(
        routes in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(condition(), 0..3), 1..4), 1..3),
        unknown in prop::sample::subsequence(vec!["path", "path.type", "path.type=Exact", "path.type=RegularExpression", "method",
            "headers", "headers[].type", "headers[].type=RegularExpression", "queryParams[].type=RegularExpression", "queryParams"], 1..3),
    ) {
        let mut knows = skew::silent();
        let words = knows.0.get_mut("HTTPRoute").unwrap();
        unknown.iter().for_each(|word| assert!(words.remove(&format!("rules[].matches[].{word}")), "{word}"));
        let backend = json!([{"name": "v1", "port": 80}]);
        let rules = |rules: &Vec<Vec<Value>>| {
            let rules = rules.iter().map(|matches| json!({"matches": matches, "backendRefs": backend}));
            route(&rules.collect())
        };
        let written: Vec<_> = routes.iter().enumerate().map(|(n, of)| (format!("shop/r{n}"), rules(of))).collect();
        let attachments = written.iter().map(|(name, document)| {
            let mut attachment = attachment("HTTPRoute", 1, document);
            attachment.origin.as_mut().unwrap().name = name.trim_start_matches("shop/").into();
            attachment
        });
        let translated = skew::tell(&destination(attachments.collect(), Vec::new()), &knows, &Forms::default());
        let Some(resource) = translated.resource else { return Ok(()) };
        let told = Destination::decode(resource.body).unwrap().routes.into_iter().map(|told| {
            let origin = told.origin.unwrap();
            (format!("shop/{}", origin.name), serde_json::from_str(&told.document).unwrap())
        });
        let (meant, told) = (table(&written), table(&told.collect::<Vec<_>>()));
        for (path, method) in ["/", "/a", "/a/b", "/a/b/c", "/ab"].iter().flat_map(|path| [(path, Method::GET), (path, Method::PUT)]) {
            for (header, query) in [(None, None), (Some("1"), None), (None, Some("x=1")), (Some("1"), Some("x=1"))] {
                let headers: HeaderMap = header.map(|value| (HeaderName::from_static("x"), HeaderValue::from_static(value))).into_iter().collect();
                let select = |table: &RouteTable| {
                    let rule = table.select("web.shop", &method, path, query, &headers)?;
                    Some((rule.name.clone(), rule.backends.iter().any(|backend| backend.weight > 0)))
                };
                let (meant, told) = (select(&meant), select(&told));
                let is_closed = matches!(told, Some((_, false)));
                prop_assert!(is_closed || told == meant, "{} {} {:?} {:?}: {:?} for {:?}", method, path, header, query, told, meant);
            }
        }
    }
}

#[test]
fn settings_keep_their_last_form_and_those_that_never_were_known_are_left_out() {
    let target = json!({"name": "web"});
    let known = json!({"targetRef": target, "timeouts": {"request": "1s"}});
    let newer = json!({"targetRef": target, "timeouts": {"request": "2s", "idle": "1m"}, "hedging": {"after": "1s"}, "retry": {"hedge": 1}});
    let of =
        |generation, document: &Value| destination(Vec::new(), vec![attachment("TrafficPolicy", generation, document)]);
    let first = tell(&of(1, &known), &Forms::default());
    let kept = outbound(&tell(&of(2, &newer), &first.forms));
    assert_eq!(kept.policies[0].origin, Some(object("TrafficPolicy", "it", 1)));

    let reduced = outbound(&tell(&of(2, &newer), &Forms::default()));
    let document: Value = serde_json::from_str(&reduced.policies[0].document).unwrap();
    assert_eq!(document, json!({"targetRef": target, "timeouts": {"request": "2s"}}), "no retries with defaults");
    let of_a_part = json!({"targetRef": {"name": "web", "subset": "v1"}, "timeouts": {"request": "2s"}});
    let left_out = outbound(&tell(&of(2, &of_a_part), &Forms::default()));
    assert!(left_out.policies.is_empty(), "settings for a part are none for the whole");
    assert_eq!(left_out.unenforceable[0].unknown, "targetRef.subset");
}

#[test]
fn settings_that_are_not_known_are_left_out_and_their_authors_told() {
    let from =
        |field: &str, name: &str| SettingOrigin { field: field.into(), origin: Some(object("MeshPolicy", name, 3)) };
    let origins = [
        ("callerIdentity.headers.x-caller", "teller"),
        ("callerIdentity.headers.x-old", "other"),
        ("callerIdentity.trustedProxies", "teller"),
        ("mtls.inbound", "open"),
    ];
    let settings = json!({
        "mtls": {"inbound": "PERMISSIVE"},
        "callerIdentity": {"headers": {"x-caller": "SET", "x-old": "REMOVE"}, "trustedProxies": ["spiffe://a/ns/b/sa/c"]},
    });
    let message = Inbound {
        workload: "shop/web-1".into(),
        settings: settings.to_string(),
        settings_from: origins.map(|(field, name)| from(field, name)).into(),
        ..Inbound::default()
    };
    let of = |message: &Inbound| Encoded::new(INBOUND, "shop/web-1", Vec::new(), message);
    let told = |knows: &Capabilities| skew::tell(&of(&message), knows, &Forms::default()).resource;
    assert_eq!(told(&skew::everything()), None);

    let mut unasked = skew::everything();
    unasked.0.remove("MeshPolicy");
    let mut without = skew::everything();
    without.0.get_mut("MeshPolicy").unwrap().retain(|word| !word.starts_with("callerIdentity"));
    for knows in [&skew::silent(), &unasked, &without] {
        let told = Inbound::decode(told(knows).expect("it is translated").body).unwrap();
        assert_eq!(told.settings, r#"{"mtls":{"inbound":"PERMISSIVE"}}"#);
        assert_eq!(told.settings_from, [from("mtls.inbound", "open")]);
        let note = |name: &str| Unenforceable {
            origin: Some(object("MeshPolicy", name, 3)),
            unknown: "callerIdentity".into(),
            instead: "it is left out".into(),
        };
        assert_eq!(told.unenforceable, [note("teller"), note("other")]);
    }

    let mut partly = skew::everything();
    assert!(partly.0.get_mut("MeshPolicy").unwrap().remove("callerIdentity.headers.*=REMOVE"));
    let told = Inbound::decode(told(&partly).expect("it is translated").body).unwrap();
    let known: Value = serde_json::from_str(&told.settings).unwrap();
    assert_eq!(known["callerIdentity"]["headers"], json!({"x-caller": "SET"}));
    let unknown: Vec<_> =
        told.unenforceable.iter().map(|note| (&*note.unknown, &*note.origin.as_ref().unwrap().name)).collect();
    assert_eq!(unknown, [("callerIdentity.headers.x-old: REMOVE", "other")]);

    let usual = Inbound { settings: json!({"mtls": {"inbound": "STRICT"}}).to_string(), ..message.clone() };
    assert_eq!(
        skew::tell(&of(&usual), &skew::silent(), &Forms::default()).resource,
        None,
        "what is known goes as it is"
    );
}

#[test]
fn what_callers_must_refuse_is_said_by_the_routes_of_the_destination() {
    let policy = attachment("TokenAuthentication", 2, &json!({"issuer": "x"}));
    let known = attachment("HTTPRoute", 1, &route(&json!([{"backendRefs": [{"name": "v1"}]}])));
    let message = outbound(&tell(&destination(vec![known], vec![policy]), &Forms::default()));
    let document: Value = serde_json::from_str(&message.routes[0].document).unwrap();
    assert_eq!(
        (message.routes.len(), &document["rules"]),
        (1, &json!([{"backendRefs": [{"name": "web", "weight": 0}]}]))
    );
}

/// Documents of every kind, all of whose words the oldest release knows.
fn documents() -> [(&'static str, Value); 5] {
    let source = json!([{"namespaces": ["a"], "ipBlocks": ["10.0.0.0/8"]}]);
    let rules = json!([{"from": source, "to": [{"methods": ["GET"], "paths": ["/x/*"], "ports": [80]}]}]);
    let matches =
        json!([{"path": {"type": "Exact", "value": "/"}, "method": "GET"}, {"headers": [{"name": "x", "value": "1"}]}]);
    let set = json!({"set": [{"name": "x", "value": "1"}]});
    let filters = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": set}]);
    let backends = json!([{"name": "v1", "namespace": "shop", "port": 80, "weight": 3}]);
    let retry = json!({"attempts": 3, "on": ["5xx"], "backoff": {"base": "10ms"}});
    let target = json!({"kind": "Service", "name": "web", "port": 80});
    [
        (
            "AuthorizationPolicy",
            json!({"action": "DENY", "targetRef": target, "rules": rules, "expires": "2030-01-01T00:00:00Z"}),
        ),
        ("AuthorizationPolicy", json!({"action": "ALLOW", "targetRef": target, "rules": rules})),
        ("RateLimit", json!({"limits": [{"requests": 1, "per": "1s", "key": ["identity", {"header": "x"}]}]})),
        (
            "HTTPRoute",
            json!({"parentRefs": [target], "hostnames": ["a"], "rules": [
                {"name": "one", "matches": matches, "filters": filters, "backendRefs": backends, "timeouts": {"request": "1s"}}, {}
            ]}),
        ),
        ("TrafficPolicy", json!({"targetRef": {"name": "web"}, "retry": retry, "timeouts": {"request": "1s"}})),
    ]
}

/// What every release knows, and what refuses is said in.
const ALWAYS: [&str; 8] = [
    "action",
    "action=DENY",
    "rules",
    "parentRefs",
    "parentRefs[].name",
    "rules[].backendRefs",
    "rules[].backendRefs[].name",
    "rules[].backendRefs[].weight",
];

proptest! {
    /// Whatever a sidecar does not know, what it is told it knows; and what it does not know is not passed over in silence.
    #[test]
    fn nobody_is_told_what_he_does_not_know(picks in proptest::collection::vec((0..5usize, any::<prop::sample::Index>()), 0..12)) {
        let mut knows = skew::silent();
        for (kind, pick) in picks {
            let kind = documents()[kind].0;
            let words: Vec<String> = knows.0[kind].iter().filter(|word| !ALWAYS.contains(&word.split("=*").next().unwrap_or_default())).cloned().collect();
            if let (Some(word), Some(known)) = (words.get(pick.index(words.len().max(1))), knows.0.get_mut(kind)) {
                known.remove(word);
            }
        }
        for (kind, document) in documents() {
            let attached = vec![attachment(kind, 1, &document)];
            let is_known = vocabulary::unknown(&knows.0[kind], &document).is_none();
            let of_callers = matches!(kind, "HTTPRoute" | "TrafficPolicy");
            let resource = if kind == "HTTPRoute" { destination(attached, Vec::new()) } else if of_callers { destination(Vec::new(), attached) } else { inbound(attached) };
            let told = skew::tell(&resource, &knows, &Forms::default());
            prop_assert_eq!(told.resource.is_none(), is_known, "{} {}", kind, document);
            prop_assert_eq!(told.complaints.is_empty(), is_known);
            let Some(translated) = told.resource else { continue };
            let attachments = if of_callers {
                let Destination { routes, policies, .. } = Destination::decode(translated.body).unwrap();
                [routes, policies].concat()
            } else {
                Inbound::decode(translated.body).unwrap().policies
            };
            for Attachment { origin, document, .. } in attachments {
                let kind = origin.unwrap().kind;
                let document: Value = serde_json::from_str(&document).unwrap();
                prop_assert_eq!(vocabulary::unknown(&knows.0[&kind], &document), None, "{} {}", kind, document);
            }
        }
    }
}

#[test]
fn what_has_no_sidecar_is_kept_from_sidecars_that_would_call_it_in_plaintext_under_require() {
    let endpoint = |identity: &str, port| Endpoint {
        address: "10.0.0.9:8080".into(),
        identity: identity.into(),
        port,
        ..Endpoint::default()
    };
    let (meshed, bare) = (endpoint("spiffe://mesh.local/ns/shop/sa/web", 8080), endpoint("", 8080));
    let of =
        |endpoints| Encoded::new(ENDPOINTS, "shop/web:80", Vec::new(), &Endpoints { endpoints, ..Default::default() });
    let mixed = of(vec![meshed.clone(), bare]);
    let told = skew::tell(&mixed, &skew::silent(), &Forms::default());
    assert_eq!(told.resource.map(|resource| resource.body), Some(of(vec![meshed.clone()]).body));
    assert_eq!(
        told.complaints,
        ["outbound mode REQUIRE at endpoints without a sidecar; 1 of shop/web:80 are left out"]
    );
    assert_eq!(skew::tell(&mixed, &skew::everything(), &Forms::default()).resource, None, "a newer one knows better");
    for all in [meshed, endpoint("", 0)] {
        assert_eq!(skew::tell(&of(vec![all]), &skew::silent(), &Forms::default()).resource, None, "as it is");
    }
}
