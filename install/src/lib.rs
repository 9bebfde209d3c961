//! Modules stand data first: each uses only those listed above it.
//!
//! What a cluster needs to have a mesh, as the objects that `kubectl apply` takes, and in which order it goes again.
//!
//! Guarantees: the same input gives the same objects in the same order; nothing that is made in a cluster is rendered here,
//! neither a key nor what it signs, and nothing that says how strict the mesh is.

mod object;
pub mod version;
pub mod images;

mod schema;
pub mod crd;
pub mod rights;
pub mod control_plane;
pub mod injection;
pub mod cni;

pub mod package;
pub mod removal;
pub mod text;

pub use object::NAMESPACE;
