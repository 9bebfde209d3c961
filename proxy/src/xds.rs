//! What the control plane says: one task keeps a discovery stream open and publishes [`Resources`].
//!
//! Guarantees:
//! - The workload's own view and the trust bundle are always asked for; destinations on demand, each with the
//!   endpoints of its ports and of the backends its routes name. A destination shows up together with its endpoints.
//! - What was good stays published while the control plane is away, and is on disk for the next start.
//! - A resource the check refuses is never published; its last good version stays.
//! - Nothing here waits for anything: a request decides for itself how long it waits for a destination.

pub mod assemble;
mod cache;
pub mod channel;
mod stream;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use selvedge_xds::{
    client::Check,
    proto::mesh::{Destination, Endpoints, Inbound, TrustBundle},
};
use tokio::sync::{mpsc, watch};

use crate::identity::Credentials;

/// How long a destination that nobody uses stays subscribed to.
pub const IDLE: Duration = Duration::from_secs(600);

/// A resource with its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned<T> {
    /// Canonical name.
    pub name: String,
    /// Version by content: equal versions mean equal values.
    pub version: String,
    /// The resource.
    pub value: T,
}

/// Everything known at one instant, all of it checked.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Counts up by one whenever a resource or an alias is another one.
    pub generation: u64,
    /// The workload's own view.
    pub inbound: Option<Arc<Inbound>>,
    /// The authorities of the trust domain.
    pub bundle: Option<Arc<TrustBundle>>,
    /// Destinations by canonical name.
    pub destinations: HashMap<String, Arc<Versioned<Destination>>>,
    /// Endpoints by canonical name.
    pub endpoints: HashMap<String, Arc<Versioned<Endpoints>>>,
    /// Canonical name of every destination asked for, by the name it was asked by; `None` where the control plane
    /// said that there is none, or none that can be put in force. A name that is missing has no answer yet.
    pub aliases: HashMap<String, Option<String>>,
    /// Those of the names that stand for a destination of the mesh which cannot be put in force.
    pub refused: HashSet<String>,
    /// Whether a stream to the control plane stands.
    pub connected: bool,
    /// What is wrong with the newest version of a resource, while an older one is in force instead.
    pub refusal: Option<String>,
}

/// What workers ask of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// A destination, by name or alias, for as long as it is used.
    Want(String),
    /// A destination, by name or alias, for as long as the sidecar runs.
    Pin(String),
    /// These destinations, by any name they were asked by, were used lately.
    Used(Vec<String>),
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
    /// Where to ask.
    pub demand: mpsc::UnboundedSender<Demand>,
}

/// Starts the task. `check` says whether a resource can be put in force.
pub fn spawn(settings: Settings, credentials: watch::Receiver<Option<Arc<Credentials>>>, check: Check) -> Handle {
    let (demand, demands) = mpsc::unbounded_channel();
    let (task, resources) = stream::Task::new(settings, credentials, demands, check);
    tokio::spawn(task.run());
    Handle { resources, demand }
}
