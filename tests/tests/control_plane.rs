//! The control plane's port and the sidecar's client of it, over real sockets with a real authority.

#[path = "control_plane/anonymous.rs"]
mod anonymous;
#[path = "control_plane/channel.rs"]
mod channel;
#[path = "control_plane/discovery.rs"]
mod discovery;
#[path = "control_plane/joining.rs"]
mod joining;
#[path = "control_plane/kit.rs"]
mod kit;
#[path = "control_plane/limits.rs"]
mod limits;
#[path = "control_plane/reports.rs"]
mod reports;
#[path = "control_plane/skew.rs"]
mod skew;
