//! Modules stand data first: each uses only those listed above it.
//!
//! Images of the programs as OCI archives (OCI image layout 1.1), made without a container engine.
//!
//! Guarantees: the same programs give the same bytes; an image has its program, the libraries that the program is linked
//! to, and nothing else, no shell above all.

pub mod program;
pub mod layer;
pub mod image;
