//! The case of HTTP/1 field names survives the way between two sidecars.
//!
//! Field names are case-insensitive (RFC 9110 section 5.1), yet some applications compare them byte by byte. HTTP/2,
//! which sidecars speak to each other, carries them in lower case. So the sidecar beside an HTTP/1 message reads the
//! names as they were written ([`tap()`]), sends them along in [`HEADER_CASE`] when any has a capital letter, and whoever
//! writes the message over HTTP/1 again writes them so ([`Spellings::spell`]). Nothing but the spelling depends on any of
//! this: names that do not fit the message are ignored.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::sync::Mutex;

use crate::frames;

mod heads;
mod speller;
mod tap;

pub(crate) use heads::Kind;
pub(crate) use tap::Tapped;

use heads::{Heads, MAX_NAMES};
use speller::Speller;

/// The names of an HTTP/1 head as they were written, in order up to the last one with a capital letter, and joined by
/// commas; on the hop between sidecars only.
pub(crate) const HEADER_CASE: HeaderName = frames::SPELLING;

/// How a message's names were written: the value of [`HEADER_CASE`]. A message without one is in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Spelling(HeaderValue);

/// How the names of heads are written on a tapped connection. The lock is there because an upgraded stream must be
/// `Send`; a connection stays on its worker, so it is never waited for.
#[derive(Clone, Debug)]
pub(crate) struct Spellings(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Those that were read.
    heads: Heads,
    /// How the next one is to be written.
    due: Option<Spelling>,
    speller: Speller,
}

/// Listens to the heads of `kind` that are read from `io`, and spells those that are written to it.
pub(crate) fn tap<T>(io: T, kind: Kind) -> (Tapped<T>, Spellings) {
    let state = State { heads: Heads::new(kind), due: None, speller: Speller::default() };
    let spellings = Spellings(Arc::new(Mutex::new(state)));
    (Tapped::new(io, spellings.clone()), spellings)
}

impl Spellings {
    /// How the names of the next request of the connection were written.
    pub(crate) fn of_request<B>(&self, request: &Request<B>) -> Option<Spelling> {
        let fields = request.headers().len();
        self.with(|state| state.heads.next(fields))?.map(Spelling)
    }

    /// How the names of the response that was just read were written.
    pub(crate) fn of_response<B>(&self, response: &Response<B>) -> Option<Spelling> {
        let fields = response.headers().len();
        self.with(|state| state.heads.only(fields))?.map(Spelling)
    }

    /// Has the next head that is written, which must follow before anything else is, spelled so.
    pub(crate) fn spell(&self, spelling: &Spelling) {
        self.with(|state| state.due = Some(spelling.clone()));
    }

    /// The head that was to be spelled next is under way.
    fn give_up(&self) {
        self.with(|state| state.due = None);
    }

    /// These bytes were read.
    fn read(&self, bytes: &[u8]) {
        self.with(|state| state.heads.pass(bytes));
    }

    /// These bytes are to be written: in their place the head that they begin with, if one is to be spelled.
    fn written(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.with(|state| {
            state.heads.answered();
            let Spelling(names) = state.due.take()?;
            state.speller.spell(bytes, names)
        })?
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.0.try_lock().ok().map(|mut state| act(&mut state))
    }
}

impl Spelling {
    /// Takes what another sidecar told out of a message. More than it would have remembered is not believed: a connection
    /// keeps it.
    pub(crate) fn heard(headers: &mut HeaderMap) -> Option<Self> {
        headers.remove(HEADER_CASE).and_then(Self::believed)
    }

    /// What another sidecar told, unless it is more than it would have remembered.
    pub(crate) fn believed(names: HeaderValue) -> Option<Self> {
        (names.len() <= MAX_NAMES).then_some(Self(names))
    }

    /// As it is told.
    pub(crate) const fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// Tells the next sidecar.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(HEADER_CASE, self.0.clone());
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
