//! What the server has, and what has happened to it.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use super::{asked::Asked, fields::Owners, rules};
use crate::api_server::kinds;

/// Path of the kind, namespace, name.
type Id = (String, String, String);

/// All objects, and the events that are remembered.
#[derive(Clone)]
pub(super) struct Objects {
    revision: u64,
    objects: BTreeMap<Id, Stored>,
    events: VecDeque<Event>,
    /// Nothing is remembered of what happened up to this revision.
    compacted: u64,
}

#[derive(Clone)]
struct Stored {
    object: Value,
    owners: Owners,
}

/// What happened to one object.
#[derive(Clone)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) collection: String,
    pub(super) what: &'static str,
    pub(super) object: Value,
}

/// Why nothing is done.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) code: u16,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(code: u16, message: &str) -> Self {
        Self { code, message: message.to_owned() }
    }
}

type Done = Result<Value, Refused>;

impl Objects {
    /// What a new cluster has.
    pub(super) fn new() -> Self {
        let mut objects = Self { revision: 0, objects: BTreeMap::new(), events: VecDeque::new(), compacted: 0 };
        objects.found();
        objects
    }

    fn found(&mut self) {
        for name in ["default", "kube-system"] {
            let asked = Asked { collection: "/api/v1/namespaces".to_owned(), ..Asked::default() };
            let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            self.create(&asked, namespace).expect("a namespace of every cluster");
        }
        let (collection, namespace) = ("/api/v1/services".to_owned(), "default".to_owned());
        let itself = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kubernetes", "namespace": "default" },
            "spec": { "type": "ClusterIP", "ports": [{ "name": "https", "port": 443, "targetPort": 6443, "protocol": "TCP" }] },
        });
        self.create(&Asked { collection, namespace, ..Asked::default() }, itself)
            .expect("the service of every cluster");
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, asked: &Asked) -> Done {
        self.stored(asked).map(|stored| stored.object.clone())
    }

    fn stored(&self, asked: &Asked) -> Result<&Stored, Refused> {
        let Asked { collection, namespace, name, .. } = asked;
        let id = (collection.clone(), namespace.clone(), name.clone());
        let (_, kind) = kind_at(collection);
        self.objects.get(&id).ok_or_else(|| Refused::new(404, &format!("{kind} \"{name}\" not found")))
    }

    pub(super) fn create(&mut self, asked: &Asked, mut object: Value) -> Done {
        if let Some(prefix) = object["metadata"]["generateName"].as_str().filter(|_| asked.name.is_empty()) {
            object["metadata"]["name"] = json!(format!("{prefix}{:05}", self.revision));
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let asked = Asked { name: name.clone(), ..asked.clone() };
        if self.stored(&asked).is_ok() {
            return Err(Refused::new(409, &format!("{} \"{name}\" already exists", object["kind"])));
        }
        if kinds::at(&asked.collection).is_some_and(|kind| kind.has_status) {
            object.as_object_mut().map(|fields| fields.remove("status"));
        }
        let mut owners = Owners::default();
        owners.update(asked.manager(), &Value::Null, &object);
        rules::complete(&mut object, self.revision + 1);
        self.write(&asked, Stored { object, owners })
    }

    pub(super) fn replace(&mut self, asked: &Asked, mut object: Value) -> Done {
        let before = self.stored(asked)?.clone();
        let version = &object["metadata"]["resourceVersion"];
        if !version.is_null() && *version != before.object["metadata"]["resourceVersion"] {
            let message = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(Refused::new(409, message));
        }
        keep_apart(asked, &before.object, &mut object);
        let mut owners = before.owners;
        owners.update(asked.manager(), &before.object, &object);
        self.write(asked, Stored { object, owners })
    }

    pub(super) fn merge(&mut self, asked: &Asked, patch: &Value) -> Done {
        let mut object = self.stored(asked)?.object.clone();
        merge(&mut object, patch);
        self.replace(asked, object)
    }

    /// Server-side apply. What is not there yet is created; a status of what is not there is not.
    pub(super) fn apply(&mut self, asked: &Asked, mut said: Value) -> Done {
        let before = match self.stored(asked) {
            Ok(stored) => stored.clone(),
            Err(refused) if !asked.part.is_empty() => return Err(refused),
            Err(_) => {
                let mut object = json!({});
                for field in ["apiVersion", "kind"] {
                    object[field] = said[field].clone();
                }
                object["metadata"]["name"] = json!(asked.name);
                if !asked.namespace.is_empty() {
                    object["metadata"]["namespace"] = json!(asked.namespace);
                }
                Stored { object, owners: Owners::default() }
            }
        };
        let is_new = before.object["metadata"]["uid"].is_null();
        keep_apart(asked, &json!({}), &mut said);
        let Stored { mut object, mut owners } = before.clone();
        // Of one manager, what it says of the status is apart from the rest.
        let manager = format!("{}{}", asked.manager(), if asked.part.is_empty() { "" } else { " (status)" });
        let applied = owners.apply(&manager, &mut object, &said, asked.value("force") == "true");
        applied.map_err(|conflict| Refused::new(409, &conflict))?;
        if is_new {
            rules::complete(&mut object, self.revision + 1);
        } else {
            keep_apart(asked, &before.object, &mut object);
        }
        self.write(asked, Stored { object, owners })
    }

    /// Deletes an object. A pod that a node has seen ends first.
    pub(super) fn delete(&mut self, asked: &Asked, at_once: bool) -> Done {
        let mut stored = self.stored(asked)?.clone();
        let is_on_node = stored.object["kind"] == "Pod" && stored.object["spec"]["nodeName"].is_string();
        if is_on_node && !at_once {
            stored.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            return self.write(asked, stored);
        }
        self.revision += 1;
        self.happened(asked, "DELETED", &mut stored.object);
        let Asked { collection, namespace, name, .. } = asked;
        self.objects.remove(&(collection.clone(), namespace.clone(), name.clone()));
        Ok(json!({ "apiVersion": "v1", "kind": "Status", "status": "Success" }))
    }

    /// Keeps what was made of an object; nothing happens when that is what it was.
    fn write(&mut self, asked: &Asked, mut new: Stored) -> Done {
        self.permit(asked, &new.object)?;
        let stored = self.stored(asked).ok().cloned();
        let said_by_the_same = stored.as_ref().is_some_and(|stored| stored.owners == new.owners);
        let before = stored.map(|stored| stored.object);
        let old = |field: &str| before.as_ref().and_then(|before| before["metadata"].get(field)).cloned();
        let kept = ["uid", "creationTimestamp", "generation", "resourceVersion", "managedFields"];
        if let Some(before) = &before {
            rules::keep(before, &new.object)?;
            for field in kept {
                new.object["metadata"][field] = before["metadata"][field].clone();
            }
            if *before == new.object && said_by_the_same {
                return Ok(new.object);
            }
        }
        if asked.value("dryRun") == "All" {
            return Ok(new.object);
        }
        self.revision += 1;
        let is_changed = before.as_ref().is_none_or(|before| before.get("spec") != new.object.get("spec"));
        let generation = old("generation").and_then(|count| count.as_u64()).unwrap_or(0) + u64::from(is_changed);
        let created = || json!(format!("2026-01-01T00:00:{:02}Z", self.revision % 60));
        let metadata = &mut new.object["metadata"];
        metadata["uid"] = old("uid").unwrap_or_else(|| json!(format!("uid-{}", self.revision)));
        metadata["creationTimestamp"] = old("creationTimestamp").unwrap_or_else(created);
        metadata["generation"] = json!(generation);
        metadata["managedFields"] = new.owners.told();
        self.happened(asked, if before.is_none() { "ADDED" } else { "MODIFIED" }, &mut new.object);
        let written = new.object.clone();
        let Asked { collection, namespace, name, .. } = asked;
        self.objects.insert((collection.clone(), namespace.clone(), name.clone()), new);
        Ok(written)
    }

    fn permit(&self, asked: &Asked, object: &Value) -> Result<(), Refused> {
        let Asked { namespace, name, .. } = asked;
        let namespaces = "/api/v1/namespaces".to_owned();
        if !namespace.is_empty() && !self.objects.contains_key(&(namespaces, String::new(), namespace.clone())) {
            return Err(Refused::new(404, &format!("namespaces \"{namespace}\" not found")));
        }
        let says = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        if name.is_empty() || says("name") != name {
            return Err(Refused::new(400, "the name of the object does not match the name on the URL"));
        }
        if !says("namespace").is_empty() && says("namespace") != namespace {
            return Err(Refused::new(400, "the namespace of the object does not match the namespace on the request"));
        }
        rules::check(object)
    }

    fn happened(&mut self, asked: &Asked, what: &'static str, object: &mut Value) {
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if !asked.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(asked.namespace);
        }
        let collection = asked.collection.clone();
        self.events.push_back(Event { revision: self.revision, collection, what, object: object.clone() });
    }

    pub(super) fn lose_everything(&mut self) {
        self.objects.clear();
        self.found();
        self.compact();
    }

    /// The same after a restart over these data. What happened before it nobody remembers.
    pub(super) fn restored(mut self) -> Self {
        self.compact();
        self
    }

    pub(super) fn compact(&mut self) {
        self.events.clear();
        self.compacted = self.revision;
    }

    /// The objects asked for, at most `limit` of them after the one called `after`, and the name of the last one when
    /// there are more. Items do not say what they are, as those of the real server's own kinds do not.
    pub(super) fn list(&self, asked: &Asked, limit: usize, after: &str) -> (Vec<Value>, Option<String>) {
        let called = |id: &Id| format!("{}/{}", id.1, id.2);
        let of_path =
            self.objects.iter().filter(|((of, ..), stored)| *of == asked.collection && asked.wants(&stored.object));
        let mut rest = of_path.filter(|(id, _)| after.is_empty() || called(id).as_str() > after).peekable();
        let mut items = Vec::new();
        let mut last = String::new();
        while let Some((id, stored)) = rest.next_if(|_| items.len() < limit) {
            last = called(id);
            items.push(bare(&stored.object, asked));
        }
        (items, rest.peek().is_some().then_some(last))
    }

    /// What happened in `collection` after `revision`; `None` when that is not remembered.
    pub(super) fn since(&self, collection: &str, revision: u64) -> Option<Vec<Event>> {
        let after = self.events.iter().filter(|event| event.revision > revision && event.collection == collection);
        (revision >= self.compacted).then(|| after.cloned().collect())
    }
}

