//! What a sidecar has in force.

use std::{slice, sync::Arc};

use selvedge_xds::resource::{Encoded, TypeUrl};

/// Resources, one of each name and kind, in that order: names differ sooner than the long names of kinds. Each of thousands of sidecars has some twenty: too few for a tree,
/// whose nodes would be half empty.
#[derive(Debug, Default)]
pub(super) struct InForce(Vec<Arc<Encoded>>);

impl InForce {
    /// In place of an earlier version, if there is one.
    pub(super) fn put(&mut self, resource: Arc<Encoded>) {
        match self.place(resource.kind, &resource.name) {
            Ok(place) => self.0[place] = resource,
            Err(place) => self.0.insert(place, resource),
        }
    }

    /// Forgets a resource, if it is there.
    pub(super) fn remove(&mut self, kind: TypeUrl, name: &str) {
        if let Ok(place) = self.place(kind, name) {
            self.0.remove(place);
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> slice::Iter<'_, Arc<Encoded>> {
        self.0.iter()
    }

    fn place(&self, kind: TypeUrl, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|held| (held.name.as_str(), held.kind).cmp(&(name, kind)))
    }
}

#[cfg(test)]
mod tests {
    use selvedge_xds::{
        kinds::{DESTINATION, ENDPOINTS},
        proto::mesh::Destination,
    };

    use super::*;

    fn resource(kind: TypeUrl, name: &str, content: &str) -> Arc<Encoded> {
        let message = Destination { name: content.into(), ..Destination::default() };
        Arc::new(Encoded::new(kind, name, Vec::new(), &message))
    }

    #[test]
    fn there_is_one_version_of_each_name_and_kind() {
        let mut held = InForce::default();
        for (kind, name) in [(ENDPOINTS, "b"), (DESTINATION, "b"), (DESTINATION, "a"), (ENDPOINTS, "a")] {
            held.put(resource(kind, name, "old"));
        }
        let newest = resource(DESTINATION, "b", "new");
        held.put(Arc::clone(&newest));
        held.remove(ENDPOINTS, "a");
        held.remove(ENDPOINTS, "elsewhere");
        let names: Vec<_> = held.iter().map(|held| (&*held.name, held.kind)).collect();
        let mut expected = [("a", DESTINATION), ("b", DESTINATION), ("b", ENDPOINTS)];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert!(held.iter().any(|held| Arc::ptr_eq(held, &newest)), "the newest version is the one in force");
    }
}
