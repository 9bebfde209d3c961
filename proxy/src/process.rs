//! Threads, signals and the end of the process.
//!
//! One control thread talks to the control plane, renews certificates, compiles configurations and answers the
//! admin and metrics ports. Workers, one thread each, carry traffic and share nothing that is written per request.

mod cluster;
pub(crate) mod control;
pub mod descriptors;
pub(crate) mod door;
mod error;
pub mod leave;
mod listeners;
pub(crate) mod manager;
mod replacement;
pub(crate) mod resolver;
pub(crate) mod services;
pub(crate) mod surroundings;
pub(crate) mod worker;
