//! What became of single objects, for the log: whoever asks later what was in force when reads it there.

use std::{fmt, sync::Arc};

use crate::model::ObjectId;

/// One object that a commit put in force or took away.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: ObjectId,
    pub(super) file: Arc<str>,
    /// The generation in force now; of an object that was removed the last one.
    pub(super) generation: u64,
    pub(super) fate: Fate,
    /// Of one that was removed what is open without it, as the end of a sentence.
    pub(super) opened: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Accepted,
    Changed,
    Removed,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Changed => "changed",
            Self::Removed => "removed",
        })
    }
}

impl Event {
    pub(super) fn log(&self) {
        let Self { id, file, generation, fate, opened } = self;
        let opened = Some(opened.trim_start_matches("; ")).filter(|opened| !opened.is_empty());
        tracing::info!(object = %id, generation, %file, opened, "object {fate}");
    }
}
