//! Modules stand data first: each uses only those listed above it.
//!
//! The mesh without sockets: what a sidecar decides, as pure functions of documents and facts. No runtime, no TLS, no
//! sockets, no clock; whoever carries a decision out hands time and chance in. The sidecar decides with this package, and
//! so can a command, a test or an admission check.
//!
//! - [`capabilities`] are what a sidecar of this release can enforce.
//! - [`resources`] are what the control plane has said; [`assemble`] takes them from the discovery protocol.
//! - [`config`] is what [`compile`] makes of them, and [`describe`] shows it to people.
//! - [`route`] finds the rules, the backend and the endpoints of a request, [`admission`] says who may call at all.
//! - [`mesh`] puts all of it together, and a [`trace`] says why a request ends as it does.

pub mod capabilities;
pub mod resources;

pub mod assemble;
pub mod config;

pub mod admission;
pub mod compile;
pub mod describe;
pub mod route;
pub mod trace;

pub mod mesh;
