//! The control plane: turns what users wrote into what each sidecar must know.

pub mod clock;
pub mod identity;
