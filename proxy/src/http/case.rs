//! The case of HTTP/1 field names survives the way between two sidecars.
//!
//! Field names are case-insensitive (RFC 9110 section 5.1), yet some applications compare them byte by byte. HTTP/2,
//! which sidecars speak to each other, carries them in lower case. So the sidecar beside an HTTP/1 message reads the
//! names as they were written ([`tap`]), sends them along in [`HEADER_CASE`] when any has a capital letter, and whoever
//! writes the message over HTTP/1 again writes them so ([`Memory`]). Nothing but the spelling depends on any of this:
//! names that do not fit the message are ignored.

use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::sync::Mutex;

use crate::socket::{End, Observed, Observer};

mod heads;
mod memory;

pub(crate) use heads::Kind;
pub(crate) use memory::Memory;

use heads::{Heads, MAX_NAMES};

/// The names of an HTTP/1 head as they were written, in order up to the last one with a capital letter, and joined by
/// commas; on the hop between sidecars only.
pub(crate) const HEADER_CASE: HeaderName = HeaderName::from_static("selvedge-header-case");

/// How a message's names were written: the value of [`HEADER_CASE`]. A message without one is in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Spelling(HeaderValue);

/// The names of the heads that a tapped connection has read. The lock is there because an upgraded stream must be
/// `Send`; a connection stays on its worker, so it is never waited for.
#[derive(Clone, Debug)]
pub(crate) struct Spellings(Arc<Mutex<Heads>>);

/// Listens to the heads of `kind` that are read from `io`. It changes, delays and buffers no byte.
pub(crate) fn tap<T>(io: T, kind: Kind) -> (Observed<T, Spellings>, Spellings) {
    let spellings = Spellings(Arc::new(Mutex::new(Heads::new(kind))));
    (Observed::new(io, spellings.clone()), spellings)
}

impl Observer for Spellings {
    fn read(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.with(|heads| heads.pass(bytes));
        Ok(())
    }

    fn written(&mut self, _: &[u8]) {
        self.with(Heads::expect);
    }
}

impl Spellings {
    /// How the names of the next request of the connection were written.
    pub(crate) fn of_request<B>(&self, request: &Request<B>) -> Option<Spelling> {
        let fields = request.headers().len();
        self.with(|heads| heads.next(fields))?.map(Spelling)
    }

    /// How the names of the response that was just read were written.
    pub(crate) fn of_response<B>(&self, response: &Response<B>) -> Option<Spelling> {
        let fields = response.headers().len();
        self.with(|heads| heads.only(fields))?.map(Spelling)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Heads) -> T) -> Option<T> {
        self.0.try_lock().ok().map(|mut heads| act(&mut heads))
    }
}

impl Spelling {
    /// Takes what another sidecar told out of a message. More than it would have remembered is not believed: it would be
    /// kept in [`Memory`].
    pub(crate) fn heard(headers: &mut HeaderMap) -> Option<Self> {
        headers.remove(HEADER_CASE).filter(|names| names.len() <= MAX_NAMES).map(Self)
    }

    /// Tells the next sidecar.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(HEADER_CASE, self.0.clone());
    }

    /// Has a message with these extensions written so, when it is written over HTTP/1.
    pub(crate) fn keep(&self, extensions: &mut Extensions, memory: &Memory) {
        if let Some(known) = memory.recall(&self.0) {
            extensions.extend(known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_not_believed_more_names_than_a_sidecar_remembers() {
        for (length, believed) in [(MAX_NAMES, true), (MAX_NAMES + 1, false), (60 * 1024, false)] {
            let names = HeaderValue::from_bytes(&vec![b'X'; length]).unwrap();
            let mut headers = HeaderMap::from_iter([(HEADER_CASE, names)]);
            assert_eq!(Spelling::heard(&mut headers).is_some(), believed, "{length} bytes");
            assert!(headers.is_empty(), "it goes no further");
        }
    }
}
