//! How a request or connection ends when no service answered: reason and what may be done about it.
//!
//! The reason alone gives the HTTP status, the code in header, log and metric, and whose fault it is, so that no
//! second opinion is needed further up.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use selvedge_policies::{attempt::retry::TryOutcome, reason::Reason, verdict::Answer};

/// Why a request ended in the sidecar.
#[derive(Debug)]
pub(crate) struct Error {
    /// Why it ended: the code that callers, logs and metrics have (`docs/codes/`).
    pub reason: Reason,
    /// What exactly, for the log and for meshed callers.
    pub detail: Cow<'static, str>,
    /// The user's object that decided, empty when none did.
    pub policy: Arc<str>,
    /// Which rule of it, from 0, where one did.
    pub rule: Option<u32>,
    /// When the caller may try again.
    pub retry_after: Option<Duration>,
    /// The answer of a policy that says more than the reason: another status, fields or content of its own.
    pub answer: Option<Box<Answer>>,
    /// How a try failed, when this is the failure of a try; decides whether another may follow.
    pub outcome: Option<TryOutcome>,
}

impl Error {
    /// An ending with this reason.
    pub(crate) fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            policy: Arc::default(),
            rule: None,
            retry_after: None,
            answer: None,
            outcome: None,
        }
    }

    /// The failure of one try, after which there may be another.
    pub(crate) fn failed_try(reason: Reason, outcome: TryOutcome, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome: Some(outcome), ..Self::new(reason, detail) }
    }

    /// This failure after a try that may have been processed: that this one was not proves nothing for the request, so
    /// it is not repeated as if nothing had been sent.
    pub(crate) fn in_doubt(self) -> Self {
        match self.outcome {
            Some(TryOutcome::Refused | TryOutcome::ConnectFailed) => {
                let detail = format!("the endpoint closed the connection when the request came, then: {}", self.detail);
                Self::failed_try(Reason::UpstreamReset, TryOutcome::Reset, detail)
            }
            _ => self,
        }
    }

    /// This failure where the endpoint is the sidecar's own application.
    pub(crate) fn of_application(self) -> Self {
        match self.reason {
            Reason::UpstreamConnectFailed | Reason::UpstreamConnectTimeout => {
                Self { reason: Reason::ApplicationUnreachable, ..self }
            }
            _ => self,
        }
    }

    /// A policy's answer. One without a reason is no error for a request; a connection that it ends is refused.
    pub(crate) fn answered(answer: Answer) -> Self {
        let reason = answer.reason.unwrap_or(Reason::PolicyDenied);
        let detail =
            if answer.detail.is_empty() { Cow::Borrowed(reason.summary()) } else { Cow::Owned(answer.detail.clone()) };
        let is_plain = answer.status.as_u16() == reason.status()
            && answer.grpc_status.is_none()
            && answer.headers.is_empty()
            && answer.body.is_empty();
        Self {
            policy: answer.policy.clone(),
            rule: answer.rule,
            retry_after: answer.retry_after,
            answer: (!is_plain).then(|| Box::new(answer)),
            ..Self::new(reason, detail)
        }
    }
}

impl From<Reason> for Error {
    /// An ending of which there is no more to say.
    fn from(reason: Reason) -> Self {
        Self::new(reason, "")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)?;
        if !self.policy.is_empty() {
            write!(f, " (by {})", self.policy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_try_in_doubt_nothing_is_proof_any_more() {
        let failed = |outcome| Error::failed_try(Reason::UpstreamConnectFailed, outcome, "nobody there");
        for unsent in [TryOutcome::ConnectFailed, TryOutcome::Refused] {
            let error = failed(unsent).in_doubt();
            assert_eq!((error.reason, error.outcome), (Reason::UpstreamReset, Some(TryOutcome::Reset)));
            assert!(error.detail.contains("nobody there"), "{error}");
        }
        let timeout = failed(TryOutcome::Timeout).in_doubt();
        assert_eq!((timeout.reason, timeout.outcome), (Reason::UpstreamConnectFailed, Some(TryOutcome::Timeout)));
    }
}
