//! The audit log: what was refused to whom and why, who got a certificate, and which objects changed, one line each.
//!
//! Guarantees:
//! - Sidecars and the control plane write the same lines: an [`Event`] is all that one can say.
//! - What anybody can cause as often as they like is written as often as [`Bounds`] allow, for each kind by itself, the first
//!   of a kind always while there is room for it; how many were left out the next line of the kind says.
//! - A [`Trail`] never waits for its disk or reader. What it cannot take is counted, and the next line says how much it was.

mod bounds;
mod event;
mod trail;

pub use bounds::Bounds;
pub use event::{Call, Event, Grant, Happening, Version, user};
pub use trail::Trail;
