//! The control plane: turns what users wrote into what each sidecar must know.

pub mod clock;
mod error;
pub mod identity;
pub mod settings;
pub mod status;
pub mod telemetry;

pub use error::Error;
