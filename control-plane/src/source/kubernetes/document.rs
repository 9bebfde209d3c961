//! Objects that are handed on as they are: what users write, and where the calls of a service go.

use std::sync::Arc;

use selvedge_policies::kind::Problem;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::pruned::{Api, Key, Pruned, Version};
use crate::{
    model::workload,
    source::{ClusterObject, Provenance, Reading},
};

/// Fields of `metadata` that mean nothing here, and may be longer than everything else.
const UNUSED: [&str; 5] = ["managedFields", "annotations", "ownerReferences", "finalizers", "selfLink"];

/// An object without what only the cluster needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Map<String, Value>")]
pub(super) struct Document {
    fields: Map<String, Value>,
    /// Who wrote it last.
    manager: Arc<str>,
}

impl From<Map<String, Value>> for Document {
    fn from(mut document: Map<String, Value>) -> Self {
        document.remove("status");
        let manager = manager(&document);
        if let Some(metadata) = document.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !UNUSED.contains(&field.as_str()));
        }
        Self { fields: document, manager }
    }
}

/// The newest of those who have written it, as the API server names them by themselves (`metadata.managedFields`).
fn manager(document: &Map<String, Value>) -> Arc<str> {
    let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let entries = document.get("metadata").and_then(|metadata| metadata.get("managedFields")).and_then(Value::as_array);
    let written = entries.into_iter().flatten().filter(|entry| text(entry, "subresource").is_empty());
    let newest = written.max_by_key(|entry| text(entry, "time"));
    newest.map(|entry| text(entry, "manager")).unwrap_or_default().into()
}

impl Document {
    fn metadata(&self, field: &str) -> &str {
        self.fields.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str).unwrap_or_default()
    }

    /// Which workloads are pods the cluster says, and nobody who writes a `Workload`: whoever did is told.
    fn disown(&mut self) -> Vec<Problem> {
        let Some(spec) = self.fields.get_mut("spec") else { return Vec::new() };
        let said = workload::said_of_pods(spec);
        spec.as_object_mut().map(workload::disown);
        said
    }

    fn generation(&self) -> u64 {
        let generation = self.fields.get("metadata").and_then(|metadata| metadata.get("generation"));
        generation.and_then(Value::as_u64).unwrap_or_default()
    }
}

impl Pruned for Document {
    fn key(&self) -> Key {
        Key::new(self.metadata("namespace"), self.metadata("name"))
    }

    fn version(&self) -> Version {
        Version::new(self.metadata("resourceVersion").to_owned())
    }

    fn reading(mut self, api: &Api) -> Reading {
        let of = ClusterObject {
            name: self.key().of(api.kind),
            uid: self.metadata("uid").into(),
            resource_version: self.metadata("resourceVersion").into(),
            manager: Arc::clone(&self.manager),
            generation: self.generation(),
        };
        let said = if api.kind == workload::KIND.name { self.disown() } else { Vec::new() };
        // Items of a list do not say what they are.
        for (field, value) in [("apiVersion", api.api_version), ("kind", api.kind)] {
            self.fields.entry(field).or_insert_with(|| value.into());
        }
        Reading::of_cluster(&Value::Object(self.fields), of.clone()).warned(&Provenance::Cluster(of), said)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_wrote_an_object_last_is_known_by_the_name_it_gave_itself() {
        let entry = |manager: &str, time: &str| json!({ "manager": manager, "operation": "Update", "time": time });
        let mut of_status = entry("controller", "2026-12-01T12:00:00Z");
        of_status["subresource"] = "status".into();
        let entries =
            json!([entry("argocd", "2026-12-01T09:00:00Z"), entry("kubectl-edit", "2026-12-01T10:00:00Z"), of_status]);
        let of = |entries: Value| {
            let written = json!({ "metadata": { "name": "web", "namespace": "shop", "managedFields": entries } });
            let Document { fields, manager } = serde_json::from_value(written).unwrap();
            assert_eq!(fields["metadata"].get("managedFields"), None, "it is not kept");
            manager
        };
        assert_eq!((&*of(entries), &*of(json!([])), &*of(Value::Null)), ("kubectl-edit", "", ""));
    }

    #[test]
    fn nobody_who_writes_a_workload_makes_it_a_pod_and_who_tries_is_told() {
        let spec = json!({ "serviceAccount": "web", "address": "10.0.0.1", "pod": true, "hostNetwork": false });
        let written = json!({ "metadata": { "name": "web", "namespace": "shop" }, "spec": spec });
        let document: Document = serde_json::from_value(written).unwrap();
        let api = Api { kind: "Workload", api_version: "selvedge.dev/v1alpha1", path: String::new() };
        let reading = document.reading(&api);
        let [finding] = &*reading.findings else { panic!("one finding: {:?}", reading.findings) };
        assert_eq!((&*finding.object, &*finding.field), ("Workload shop/web", "spec.pod"));
        assert!(finding.to_string().contains("only a cluster says this"), "{finding}");
        let [candidate] = &*reading.objects else { panic!("one object: {reading:?}") };
        assert!(!candidate.document.contains("pod"), "{}", candidate.document);
    }
}
