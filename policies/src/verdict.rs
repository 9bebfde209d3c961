//! What a policy may answer.

use std::{sync::Arc, time::Duration};

use crate::reason::Reason;

/// The outcome of one policy for one request or connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The next policy decides.
    Continue,
    /// The request ends here (for a connection: it is closed).
    Answer(Answer),
}

/// How a policy ends a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Why; gives the HTTP status and the code in header, body, log and metric.
    pub reason: Reason,
    /// The user's object that decided, `namespace/name`; empty when no object did (a default posture).
    pub policy: Arc<str>,
    /// When the caller may try again.
    pub retry_after: Option<Duration>,
}
