//! What the control plane says: one task keeps a discovery stream open and publishes [`Resources`].
//!
//! Guarantees:
//! - The workload's own view and the trust bundle are always asked for; destinations on demand, each with the
//!   endpoints of its ports and of the backends its routes name. A destination shows up together with its endpoints.
//! - What was good stays published while the control plane is away, and is on disk for the next start.
//! - A resource the check refuses is never published; its last good version stays.
//! - Nothing here waits for anything: a request decides for itself how long it waits for a destination.

mod cache;
mod callers;
mod stream;

use std::{path::PathBuf, sync::Arc, time::Duration};

use selvedge_decide::resources::Resources;
use selvedge_xds::{client::Check, plaintext::Seen, ports::Port};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::credentials::Credentials;

/// How long a destination that nobody uses stays subscribed to.
pub const IDLE: Duration = Duration::from_secs(600);

/// What workers ask of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// A destination, by name or alias, for as long as it is used.
    Want(String),
    /// A destination, by name or alias, for as long as the sidecar runs.
    Pin(String),
    /// These destinations, by any name they were asked by, were used lately.
    Used(Vec<String>),
    /// These called the workload in plaintext lately, and were let in.
    Plaintext(Seen),
    /// Whether policies are enforced at the declared ports, all of them.
    Ports(Vec<Port>),
}

/// Settings of the task.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the control plane.
    pub control_plane: String,
    /// `namespace/name` of the workload.
    pub workload: String,
    /// Directory of the last good resources.
    pub state_dir: PathBuf,
    /// How long a destination that nobody uses stays subscribed to; [`IDLE`].
    pub idle: Duration,
}

/// The running task. It ends when both ends of its channels are gone.
#[derive(Debug)]
pub struct Handle {
    /// The newest resources. The first are those of the disk.
    pub resources: watch::Receiver<Arc<Resources>>,
    /// Takes what workers want of the control plane.
    pub demand: mpsc::UnboundedSender<Demand>,
    /// Ends with the task.
    pub task: JoinHandle<()>,
}

/// Starts the task. `check` says whether a resource can be put in force.
pub fn spawn(settings: Settings, credentials: watch::Receiver<Option<Arc<Credentials>>>, check: Check) -> Handle {
    let (demand, demands) = mpsc::unbounded_channel();
    let (task, resources) = stream::Task::new(settings, credentials, demands, check);
    Handle { resources, demand, task: tokio::spawn(task.run()) }
}
