//! What a policy may answer: continue, this is the answer, wait, or ask somebody first.
//!
//! A verdict says what is to be done and does nothing. A policy that delays calls or asks a service of the mesh (what
//! Envoy has fault injection and ext_authz for) is a pure function like all others; whoever carries verdicts out has
//! the timer and the connection, bounds both, and then asks again ([`crate::context`]).

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, StatusCode};

use crate::{names::PortName, reason::Reason};

/// The outcome of one policy for one request, connection, try or response.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The next policy decides.
    Continue,
    /// It ends here with this answer (for a connection: it is closed).
    Answer(Answer),
    /// The policy is asked again when this time has passed, or before where the sidecar is about to end, or where other
    /// documents of its kind have come into force; [`Context::resumed`](crate::context::Context::resumed) then says so.
    Wait(Duration),
    /// The policy is asked again with what the service said, or that it said nothing.
    Ask(Box<Question>),
}

/// The answer of the mesh in place of the service's own.
///
/// ```
/// use std::time::Duration;
///
/// use http::StatusCode;
/// use selvedge_policies::{reason::Reason, verdict::Answer};
///
/// let refused = Answer::refuse(Reason::RateLimited, "shop/few".into()).retry_after(Duration::from_secs(2));
/// assert_eq!((refused.status.as_u16(), refused.retry_after), (429, Some(Duration::from_secs(2))));
/// assert_eq!(refused.clone().by_rule(2).rule, Some(2));
/// assert_eq!(refused.because("shop/few lets 2 pass".into()).detail, "shop/few lets 2 pass");
/// assert_eq!(Answer::reply(StatusCode::NO_CONTENT, "shop/web".into()).reason, None, "that is no error");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status. A gRPC caller is told an error as the gRPC status that belongs to it, or as `grpc_status`.
    pub status: StatusCode,
    /// The gRPC status code for gRPC callers, where it is not the one that belongs to `status`.
    pub grpc_status: Option<u16>,
    /// Why, where the answer is an error; gives the code in header, log and metric. None for answers that are no error,
    /// such as redirects.
    pub reason: Option<Reason>,
    /// The user's object that decided, `namespace/name`; empty when no object did (a default posture).
    pub policy: Arc<str>,
    /// Which rule of it, from 0; `None` where no single rule did.
    pub rule: Option<u32>,
    /// Further fields of the answer.
    pub headers: HeaderMap,
    /// The content. An error without content tells its reason as every error of the mesh does.
    pub body: Vec<u8>,
    /// More of why, in words for people; empty when the reason says all.
    pub detail: String,
    /// When the caller may try again.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// An error that `policy` has decided.
    pub fn refuse(reason: Reason, policy: Arc<str>) -> Self {
        let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { reason: Some(reason), ..Self::reply(status, policy) }
    }

    /// An answer that is no error.
    pub fn reply(status: StatusCode, policy: Arc<str>) -> Self {
        Self {
            status,
            grpc_status: None,
            reason: None,
            policy,
            rule: None,
            headers: HeaderMap::new(),
            body: Vec::new(),
            detail: String::new(),
            retry_after: None,
        }
    }

    /// This answer, with more of why.
    #[must_use]
    pub fn because(self, detail: String) -> Self {
        Self { detail, ..self }
    }

    /// This answer, which that rule of the policy has decided.
    #[must_use]
    pub fn by_rule(self, rule: u32) -> Self {
        Self { rule: Some(rule), ..self }
    }

    /// This answer, saying after what time the caller may try again (`retry-after`, RFC 9110 section 10.2.3).
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}

/// What a policy wants to know of a service before it decides. It is asked over HTTP/1.1, which the service has to speak.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The service of the mesh, and its port.
    pub to: PortName,
    /// Method of the request that asks.
    pub method: Method,
    /// Its path and query.
    pub path: String,
    /// Its header section, without `host`.
    pub headers: HeaderMap,
    /// The content of the request that asks; may be empty.
    pub body: Vec<u8>,
    /// How long to wait for the whole reply; shorter where the request that is decided has less time left.
    pub within: Duration,
    /// The most bytes of content the reply may have.
    pub at_most: usize,
}

/// What a service said to a [`Question`].
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The status of the reply.
    pub status: StatusCode,
    /// The header section of the reply.
    pub headers: HeaderMap,
    /// The whole content of the reply, at most [`Question::at_most`] bytes.
    pub body: Vec<u8>,
}

/// Why a [`Question`] has no [`Reply`]. What follows from it is the policy's to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The whole reply was not there in time.
    #[error("the service did not reply in time")]
    Late,
    /// The content was longer than the policy wants.
    #[error("the reply is longer than {0} bytes")]
    TooLong(usize),
    /// The service could not be asked, or broke its reply off.
    #[error("the service could not be asked: {0}")]
    Failed(String),
}
