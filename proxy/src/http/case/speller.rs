//! Writes the names of an HTTP/1 head as they once were written.
//!
//! The HTTP library writes every name in lower case. How a name was written is nothing but the case of its letters, so it is
//! put right in the bytes of the head as they pass: whatever a peer tells, no name and no line comes of it.

use std::ops::Range;

use http::{HeaderName, HeaderValue};

use super::heads::line_end;

/// What the library writes when a body is awaited; an answer may follow in the same bytes.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Names of one head: a list of more is looked through in vain too often.
const MAX_NAMES: usize = 128;

/// Who writes names, with the list it was given last.
#[derive(Debug, Default)]
pub(super) struct Speller {
    /// The names, joined by commas.
    names: Option<HeaderValue>,
    /// The same in lower case.
    plain: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<u16>,
}

impl Speller {
    /// The head at the start of `bytes`, with those of its names that `names` has as they are there; `None` when it is not
    /// whole.
    pub(super) fn spell(&mut self, bytes: &[u8], names: HeaderValue) -> Option<Vec<u8>> {
        if self.names.as_ref() != Some(&names) {
            self.plain = names.as_bytes().to_ascii_lowercase();
            let commas = self.plain.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
            self.ends = commas.chain([names.len()]).map_while(|end| u16::try_from(end).ok()).collect();
            if self.ends.len() > MAX_NAMES || !self.plain.split(|byte| *byte == b',').all(is_name) {
                self.ends.clear();
            }
            // A copy: what a sidecar told is a part of the head that it came in, and would keep all of that.
            self.names = HeaderValue::from_bytes(names.as_bytes()).ok();
        }
        let names = names.as_bytes();
        let interim = if bytes.starts_with(CONTINUE) { CONTINUE.len() } else { 0 };
        let mut at = interim + line_end(&bytes[interim..])? + 1;
        let (mut head, mut next) = (bytes.to_vec(), 0);
        loop {
            let line = &bytes[at..];
            let end = at + line_end(line)? + 1;
            if line.starts_with(b"\r\n") {
                head.truncate(end);
                return Some(head);
            }
            if let Some((index, name)) = find(&self.plain, &self.ends, next, line) {
                head[at..at + name.len()].copy_from_slice(&names[name]);
                next = index + 1;
            }
            at = end;
        }
    }
}

/// Whether it is the name of a field (RFC 9110 section 5.1). Something longer could reach into a value.
fn is_name(name: &[u8]) -> bool {
    HeaderName::from_lowercase(name).is_ok()
}

/// Which of `names` begins `line`, and where it is among them. They mostly come in the same order again, so it is looked
/// for from the one numbered `next` on first.
fn find(names: &[u8], ends: &[u16], next: usize, line: &[u8]) -> Option<(usize, Range<usize>)> {
    let begins = |index: usize| {
        let start = index.checked_sub(1).map_or(0, |before| usize::from(ends[before]) + 1);
        let name = start..usize::from(ends[index]);
        (line.get(name.len()) == Some(&b':') && line[..name.len()] == names[name.clone()]).then_some((index, name))
    };
    (next..ends.len()).find_map(begins).or_else(|| (0..next).find_map(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(head: &str, names: &str) -> Option<String> {
        let names = HeaderValue::from_str(names).unwrap();
        Speller::default().spell(head.as_bytes(), names).map(|head| String::from_utf8(head).unwrap())
    }

    #[test]
    fn names_are_written_as_they_were_in_any_order() {
        let head = "GET /x-low HTTP/1.1\r\nx-weird-case: x-low: 1\r\nx-weird-case: 2\r\nhost: host\r\nx-new: 3\r\n\
                    x-low: 4\r\ncontent-length: 5\r\nx-weird-case: 6\r\n\r\n";
        let wanted = "GET /x-low HTTP/1.1\r\nX-Weird-CASE: x-low: 1\r\nX-WEIRD-case: 2\r\nHost: host\r\nx-new: 3\r\n\
                      x-low: 4\r\nContent-Length: 5\r\nX-Weird-CASE: 6\r\n\r\n";
        let names = "Host,X-Weird-CASE,x-low,X-WEIRD-case,Content-Length,Upgrade";
        assert_eq!(spelled(head, names).as_deref(), Some(wanted));
        assert_eq!(spelled(&[head, "x-low: body\r\n\r\n"].concat(), names).as_deref(), Some(wanted));
        let (interim, wanted) =
            (["HTTP/1.1 100 Continue\r\n\r\n", head].concat(), ["HTTP/1.1 100 Continue\r\n\r\n", wanted]);
        assert_eq!(spelled(&interim, names), Some(wanted.concat()));
    }

    #[test]
    fn another_list_is_another_spelling() {
        let (mut speller, head) = (Speller::default(), b"HTTP/1.1 200 OK\r\na: 1\r\nb-c: 2\r\n\r\n");
        for names in ["A,B-c", "A,B-c", "B-C,A", "b-c,A"] {
            let written = speller.spell(head, HeaderValue::from_static(names)).unwrap();
            for name in names.split(',') {
                assert!(String::from_utf8_lossy(&written).contains(&format!("\n{name}: ")), "{names}");
            }
        }
    }

    #[test]
    fn no_list_reaches_into_a_value() {
        let head = "HTTP/1.1 200 OK\r\nx-caller: spiffe://a\r\nhost: example:80\r\n\r\n";
        for odd in ["X-Caller: SPIFFE", "Host: EXAMPLE", "X-Caller,Host: EXAMPLE", "X-Caller:", &"A,".repeat(200)] {
            assert_eq!(spelled(head, odd).as_deref(), Some(head), "{odd}");
        }
    }

    #[test]
    fn only_the_case_of_letters_changes_whatever_is_told() {
        let head = "HTTP/1.1 200 OK\r\nhost: a\r\nx-a: b\r\n\r\n";
        for odd in
            ["", ",", ",,", "a b", "Host:", "Host,,X-A", "GET / HTTP/1.1", "Host: a,X", "\u{e9}", "HTTP/1.1 200 OK"]
        {
            assert_eq!(spelled(head, odd).map(|head| head.to_lowercase()), Some(head.to_lowercase()), "{odd:?}");
        }
        for end in 0..head.len() {
            assert_eq!(spelled(&head[..end], "Host"), None, "it is not whole");
        }
    }
}
