//! A request and its answer between the stages, apart from what is known of them ([`crate::exchange`]).

use http::{Request, Response, header::RETRY_AFTER, response};
use selvedge_policies::verdict::Answer;

use crate::{
    balance::Picked,
    cluster::pool::Held,
    error::Error,
    http::{
        Body,
        body::Replay,
        case::Spelling,
        hop, reply,
        upgrade::{Tunnel, Wanted},
    },
};

/// A request as the http stage hands it on.
pub(crate) struct Received {
    /// Canonical, without hop-by-hop fields.
    pub request: Request<Replay>,
    /// What it asks to become.
    pub wanted: Option<Wanted>,
    /// The caller's side of the tunnel, when it asks for one.
    pub tunnel: Option<Tunnel>,
}

/// A response, with what must live until its body is over.
pub(crate) struct Answered {
    /// Its status and header section.
    pub parts: response::Parts,
    /// Its content, as it streams.
    pub body: Body,
    /// The endpoint's books, and the connection or a place on it; `None` when the mesh itself answers.
    pub held: Option<(Picked, Held)>,
    /// How the names of the head were written.
    pub spelling: Option<Spelling>,
    /// Both sides of the tunnel, when the upgrade was accepted.
    pub tunnel: Option<(Tunnel, Tunnel)>,
}

impl Answered {
    /// An answer of the mesh that is no error, such as a redirect.
    pub(crate) fn own(answer: Answer) -> Self {
        let mut response = Response::new(Body::full(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        hop::strip_answer(response.headers_mut());
        if let Some(wait) = answer.retry_after {
            response.headers_mut().insert(RETRY_AFTER, reply::seconds(wait));
        }
        let (parts, body) = response.into_parts();
        Self { parts, body, held: None, spelling: None, tunnel: None }
    }
}

/// Why a request goes no further.
pub(crate) enum Halt {
    /// It failed or was refused, for this reason.
    Error(Error),
    /// The mesh itself answers it, and that is no error.
    Answered(Box<Answered>),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}
