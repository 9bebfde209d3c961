//! The canonical request: authority, path and framing are read once, right after parsing. What is judged is the canonical
//! form; what goes on are the bytes that were sent.

use std::{borrow::Cow, rc::Rc};

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    uri::PathAndQuery,
};
use selvedge_policies::{
    matching::canonical::{Ambiguity, Reading, read},
    reason::Reason,
};

use super::authority::{Authority, Reader};
use crate::error::Error;

/// Header fields a request may have (hyper bounds this for HTTP/1 only).
pub(crate) const MAX_FIELDS: usize = 100;

/// What routing and policy see of a request's target, and what goes on of it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The one authority (host and port) that routing, policy and forwarding see.
    pub authority: Rc<Authority>,
    /// Path and query as they go on.
    pub path_and_query: PathAndQuery,
    /// The form of the path that does not go on, where there are two: the canonical one, or once that goes on the one that
    /// was sent.
    other: Option<Box<str>>,
    rewritten: bool,
    /// Why services may read the path that was sent in another way.
    pub ambiguity: Option<Ambiguity>,
}

impl Target {
    /// The path that routes and policies see.
    pub(crate) fn path(&self) -> &str {
        self.other.as_deref().filter(|_| !self.rewritten).unwrap_or(self.path_and_query.path())
    }

    /// The path that was sent, where it is another one.
    pub(crate) fn sent(&self) -> Option<&str> {
        let other = self.other.as_deref()?;
        Some(if self.rewritten { other } else { self.path_and_query.path() })
    }

    /// Lets the canonical form of the path go on.
    ///
    /// # Errors
    /// It is none that a request can have.
    pub(crate) fn rewrite(&mut self) -> Result<(), Error> {
        let Some(canonical) = self.other.take() else { return Ok(()) };
        let whole = match self.path_and_query.query() {
            Some(query) => format!("{canonical}?{query}"),
            None => canonical.into(),
        };
        self.other = Some(self.path_and_query.path().into());
        self.path_and_query = path_and_query(whole)?;
        self.rewritten = true;
        Ok(())
    }
}

fn path_and_query(text: String) -> Result<PathAndQuery, Error> {
    PathAndQuery::try_from(text).map_err(|e| Error::new(Reason::MalformedPath, e.to_string()))
}

/// Checks a request and gives its target. On success the request's URI is in origin form. One of HTTP/1.0 need not say whom
/// it is for: it is for whoever was `dialled`.
pub(crate) fn canonical<B>(
    request: &mut Request<B>,
    authorities: &Reader,
    dialled: impl Fn() -> String,
) -> Result<Target, Error> {
    let refuse = |reason, detail: &'static str| Error::new(reason, detail);
    framing(request.version(), request.headers_mut()).map_err(|(reason, detail)| refuse(reason, detail))?;
    fields(request.headers()).map_err(|(reason, detail)| refuse(reason, detail))?;
    let dialled = || (request.version() == Version::HTTP_10).then(dialled);
    let authority = authorities.read(request.uri(), request.headers(), dialled);
    let authority = authority.map_err(|detail| refuse(Reason::MalformedHost, detail))?;
    let path_and_query = target(request.method(), request.uri())?;
    let (other, ambiguity) = match read(path_and_query.path()) {
        _ if path_and_query == "*" => (None, None),
        Reading { canonical: Cow::Borrowed(_), ambiguity } => (None, ambiguity),
        Reading { canonical: Cow::Owned(canonical), ambiguity } => (Some(canonical.into()), ambiguity),
    };
    *request.uri_mut() = Uri::from(path_and_query.clone());
    Ok(Target { authority, path_and_query, other, rewritten: false, ambiguity })
}

fn target(method: &Method, uri: &Uri) -> Result<PathAndQuery, Error> {
    let refuse = |detail: &'static str| Error::new(Reason::MalformedPath, detail);
    if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(refuse("the scheme of the target is neither http nor https"));
    }
    match uri.path_and_query() {
        None if method != Method::CONNECT => Err(refuse("a target without a path is for CONNECT only")),
        None => Ok(PathAndQuery::from_static("/")),
        Some(whole) if whole == "*" && method != Method::OPTIONS => Err(refuse("the target '*' is for OPTIONS only")),
        Some(whole) if whole.as_str().starts_with('?') => path_and_query(format!("/{}", whole.as_str())),
        Some(whole) => Ok(whole.clone()),
    }
}

/// RFC 9112 section 6: one way to tell where the message ends. hyper has already refused what it cannot frame and
/// dropped a Content-Length that came with Transfer-Encoding. A length that begins with zeros, which some read as octal, goes on
/// without them.
fn framing(version: Version, headers: &mut HeaderMap) -> Result<(), (Reason, &'static str)> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if version != Version::HTTP_11 {
            return Err((Reason::MalformedFraming, "Transfer-Encoding is for HTTP/1.1 only"));
        }
        if codings.next().is_some() {
            return Err((Reason::MalformedFraming, "more than one Transfer-Encoding header field"));
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err((Reason::UnsupportedTransferCoding, "the only transfer coding accepted is 'chunked'"));
        }
        if headers.contains_key(CONTENT_LENGTH) {
            return Err((Reason::MalformedFraming, "both Content-Length and Transfer-Encoding"));
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        if lengths.next().is_some() {
            return Err((Reason::MalformedFraming, "more than one Content-Length header field"));
        }
        if length.is_empty() || !length.as_bytes().iter().all(u8::is_ascii_digit) {
            return Err((Reason::MalformedFraming, "Content-Length is not a number"));
        }
        if length.len() > 1 && length.as_bytes().starts_with(b"0") {
            let number = length.to_str().ok().and_then(|digits| digits.parse::<u64>().ok());
            let number = number.ok_or((Reason::MalformedFraming, "Content-Length is not a number"))?;
            headers.insert(CONTENT_LENGTH, HeaderValue::from(number));
        }
    }
    Ok(())
}

