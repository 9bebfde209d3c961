//! What holds of every pod: the patch applies, a second one is empty, nothing of the user's is changed or removed, and the
//! sidecar may run where the Pod Security Standard `restricted` is enforced. And the policy says the same.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where its own set-up fails")]

use json_patch::Patch;
use proptest::prelude::*;
use selvedge_inject::{
    annotation::ANNOTATIONS,
    expression::{
        SAFE_TO_EVICT,
        metrics::{SCRAPE_PATH, SCRAPE_PORT},
    },
    injection::inject,
    pod::Namespace,
    removal::remove,
    setting::Settings,
    warning::warnings,
};
use serde_json::{Map, Value, json};

#[path = "golden/evaluator.rs"]
mod evaluator;
#[path = "golden/shapes.rs"]
mod shapes;

fn enabled() -> Namespace {
    let labels = json!({ "selvedge.dev/inject": "enabled" }).as_object().unwrap().clone();
    Namespace { name: "shop".to_owned(), labels }
}

fn settings(capture: &str) -> Settings {
    Settings::of(
        &json!({ "spec": { "image": "a@sha256:1", "captureImage": "b@sha256:2", "trustBundle": "PEM", "capture": capture } }),
    )
}

fn patched(pod: &Value, patch: &[Value]) -> Value {
    let patch: Patch = serde_json::from_value(json!(patch)).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).unwrap_or_else(|error| panic!("{error}: {pod}"));
    patched
}

/// Whether everything of `before` is in `after`: objects may have more, lists more elements anywhere.
fn is_kept(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().all(|(key, value)| {
            // A list of names in one text, which is continued.
            let is_longer = key == SAFE_TO_EVICT;
            after.get(key).is_some_and(|now| {
                is_kept(value, now) || is_longer && now.as_str().unwrap().starts_with(value.as_str().unwrap())
            })
        }),
        (Value::Array(before), Value::Array(after)) => {
            let mut rest = after.iter();
            before.iter().all(|element| rest.any(|now| is_kept(element, now)))
        }
        _ => before == after,
    }
}

/// A pod without the lists and maps that have nothing, which a removal does not keep.
fn without_empty(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for (parent, field) in [("/spec", "initContainers"), ("/spec", "volumes"), ("/metadata", "annotations")] {
        let parent = pod.pointer_mut(parent).and_then(Value::as_object_mut).unwrap();
        let is_empty = |value: &Value| [json!([]), json!({})].contains(value);
        if parent.get(field).is_some_and(is_empty) {
            parent.remove(field);
        }
    }
    pod
}

fn named<'a>(pod: &'a Value, list: &str, name: &str) -> Option<(usize, &'a Value)> {
    let list = pod.pointer(list)?.as_array()?;
    list.iter().enumerate().find(|(_, entry)| entry["name"] == name)
}

/// What `restricted` asks of a container, field by field.
fn is_restricted(container: &Value) -> bool {
    let context = &container["securityContext"];
    context["runAsNonRoot"] == true
        && context["runAsUser"].as_i64().is_some_and(|user| user > 0)
        && context["allowPrivilegeEscalation"] == false
        && context["capabilities"] == json!({ "drop": ["ALL"] })
        && context["seccompProfile"] == json!({ "type": "RuntimeDefault" })
        && context.get("privileged").is_none()
}

/// All that has to hold of an injected pod.
fn holds(pod: &Value, settings: &Settings) -> Result<(), TestCaseError> {
    let patch = inject(pod, &enabled(), settings).unwrap();
    if patch.is_empty() {
        return Ok(());
    }
    let after = patched(pod, &patch);
    prop_assert_eq!(inject(&after, &enabled(), settings), Ok(Vec::new()), "a second patch is empty");
    let back = patched(&after, &remove(&after));
    prop_assert_eq!(without_empty(&back), without_empty(pod), "what was put in is taken out again, and nothing else");
    prop_assert!(is_kept(pod, &after), "something of the user's is gone:\n{}\n{}", pod, after);
    let (at, sidecar) = named(&after, "/spec/initContainers", "selvedge-proxy").unwrap();
    let captured = named(&after, "/spec/initContainers", "selvedge-capture").map(|(at, _)| at);
    prop_assert!(at == 0 || captured == Some(0) && at == 1, "the sidecar is before the application's containers");
    prop_assert!(is_restricted(sidecar), "{}", sidecar["securityContext"]);
    prop_assert_eq!(&sidecar["restartPolicy"], "Always");
    for resource in ["cpu", "memory"] {
        let of_pod = !pod["spec"]["resources"]["requests"][resource].is_null();
        prop_assert!(
            of_pod || sidecar["resources"]["requests"][resource].is_string(),
            "the sidecar requests {}",
            resource
        );
    }
    prop_assert!(sidecar.pointer("/resources/limits/cpu").is_none(), "there is no limit of CPU");
    for mount in sidecar["volumeMounts"].as_array().unwrap() {
        prop_assert!(named(&after, "/spec/volumes", mount["name"].as_str().unwrap()).is_some());
    }
    for port in sidecar["ports"].as_array().unwrap() {
        let name = port["name"].as_str().unwrap();
        prop_assert!(name.len() <= 15, "Kubernetes takes no longer name of a port than {}", name);
    }
    Ok(())
}

