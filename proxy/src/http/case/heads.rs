//! Finds the field names in HTTP/1 heads as their bytes pass.
//!
//! A head is looked for at the start and again after each write to the peer: that is when a request or a response may
//! follow. Whatever does not look like a head ends the search, so bodies cost a glance. The search may be wrong (a
//! body can look like a head), so [`Heads::next`] believes only names whose number fits the parsed message.

use std::collections::VecDeque;

use http::HeaderValue;

/// A longer line is no head that is worth remembering.
const MAX_LINE: usize = 16 * 1024;
/// Bytes of names that are remembered of one head.
pub(super) const MAX_NAMES: usize = 4 * 1024;
/// Pipelined requests that are remembered at once.
const MAX_HEADS: usize = 32;

/// What a peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The bytes are requests, each begun by a request line.
    Requests,
    /// The bytes are responses, each begun by a status line.
    Responses,
}

/// The heads found so far, oldest first.
#[derive(Debug)]
pub(super) struct Heads {
    kind: Kind,
    place: Place,
    /// The part of the current line that came with earlier reads.
    partial: Vec<u8>,
    /// Names of the head that is being read, or of the last one, each with a comma after it.
    names: Vec<u8>,
    /// Where each of them ends in `names`.
    ends: Vec<u16>,
    /// Length of `names` up to the last one with a capital letter.
    capitals: usize,
    /// What was made of the last head, while `names` are still its.
    last: Option<Head>,
    found: VecDeque<Head>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before a start line.
    Start,
    /// In a head; an interim response (RFC 9110 section 15.2) is passed over.
    Fields { interim: bool },
    /// In something else, until the next write.
    Elsewhere,
}

#[derive(Clone, Debug)]
struct Head {
    fields: usize,
    /// `None` when every name is in lower case.
    names: Option<HeaderValue>,
}