/// Header fields that two parties could read differently.
fn fields(headers: &HeaderMap) -> Result<(), (Reason, &'static str)> {
    if headers.len() > MAX_FIELDS {
        return Err((Reason::HeadersTooLarge, "more than 100 header fields"));
    }
    for (name, value) in headers {
        let bytes = value.as_bytes();
        let edge = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if edge(bytes.first()) || edge(bytes.last()) {
            return Err((Reason::MalformedHeader, "a header field value begins or ends with white space"));
        }
        let name = name.as_str();
        let imitates =
            |framing: &str| name.len() == framing.len() && name != framing && name.replace('_', "-") == framing;
        if ["content-length", "transfer-encoding"].into_iter().any(imitates) {
            return Err((Reason::MalformedHeader, "a header field name imitates a framing field with '_'"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().version(version).uri("/a/../b?q=/../").header("host", "Shop.test");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn policy_sees_the_canonical_path_and_the_one_that_was_sent_goes_on() {
        let mut request = request(Version::HTTP_11, &[]);
        let mut target = canonical(&mut request, &Reader::default(), String::new).unwrap();
        assert_eq!((target.authority.host(), target.path(), target.sent()), ("shop.test", "/b", Some("/a/../b")));
        assert_eq!(
            (request.uri().to_string(), target.path_and_query.as_str()),
            ("/a/../b?q=/../".into(), "/a/../b?q=/../")
        );
        target.rewrite().unwrap();
        assert_eq!(
            (target.path_and_query.as_str(), target.path(), target.sent()),
            ("/b?q=/../", "/b", Some("/a/../b"))
        );
    }

    #[test]
    fn a_length_has_one_spelling() {
        for (written, goes_on) in [("010", "10"), ("0", "0"), ("000", "0"), ("10", "10")] {
            let mut request = request(Version::HTTP_11, &[("content-length", written)]);
            canonical(&mut request, &Reader::default(), String::new).unwrap();
            assert_eq!(request.headers()[CONTENT_LENGTH], goes_on, "{written}");
        }
    }

    #[test]
    fn odd_framing_is_refused_with_its_reason() {
        use Reason::{MalformedFraming as Framing, MalformedHeader, UnsupportedTransferCoding as Coding};
        let cases = [
            (Version::HTTP_11, &[("transfer-encoding", "identity"), ("transfer-encoding", "chunked")][..], Framing),
            (Version::HTTP_11, &[("transfer-encoding", "gzip, chunked")], Coding),
            (Version::HTTP_11, &[("transfer-encoding", "chunked, chunked")], Coding),
            (Version::HTTP_11, &[("transfer-encoding", ",chunked")], Coding),
            (Version::HTTP_10, &[("transfer-encoding", "chunked")], Framing),
            (Version::HTTP_11, &[("content-length", "1"), ("content-length", "1")], Framing),
            (Version::HTTP_11, &[("content-length", "+1")], Framing),
            (Version::HTTP_11, &[("content-length", "1"), ("transfer-encoding", "chunked")], Framing),
            (Version::HTTP_2, &[("x", " padded")], MalformedHeader),
            (Version::HTTP_11, &[("content_length", "1")], MalformedHeader),
        ];
        for (version, fields, reason) in cases {
            let error = canonical(&mut request(version, fields), &Reader::default(), String::new).unwrap_err();
            assert_eq!(error.reason, reason, "{fields:?}");
        }
    }

    #[test]
    fn more_header_fields_than_anybody_needs_are_refused() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            // `Host` is one of them.
            let of = |count: usize| {
                canonical(&mut request(version, &vec![("x", "1"); count - 1]), &Reader::default(), String::new)
            };
            assert!(of(100).is_ok(), "{version:?}");
            assert_eq!(of(101).unwrap_err().reason, Reason::HeadersTooLarge, "{version:?}");
        }
    }

    #[test]
    fn only_connect_may_name_an_authority_alone() {
        for (method, target) in [(Method::GET, "a:80"), (Method::OPTIONS, "a:80"), (Method::POST, "a")] {
            let mut request = Request::builder().method(method).uri(target).header("host", target).body(()).unwrap();
            let error = canonical(&mut request, &Reader::default(), String::new).unwrap_err();
            assert_eq!(error.reason, Reason::MalformedPath, "{target}");
        }
        let mut absolute = Request::get("http://a").body(()).unwrap();
        assert_eq!(canonical(&mut absolute, &Reader::default(), String::new).unwrap().path_and_query, "/");
        assert_eq!(absolute.uri().to_string(), "/");
    }

    #[test]
    fn options_asterisk_and_connect_have_a_target() {
        let mut options = Request::options("*").header("host", "a").body(()).unwrap();
        assert_eq!(canonical(&mut options, &Reader::default(), String::new).unwrap().path_and_query, "*");
        let mut connect = Request::connect("a:80").header("host", "a:80").body(()).unwrap();
        assert_eq!(canonical(&mut connect, &Reader::default(), String::new).unwrap().authority.full(), "a:80");
    }
}
