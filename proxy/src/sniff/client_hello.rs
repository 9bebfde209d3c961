//! The two fields of a TLS ClientHello that decide where a connection goes, read without a TLS stack.
//!
//! The message may be spread over several records (RFC 8446 section 5.1); lengths are checked before any byte
//! behind them is touched.

use super::Detection;

/// Content type of handshake records (RFC 8446 section 5.1).
pub(crate) const RECORD_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const RECORD_MAX: usize = 16_384;
/// Key shares for hybrid groups make a few KiB; what is larger is passed on without being read.
const MESSAGE_MAX: usize = 16_384;

/// What a client asks for when it opens TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientHello {
    /// Server name (RFC 6066 section 3), lower case; `None` when absent, longer than 255 bytes, not printable ASCII, with
    /// an empty label (so also with a dot at the end), or one of several: what others may read as another name is no name.
    pub server_name: Option<String>,
    /// Application protocols offered (RFC 7301), in the client's order.
    pub alpn: Vec<Vec<u8>>,
}

/// Classifies bytes whose first is that of a handshake record.
pub(super) fn classify(bytes: &[u8]) -> Detection {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        match record(rest) {
            Record::Whole(fragment, after) => {
                message.extend_from_slice(fragment);
                rest = after;
            }
            Record::Part(fragment) => {
                message.extend_from_slice(fragment);
                return verdict(&message).unwrap_or(Detection::NeedMore);
            }
            Record::Foreign => return Detection::Opaque,
        }
        if let Some(verdict) = verdict(&message) {
            return verdict;
        }
    }
}

/// The verdict on the handshake bytes so far, if they suffice for one.
fn verdict(message: &[u8]) -> Option<Detection> {
    if *message.first()? != MESSAGE_CLIENT_HELLO {
        return Some(Detection::Opaque);
    }
    let len = message.get(1..4)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    if len > MESSAGE_MAX {
        return Some(Detection::Tls(ClientHello::default()));
    }
    let body = message.get(4..4 + len)?;
    Some(parse(body).map_or(Detection::Opaque, Detection::Tls))
}

enum Record<'a> {
    /// The fragment of a complete record, and what follows the record.
    Whole(&'a [u8], &'a [u8]),
    /// The bytes so far of a record's fragment.
    Part(&'a [u8]),
    /// Not a handshake record of any TLS version.
    Foreign,
}

fn record(bytes: &[u8]) -> Record<'_> {
    let wrong = |at: usize, ok: fn(u8) -> bool| bytes.get(at).is_some_and(|byte| !ok(*byte));
    if wrong(0, |kind| kind == RECORD_HANDSHAKE) || wrong(1, |major| major == 3) || wrong(2, |minor| minor <= 4) {
        return Record::Foreign;
    }
    let Some(&[high, low]) = bytes.get(3..5) else { return Record::Part(&[]) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len == 0 || len > RECORD_MAX {
        return Record::Foreign;
    }
    let fragment = &bytes[5..];
    match fragment.split_at_checked(len) {
        Some((whole, after)) => Record::Whole(whole, after),
        None => Record::Part(fragment),
    }
}

/// Parses the body of a ClientHello (RFC 8446 section 4.1.2); `None` when its lengths do not fit or an extension
/// that matters here occurs twice.
fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut body = Reader(body);
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(body.vector16()?);
    let (mut seen_name, mut seen_alpn) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let content = Reader(extensions.vector16()?);
        match kind {
            EXTENSION_SERVER_NAME if std::mem::replace(&mut seen_name, true) => return None,
            EXTENSION_SERVER_NAME => hello.server_name = server_name(content)?,
            EXTENSION_ALPN if std::mem::replace(&mut seen_alpn, true) => return None,
            EXTENSION_ALPN => hello.alpn = alpn(content)?,
            _ => {}
        }
    }
    Some(hello)
}

fn server_name(mut content: Reader<'_>) -> Option<Option<String>> {
    let mut names = Reader(content.vector16()?);
    let kind = names.take(1)?;
    let name = names.vector16()?;
    let readable = kind == [0]
        && names.0.is_empty()
        && (1..=255).contains(&name.len())
        && name.iter().all(u8::is_ascii_graphic)
        && name.split(|byte| *byte == b'.').all(|label| !label.is_empty());
    Some(readable.then(|| String::from_utf8_lossy(name).to_ascii_lowercase()))
}

