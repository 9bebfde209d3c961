//! What is injected into pods, as the sidecar in them and the programs that capture read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::LazyLock,
};

use proptest::{prelude::*, string::string_regex};
use selvedge_capture::Capture;
use selvedge_inject::{
    annotation::{ANNOTATIONS, Annotation},
    injection::inject,
    pod::Namespace,
    setting::Settings,
    warning::warnings,
};
use selvedge_proxy::Bootstrap;
use selvedge_tests::workspace;
use serde_json::{Value, json};

/// What a kubelet puts in the place of variables of the downward API.
const VARIABLES: [(&str, &str); 8] = [
    ("POD_NAME", "web-1"),
    ("POD_NAMESPACE", "shop"),
    ("POD_UID", "d9607e19-f88f-11e6-a518-42010a800195"),
    ("SERVICE_ACCOUNT", "web"),
    ("POD_IPS", "10.244.1.7,fd00:10:244:1::7"),
    ("HOST_IPS", "10.0.0.1,fd00::1"),
    ("NODE_NAME", "node-1"),
    ("ZONE", "a"),
];

/// The value of the variable after the kubelet has expanded it; `$$(` is one that it leaves alone.
fn expanded(text: &str) -> String {
    const ESCAPED: &str = "\u{1}";
    let text = text.replace("$$", ESCAPED);
    let expanded = VARIABLES.iter().fold(text, |text, (name, value)| text.replace(&format!("$({name})"), value));
    expanded.replace(ESCAPED, "$")
}

/// The file of every sidecar in `answers`, wherever it stands.
fn files(answers: &Value, found: &mut BTreeSet<String>) {
    match answers {
        Value::Object(fields) => {
            if let (Some("SELVEDGE_CONFIG"), Some(file)) = (answers["name"].as_str(), answers["value"].as_str()) {
                found.insert(file.to_owned());
            }
            fields.values().for_each(|value| files(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| files(value, found)),
        _ => {}
    }
}

/// Every pod of the injector's golden data has a sidecar that starts.
#[test]
fn every_file_that_is_injected_is_one_that_the_sidecar_takes() {
    let path = workspace().join("inject/tests/golden/answers.json");
    let answers: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut found = BTreeSet::new();
    files(&answers, &mut found);
    let probed = found.iter().filter(|file| file.contains("\nprobes: [{")).count();
    assert!(found.len() > 10 && probed > 2, "{} files, {probed} with probes", found.len());
    for file in found {
        sidecar(&file).unwrap_or_else(|error| panic!("{error}\n{file}"));
    }
}

/// Roots of a mesh.
static AUTHORITY: LazyLock<String> =
    LazyLock::new(|| rcgen::generate_simple_self_signed(["mesh.local".to_owned()]).unwrap().cert.pem());

/// What the sidecar makes of its file when it starts. Settings are the administrator's, and those of tests are there to be
/// escaped, or short.
fn sidecar(file: &str) -> Result<Bootstrap, String> {
    let lines = file.lines().map(|line| match line.split_once(": ") {
        Some(("trustBundle", _)) => format!("trustBundle: {}\n", Value::from(AUTHORITY.as_str())),
        Some(("controlPlane", _)) => "controlPlane: selvedge.selvedge-system.svc:15010\n".to_owned(),
        _ => format!("{line}\n"),
    });
    let file = expanded(&lines.collect::<String>());
    Bootstrap::parse(&file, Path::new("$SELVEDGE_CONFIG")).map_err(|error| error.to_string())
}

/// A value that an annotation may have, or one letter from it.
fn value(annotation: &Annotation) -> impl Strategy<Value = String> + use<> {
    let pattern = annotation.form.pattern();
    let taken = || string_regex(pattern.trim_start_matches('^').trim_end_matches('$')).unwrap();
    let letter = prop::sample::select("0159:/,.=- \n\"$aZ\u{fc}".chars().collect::<Vec<char>>());
    let changed =
        (taken(), any::<prop::sample::Index>(), letter, any::<bool>()).prop_map(|(value, at, letter, goes)| {
            let (mut letters, at) = (value.chars().collect::<Vec<char>>(), at.index(value.chars().count()));
            if goes {
                letters.remove(at);
            } else {
                letters.insert(at, letter);
            }
            letters.into_iter().collect()
        });
    prop_oneof![3 => taken(), 1 => changed]
}

/// Annotations of a pod, each with such a value or absent.
fn annotations() -> impl Strategy<Value = BTreeMap<String, String>> {
    let each = ANNOTATIONS.iter().map(|known| (Just(known.name()), prop::option::of(value(known))));
    each.collect::<Vec<_>>().prop_map(|all| all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What is accepted when a pod is created ends no program when it starts, and what is not accepted is said.
    #[test]
    fn no_value_of_an_annotation_ends_what_is_injected(
        annotations in annotations(),
        capture in prop::sample::select(vec!["none", "init", "cni"]),
        path in "[-a-z0-9/.?%]{0,9}|\\PC{0,9}|[\x00-\u{a0}]{0,3}",
    ) {
        let spec = json!({ "image": "a@sha256:1", "captureImage": "b@sha256:2", "trustBundle": "PEM", "capture": capture });
        let settings = Settings::of(&json!({ "spec": spec }));
        let labels = json!({ "selvedge.dev/inject": "enabled" }).as_object().unwrap().clone();
        let namespace = Namespace { name: "shop".to_owned(), labels };
        let mut pod = json!({ "metadata": { "annotations": annotations }, "spec": {
            "containers": [{ "name": "web", "livenessProbe": { "httpGet": { "port": 8080, "path": path } } }],
        } });
        pod["metadata"]["annotations"]["prometheus.io/port"] = json!("9090");
        pod["metadata"]["annotations"]["prometheus.io/path"] = json!(path);

        let said = warnings(&pod, &namespace, &settings);
        for known in ANNOTATIONS {
            let is_refused = annotations.get(&known.name()).is_some_and(|value| !known.form.takes(value));
            let is_said = said.iter().any(|warning| warning.key == known.name() && warning.text.contains("is ignored: expected"));
            prop_assert_eq!(is_refused, is_said, "{}: {:?}", known.key, &said);
        }
        let patch = json!(inject(&pod, &namespace, &settings).unwrap());
        let mut found = BTreeSet::new();
        files(&patch, &mut found);
        let file = found.pop_first().unwrap();
        let sidecar = sidecar(&file).map_err(|error| TestCaseError::fail(format!("{error}\n{file}")))?;
        let listens = [sidecar.inbound.iter().map(|it| it.listen.port()).collect::<Vec<_>>(),
            sidecar.outbound.iter().map(|it| it.listen.port()).collect(), vec![15000, 15020]].concat();
        prop_assert_eq!(listens.iter().collect::<BTreeSet<_>>().len(), listens.len(), "two listen on one port: {:?}", listens);
        prop_assert!(sidecar.inbound.iter().all(|it| !listens.contains(&it.forward.port())), "{}", file);
        for operation in patch.as_array().unwrap() {
            let value = &operation["value"];
            if value["name"] == "selvedge-capture" {
                let options: Vec<&str> = value["args"].as_array().unwrap()[1..].iter().filter_map(Value::as_str).collect();
                prop_assert!(Capture::from_options(options.iter().copied()).is_ok(), "{:?}", options);
            }
            if operation["path"] == "/metadata/annotations/selvedge.dev~1capture" {
                prop_assert!(value.as_str().unwrap().parse::<Capture>().is_ok(), "{}", value);
            }
        }
    }
}
