//! The shapes of pods, from `shapes.yaml`, with what they leave out filled in.

use selvedge_inject::setting::{self, NAMESPACE};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A pod, where it is created, and what the administrator has set.
pub(crate) struct Shape {
    /// What is special about it.
    pub(crate) name: String,
    /// The pod as it is sent.
    pub(crate) pod: Value,
    /// Its namespace, an object.
    pub(crate) namespace: Value,
    /// The object with the settings.
    pub(crate) settings: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    shape: String,
    #[serde(default)]
    metadata: Map<String, Value>,
    #[serde(default)]
    spec: Map<String, Value>,
    #[serde(default = "enabled")]
    namespace: String,
    #[serde(default)]
    settings: Map<String, Value>,
}

fn enabled() -> String {
    "enabled".to_owned()
}

/// Roots of a mesh, with everything in them that text can trip over.
const BUNDLE: &str = "-----BEGIN CERTIFICATE-----\nMIIB+/==\n-----END CERTIFICATE-----\n";

/// Every shape.
pub(crate) fn shapes() -> Vec<Shape> {
    let written: Vec<Written> = serde_saphyr::from_str(include_str!("shapes.yaml")).unwrap();
    written.into_iter().enumerate().map(|(number, written)| whole(number, written)).collect()
}

fn whole(number: usize, written: Written) -> Shape {
    let mut metadata = written.metadata;
    if !metadata.contains_key("generateName") {
        metadata.entry("name").or_insert_with(|| format!("shape-{number}").into());
    }
    let mut spec = written.spec;
    // A controller of the cluster makes it and names it otherwise.
    spec.entry("serviceAccountName").or_insert("default".into());
    spec.entry("containers").or_insert_with(|| json!([{ "name": "web" }]));
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container.as_object_mut().unwrap().entry("image").or_insert_with(|| "registry.test/app:1".into());
        }
    }
    // Otherwise an API server adds a token of its own to what is compared.
    spec.entry("automountServiceAccountToken").or_insert(false.into());
    let mut set = json!({
        "image": "registry.test/selvedge-proxy@sha256:1111111111111111111111111111111111111111111111111111111111111111",
        "captureImage":
            "registry.test/selvedge-capture@sha256:2222222222222222222222222222222222222222222222222222222222222222",
        "trustBundle": BUNDLE,
    });
    for (key, value) in written.settings {
        if value.is_null() {
            set.as_object_mut().unwrap().remove(&key);
        } else {
            set[key] = value;
        }
    }
    Shape {
        name: written.shape,
        pod: json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }),
        namespace: namespace(&written.namespace),
        settings: json!({
            "apiVersion": setting::API_VERSION,
            "kind": setting::KIND,
            "metadata": { "name": setting::NAME, "namespace": NAMESPACE },
            "spec": set,
        }),
    }
}

/// A namespace by the value of its label, or by its own name where the mesh leaves it alone.
fn namespace(which: &str) -> Value {
    let is_system = ["kube-system", NAMESPACE].contains(&which);
    let name = if is_system { which.to_owned() } else { format!("shapes-{which}") };
    let mut labels = json!({ "kubernetes.io/metadata.name": name });
    if which != "unlabelled" {
        labels["selvedge.dev/inject"] = (if is_system { "enabled" } else { which }).into();
    }
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}
