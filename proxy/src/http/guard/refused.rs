//! Requests that the HTTP/2 library refuses by itself (RFC 9113 sections 5.1.2 and 8.1.1): nobody is given them, so nobody
//! else could tell of them.

use std::{
    cell::{OnceCell, RefCell},
    collections::VecDeque,
    fmt,
};

use selvedge_policies::reason::Reason;

/// Streams of which it is not known yet whether somebody is given their request. A peer that goes on opening some after it
/// was asked not to is given up for none of them.
const MAX_OPENED: usize = 1024;

/// What becomes of the streams that a peer opens.
#[derive(Default)]
pub(super) struct Refusals {
    /// Those whose requests nobody was given yet, in the order of their numbers.
    opened: RefCell<VecDeque<u32>>,
    /// Who is told of each that was refused.
    tell: OnceCell<Box<dyn Fn(Reason)>>,
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals").field("opened", &self.opened).finish_non_exhaustive()
    }
}

impl Refusals {
    /// Has `tell` called for each request that is refused from now on.
    pub(super) fn tell(&self, tell: impl Fn(Reason) + 'static) {
        self.tell.get_or_init(|| Box::new(tell));
    }

    /// The peer opened this stream.
    pub(super) fn opened(&self, stream: u32) {
        let mut opened = self.opened.borrow_mut();
        if opened.len() == MAX_OPENED {
            opened.pop_front();
        }
        opened.push_back(stream);
    }

    /// Somebody was given its request.
    pub(super) fn given(&self, stream: u32) {
        self.forget(stream);
    }

    /// The library answered on this stream, or reset it. Whoever is given a request is given it before anything is written.
    pub(super) fn ended(&self, stream: u32, reason: Reason) {
        if self.forget(stream)
            && let Some(tell) = self.tell.get()
        {
            tell(reason);
        }
    }

    /// Whether it was one of those.
    fn forget(&self, stream: u32) -> bool {
        let mut opened = self.opened.borrow_mut();
        let found = opened.binary_search(&stream);
        found.is_ok_and(|at| opened.remove(at).is_some())
    }
}

/// Why the library resets a stream with this code (RFC 9113 section 7) whose request nobody was given.
pub(super) const fn reason(code: u32) -> Reason {
    match code {
        7 => Reason::Overloaded,
        2 => Reason::MalformedFraming, // content of a CONNECT, which has none
        _ => Reason::MalformedHeader,
    }
}