fn alpn(mut content: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = Reader(content.vector16()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.vector8()?.to_vec());
    }
    Some(protocols)
}

/// Reads TLS presentation language (RFC 8446 section 3); every step is checked.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(usize::from(len))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let len = self.number16()?;
        self.take(usize::from(len))
    }
}

/// A ClientHello in one record, for tests.
#[cfg(test)]
pub(crate) fn example(server_name: Option<&str>, protocols: &[&[u8]]) -> Vec<u8> {
    let message = tests::message(server_name, protocols);
    tests::records(&message, RECORD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector16(content)].concat()
    }

    pub(super) fn message(server_name: Option<&str>, protocols: &[&[u8]]) -> Vec<u8> {
        let mut extensions = extension(0x0a0a, &[]);
        if let Some(name) = server_name {
            let entry = [&[0][..], &vector16(name.as_bytes())].concat();
            extensions.extend(extension(EXTENSION_SERVER_NAME, &vector16(&entry)));
        }
        if !protocols.is_empty() {
            let list: Vec<u8> =
                protocols.iter().flat_map(|p| [&[u8::try_from(p.len()).unwrap()][..], p].concat()).collect();
            extensions.extend(extension(EXTENSION_ALPN, &vector16(&list)));
        }
        let body = [&[3, 3][..], &[7; 32], &[0], &vector16(&[0x13, 0x01]), &[1, 0], &vector16(&extensions)].concat();
        let len = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[MESSAGE_CLIENT_HELLO][..], &len[1..], &body].concat()
    }

    pub(super) fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[RECORD_HANDSHAKE, 3, 1][..], &vector16(part)].concat()).collect()
    }

    #[test]
    fn server_name_and_protocols_are_read() {
        let bytes = example(Some("Web.Shop"), &[b"selvedge-h2", b"selvedge-h1"]);
        let Detection::Tls(hello) = classify(&bytes) else { panic!("not TLS") };
        assert_eq!(hello.server_name.as_deref(), Some("web.shop"));
        assert!(hello.alpn.contains(&b"selvedge-h1".to_vec()) && !hello.alpn.contains(&b"h2".to_vec()));
    }

    #[test]
    fn the_message_may_be_spread_over_records() {
        let message = message(Some("web.shop"), &[b"h2"]);
        let whole = classify(&records(&message, RECORD_MAX));
        for size in [1, 2, 3, 40] {
            assert_eq!(classify(&records(&message, size)), whole, "records of {size} bytes");
        }
    }

    #[test]
    fn names_that_are_not_hosts_are_left_out() {
        for name in
            ["", "web.shop.", "web.shop..", "web..shop", ".web.shop", "a\nb", "a b", "\u{e9}.test", &"x".repeat(256)]
        {
            let Detection::Tls(hello) = classify(&example(Some(name), &[])) else { panic!("not TLS") };
            assert_eq!(hello.server_name, None, "{name:?}");
        }
    }

    #[test]
    fn a_doubled_server_name_is_refused() {
        let mut body = message(Some("a.test"), &[])[4..].to_vec();
        let entry = [&[0][..], &vector16(b"b.test")].concat();
        let twice = extension(EXTENSION_SERVER_NAME, &vector16(&entry));
        let at = 2 + 32 + 1 + 4 + 2;
        let len = u16::from_be_bytes([body[at], body[at + 1]]) + u16::try_from(twice.len()).unwrap();
        body[at..at + 2].copy_from_slice(&len.to_be_bytes());
        body.extend(twice);
        assert_eq!(parse(&body), None);
    }

    #[test]
    fn an_enormous_message_is_tls_without_a_name() {
        let bytes = [RECORD_HANDSHAKE, 3, 1, 0x40, 0, MESSAGE_CLIENT_HELLO, 0x10, 0, 0];
        assert_eq!(classify(&bytes), Detection::Tls(ClientHello::default()));
    }
}
