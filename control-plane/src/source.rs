//! A source of configuration tells what users wrote, as objects, one consistent state after the other.
//!
//! A source is whatever sends [`Change`]s on a channel: what an origin says put and removed, and after each consistent
//! state [`Change::Complete`]. Nothing takes effect before that, so what was saved together goes live together. Several
//! sources may be told from at once, each complete for itself. What may be absent by accident a source does not tell as
//! removed: it says that it cannot read it, until [`Confirm`] says that it is meant.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, oneshot};

pub mod files;
pub mod kubernetes;
mod provenance;
mod reading;

pub use provenance::{ClusterObject, Origin, Provenance, Written};
pub use reading::{Candidate, Held, Reading, Unread};

/// Where changes come from. The channel is bounded: a source waits for the store, not the other way round.
pub type Changes = mpsc::Receiver<Change>;

/// Where a source is told what is meant.
pub type Confirms = mpsc::Receiver<Confirm>;

/// A source with a name, which is part of what is remembered of its objects.
#[derive(Debug)]
pub struct Source {
    /// Told apart by this, and remembered by it.
    pub name: Arc<str>,
    /// What it tells, step by step; closed when it has ended.
    pub changes: Changes,
}

/// One step of a source.
#[derive(Clone, Debug)]
pub enum Change {
    /// What an origin says is new, or not what it was.
    Put(Arc<str>, Reading),
    /// The origin is gone, with all its objects.
    Remove(Arc<str>),
    /// Whoever runs the mesh says that what is missing of that origin is meant to be. It goes also while the source cannot
    /// say what else there is.
    Confirmed(Arc<str>),
    /// The source cannot say what there is; everything told before stays in force. That is so until a state is complete
    /// without it.
    Unavailable {
        /// What cannot be read.
        origin: Arc<str>,
        /// Why it cannot be read, in words for people.
        reason: Arc<str>,
    },
    /// That was everything: what was told up to here belongs together.
    Complete,
}

/// A text with any number of YAML documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it is, in words a user knows: the path of a file.
    pub origin: Arc<str>,
    /// The text, or why it cannot be read.
    pub text: Result<Arc<str>, Unread>,
}

impl Document {
    /// The step that says what this says.
    pub fn put(self) -> Change {
        let reading = files::parse(&self);
        Change::Put(self.origin, reading)
    }
}

/// Asks every source what it makes of what is said to be meant, until nobody says anything any more.
pub async fn share(mut confirms: Confirms, sources: Vec<mpsc::Sender<Confirm>>) {
    while let Some(Confirm { paths, done }) = confirms.recv().await {
        let mut confirmed = Vec::new();
        for source in &sources {
            let (done, answer) = oneshot::channel();
            if source.send(Confirm { paths: paths.clone(), done }).await.is_ok() {
                confirmed.extend(answer.await.unwrap_or_default());
            }
        }
        // Whoever asked may have gone.
        done.send(confirmed).ok();
    }
}

/// What is missing at these paths or below them is meant to be; of a cluster, what it has lost of the kind that is called so.
#[derive(Debug)]
pub struct Confirm {
    /// The ways in which one place is spelt: absolute, or as a finding names it.
    pub paths: Vec<PathBuf>,
    /// Takes the origins that were waiting for this, and are told as gone by now; none when nothing was.
    pub done: oneshot::Sender<Vec<Arc<str>>>,
}
