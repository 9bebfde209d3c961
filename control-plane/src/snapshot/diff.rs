//! What changed between two snapshots, found by comparing pointers.

use std::{collections::BTreeSet, sync::Arc};

use selvedge_xds::resource::{Encoded, TypeUrl};

use super::{Snapshot, Table};

/// One resource that differs between two snapshots.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Kind of the resource.
    pub kind: TypeUrl,
    /// The canonical name of the resource within its kind.
    pub name: Arc<str>,
    /// The resource as it is now; `None` when it was removed.
    pub now: Option<Arc<Encoded>>,
}

impl Snapshot {
    /// Every resource that was added, replaced or removed since `earlier`, by kind and name. In what order that is to be
    /// pushed is for the streams to know.
    pub fn changed_since(&self, earlier: &Snapshot) -> Vec<Change> {
        let kinds: BTreeSet<TypeUrl> = self.tables.keys().chain(earlier.tables.keys()).copied().collect();
        let mut changes = Vec::new();
        let nothing = Arc::default();
        for kind in kinds {
            let [now, before] = [self, earlier].map(|snapshot| snapshot.tables.get(&kind).unwrap_or(&nothing));
            if !Arc::ptr_eq(now, before) {
                differences(kind, now, before, &mut changes);
            }
        }
        changes
    }

    /// The workloads that run as another identity than in `earlier`, as which they may not have been there.
    pub fn reassigned_since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = &'a Arc<str>> {
        let (put, gone) = self.identities.since(&earlier.identities);
        put.into_iter().map(|(workload, _)| workload).chain(gone)
    }
}

fn differences(kind: TypeUrl, now: &Table, before: &Table, changes: &mut Vec<Change>) {
    let start = changes.len();
    let (put, gone) = now.resources.since(&before.resources);
    for (name, resource) in put {
        if before.resources.get(name).is_none_or(|known| known.version != resource.version) {
            changes.push(Change { kind, name: name.clone(), now: Some(resource.clone()) });
        }
    }
    changes.extend(gone.into_iter().map(|name| Change { kind, name: name.clone(), now: None }));
    changes[start..].sort_by(|a, b| a.name.cmp(&b.name));
}

#[cfg(test)]
mod tests {
    use selvedge_xds::{
        kinds::{ENDPOINTS, TRUST_BUNDLE},
        proto::mesh::Endpoints,
    };

    use super::*;
    use crate::snapshot::Draft;

    fn endpoints(name: &str, address: &str) -> Encoded {
        let endpoint = selvedge_xds::proto::mesh::Endpoint { address: address.into(), ..Default::default() };
        Encoded::new(ENDPOINTS, name, vec![], &Endpoints { endpoints: vec![endpoint], ..Default::default() })
    }

    #[test]
    fn puts_and_removals_of_every_kind_are_found() {
        let mut draft = Draft::after(&Snapshot::default());
        draft.put(endpoints("a/x:1", "10.0.0.1:1"), false);
        draft.put(endpoints("a/y:1", "10.0.0.1:1"), false);
        let one = draft.finish().unwrap();
        let mut draft = Draft::after(&one);
        draft.remove(ENDPOINTS, "a/x:1");
        draft.put(endpoints("a/y:1", "10.0.0.2:1"), false);
        draft.put(Encoded::new(TRUST_BUNDLE, "mesh.local", vec![], &Endpoints::default()), false);
        let two = draft.finish().unwrap();
        let names: Vec<_> = two.changed_since(&one).iter().map(|c| (c.name.to_string(), c.now.is_some())).collect();
        let expected = [("a/x:1", false), ("a/y:1", true), ("mesh.local", true)];
        assert_eq!(names, expected.map(|(name, put)| (name.to_owned(), put)));
    }
}
