//! The sidecar.

pub mod identity;
pub mod tls;
