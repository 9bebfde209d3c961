//! What changed between two snapshots, found by comparing pointers.

use std::sync::Arc;

use selvedge_xds::resource::{Encoded, Kind};

use super::Snapshot;

/// One resource that differs between two snapshots.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Kind of the resource.
    pub kind: Kind,
    /// Canonical name.
    pub name: Arc<str>,
    /// The resource as it is now; `None` when it was removed.
    pub now: Option<Arc<Encoded>>,
}

impl Snapshot {
    /// Every resource that was added, replaced or removed since `earlier`, in the order it must be pushed: what
    /// is referred to before what refers to it, and removals last, the other way round (make before break).
    pub fn changed_since(&self, earlier: &Snapshot) -> Vec<Change> {
        let mut changes = Vec::new();
        for kind in Kind::ALL {
            if !Arc::ptr_eq(self.table(kind), earlier.table(kind)) {
                self.put_since(earlier, kind, &mut changes);
            }
        }
        for kind in Kind::ALL.into_iter().rev() {
            if !Arc::ptr_eq(self.table(kind), earlier.table(kind)) {
                self.removed_since(earlier, kind, &mut changes);
            }
        }
        changes
    }

    fn put_since(&self, earlier: &Snapshot, kind: Kind, changes: &mut Vec<Change>) {
        let start = changes.len();
        for (name, resource) in self.table(kind).iter() {
            let before = earlier.table(kind).get(name);
            if !before.is_some_and(|before| Arc::ptr_eq(before, resource) || before.version == resource.version) {
                changes.push(Change { kind, name: name.clone(), now: Some(resource.clone()) });
            }
        }
        changes[start..].sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn removed_since(&self, earlier: &Snapshot, kind: Kind, changes: &mut Vec<Change>) {
        let start = changes.len();
        let gone = earlier.table(kind).keys().filter(|name| !self.table(kind).contains_key(*name));
        changes.extend(gone.map(|name| Change { kind, name: name.clone(), now: None }));
        changes[start..].sort_by(|a, b| a.name.cmp(&b.name));
    }
}

#[cfg(test)]
mod tests {
    use selvedge_xds::proto::mesh::Endpoints;

    use super::*;
    use crate::snapshot::Draft;

    fn endpoints(name: &str, address: &str) -> Encoded {
        let endpoint = selvedge_xds::proto::mesh::Endpoint { address: address.into(), ..Default::default() };
        Encoded::new(Kind::Endpoints, name, vec![], &Endpoints { endpoints: vec![endpoint] })
    }

    #[test]
    fn puts_come_in_push_order_and_removals_last() {
        let mut draft = Draft::after(&Snapshot::default());
        draft.put(endpoints("a/x:1", "10.0.0.1:1"), false);
        draft.put(endpoints("a/y:1", "10.0.0.1:1"), false);
        let one = draft.finish().unwrap();
        let mut draft = Draft::after(&one);
        draft.remove(Kind::Endpoints, "a/x:1");
        draft.put(endpoints("a/y:1", "10.0.0.2:1"), false);
        draft.put(Encoded::new(Kind::TrustBundle, "mesh.local", vec![], &Endpoints::default()), false);
        let two = draft.finish().unwrap();
        let names: Vec<_> = two.changed_since(&one).iter().map(|c| (c.name.to_string(), c.now.is_some())).collect();
        let expected = [("mesh.local", true), ("a/y:1", true), ("a/x:1", false)];
        assert_eq!(names, expected.map(|(name, put)| (name.to_owned(), put)));
    }
}
