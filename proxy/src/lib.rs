//! The sidecar.

pub mod clock;
pub mod detect;
pub mod http;
pub mod identity;
pub mod process;
pub mod telemetry;
pub mod tls;