#[test]
fn it_holds_of_every_shape() {
    let mut injected = 0;
    for shape in shapes::shapes() {
        let settings = Settings::of(&shape.settings);
        let labels = shape.namespace["metadata"]["labels"].as_object().unwrap().clone();
        let name = shape.namespace["metadata"]["name"].as_str().unwrap().to_owned();
        let is_half = shape.name.starts_with("half injected");
        if !is_half && inject(&shape.pod, &Namespace { name, labels }, &settings).is_ok_and(|patch| !patch.is_empty()) {
            injected += 1;
            holds(&shape.pod, &settings).unwrap_or_else(|error| panic!("{}: {error}", shape.name));
        }
    }
    assert!(injected > 50, "{injected}");
}

#[test]
fn what_is_no_pod_ends_in_no_panic() {
    for pod in [
        json!(null),
        json!([]),
        json!({ "metadata": [], "spec": 1 }),
        json!({ "metadata": { "annotations": ["config.selvedge.dev/uid"], "labels": 1 }, "spec": { "containers": {} } }),
        json!({ "spec": { "containers": [null, 1, { "name": 1, "ports": 1, "livenessProbe": { "httpGet": [] } }] } }),
    ] {
        let _ = inject(&pod, &enabled(), &settings("init"));
        let _ = warnings(&pod, &enabled(), &settings("init"));
    }
}

/// Text that means something to YAML, JSON, CEL, Kubernetes or people.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,12}", "\\PC{0,8}", Just("$(POD_UID)".to_owned()), Just("\"\n: ]}$$(".to_owned())]
}

fn annotations() -> impl Strategy<Value = Value> {
    let scraped = [SCRAPE_PORT, SCRAPE_PATH].map(str::to_owned);
    let keys: Vec<String> = ANNOTATIONS.iter().map(|annotation| annotation.name()).chain(scraped).collect();
    let word = prop::sample::select(vec!["none", "cni", "merge", "10.0.0.7, fd00::/8"]).prop_map(str::to_owned);
    let value = prop_oneof![text(), "[0-9]{1,5}(=[0-9]{1,5})?", word];
    let known = prop::collection::btree_map(prop::sample::select(keys), value, 0..6);
    let foreign = prop::collection::btree_map("[a-z]{1,4}(/[a-z~]{1,4})?", text(), 0..3);
    let volumes = prop::option::of("[a-z]{1,5}(,[a-z]{1,5}){0,2}");
    (known, foreign, volumes).prop_map(|(known, foreign, volumes)| {
        let volumes = volumes.map(|volumes| (SAFE_TO_EVICT.to_owned(), volumes));
        known.into_iter().chain(foreign).chain(volumes).map(|(key, value)| (key, Value::from(value))).collect()
    })
}

fn handler() -> impl Strategy<Value = Value> {
    let port = prop_oneof![(0_u16..).prop_map(Value::from), "[a-z]{1,3}".prop_map(Value::from)];
    (port, text(), 0..4).prop_map(|(port, path, kind)| match kind {
        0 => json!({ "httpGet": { "port": port, "path": path } }),
        1 => json!({ "tcpSocket": { "port": port } }),
        2 => json!({ "grpc": { "port": 9000 } }),
        _ => json!({ "exec": { "command": [path] } }),
    })
}

fn container() -> impl Strategy<Value = Value> {
    let parts = (
        "[a-z]{1,6}",
        prop::option::of(handler()),
        prop::option::of(handler()),
        prop::collection::btree_map("[a-z]{1,3}", 1_u16.., 0..3),
        prop::option::of(Just("Always")),
    );
    parts.prop_map(|(name, probe, hook, ports, restart)| {
        let mut container = json!({ "name": name, "image": "a" });
        container["ports"] =
            ports.into_iter().map(|(name, port)| json!({ "name": name, "containerPort": port })).collect();
        if let Some(probe) = probe {
            container["readinessProbe"] = probe;
        }
        if let Some(hook) = hook {
            container["lifecycle"] = json!({ "preStop": hook });
        }
        if let Some(restart) = restart {
            container["restartPolicy"] = restart.into();
        }
        container
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let parts = (
        prop::option::of(annotations()),
        prop::collection::vec(container(), 1..4),
        prop::option::of(prop::collection::vec(container(), 0..3)),
        prop::option::of(prop::collection::vec("[a-z]{1,6}", 0..3)),
    );
    parts.prop_map(|(annotations, containers, init, volumes)| {
        let mut metadata = json!({ "name": "web" });
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        let mut spec = Map::new();
        spec.insert("containers".to_owned(), containers.into());
        spec.extend(init.map(|init| ("initContainers".to_owned(), init.into())));
        spec.extend(volumes.map(|names| {
            let volumes: Value = names.iter().map(|name| json!({ "name": name, "emptyDir": {} })).collect();
            ("volumes".to_owned(), volumes)
        }));
        json!({ "metadata": metadata, "spec": spec })
    })
}

proptest! {
    #[test]
    fn it_holds_of_any_pod(pod in pod(), capture in prop::sample::select(vec!["none", "init", "cni"])) {
        holds(&pod, &settings(capture))?;
    }
}

proptest! {
    // The evaluator takes its time.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_policy_says_the_same_of_any_pod(pod in pod(), capture in prop::sample::select(vec!["none", "init", "cni"])) {
        let settings = settings(capture);
        let namespace = json!({ "metadata": { "labels": { "selvedge.dev/inject": "enabled" } } });
        let policy = evaluator::answer(&pod, &namespace, &json!({ "spec": settings.spec() }));
        let patch = inject(&pod, &enabled(), &settings).unwrap();
        prop_assert_eq!(&policy["patch"], &json!(patch));
    }
}