impl Heads {
    pub(super) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            place: Place::Start,
            partial: Vec::new(),
            names: Vec::new(),
            ends: Vec::new(),
            capitals: 0,
            last: None,
            found: VecDeque::new(),
        }
    }

    /// Something was written to the peer: a head may be the answer.
    pub(super) fn answered(&mut self) {
        if self.place == Place::Elsewhere {
            self.place = Place::Start;
        }
    }

    /// The names of the oldest head not asked for yet, if it has `fields` fields and capital letters.
    pub(super) fn next(&mut self, fields: usize) -> Option<HeaderValue> {
        let head = self.found.pop_front()?;
        if head.fields != fields {
            self.found.clear();
            return None;
        }
        head.names
    }

    /// Like [`Heads::next`] when no other head can have come: what was found besides is none.
    pub(super) fn only(&mut self, fields: usize) -> Option<HeaderValue> {
        let names = self.next(fields);
        self.found.clear();
        names
    }

    /// Bytes were read from the peer.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while self.place != Place::Elsewhere && !bytes.is_empty() {
            if self.place == Place::Start && self.partial.is_empty() && !self.may_start(bytes) {
                self.place = Place::Elsewhere;
                return;
            }
            if let Some(length) = self.repeated(bytes) {
                bytes = &bytes[length..];
                continue;
            }
            let Some(end) = line_end(bytes) else {
                self.keep(bytes);
                return;
            };
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.partial.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.line(&whole);
                whole.clear();
                self.partial = whole;
            }
            bytes = rest;
        }
    }

    /// Takes a whole head with the names of the last one, as most on a connection are, in one pass: how long it is.
    fn repeated(&mut self, bytes: &[u8]) -> Option<usize> {
        let last = self.last.as_ref().filter(|_| self.place == Place::Start && self.partial.is_empty())?;
        let mut at = line_end(bytes)?;
        if self.begins(trimmed(&bytes[..at])) != Some(Place::Fields { interim: false }) {
            return None;
        }
        let mut start = 0;
        for end in self.ends.iter().map(|end| usize::from(*end)) {
            let value = bytes[at + 1..].strip_prefix(&self.names[start..end])?.strip_prefix(b":")?;
            at = bytes.len() - value.len() + line_end(value)?;
            start = end + 1;
        }
        let rest = &bytes[at + 1..];
        let rest = rest.strip_prefix(b"\r").unwrap_or(rest).strip_prefix(b"\n")?;
        if self.found.len() < MAX_HEADS {
            self.found.push_back(last.clone());
        }
        Some(bytes.len() - rest.len())
    }

    /// Tells most bodies from heads by their first bytes.
    fn may_start(&self, bytes: &[u8]) -> bool {
        match self.kind {
            Kind::Requests => bytes[0].is_ascii_alphabetic() || matches!(bytes[0], b'\r' | b'\n'),
            Kind::Responses => bytes[0] == b'H',
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.partial.len() + bytes.len() > MAX_LINE {
            self.partial.clear();
            self.place = Place::Elsewhere;
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn line(&mut self, line: &[u8]) {
        let line = trimmed(line);
        match self.place {
            Place::Start if line.is_empty() => {}
            Place::Start => self.start(line),
            Place::Fields { interim } if line.is_empty() => self.end(interim),
            Place::Fields { .. } => self.field(line),
            Place::Elsewhere => {}
        }
    }

    fn start(&mut self, line: &[u8]) {
        self.place = self.begins(line).unwrap_or(Place::Elsewhere);
        if self.place != Place::Elsewhere {
            self.names.clear();
            self.ends.clear();
            (self.capitals, self.last) = (0, None);
        }
    }

    /// Where `line` leads if it begins a head.
    fn begins(&self, line: &[u8]) -> Option<Place> {
        let begins = match self.kind {
            Kind::Requests => line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"),
            Kind::Responses => line.starts_with(b"HTTP/1."),
        };
        let interim = self.kind == Kind::Responses && line.get(9) == Some(&b'1') && !line[9..].starts_with(b"101");
        begins.then_some(Place::Fields { interim })
    }

    fn field(&mut self, line: &[u8]) {
        let mut capital = false;
        let end = line.iter().position(|byte| {
            capital |= byte.is_ascii_uppercase();
            *byte == b':'
        });
        // A longer one is too long to remember, or a body without end that looks like a head.
        let Some(end) = end.filter(|end| self.names.len() + end < MAX_NAMES) else {
            self.place = Place::Elsewhere;
            return;
        };
        self.names.extend_from_slice(line[..end].trim_ascii_end());
        if capital {
            self.capitals = self.names.len();
        }
        self.ends.extend(u16::try_from(self.names.len()));
        self.names.push(b',');
    }

    fn end(&mut self, interim: bool) {
        self.place = Place::Start;
        if interim {
            return;
        }
        let spelled = self.names.get(..self.capitals).filter(|spelled| !spelled.is_empty());
        let names = spelled.and_then(|names| HeaderValue::from_bytes(names).ok());
        let head = Head { fields: self.ends.len(), names };
        if self.found.len() < MAX_HEADS {
            self.found.push_back(head.clone());
        }
        self.last = Some(head);
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where the first line of `bytes` ends. Eight bytes at a time: heads are read once for every message.
pub(super) fn line_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    let with_end = words.iter().position(|word| {
        let zero_at_end = u64::from_ne_bytes(*word) ^ (ONES * b'\n' as u64);
        zero_at_end.wrapping_sub(ONES) & !zero_at_end & (ONES << 7) != 0
    });
    let (start, part) = with_end.map_or((bytes.len() - rest.len(), rest), |word| (word * 8, &words[word][..]));
    part.iter().position(|byte| *byte == b'\n').map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_line_is_found_wherever_it_is() {
        for length in 0..40 {
            let mut line = vec![b'a' + 1; length];
            assert_eq!(line_end(&line), None, "{length}");
            for end in (0..length).rev() {
                line[end] = b'\n';
                assert_eq!(line_end(&line), Some(end), "{length}");
            }
        }
    }

    #[test]
    fn a_head_with_the_names_of_the_one_before_is_told_from_any_other() {
        let head = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n").into_bytes();
        let known = head("Host: a\r\nX-One: 1\r\nlow: 2");
        for (fields, number, names) in [
            ("Host: b\r\nX-One: 22\r\nlow:", 3, Some("Host,X-One")),
            ("Host: b\r\nX-One: 1", 2, Some("Host,X-One")),
            ("Host: b\r\nX-One: 1\r\nlow: 2\r\nLow: 3", 4, Some("Host,X-One,low,Low")),
            ("Host: b\r\nX-ONE: 1\r\nlow: 2", 3, Some("Host,X-ONE")),
            ("Host: b\r\nX-OneMore: 1\r\nlow: 2", 3, Some("Host,X-OneMore")),
            ("host: b\r\nx-one: 1\r\nlow: 2", 3, None),
        ] {
            let mut heads = Heads::new(Kind::Requests);
            heads.pass(&[known.clone(), head(fields), known.clone(), known.clone()].concat());
            let known = Some("Host,X-One".to_owned());
            assert_eq!(text(heads.next(3)), known);
            assert_eq!(text(heads.next(number)).as_deref(), names, "{fields:?}");
            assert_eq!([text(heads.next(3)), text(heads.next(3))], [known.clone(), known], "after {fields:?}");
        }
    }

    fn text(value: Option<HeaderValue>) -> Option<String> {
        value.map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn names_are_found_however_the_bytes_are_cut() {
        let bytes =
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Weird-CASE: b: c\r\nx-low: 1\r\n\r\nPOST /b HTTP/1.1\r\nhost: a\r\n\r\n";
        for cut in 1..bytes.len() {
            let mut heads = Heads::new(Kind::Requests);
            bytes.chunks(cut).for_each(|part| heads.pass(part));
            assert_eq!(text(heads.next(3)).as_deref(), Some("Host,X-Weird-CASE"), "cut every {cut} bytes");
            assert!(heads.next(1).is_none(), "lower case needs no words");
        }
    }

    #[test]
    fn interim_responses_are_passed_over() {
        let mut heads = Heads::new(Kind::Responses);
        heads.pass(b"HTTP/1.1 100 Continue\r\nX-No: 1\r\n\r\nHTTP/1.1 200 OK\r\nETag: 1\r\n\r\n");
        assert_eq!(text(heads.next(1)).as_deref(), Some("ETag"));
    }

    #[test]
    fn a_body_is_no_head_and_the_next_head_is_found_after_a_write() {
        let mut heads = Heads::new(Kind::Requests);
        heads.pass(b"POST / HTTP/1.1\r\nHost: a\r\n\r\nA body\nof text: two\n\n");
        heads.pass(b"more of it\n");
        assert!(heads.next(1).is_some());
        heads.answered();
        heads.pass(b"GET / HTTP/1.1\r\nHOST: a\r\n\r\n");
        assert_eq!(text(heads.next(1)).as_deref(), Some("HOST"));
    }

    #[test]
    fn names_that_do_not_fit_the_message_are_not_believed() {
        let mut heads = Heads::new(Kind::Requests);
        heads.pass(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(heads.next(7).is_none());
        assert!(heads.next(1).is_none(), "what follows a misfit is doubtful too");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut heads = Heads::new(Kind::Requests);
        heads.pass(b"GET / HTTP/1.1\r\nHost: ");
        for _ in 0..100 {
            heads.pass(&[b'x'; 1024]);
        }
        assert_eq!((heads.partial.len(), heads.place), (0, Place::Elsewhere));
        let mut heads = Heads::new(Kind::Requests);
        for _ in 0..100 {
            heads.pass(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        assert_eq!(heads.found.len(), MAX_HEADS);
        let mut heads = Heads::new(Kind::Requests);
        heads.pass(b"GET / HTTP/1.1\r\n");
        for _ in 0..100 {
            heads.pass(format!("{}: 1\r\n", "X".repeat(100)).as_bytes());
        }
        heads.pass(b"\r\n");
        assert!(heads.names.len() <= MAX_NAMES);
        assert!(heads.next(100).is_none());
        let mut heads = Heads::new(Kind::Requests);
        heads.pass(b"POST / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n");
        for _ in 0..100 {
            heads.pass(&b"a:\r\n".repeat(1000));
        }
        assert!(heads.names.len() <= MAX_NAMES, "a body that looks like a head");
    }
}
