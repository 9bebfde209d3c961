//! A request and its answer between the stages, apart from what is known of them ([`crate::exchange`]).

use http::{Request, response};
use hyper::body::Incoming;

use crate::{
    balance::Picked,
    cluster::pool::Held,
    http::{case::Spelling, upgrade::Wanted},
};

/// A request as the http stage hands it on.
pub struct Received {
    /// Canonical, without hop-by-hop fields.
    pub request: Request<Incoming>,
    /// What it asks to become.
    pub wanted: Option<Wanted>,
    /// The caller's side of the tunnel, when it asks for one.
    pub tunnel: Option<hyper::upgrade::OnUpgrade>,
}

/// A response, with what must live until its body is over.
pub struct Answered {
    /// Head.
    pub parts: response::Parts,
    /// Body.
    pub body: Incoming,
    /// The endpoint's books.
    pub picked: Picked,
    /// The connection, or a place on it.
    pub held: Held,
    /// How the names of the head were written.
    pub spelling: Option<Spelling>,
    /// Both sides of the tunnel, when the upgrade was accepted.
    pub tunnel: Option<(hyper::upgrade::OnUpgrade, hyper::upgrade::OnUpgrade)>,
}

impl Answered {
    /// The head.
    pub const fn head(&mut self) -> &mut response::Parts {
        &mut self.parts
    }
}
