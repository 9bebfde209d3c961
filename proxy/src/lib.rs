//! The sidecar.

pub mod clock;
pub mod detect;
pub mod identity;
pub mod telemetry;
pub mod tls;
