//! The canonical form of a path (RFC 3986 sections 5.2.4 and 6.2.2), and what services may read in another way.
//!
//! A rule that closes `/admin` is worth nothing when `/x/../admin` or `/%61dmin` reaches the same page, so rules look at one
//! form of a path: dot segments are resolved, slashes merged, escapes of unreserved characters decoded and the others in
//! upper case, and what no path may have as it is (RFC 3986 section 3.3) is escaped. Decoding happens once: `%2561` is not
//! `a`.
//!
//! Where services are known to disagree no form is right for all of them: the path is [ambiguous](Ambiguity). Whoever
//! decides by paths in front of a service says what becomes of it
//! ([`AmbiguousPaths`](crate::settings::AmbiguousPaths)).

use std::borrow::Cow;

/// Why services may read a path in another way than its canonical form says, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Ambiguity {
    /// Two slashes in a row, which some services merge.
    #[error("the path has an empty segment, which some services leave out")]
    EmptySegment,
    /// `.` or `..`, which some services resolve.
    #[error("the path has a dot segment, which some services resolve")]
    DotSegment,
    /// `..` above the root.
    #[error("a dot segment of the path leads above the root")]
    AboveRoot,
    /// `;`, also escaped, from which on some services leave a segment out.
    #[error("the path has a ';', perhaps escaped, from which on some services leave a segment out")]
    Parameters,
    /// An escaped `?` or `#`, which some services decode before they look for the end of the path.
    #[error("the path has an escaped '?' or '#', at which it ends for some services")]
    HiddenEnd,
    /// `%` is not followed by two hex digits.
    #[error("a '%' in the path is not followed by two hex digits")]
    BadEscape,
    /// A control character or a byte sequence that is not UTF-8.
    #[error("the path has a control character or is not UTF-8")]
    NotText,
    /// An encoded slash or a backslash.
    #[error("the path has an encoded slash or a backslash, which services read in different ways")]
    HiddenSlash,
    /// It does not begin with a slash, so it is no path of a request at all.
    #[error("the path does not begin with '/'")]
    NotAbsolute,
}

impl Ambiguity {
    /// True when every service reads the canonical form in the same way, whatever it makes of the path itself.
    ///
    /// ```
    /// use selvedge_policies::matching::canonical::Ambiguity;
    ///
    /// assert!(Ambiguity::DotSegment.is_resolved() && !Ambiguity::HiddenSlash.is_resolved());
    /// ```
    pub const fn is_resolved(self) -> bool {
        matches!(self, Self::EmptySegment | Self::DotSegment)
    }
}

/// What is read in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<'a> {
    /// Its canonical form; borrowed when the path has it already, which costs one scan.
    pub canonical: Cow<'a, str>,
    /// The worst of what others may read differently.
    pub ambiguity: Option<Ambiguity>,
}

/// Reads a path, without its query.
///
/// ```
/// use selvedge_policies::matching::canonical::{Ambiguity, read};
///
/// assert_eq!(read("/shop/%63art").canonical, "/shop/cart");
/// let odd = read("/shop//x/%2e%2e/cart");
/// assert_eq!((&*odd.canonical, odd.ambiguity), ("/shop/cart", Some(Ambiguity::DotSegment)));
/// assert_eq!(read("/shop/..%2fadmin").ambiguity, Some(Ambiguity::HiddenSlash));
/// ```
pub fn read(path: &str) -> Reading<'_> {
    if is_plain(path.as_bytes()) {
        return Reading { canonical: Cow::Borrowed(path), ambiguity: None };
    }
    if !path.starts_with('/') {
        return Reading { canonical: Cow::Borrowed(path), ambiguity: Some(Ambiguity::NotAbsolute) };
    }
    let (decoded, hidden) = decode_unreserved(path.as_bytes());
    let (canonical, dots) = resolve(&decoded);
    Reading { canonical: Cow::Owned(canonical), ambiguity: hidden.max(dots) }
}

/// True for paths that need no second look: no escape, no parameter, no backslash, no empty or dot-leading segment.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    let plain = path.iter().all(|&byte| {
        let plain = match byte {
            b'%' | b'\\' | b';' | b'<' | b'>' | b'`' | 0..=0x20 | 0x7f.. => false,
            b'/' | b'.' => previous != b'/',
            _ => true,
        };
        previous = byte;
        plain
    });
    plain && path.first() == Some(&b'/')
}

