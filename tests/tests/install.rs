//! What `selvedge install` gives a cluster: an API server takes it, and takes what users write.

use std::collections::BTreeMap;

use selvedge_control_plane::model;
use selvedge_inject::setting::{self, SETTINGS};
use selvedge_install::{crd, text};
use selvedge_policies::kind::{SELVEDGE, structure};
use selvedge_tests::pages;
use serde_json::{Value, json};

#[path = "install/cluster.rs"]
mod cluster;
#[path = "install/package.rs"]
mod package;
#[path = "install/structural.rs"]
mod structural;

use structural::{problems, pruned};

/// The schema of whole objects of each kind, by its name.
fn schemas() -> BTreeMap<String, Value> {
    let definitions = crd::all().into_iter().map(|definition| {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        (kind, definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
    });
    definitions.collect()
}

/// Every object of the mesh's own kinds in the pages, with the page that it stands in.
fn examples() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for page in pages::all() {
        for example in page.examples() {
            let documents: Vec<Value> = serde_saphyr::from_multiple(example).unwrap_or_default();
            let ours = documents.into_iter().filter(|document| document["apiVersion"] == SELVEDGE);
            found.extend(ours.map(|document| (page.name.clone(), document)));
        }
    }
    found
}

/// Why the schema refuses a document, with the place.
fn refused(schema: &Value, document: &Value) -> Vec<String> {
    let found = structure::problems(&structural::as_json_schema(schema), document);
    found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

#[test]
fn there_is_a_definition_of_every_kind_of_ours_and_of_no_other() {
    let kinds: Vec<String> =
        crd::all().iter().map(|definition| definition["spec"]["names"]["kind"].as_str().unwrap().to_owned()).collect();
    let ours: Vec<&str> = model::kinds().filter(|kind| kind.api_version == SELVEDGE).map(|kind| kind.name).collect();
    assert_eq!(kinds, ours);
    assert!(ours.len() >= 7, "{ours:?}");
}

#[test]
fn schemas_are_structural() {
    for (kind, schema) in schemas() {
        let found = problems(&schema);
        assert!(found.is_empty(), "{kind}:\n  {}", found.join("\n  "));
    }
}

#[test]
fn what_is_not_structural_is_found() {
    for (schema, what) in [
        (json!({ "type": "object", "properties": { "a": {} } }), "no type"),
        (json!({ "type": "object", "properties": {}, "additionalProperties": { "type": "string" } }), "both"),
        (json!({ "type": ["string", "null"] }), "no type"),
        (json!({ "$ref": "#/$defs/A", "type": "object" }), "$ref"),
        (json!({ "type": "array" }), "items"),
        (json!({ "type": "object", "properties": { "a": { "type": "string", "default": 1 } } }), "default"),
        (json!({ "type": "string", "anyOf": [{ "type": "string" }] }), "anyOf"),
        (
            json!({ "type": "array", "items": { "type": "object", "properties": { "a": { "type": "string" } } },
                 "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"] }),
            "key",
        ),
    ] {
        let found = problems(&schema).join("; ");
        assert!(found.contains(what), "{schema}: {found}");
    }
}

#[test]
fn every_example_in_the_pages_is_accepted_and_kept_whole() {
    let schemas = schemas();
    let examples = examples();
    for (page, document) in &examples {
        let schema = &schemas[document["kind"].as_str().unwrap()];
        let refused = refused(schema, document);
        assert!(refused.is_empty(), "{page}: {document:#} is refused:\n  {}", refused.join("\n  "));
        assert_eq!(&pruned(schema, document), document, "{page}: something is pruned");
    }
    let kinds = |name: &str| examples.iter().filter(|(_, document)| document["kind"] == name).count();
    for name in schemas.keys() {
        assert!(kinds(name) > 0, "no page has an example of {name}");
    }
}

