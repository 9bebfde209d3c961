//! The case of HTTP/1 field names survives the way between two sidecars.
//!
//! Field names are case-insensitive (RFC 9110 section 5.1), yet some applications compare them byte by byte. HTTP/2,
//! which sidecars speak to each other, carries them in lower case. So the sidecar beside an HTTP/1 message reads the
//! names as they were written ([`tap`]), sends them along in [`HEADER_CASE`] when any has a capital letter, and the
//! sidecar at the far end writes them so again ([`Memory`]). Nothing but the spelling depends on any of this: names
//! that do not fit the message are ignored.

use std::sync::Arc;

use http::{Extensions, HeaderName, HeaderValue, Request, Response};
use tokio::sync::Mutex;

mod heads;
mod memory;
mod tap;

pub use heads::Kind;
pub use memory::Memory;
pub use tap::Tapped;

use heads::Heads;

/// The names of an HTTP/1 head as they were written, in order and joined by commas; on the hop between sidecars only.
pub const HEADER_CASE: HeaderName = HeaderName::from_static("selvedge-header-case");

/// How a message's names were written; kept in its extensions while it passes through this process.
#[derive(Clone, Debug)]
struct Spelling(HeaderValue);

/// The names of the heads that a tapped connection has read. The lock is there because an upgraded stream must be
/// `Send`; a connection stays on its worker, so it is never waited for.
#[derive(Clone, Debug)]
pub struct Spellings(Arc<Mutex<Heads>>);

/// Listens to the heads of `kind` that are read from `io`. It changes, delays and buffers no byte.
pub fn tap<T>(io: T, kind: Kind) -> (Tapped<T>, Spellings) {
    let spellings = Spellings(Arc::new(Mutex::new(Heads::new(kind))));
    (Tapped::new(io, spellings.clone()), spellings)
}

impl Spellings {
    /// Notes on the next request of the connection how its names were written.
    pub fn note_request<B>(&self, request: &mut Request<B>) {
        let fields = request.headers().len();
        let spelling = self.with(|heads| heads.next(fields)).flatten();
        note(request.extensions_mut(), spelling);
    }

    /// Notes on the response that was just read how its names were written.
    pub fn note_response<B>(&self, response: &mut Response<B>) {
        let fields = response.headers().len();
        let spelling = self.with(|heads| heads.only(fields)).flatten();
        note(response.extensions_mut(), spelling);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Heads) -> T) -> Option<T> {
        self.0.try_lock().ok().map(|mut heads| act(&mut heads))
    }
}

fn note(extensions: &mut Extensions, spelling: Option<HeaderValue>) {
    if let Some(spelling) = spelling {
        extensions.insert(Spelling(spelling));
    }
}

/// What to tell the next sidecar in [`HEADER_CASE`] about a message with these extensions.
pub fn told(extensions: &Extensions) -> Option<HeaderValue> {
    extensions.get().map(|Spelling(names)| names.clone())
}

/// Has a message with these extensions written with `names`, as another sidecar told in [`HEADER_CASE`].
pub fn heard(names: &HeaderValue, extensions: &mut Extensions, memory: &Memory) {
    if let Some(known) = memory.recall(names) {
        extensions.extend(known);
    }
}
