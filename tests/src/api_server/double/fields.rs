//! Who says which field of an object, for server-side apply.
//!
//! Lists are one field each, except those whose entries the API knows by a key. Of the real server's rules that is enough
//! for objects of the mesh; it knows each list by its schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Lists of entries that have a key, and which it is.
const KEYED: [(&str, &str); 9] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("webhooks", "name"),
    ("matchConditions", "name"),
    ("volumeMounts", "mountPath"),
    ("conditions", "type"),
    ("hostIPs", "ip"),
];

/// One step from an object to what is in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    /// The entry of a list with this key of this value.
    Entry(&'static str, String),
}

type Path = Vec<Step>;

/// The fields of an object that each manager says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owners(BTreeMap<String, BTreeSet<Path>>);

impl Owners {
    /// What `object` is after `manager` says that it has the fields of `said`, and no longer what it said before.
    pub(super) fn apply(&mut self, manager: &str, object: &mut Value, said: &Value, force: bool) -> Result<(), String> {
        let fields = leaves(said);
        let key = |manager: &String, path: &Path| (manager.clone(), spelt(path));
        let others = self.0.iter().filter(|(other, _)| *other != manager);
        let differs = |path: &&Path| fields.contains(*path) && at(object, path) != at(said, path);
        let conflicts: Vec<(String, String)> =
            others.flat_map(|(other, paths)| paths.iter().filter(differs).map(|path| key(other, path))).collect();
        if let Some((other, path)) = conflicts.first().filter(|_| !force) {
            let count = conflicts.len();
            return Err(format!("Apply failed with {count} conflict: conflict with \"{other}\": {path}"));
        }
        let before = self.0.insert(manager.to_owned(), fields.clone()).unwrap_or_default();
        for gone in before.difference(&fields) {
            let said_by_others = self.0.iter().any(|(other, paths)| other != manager && paths.contains(gone));
            if !said_by_others {
                remove(object, gone);
            }
        }
        for path in &fields {
            if at(object, path) != at(said, path) {
                let others = self.0.iter_mut().filter(|(other, _)| *other != manager);
                others.for_each(|(_, paths)| {
                    paths.remove(path);
                });
                set(object, path, at(said, path).cloned().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Notes that `manager` made `after` of `before`.
    pub(super) fn update(&mut self, manager: &str, before: &Value, after: &Value) {
        let (old, new) = (leaves(before), leaves(after));
        let changed: Vec<&Path> = new.iter().filter(|path| at(before, path) != at(after, path)).collect();
        for paths in self.0.values_mut() {
            paths.retain(|path| !changed.contains(&path) && (new.contains(path) || !old.contains(path)));
        }
        self.0.entry(manager.to_owned()).or_default().extend(changed.into_iter().cloned());
        self.0.retain(|_, paths| !paths.is_empty());
    }

    /// As objects tell of them.
    pub(super) fn told(&self) -> Value {
        self.0.keys().map(|manager| json!({ "manager": manager, "fieldsV1": {} })).collect()
    }
}

fn key_of(list: &str) -> Option<&'static str> {
    KEYED.iter().find(|(keyed, _)| *keyed == list).map(|(_, key)| *key)
}

/// The paths of everything that has no more fields in it. What tells one object from another is nobody's.
fn leaves(object: &Value) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    collect(object, &mut Vec::new(), &mut found);
    let own = |path: &Path| match path.as_slice() {
        [Step::Field(first), ..] if ["apiVersion", "kind"].contains(&first.as_str()) => false,
        [Step::Field(first), Step::Field(second), ..] if first == "metadata" => {
            ["labels", "annotations", "ownerReferences", "finalizers"].contains(&second.as_str())
        }
        [Step::Field(first)] => first != "metadata",
        _ => true,
    };
    found.retain(own);
    found
}

fn collect(value: &Value, path: &mut Path, found: &mut BTreeSet<Path>) {
    let list = path.last().and_then(|step| if let Step::Field(name) = step { key_of(name) } else { None });
    match (value, list) {
        (Value::Object(fields), _) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(Step::Field(name.clone()));
                collect(value, path, found);
                path.pop();
            }
        }
        (Value::Array(entries), Some(key)) if !entries.is_empty() => {
            for entry in entries {
                path.push(Step::Entry(key, entry[key].as_str().unwrap_or_default().to_owned()));
                collect(entry, path, found);
                path.pop();
            }
        }
        _ => drop(found.insert(path.clone())),
    }
}

fn at<'a>(value: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Entry(key, wanted) => value.as_array()?.iter().find(|entry| entry[*key] == wanted.as_str()),
    })
}

fn set(object: &mut Value, path: &[Step], new: Value) {
    let mut value = object;
    for step in path {
        value = match step {
            Step::Field(name) => &mut value[name],
            Step::Entry(key, wanted) => {
                if !value.is_array() {
                    *value = json!([]);
                }
                let entries = value.as_array_mut().expect("it is a list now");
                let place = entries.iter().position(|entry| entry[*key] == wanted.as_str()).unwrap_or_else(|| {
                    entries.push(json!({ *key: wanted }));
                    entries.len() - 1
                });
                &mut entries[place]
            }
        };
    }
    *value = new;
}

fn remove(object: &mut Value, path: &[Step]) {
    let Some((last, parents)) = path.split_last() else { return };
    if let Some(parent) = at(object, parents).cloned() {
        let mut parent = parent;
        match last {
            Step::Field(name) => drop(parent.as_object_mut().and_then(|fields| fields.remove(name))),
            Step::Entry(key, wanted) => {
                if let Some(entries) = parent.as_array_mut() {
                    entries.retain(|entry| entry[*key] != wanted.as_str());
                }
            }
        }
        // An entry of which nothing but its key is left has nobody who says it.
        let is_empty = parent.as_object().is_some_and(serde_json::Map::is_empty);
        if is_empty && parents.len() > 1 { remove(object, parents) } else { set(object, parents, parent) }
    }
}

fn spelt(path: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Field(name) => format!(".{name}"),
        Step::Entry(key, value) => format!("[{key}=\"{value}\"]"),
    };
    path.iter().map(step).collect()
}
