//! The canonical request: authority, path and framing are checked once, right after parsing.

use std::rc::Rc;

use http::{
    HeaderMap, Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    uri::PathAndQuery,
};
use selvedge_policies::{matching::canonical as path, reason::Reason};

use super::authority::{Authority, Reader};
use crate::error::Error;

/// Header fields a request may have (hyper bounds this for HTTP/1 only).
const MAX_FIELDS: usize = 100;

/// What routing and policy see of a request's target. The request itself is changed to match.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The one authority (host and port) that routing, policy and forwarding see.
    pub authority: Rc<Authority>,
    /// Canonical path and query, as forwarded.
    pub path_and_query: PathAndQuery,
}

/// Checks a request and gives its canonical target. On success the request's URI is in origin form.
pub(crate) fn canonical<B>(request: &mut Request<B>, authorities: &Reader) -> Result<Target, Error> {
    let refuse = |reason, detail: &'static str| Error::new(reason, detail);
    framing(request.version(), request.headers()).map_err(|(reason, detail)| refuse(reason, detail))?;
    fields(request.headers()).map_err(|(reason, detail)| refuse(reason, detail))?;
    let authority =
        authorities.read(request.uri(), request.headers()).map_err(|detail| refuse(Reason::MalformedHost, detail))?;
    let path_and_query = target(request.method(), request.uri())?;
    *request.uri_mut() = Uri::from(path_and_query.clone());
    Ok(Target { authority, path_and_query })
}

fn target(method: &Method, uri: &Uri) -> Result<PathAndQuery, Error> {
    let refuse = |detail: String| Error::new(Reason::MalformedPath, detail);
    if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(refuse("the scheme of the target is neither http nor https".into()));
    }
    if method == Method::CONNECT && uri.path_and_query().is_none_or(|path| path.as_str().is_empty()) {
        return Ok(PathAndQuery::from_static("/"));
    }
    if method == Method::OPTIONS && uri.path() == "*" {
        return Ok(PathAndQuery::from_static("*"));
    }
    let canonical = path::canonical(uri.path()).map_err(|e| refuse(e.to_string()))?;
    match (&canonical, uri.path_and_query()) {
        (std::borrow::Cow::Borrowed(_), Some(whole)) => Ok(whole.clone()),
        _ => {
            let whole = match uri.query() {
                Some(query) => format!("{canonical}?{query}"),
                None => canonical.into_owned(),
            };
            PathAndQuery::try_from(whole).map_err(|e| refuse(e.to_string()))
        }
    }
}

/// RFC 9112 section 6: one way to tell where the message ends. hyper has already refused what it cannot frame and
/// dropped a Content-Length that came with Transfer-Encoding.
fn framing(version: Version, headers: &HeaderMap) -> Result<(), (Reason, &'static str)> {
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
        let alias = name.as_str().as_bytes().contains(&b'_')
            && matches!(name.as_str().replace('_', "-").as_str(), "content-length" | "transfer-encoding" | "host");
        if alias {
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
    fn the_request_is_rewritten_to_what_policy_sees() {
        let mut request = request(Version::HTTP_11, &[]);
        let target = canonical(&mut request, &Reader::default()).unwrap();
        assert_eq!(target.authority.host(), "shop.test");
        assert_eq!(request.uri(), "/b?q=/../");
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
            let error = canonical(&mut request(version, fields), &Reader::default()).unwrap_err();
            assert_eq!(error.reason, reason, "{fields:?}");
        }
    }

    #[test]
    fn more_header_fields_than_anybody_needs_are_refused() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            // `Host` is one of them.
            let of = |count: usize| canonical(&mut request(version, &vec![("x", "1"); count - 1]), &Reader::default());
            assert!(of(100).is_ok(), "{version:?}");
            assert_eq!(of(101).unwrap_err().reason, Reason::HeadersTooLarge, "{version:?}");
        }
    }

    #[test]
    fn options_asterisk_and_connect_have_a_target() {
        let mut options = Request::options("*").header("host", "a").body(()).unwrap();
        assert_eq!(canonical(&mut options, &Reader::default()).unwrap().path_and_query, "*");
        let mut connect = Request::connect("a:80").header("host", "a:80").body(()).unwrap();
        assert_eq!(canonical(&mut connect, &Reader::default()).unwrap().authority.full(), "a:80");
    }
}