#[test]
fn mistakes_are_refused_or_pruned_by_the_schema() {
    let schemas = schemas();
    let refuses = |kind: &str, spec: Value| {
        let object = json!({ "apiVersion": SELVEDGE, "kind": kind, "metadata": { "name": "a" }, "spec": spec });
        !refused(&schemas[kind], &object).is_empty()
    };
    assert!(refuses("MeshPolicy", json!({ "mtls": { "inbound": "OPEN" } })));
    assert!(refuses("MeshPolicy", json!({ "targetRef": {} })));
    assert!(refuses("TrafficPolicy", json!({ "targetRef": { "name": "a" }, "timeouts": { "request": 5 } })));
    assert!(refuses(
        "Workload",
        json!({ "serviceAccount": "a", "address": "10.0.0.1", "ports": [{ "port": 70_000 }] })
    ));
    assert!(refuses("AuthorizationPolicy", json!({ "rules": [] })), "there is no action");
    assert!(!refuses("AuthorizationPolicy", json!({ "action": "DENY", "rules": null })), "it stays, and is told of");
    let unknown = json!({ "spec": { "mtls": { "inbuond": "STRICT" }, "accessLog": "all" } });
    assert_eq!(pruned(&schemas["MeshPolicy"], &unknown), json!({ "spec": { "mtls": {}, "accessLog": "all" } }));
}

#[test]
fn the_settings_of_sidecars_are_of_a_kind_with_a_field_for_each() {
    let definition = crd::injection_config();
    assert_eq!(setting::API_VERSION, SELVEDGE);
    assert_eq!(format!("{}/{}", setting::GROUP, setting::VERSION), SELVEDGE);
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(problems(schema), [""; 0]);
    let object =
        |spec: Value| json!({ "apiVersion": SELVEDGE, "kind": "InjectionConfig", "metadata": {}, "spec": spec });
    let set = SETTINGS.iter().map(|known| (known.key.to_owned(), Value::from(known.default.unwrap_or("a"))));
    let all: Value = set.collect();
    assert_eq!(refused(schema, &object(all.clone())), [""; 0]);
    assert_eq!(pruned(schema, &object(all.clone())), object(all));
}

#[test]
fn kubectl_shows_what_an_object_is_about_and_its_modes() {
    let definitions = crd::all();
    let definition = |kind: &str| {
        definitions.iter().find(|definition| definition["spec"]["names"]["kind"] == kind).expect("a definition").clone()
    };
    let columns = |kind: &str| -> Vec<String> {
        let definition = definition(kind);
        let columns = definition["spec"]["versions"][0]["additionalPrinterColumns"].as_array().unwrap().clone();
        columns.iter().map(|column| column["name"].as_str().unwrap().to_owned()).collect()
    };
    let shown = ["Target", "Access Log", "Ambiguous Paths", "Default Posture", "Inbound", "Outbound", "Age"];
    assert_eq!(columns("MeshPolicy"), shown);
    for (kind, column) in [("Workload", "Address"), ("Workload", "Service Account"), ("AuthorizationPolicy", "Action")]
    {
        assert!(columns(kind).iter().any(|known| known == column), "{kind} shows no {column}");
    }
    assert_eq!(definition("MeshPolicy")["spec"]["names"]["shortNames"], json!(["mp"]));
    assert!(definitions.iter().all(|definition| definition["spec"]["names"]["categories"] == json!(["selvedge"])));
}

/// What `kubectl get` knows of its own by these names.
const TAKEN: [&str; 31] = [
    "cm", "cs", "ep", "ev", "limits", "ns", "no", "pvc", "pv", "po", "rc", "quota", "sa", "svc", "crd", "crds", "ds",
    "deploy", "rs", "sts", "hpa", "cj", "csr", "ing", "netpol", "pdb", "pc", "sc", "gtw", "gc", "refgrant",
];

#[test]
fn short_names_are_nobody_elses() {
    let definitions = crd::all();
    let names = definitions.iter().filter_map(|definition| definition["spec"]["names"]["shortNames"][0].as_str());
    let mut names: Vec<&str> = names.collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(!names.iter().any(|name| TAKEN.contains(name)), "{names:?}");
}

#[test]
fn where_several_objects_set_fields_the_server_writes_none() {
    let schemas = schemas();
    let has_default = |kind: &str| schemas[kind]["properties"]["spec"].to_string().contains("\"default\":");
    assert!(!has_default("TrafficPolicy") && !has_default("MeshPolicy"), "it would win over what another object says");
    assert!(has_default("Workload") && has_default("AuthorizationPolicy"));
}

#[test]
fn the_text_says_what_the_objects_do() {
    let text = text::yaml(&crd::all()).unwrap();
    assert!(text.starts_with("---\napiVersion: apiextensions.k8s.io/v1\n"), "{}", &text[..80]);
    let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!(read, crd::all());
}
