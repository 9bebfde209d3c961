//! What is injected into pods, as the sidecar in them reads it.

use std::{collections::BTreeSet, path::Path};

use selvedge_proxy::Bootstrap;
use selvedge_tests::workspace;
use serde_json::Value;

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
    // Settings are the administrator's, and some of the golden data's are there to be escaped, or short.
    let authority = rcgen::generate_simple_self_signed(["mesh.local".to_owned()]).unwrap().cert.pem();
    for file in found {
        let lines = file.lines().map(|line| match line.split_once(": ") {
            Some(("trustBundle", _)) => format!("trustBundle: {}\n", Value::from(authority.as_str())),
            Some(("controlPlane", _)) => "controlPlane: selvedge.selvedge-system.svc:15010\n".to_owned(),
            _ => format!("{line}\n"),
        });
        let file = expanded(&lines.collect::<String>());
        if let Err(error) = Bootstrap::parse(&file, Path::new("$SELVEDGE_CONFIG")) {
            panic!("{error}\n{file}");
        }
    }
}
