//! HTTP on both sides of the sidecar.

pub mod guard;
