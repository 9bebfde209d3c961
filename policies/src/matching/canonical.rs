//! The canonical path (RFC 3986 section 6.2.2): what policy judges is what is forwarded.
//!
//! Unreserved characters are decoded once, escapes are upper-case, dot segments are resolved and repeated slashes
//! merged. A path that a service could read in two ways is refused: encoded slashes, backslashes, control characters,
//! bytes that are not UTF-8, dot segments that leave the root or carry parameters.
//!
//! A rule that closes `/admin` is worth nothing when `/x/../admin` or `/%61dmin` reaches the same page, so paths are
//! made one before anything looks at them, and the form that was judged is the form that goes on. What stays encoded
//! stays so: decoding happens once, and `%2561` is not `a`. Where services are known to disagree (is `%2F` a separator,
//! is `..;` a parent), no form would be right for all of them, and the request is answered with 400 instead. Envoy has
//! the parts of this as options (`normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`); here nothing
//! turns it off.

use std::borrow::Cow;

/// Why a path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with '/'")]
    NotAbsolute,
    /// `%` is not followed by two hex digits.
    #[error("a '%' in the path is not followed by two hex digits")]
    BadEscape,
    /// An encoded slash or a backslash.
    #[error("the path has an encoded slash or a backslash, which services read in different ways")]
    HiddenSlash,
    /// A control character or a byte sequence that is not UTF-8.
    #[error("the path has an encoded control character or is not UTF-8")]
    NotText,
    /// `..` above the root, or a dot segment with parameters.
    #[error("a dot segment of the path leads above the root or carries parameters")]
    DotSegment,
}

/// The canonical form of `path` (no query). Borrowed when it is canonical already, which costs one scan.
///
/// ```
/// use selvedge_policies::matching::canonical::{PathError, canonical};
///
/// assert_eq!(canonical("/shop//x/%2e%2e/%63art").unwrap(), "/shop/cart");
/// assert_eq!(canonical("/shop/..%2fadmin"), Err(PathError::HiddenSlash));
/// ```
pub fn canonical(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_canonical(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path.as_bytes())?;
    resolve(&decoded).map(Cow::Owned)
}

/// True for paths that need no change: no escape, no backslash, no empty or dot-leading segment.
fn is_canonical(path: &[u8]) -> bool {
    let mut previous = 0;
    path.iter().all(|&byte| {
        let plain = match byte {
            b'%' | b'\\' | 0..=0x20 | 0x7f.. => false,
            b'/' | b'.' => previous != b'/',
            _ => true,
        };
        previous = byte;
        plain
    })
}

/// Decodes escapes of unreserved characters, normalises the others to upper case, refuses the ambiguous.
fn decode_unreserved(path: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len());
    let mut raw = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'\\' => return Err(PathError::HiddenSlash),
            0..=0x20 | 0x7f.. => return Err(PathError::NotText),
            b'%' => {
                let value = escape(tail).ok_or(PathError::BadEscape)?;
                rest = tail.get(2..).unwrap_or_default();
                raw.push(value);
                match value {
                    b'/' | b'\\' => return Err(PathError::HiddenSlash),
                    0..=0x1f | 0x7f => return Err(PathError::NotText),
                    _ if is_unreserved(value) => out.push(char::from(value)),
                    _ => out.push_str(&format!("%{value:02X}")),
                }
            }
            _ => {
                raw.push(byte);
                out.push(char::from(byte));
            }
        }
    }
    if std::str::from_utf8(&raw).is_err() {
        return Err(PathError::NotText);
    }
    Ok(out)
}

fn escape(digits: &[u8]) -> Option<u8> {
    let high = char::from(*digits.first()?).to_digit(16)?;
    let low = char::from(*digits.get(1)?).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Merges slashes and removes dot segments (RFC 3986 section 5.2.4).
fn resolve(path: &str) -> Result<String, PathError> {
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in path.split('/').skip(1) {
        directory = true;
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(PathError::DotSegment)?;
            }
            _ if segment.starts_with(".;") || segment.starts_with("..;") => return Err(PathError::DotSegment),
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
    Ok(out)
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
            ("/x/../admin", "/admin"),
            ("/./admin", "/admin"),
            ("/admin/.", "/admin/"),
            ("/x/%2e%2e/admin", "/admin"),
            ("/x/.%2E/admin", "/admin"),
            ("//admin", "/admin"),
            ("/x//../admin", "/admin"),
            ("///admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/adm%69n", "/admin"),
            ("/%2561dmin", "/%2561dmin"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/a;v=1/b", "/a;v=1/b"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for (given, why) in [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("/%2fadmin", PathError::HiddenSlash),
            ("/x%2F..%2fadmin", PathError::HiddenSlash),
            ("/%5cadmin", PathError::HiddenSlash),
            ("/x\\..\\admin", PathError::HiddenSlash),
            ("/admin%00", PathError::NotText),
            ("/admin%0d%0a", PathError::NotText),
            ("/admin%ff", PathError::NotText),
            ("/%c0%af", PathError::NotText),
            ("/a%", PathError::BadEscape),
            ("/a%4", PathError::BadEscape),
            ("/a%zz", PathError::BadEscape),
            ("/../admin", PathError::DotSegment),
            ("/a/..;/admin", PathError::DotSegment),
            ("/a/..;x=1", PathError::DotSegment),
            ("/a/.;x/admin", PathError::DotSegment),
            ("/.;", PathError::DotSegment),
        ] {
            assert_eq!(canonical(given), Err(why), "{given}");
        }
    }

    proptest! {
        #[test]
        fn canonical_is_a_fixed_point(path in "/[a-z%./;~A-F0-9\\\\ é]{0,40}") {
            if let Ok(once) = canonical(&path) {
                let twice = canonical(&once);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(!once.contains("//") && !once.contains("/../") && !once.contains("/./"));
            }
        }
    }
}
