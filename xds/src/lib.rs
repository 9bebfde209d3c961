//! Modules stand data first: each uses only those listed above it.
//!
//! The contract between control plane and sidecar.
//!
//! The delta discovery protocol stands here as two state machines without I/O, [`server`] (one per stream) and
//! [`client`] (one per sidecar). Both know names, versions and bytes ([`resource`]) and nothing of what they mean: which
//! kinds there are, and in what order they have to arrive, is a set they are given, and [`kinds`] is ours. Sockets,
//! timers and retries belong to whoever drives them, gRPC to whoever serves and dials; messages ([`proto`]) are all that
//! is needed here, so a program that only wants to know what the mesh would do links no network.

pub mod alpn;
pub mod proto;

pub mod capability;
pub mod plaintext;
pub mod ports;
pub mod resource;

pub mod kinds;
pub mod server;
pub mod client;
