//! What the server has, and what has happened to it.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value, json};

/// Where objects of a kind are listed, and its API.
const KINDS: [(&str, &str, &str); 8] = [
    ("Pod", "v1", "/api/v1/pods"),
    ("Node", "v1", "/api/v1/nodes"),
    ("Namespace", "v1", "/api/v1/namespaces"),
    ("Service", "v1", "/api/v1/services"),
    ("EndpointSlice", "discovery.k8s.io/v1", "/apis/discovery.k8s.io/v1/endpointslices"),
    ("HTTPRoute", "gateway.networking.k8s.io/v1", "/apis/gateway.networking.k8s.io/v1/httproutes"),
    ("ReferenceGrant", "gateway.networking.k8s.io/v1", "/apis/gateway.networking.k8s.io/v1/referencegrants"),
    ("MeshPolicy", "selvedge.dev/v1alpha1", "/apis/selvedge.dev/v1alpha1/meshpolicies"),
];

/// Path of the kind, namespace, name.
type Id = (String, String, String);

/// All objects, and the events that are remembered.
#[derive(Default)]
pub(super) struct Objects {
    revision: u64,
    objects: BTreeMap<Id, Value>,
    events: VecDeque<Event>,
    /// Nothing is remembered of what happened up to this revision.
    compacted: u64,
}

/// What happened to one object.
#[derive(Clone)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) path: String,
    pub(super) what: &'static str,
    pub(super) object: Value,
}

impl Objects {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn put(&mut self, mut object: Value) -> Result<(), String> {
        refuse(&object)?;
        let id = id(&object)?;
        self.revision += 1;
        let before = self.objects.get(&id);
        let old = |field: &str| before.and_then(|before| before["metadata"].get(field)).cloned();
        let is_changed = before.is_none_or(|before| before.get("spec") != object.get("spec"));
        let generation = old("generation").and_then(|count| count.as_u64()).unwrap_or(0) + u64::from(is_changed);
        let created = || json!(format!("2026-01-01T00:00:{:02}Z", self.revision % 60));
        let metadata = object["metadata"].as_object_mut().ok_or("metadata is missing")?;
        metadata.insert("uid".to_owned(), old("uid").unwrap_or_else(|| json!(format!("uid-{}", self.revision))));
        metadata.insert("creationTimestamp".to_owned(), old("creationTimestamp").unwrap_or_else(created));
        metadata.insert("generation".to_owned(), json!(generation));
        metadata.insert("managedFields".to_owned(), json!([{ "manager": "double", "fieldsV1": {} }]));
        let what = if before.is_none() { "ADDED" } else { "MODIFIED" };
        self.happened(id, what, object, true);
        Ok(())
    }

    pub(super) fn delete(&mut self, kind: &str, namespace: &str, name: &str) -> bool {
        let id = (path_of(kind), namespace.to_owned(), name.to_owned());
        let Some(object) = self.objects.get(&id).cloned() else { return false };
        self.revision += 1;
        self.happened(id, "DELETED", object, false);
        true
    }

    fn happened(&mut self, id: Id, what: &'static str, mut object: Value, stays: bool) {
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.events.push_back(Event { revision: self.revision, path: id.0.clone(), what, object: object.clone() });
        if stays {
            self.objects.insert(id, object)
        } else {
            self.objects.remove(&id)
        };
    }

    pub(super) fn lose_everything(&mut self) {
        self.objects.clear();
        self.revision += 1;
        self.compact();
    }

    pub(super) fn tick(&mut self) {
        self.revision += 1;
    }

    pub(super) fn compact(&mut self) {
        self.events.clear();
        self.compacted = self.revision;
    }

    /// The objects at `path`, at most `limit` of them after the one called `after`, and the name of the last one when
    /// there are more. Items do not say what they are, as those of the real server's own kinds do not.
    pub(super) fn list(&self, path: &str, limit: usize, after: &str) -> (Vec<Value>, Option<String>) {
        let of_path = self.objects.iter().filter(|((of, ..), _)| of == path);
        let called = |id: &Id| format!("{}/{}", id.1, id.2);
        let mut rest = of_path.filter(|(id, _)| after.is_empty() || called(id).as_str() > after).peekable();
        let mut items = Vec::new();
        let mut last = String::new();
        while let Some((id, object)) = rest.next_if(|_| items.len() < limit) {
            last = called(id);
            items.push(bare(object));
        }
        (items, rest.peek().is_some().then_some(last))
    }

    /// What happened at `path` after `revision`; `None` when that is not remembered.
    pub(super) fn since(&self, path: &str, revision: u64) -> Option<Vec<Event>> {
        let after = self.events.iter().filter(|event| event.revision > revision && event.path == path);
        (revision >= self.compacted).then(|| after.cloned().collect())
    }
}

fn bare(object: &Value) -> Value {
    let mut bare = object.clone();
    if let Some(fields) = bare.as_object_mut() {
        fields.retain(|field, _| field != "kind" && field != "apiVersion");
    }
    bare
}

/// Where objects of `kind` are listed.
fn path_of(kind: &str) -> String {
    let known = KINDS.iter().find(|(known, ..)| *known == kind).map(|(.., path)| (*path).to_owned());
    let plural = |kind: &str| match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    };
    known.unwrap_or_else(|| format!("/apis/selvedge.dev/v1alpha1/{}", plural(&kind.to_lowercase())))
}

/// What the API and kind of what is listed at `path` are.
pub(super) fn kind_at(path: &str) -> (String, String) {
    let known = KINDS.iter().find(|(.., known)| *known == path);
    known.map_or(("selvedge.dev/v1alpha1".to_owned(), "Any".to_owned()), |(kind, api, _)| {
        ((*api).to_owned(), (*kind).to_owned())
    })
}

fn id(object: &Value) -> Result<Id, String> {
    let text = |at: &Value, field: &str| at.get(field).and_then(Value::as_str).map(str::to_owned);
    let kind = text(object, "kind").ok_or("kind is missing")?;
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    let name = text(metadata, "name").ok_or("metadata.name is missing")?;
    Ok((path_of(&kind), text(metadata, "namespace").unwrap_or_default(), name))
}

/// What the real server refuses, as far as tests come near it.
fn refuse(object: &Value) -> Result<(), String> {
    let no_fields = Map::new();
    let fields = object.as_object().unwrap_or(&no_fields);
    if fields.get("kind").and_then(Value::as_str) != Some("EndpointSlice") {
        return Ok(());
    }
    let endpoints = fields.get("endpoints").and_then(Value::as_array).into_iter().flatten();
    let addresses = endpoints.filter_map(|endpoint| endpoint["addresses"].as_array()).flatten();
    for address in addresses.filter_map(Value::as_str) {
        let ip: std::net::IpAddr = address.parse().map_err(|_| format!("{address} is no IP address"))?;
        if ip.is_loopback() {
            return Err(format!("endpoints: Invalid value: \"{address}\": may not be in the loopback range"));
        }
    }
    Ok(())
}
