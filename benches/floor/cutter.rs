//! Cuts what comes from a client or the application into pieces that go on, with as little reading as that takes.

use anyhow::{Context, bail, ensure};
use httparse::{EMPTY_HEADER, Header, Request, Response, Status};

/// What an HTTP/2 client begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes in front of an HTTP/2 frame (RFC 9113 section 4.1).
const FRAME_HEAD: usize = 9;
/// The most header fields of a message.
const FIELDS: usize = 64;

/// Where in the messages of one connection its reader is.
pub(crate) enum Cutter {
    /// HTTP/1 requests, with this many bytes of the present one to come.
    Requests(usize),
    /// HTTP/1 answers, the same.
    Answers(usize),
    /// HTTP/2 frames, behind the preface.
    Http2Client,
    /// HTTP/2 frames.
    Http2,
}

/// The beginning of what was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// How many bytes of it go on.
    pub(crate) length: usize,
    /// Whether they end an HTTP/1 message.
    pub(crate) ends: bool,
}

impl Cutter {
    /// The first piece of `bytes`; `None` until more have come.
    ///
    /// # Errors
    /// What is not HTTP, and answers whose length the head does not say.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> anyhow::Result<Option<Piece>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match self {
            Self::Requests(left) => http1(left, bytes, |bytes| {
                let mut fields = [EMPTY_HEADER; FIELDS];
                let mut request = Request::new(&mut fields);
                let Status::Complete(head) = request.parse(bytes)? else { return Ok(None) };
                Ok(Some(head + content_length(request.headers)?.unwrap_or(0)))
            }),
            Self::Answers(left) => http1(left, bytes, |bytes| {
                let mut fields = [EMPTY_HEADER; FIELDS];
                let mut answer = Response::new(&mut fields);
                let Status::Complete(head) = answer.parse(bytes)? else { return Ok(None) };
                Ok(Some(head + content_length(answer.headers)?.context("an answer of no known length")?))
            }),
            Self::Http2Client if bytes.len() < PREFACE.len() => Ok(None),
            Self::Http2Client => {
                ensure!(bytes.starts_with(PREFACE), "no preface of HTTP/2");
                *self = Self::Http2;
                Ok(Some(Piece { length: PREFACE.len(), ends: false }))
            }
            Self::Http2 => Ok(http2(bytes)),
        }
    }
}

/// A whole message, or as much of it as is there; `measure` says how long one is.
fn http1(
    left: &mut usize,
    bytes: &[u8],
    measure: impl FnOnce(&[u8]) -> anyhow::Result<Option<usize>>,
) -> anyhow::Result<Option<Piece>> {
    if *left == 0 {
        let Some(whole) = measure(bytes)? else { return Ok(None) };
        *left = whole;
    }
    let length = bytes.len().min(*left);
    *left -= length;
    Ok(Some(Piece { length, ends: *left == 0 }))
}

fn content_length(fields: &[Header<'_>]) -> anyhow::Result<Option<usize>> {
    let named = |name: &str| fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    if named("transfer-encoding").is_some() {
        bail!("a transfer coding");
    }
    let Some(field) = named("content-length") else { return Ok(None) };
    Ok(Some(str::from_utf8(field.value)?.parse()?))
}

/// One whole frame.
fn http2(bytes: &[u8]) -> Option<Piece> {
    let [high, middle, low] = *bytes.first_chunk()?;
    let length = FRAME_HEAD + u32::from_be_bytes([0, high, middle, low]) as usize;
    (bytes.len() >= length).then_some(Piece { length, ends: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(mut cutter: Cutter, bytes: &[u8]) -> Vec<(usize, bool)> {
        let (mut at, mut pieces) = (0, Vec::new());
        while let Some(piece) = cutter.next(&bytes[at..]).unwrap() {
            at += piece.length;
            pieces.push((piece.length, piece.ends));
        }
        pieces
    }

    #[test]
    fn messages_of_http1_end_where_their_heads_say() {
        let get = b"GET /1k HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!(cut(Cutter::Requests(0), &[&get[..], get].concat()), [(get.len(), true); 2]);
        assert_eq!(cut(Cutter::Requests(0), &get[..20]), [], "the head is not whole");
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";
        let mut cutter = Cutter::Answers(0);
        assert_eq!(cutter.next(answer).unwrap(), Some(Piece { length: answer.len(), ends: false }));
        assert_eq!(cutter.next(b"cdHTTP").unwrap(), Some(Piece { length: 2, ends: true }));
        assert!(Cutter::Answers(0).next(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(Cutter::Answers(0).next(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn http2_goes_on_by_whole_frames_behind_the_preface() {
        let frame = b"\0\0\x02\0\0\0\0\0\x01ab";
        assert_eq!(cut(Cutter::Http2, &[&frame[..], &frame[..10]].concat()), [(frame.len(), false)]);
        let (preface, whole) = ((PREFACE.len(), false), (frame.len(), false));
        assert_eq!(cut(Cutter::Http2Client, &[PREFACE, frame].concat()), [preface, whole]);
        assert_eq!(cut(Cutter::Http2Client, &PREFACE[..5]), []);
        assert!(Cutter::Http2Client.next(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").is_err());
    }
}
