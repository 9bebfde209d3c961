//! A source of configuration tells what users wrote, one consistent state after the other.
//!
//! A source is whatever sends [`Change`]s on a channel: documents put and removed, and after each consistent state
//! [`Change::Complete`]. Nothing takes effect before that, so what was saved together goes live together.

use std::sync::Arc;

use tokio::sync::mpsc;

pub mod files;

/// Where changes come from. The channel is bounded: a source waits for the store, not the other way round.
pub type Changes = mpsc::Receiver<Change>;

/// One step of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A document is new, or not what it was.
    Put(Document),
    /// The document of that origin is gone, with all its objects.
    Remove(Arc<str>),
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
    pub text: Result<Arc<str>, Arc<str>>,
}
