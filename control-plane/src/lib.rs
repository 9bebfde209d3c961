//! The brain of the mesh: reads what users wrote, and tells every sidecar what concerns it.
//!
//! The modules are listed in the order in which a change flows through them; `docs/life-of-a-config.md` follows
//! one change along the same headings. Nothing here sees a request of the mesh's users, and with all of it gone
//! the sidecars go on with what they know.

pub mod source;

pub mod diagnostic;
pub mod validate;

pub mod model;
pub mod store;

pub mod compile;
pub mod snapshot;

mod grpc;
pub mod identity;
mod serve;
pub mod status;
pub mod telemetry;

mod admin;
pub mod clock;
mod error;
mod guarded;
pub mod run;
pub mod settings;
mod stop;

pub use error::Error;
