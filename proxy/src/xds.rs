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

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use selvedge_decide::resources::Resources;
use selvedge_xds::{client::Check, plaintext::Seen, ports::Port};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{credentials::Credentials, tenure::Tenure};

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
    /// These hosts have these addresses, by look-ups of the sidecar's own.
    LookedUp(Arc<BTreeMap<String, BTreeSet<IpAddr>>>),
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
    /// Whether this process stores them.
    pub tenure: Tenure,
}

/// Counts what was heard of the control plane: each stream that it took, and each response. Whoever waited in vain while it
/// stood still has reason not to wait again until it moves.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<AtomicU64>);

impl Heard {
    /// Counts that a stream was taken or a response came.
    pub(crate) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often something was heard so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The running task. It ends when both ends of its channels are gone.
#[derive(Debug)]
pub struct Handle {
    /// The newest resources. The first are those of the disk.
    pub resources: watch::Receiver<Arc<Resources>>,
    /// Takes what workers want of the control plane.
    pub demand: mpsc::UnboundedSender<Demand>,
    /// Tells whether the control plane is silent.
    pub heard: Heard,
    /// Ends with the task.
    pub task: JoinHandle<()>,
}

/// Starts the task. `check` says whether a resource can be put in force.
pub fn spawn(settings: Settings, credentials: watch::Receiver<Option<Arc<Credentials>>>, check: Check) -> Handle {
    let (demand, demands) = mpsc::unbounded_channel();
    let (task, resources) = stream::Task::new(settings, credentials, demands, check);
    let heard = task.heard();
    Handle { resources, demand, heard, task: tokio::spawn(task.run()) }
}
