//! Modules stand data first: each uses only those listed above it.
//!
//! The brain of the mesh: reads what users wrote, and tells every sidecar what concerns it.
//!
//! A change flows from top to bottom, and `docs/life-of-a-config.md` follows one. Nothing here sees a request of the
//! mesh's users, and with all of it gone the sidecars go on with what they know.

pub mod clock;
mod stop;
mod guarded;
mod shared;
mod crowd;
mod fair_queue;
mod few;
mod own_process;
mod audit;

pub mod diagnostic;
pub mod model;
pub mod validate;
pub mod source;
pub mod removal;

pub mod snapshot;
pub mod compile;
pub mod skew;

mod grpc;
pub mod identity;
mod error;
pub mod store;

pub mod telemetry;
pub mod settings;
pub mod status;
mod serve;
mod admin;
mod join_socket;
mod webhook;
mod pod_events;
pub mod run;

pub use error::Error;
