//! The contract between control plane and sidecar.
//!
//! Messages ([`proto`]), resource names and types ([`resource`]), and the delta discovery protocol as two
//! state machines without I/O: [`server`] (one per stream) and [`client`] (one per sidecar). Sockets, timers and
//! retries belong to whoever drives them.

pub mod client;
pub mod proto;
pub mod resource;
pub mod server;
