//! A source of configuration tells what users wrote, one consistent state after the other.
//!
//! A source is whatever sends [`Change`]s on a channel: documents put and removed, and after each consistent state
//! [`Change::Complete`]. Nothing takes effect before that, so what was saved together goes live together. What may be
//! absent by accident a source does not tell as removed: it says that it cannot read it, until [`Confirm`] says that it is
//! meant.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

pub mod files;

/// Where changes come from. The channel is bounded: a source waits for the store, not the other way round.
pub type Changes = mpsc::Receiver<Change>;

/// Where a source is told what is meant.
pub type Confirms = mpsc::Receiver<Confirm>;

/// One step of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A document is new, or not what it was.
    Put(Document),
    /// The document of that origin is gone, with all its objects.
    Remove(Arc<str>),
    /// Whoever runs the mesh says that what is missing of that origin is meant to be.
    Confirmed(Arc<str>),
    /// The source cannot say what there is; everything told before stays in force. That is so until a state is complete
    /// without it.
    Unavailable {
        /// What cannot be read.
        origin: Arc<str>,
        /// Why.
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

/// Why nobody can tell what an origin says now. What it said last stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// In words.
    pub why: Arc<str>,
    /// How it is held.
    pub held: Held,
}

/// How what an origin said last is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Held {
    /// It is a file of zero bytes, or was one when it was removed.
    Emptied,
    /// It cannot be read, or is gone with everything around it.
    Lost,
}

impl From<&str> for Unread {
    fn from(why: &str) -> Self {
        Self { why: why.into(), held: Held::Lost }
    }
}

/// What is missing at these paths or below them is meant to be.
#[derive(Debug)]
pub struct Confirm {
    /// The ways in which one place is spelt.
    pub paths: Vec<PathBuf>,
    /// Takes the origins that were waiting for this, and are told as gone by now; none when nothing was.
    pub done: oneshot::Sender<Vec<Arc<str>>>,
}