/// Decodes escapes of unreserved characters, makes the others upper case, and escapes what a path may not have as it is.
fn decode_unreserved(path: &[u8]) -> (String, Option<Ambiguity>) {
    let mut out = String::with_capacity(path.len());
    let mut raw = Vec::with_capacity(path.len());
    let mut found = None;
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let (value, was_escaped) = match escape(tail).filter(|_| byte == b'%') {
            Some(value) => {
                rest = tail.get(2..).unwrap_or_default();
                (value, true)
            }
            None => (byte, false),
        };
        raw.push(value);
        found = found.max(match value {
            b'\\' => Some(Ambiguity::HiddenSlash),
            b'/' if was_escaped => Some(Ambiguity::HiddenSlash),
            b'?' | b'#' if was_escaped => Some(Ambiguity::HiddenEnd),
            b';' => Some(Ambiguity::Parameters),
            b'%' if !was_escaped => Some(Ambiguity::BadEscape),
            0..=0x1f | 0x7f => Some(Ambiguity::NotText),
            _ => None,
        });
        let stays = if was_escaped { is_unreserved(value) } else { may_be_in_path(value) };
        match stays {
            true => out.push(char::from(value)),
            false => out.push_str(&format!("%{value:02X}")),
        }
    }
    let text = std::str::from_utf8(&raw).is_err().then_some(Ambiguity::NotText);
    (out, found.max(text))
}

