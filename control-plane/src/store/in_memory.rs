//! The mesh that is in force, to be asked why a request ends as it does, with the place of everything that users wrote.

use std::sync::Arc;

use selvedge_decide::{
    mesh::{Locate, Mesh},
    trace::Place,
};
use selvedge_xds::{kinds::SELVEDGE, proto::mesh::Origin};

use super::{InForce, Store};
use crate::model::{self, ObjectId};

impl Store {
    /// The mesh of the last commit, in memory. What no sidecar could put in force is not in it.
    pub fn mesh(&self) -> Mesh {
        let mut mesh = Mesh::default().located_by(places(self.in_force.clone()));
        for resource in SELVEDGE.order().iter().flat_map(|kind| self.snapshot.resources(*kind)) {
            if let Err(why) = mesh.put(resource) {
                tracing::warn!(resource = resource.name, why, "no sidecar can put this in force");
            }
        }
        mesh
    }
}

/// Where the objects in force are written.
fn places(in_force: InForce) -> Locate {
    Arc::new(move |object: &Origin, field: &str| {
        let kind = model::kinds().find(|kind| kind.name == object.kind)?;
        let entry = in_force.get(&ObjectId::new(kind.name, &object.namespace, &object.name))?;
        let place = entry.provenance.place(field);
        Some(Place { file: place.file.into(), line: place.line })
    })
}