/// Leaves to `object` only the part of it that is written: its status, or all but its status. The rest is as before.
fn keep_apart(asked: &Asked, before: &Value, object: &mut Value) {
    let has_status = kinds::at(&asked.collection).is_some_and(|kind| kind.has_status);
    if asked.part == "status" {
        let status = object["status"].take();
        let (api_version, kind) = (object["apiVersion"].take(), object["kind"].take());
        *object = before.clone();
        for (field, value) in [("apiVersion", api_version), ("kind", kind), ("status", status)] {
            object[field] = value;
        }
    } else if has_status && let Some(fields) = object.as_object_mut() {
        fields.remove("status");
        fields.extend(before.get("status").map(|status| ("status".to_owned(), status.clone())));
    }
}

/// RFC 7396.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else { return *object = patch.clone() };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().map(|fields| fields.remove(name));
        } else {
            merge(&mut object[name], value);
        }
    }
}

/// Items of Kubernetes' own kinds do not say in lists what they are; those of other kinds do.
fn bare(object: &Value, asked: &Asked) -> Value {
    let mut bare = object.clone();
    let is_custom = kinds::at(&asked.collection).is_some_and(kinds::Kind::is_custom);
    if let Some(fields) = bare.as_object_mut().filter(|_| !is_custom) {
        fields.retain(|field, _| field != "kind" && field != "apiVersion");
    }
    bare
}

/// What the API and kind of what is listed at `path` are.
pub(super) fn kind_at(path: &str) -> (&'static str, &'static str) {
    kinds::at(path).map_or(("v1", "Any"), |kind| (kind.api_version, kind.name))
}