/// The value of the two hex digits at the start.
fn escape(digits: &[u8]) -> Option<u8> {
    let high = char::from(*digits.first()?).to_digit(16)?;
    let low = char::from(*digits.get(1)?).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether clients send it as it is. Some do so with characters that RFC 3986 has escaped.
const fn may_be_in_path(byte: u8) -> bool {
    !matches!(byte, 0..=0x20 | 0x7f.. | b'%' | b'\\' | b'<' | b'>' | b'`')
}

/// Merges slashes and removes dot segments (RFC 3986 section 5.2.4).
fn resolve(path: &str) -> (String, Option<Ambiguity>) {
    let mut segments: Vec<&str> = Vec::new();
    let mut found = None;
    let mut directory = false;
    let last = path.split('/').count() - 1;
    for (n, segment) in path.split('/').enumerate().skip(1) {
        directory = true;
        match segment {
            "" if n == last => {}
            "" => found = found.max(Some(Ambiguity::EmptySegment)),
            "." => found = found.max(Some(Ambiguity::DotSegment)),
            ".." => {
                let within = if segments.pop().is_some() { Ambiguity::DotSegment } else { Ambiguity::AboveRoot };
                found = found.max(Some(within));
            }
            _ => {
                segments.push(segment);
                directory = false;
            }
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if directory || segments.is_empty() {
        out.push('/');
    }
    (out, found)
}

/// A path as the laxest of services may tell it from others: every escape decoded, letters in lower case. What is no text
/// stays escaped. Borrowed when it is so already.
pub(crate) fn fold(path: &str) -> Cow<'_, str> {
    match path.bytes().all(|byte| byte != b'%' && byte.is_ascii() && !byte.is_ascii_uppercase()) {
        true => Cow::Borrowed(path),
        false => Cow::Owned(in_lower_case(&decode(path))),
    }
}

/// A canonical path with each of its escapes as one character, none of which a canonical path has: then no part of it begins
/// or ends within an escape. Borrowed when it has none.
pub(crate) fn with_whole_escapes(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escaped) = rest.split_at(at);
        text.push_str(before);
        let whole = escape(&escaped.as_bytes()[1..]).and_then(|value| char::from_u32(0x100 + u32::from(value)));
        text.push(whole.unwrap_or('%'));
        rest = &escaped[if whole.is_some() { 3 } else { 1 }..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// `start` without what it has of an escape or a character that it cuts in two.
pub(crate) fn whole_start(start: &str) -> &str {
    let start = match start.rfind('%') {
        Some(at) if at + 3 > start.len() => &start[..at],
        _ => start,
    };
    let bytes = decode(start);
    let rest = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let is_cut = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
    // What is not whole there can only be written as escapes.
    if is_cut { &start[..start.len() - 3 * rest.len()] } else { start }
}

/// `end` without what it has of a character that it cuts in two. What it has of an escape are letters and digits as any.
pub(crate) fn whole_end(end: &str) -> &str {
    let cut = decode(end).iter().take_while(|byte| matches!(byte, 0x80..=0xbf)).count();
    &end[3 * cut..]
}

fn decode(path: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = escape(tail).filter(|_| byte == b'%');
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    bytes
}

fn in_lower_case(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.extend(chunk.valid().chars().flat_map(char::to_lowercase));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_path_become_one() {
        for (given, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/adm%69n", "/admin"),
            ("/%2561dmin", "/%2561dmin"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/a b<c>`", "/a%20b%3Cc%3E%60"),
        ] {
            assert_eq!(read(given), Reading { canonical: expected.into(), ambiguity: None }, "{given}");
        }
    }

    #[test]
    fn what_services_read_in_two_ways_is_told_with_the_form_that_rules_see() {
        use Ambiguity::{
            AboveRoot, BadEscape, DotSegment, EmptySegment, HiddenEnd, HiddenSlash, NotAbsolute, NotText, Parameters,
        };
        for (given, canonical, why) in [
            ("/x/../admin", "/admin", DotSegment),
            ("/./admin", "/admin", DotSegment),
            ("/admin/.", "/admin/", DotSegment),
            ("/x/%2e%2e/admin", "/admin", DotSegment),
            ("/x/.%2E/admin", "/admin", DotSegment),
            ("/x//../admin", "/admin", DotSegment),
            ("//admin", "/admin", EmptySegment),
            ("///admin", "/admin", EmptySegment),
            ("/a//", "/a/", EmptySegment),
            ("//", "/", EmptySegment),
            ("/a;v=1/b", "/a;v=1/b", Parameters),
            ("/a/..;/admin", "/a/..;/admin", Parameters),
            ("/.;", "/.;", Parameters),
            ("/admin%3ba=b", "/admin%3Ba=b", Parameters),
            ("/public/..%3B/admin", "/public/..%3B/admin", Parameters),
            ("/admin%3fx", "/admin%3Fx", HiddenEnd),
            ("/admin%23", "/admin%23", HiddenEnd),
            ("/../admin", "/admin", AboveRoot),
            ("/%2fadmin", "/%2Fadmin", HiddenSlash),
            ("/x%2F..%2fadmin", "/x%2F..%2Fadmin", HiddenSlash),
            ("/%5cadmin", "/%5Cadmin", HiddenSlash),
            ("/x\\..\\admin", "/x%5C..%5Cadmin", HiddenSlash),
            ("/a//b%2fc", "/a/b%2Fc", HiddenSlash),
            ("/admin%00", "/admin%00", NotText),
            ("/admin%0d%0a", "/admin%0D%0A", NotText),
            ("/admin%ff", "/admin%FF", NotText),
            ("/%c0%af", "/%C0%AF", NotText),
            ("/a%", "/a%25", BadEscape),
            ("/a%4", "/a%254", BadEscape),
            ("/a%zz", "/a%25zz", BadEscape),
            ("", "", NotAbsolute),
            ("a", "a", NotAbsolute),
            ("*", "*", NotAbsolute),
        ] {
            assert_eq!(read(given), Reading { canonical: canonical.into(), ambiguity: Some(why) }, "{given}");
        }
    }

    #[test]
    fn what_lax_services_take_for_one_path_folds_to_one() {
        for (one, other) in [
            ("/admin", "/ADMIN"),
            ("/@scope/admin", "/%40scope/admin"),
            ("/a!b", "/a%21b"),
            ("/caf%C3%A9", "/CAF%C3%89"),
            ("/kit", "/%E2%84%AAit"),
        ] {
            assert_eq!(fold(one), fold(other), "{one}");
        }
        assert_ne!(fold("/%2561dmin"), fold("/admin"), "escapes are decoded once");
        assert_eq!((&*fold("/a%FFb"), &*fold("/a%4")), ("/a%ffb", "/a%4"));
    }

    #[test]
    fn an_escape_is_as_long_as_a_character() {
        assert_eq!(with_whole_escapes("/a/b"), Cow::Borrowed("/a/b"));
        for path in ["/%20", "/%C3%A9", "/a%2Fb%20"] {
            let whole = with_whole_escapes(path);
            assert_eq!(whole.chars().count(), path.len() - 2 * path.matches('%').count(), "{path}");
            assert!(!whole.contains(['%', ' ']) && whole.matches('/').count() == path.matches('/').count(), "{whole}");
        }
        assert_eq!(with_whole_escapes("/a%4"), "/a%4");
    }

    #[test]
    fn what_is_cut_in_two_is_found() {
        for (start, whole) in [
            ("/a%", "/a"),
            ("/a%2", "/a"),
            ("/a%20", "/a%20"),
            ("/caf%C3", "/caf"),
            ("/caf%C3%", "/caf"),
            ("/%E2%82", "/"),
            ("/%E2%82%AC", "/%E2%82%AC"),
            ("/caf%C3x", "/caf%C3x"),
            ("/%FF", "/%FF"),
        ] {
            assert_eq!(whole_start(start), whole, "{start}");
        }
        for (end, whole) in
            [("%A9", ""), ("%82%AC/x", "/x"), ("%E2%82%AC", "%E2%82%AC"), ("20", "20"), ("/%20", "/%20")]
        {
            assert_eq!(whole_end(end), whole, "{end}");
        }
    }

    proptest! {
        #[test]
        fn canonical_is_a_fixed_point(path in "/[a-z%./;~A-F0-9\\\\ é]{0,40}") {
            let once = read(&path);
            let twice = read(&once.canonical);
            prop_assert_eq!(&twice.canonical, &once.canonical);
            let has = |part: &str| once.canonical.contains(part);
            prop_assert!(!has("//") && !has("/../") && !has("/./"));
            if once.ambiguity.is_none_or(Ambiguity::is_resolved) {
                prop_assert_eq!(twice.ambiguity, None);
            }
        }
    }
}
