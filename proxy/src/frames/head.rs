//! Heads in their binary form: a request line or status, then fields, each a name and a value.

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, HOST},
    request, response,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::ext::ReasonPhrase;

use super::{
    Broken,
    names::{self, SPELLING},
};

/// Fields of a head that are read; more than a request may have, so that what is refused is refused by name.
const MAX_FIELDS: usize = 1024;

/// Set in the version of a request that asks to become a tunnel.
const BECOMES: u8 = 0x80;

/// Methods that are one byte, each known by its place, counted from one.
const METHODS: [Method; 8] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::TRACE,
];

/// A request as it goes to another sidecar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The method, in any case it was sent.
    pub method: &'a Method,
    /// The version that the caller spoke.
    pub version: Version,
    /// Host, and port where one was given.
    pub authority: &'a str,
    /// Path and query in origin form.
    pub path_and_query: &'a str,
    /// The fields; `Host` is left out, the authority says it.
    pub headers: &'a HeaderMap,
    /// How the names of the fields were written.
    pub spelling: Option<&'a HeaderValue>,
    /// The protocols that it asks to switch to, after which it has no content; empty for a plain CONNECT.
    pub becomes: Option<&'a [u8]>,
}

/// What a peer's head says beside the message.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The version that the caller spoke.
    pub version: Version,
    /// How the names of the fields were written.
    pub spelling: Option<HeaderValue>,
    /// The protocols that the request asks to switch to; empty for a plain CONNECT.
    pub becomes: Option<Bytes>,
}

/// Appends the head of a request.
pub(crate) fn encode_request(out: &mut Vec<u8>, asked: &Asked<'_>) {
    out.push(version_code(asked.version) | if asked.becomes.is_some() { BECOMES } else { 0 });
    match METHODS.iter().position(|known| known == asked.method) {
        Some(place) => out.push(u8::try_from(place + 1).unwrap_or_default()),
        None => {
            out.push(0);
            text(out, asked.method.as_str().as_bytes());
        }
    }
    text(out, asked.authority.as_bytes());
    text(out, asked.path_and_query.as_bytes());
    if let Some(protocols) = asked.becomes {
        text(out, protocols);
    }
    if let Some(spelling) = asked.spelling {
        field(out, &SPELLING, spelling);
    }
    fields(out, asked.headers);
}

/// Appends the head of a response. Its reason phrase is told where it is not the usual one.
pub(crate) fn encode_response(out: &mut Vec<u8>, parts: &response::Parts) {
    out.extend_from_slice(&parts.status.as_u16().to_be_bytes());
    text(out, parts.extensions.get::<ReasonPhrase>().map_or(&[], ReasonPhrase::as_bytes));
    fields(out, &parts.headers);
}

/// Appends trailers, which are fields and nothing else.
pub(crate) fn encode_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    fields(out, trailers);
}

/// Reads the head of a request.
pub(crate) fn request(mut bytes: Bytes) -> Result<(request::Parts, Told), Broken> {
    let bytes = &mut bytes;
    let first = byte(bytes)?;
    let version = version(first & !BECOMES)?;
    let method = match byte(bytes)? {
        0 => Method::from_bytes(&take(bytes)?).map_err(|_| Broken("a method that is none"))?,
        place => METHODS.get(usize::from(place) - 1).cloned().ok_or(Broken("a method that is not known"))?,
    };
    let authority = Authority::from_maybe_shared(take(bytes)?).map_err(|_| Broken("an authority that is none"))?;
    let target = PathAndQuery::from_maybe_shared(take(bytes)?).map_err(|_| Broken("a path that is none"))?;
    let becomes = if first & BECOMES == 0 { None } else { Some(take(bytes)?) };
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(target);
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri.build().map_err(|_| Broken("a target that is none"))?;
    parts.version = Version::HTTP_2;
    let spelling = read_fields(bytes, &mut parts.headers)?;
    Ok((parts, Told { version, spelling, becomes }))
}

/// Reads the head of a response.
pub(crate) fn response(mut bytes: Bytes) -> Result<(response::Parts, Told), Broken> {
    let bytes = &mut bytes;
    let status = StatusCode::from_u16(bytes.try_get_u16().map_err(|_| SHORT)?);
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status.map_err(|_| Broken("a status that is none"))?;
    let reason = take(bytes)?;
    if !reason.is_empty() {
        parts.extensions.insert(ReasonPhrase::try_from(reason).map_err(|_| Broken("a reason phrase that is none"))?);
    }
    parts.version = Version::HTTP_2;
    let spelling = read_fields(bytes, &mut parts.headers)?;
    Ok((parts, Told { spelling, ..Told::default() }))
}

/// Reads what [`encode_trailers`] wrote.
pub(crate) fn trailers(mut bytes: Bytes) -> Result<HeaderMap, Broken> {
    let mut trailers = HeaderMap::new();
    read_fields(&mut bytes, &mut trailers)?;
    Ok(trailers)
}

/// The length that a head announces for its content.
///
/// # Errors
/// It is no number.
pub(crate) fn announced(headers: &HeaderMap) -> Result<Option<u64>, Broken> {
    let Some(length) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let digits = Some(length.as_bytes()).filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.map(Some).ok_or(Broken("a length of content that is no number"))
}

const SHORT: Broken = Broken("a head that ends too early");

const fn version_code(version: Version) -> u8 {
    match version {
        Version::HTTP_10 => 0,
        Version::HTTP_11 => 1,
        _ => 2,
    }
}

const fn version(code: u8) -> Result<Version, Broken> {
    match code {
        0 => Ok(Version::HTTP_10),
        1 => Ok(Version::HTTP_11),
        2 => Ok(Version::HTTP_2),
        _ => Err(Broken("a version that is not known")),
    }
}

fn fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if name != HOST {
            field(out, name, value);
        }
    }
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    match names::place(name) {
        Some(place) => out.push(place),
        None => {
            out.push(0);
            text(out, name.as_str().as_bytes());
        }
    }
    text(out, value.as_bytes());
}

/// Puts the fields into `headers`, apart from how their names were written.
fn read_fields(bytes: &mut Bytes, headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Broken> {
    let mut spelling = None;
    while bytes.has_remaining() {
        let name = match byte(bytes)? {
            0 => HeaderName::from_bytes(&take(bytes)?).map_err(|_| Broken("a field name that is none"))?,
            place => names::at(place).ok_or(Broken("a field name that is not known"))?,
        };
        let value = HeaderValue::from_maybe_shared(take(bytes)?).map_err(|_| Broken("a field value that is none"))?;
        if name == SPELLING {
            spelling = Some(value);
        } else if headers.len() < MAX_FIELDS {
            headers.append(name, value);
        } else {
            return Err(Broken("more fields than anybody needs"));
        }
    }
    Ok(spelling)
}

fn byte(bytes: &mut Bytes) -> Result<u8, Broken> {
    bytes.try_get_u8().map_err(|_| SHORT)
}

/// A text, after its length: seven bits a byte, the least first, the highest bit set in all but the last.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push((length & 0x7f) as u8);
    out.extend_from_slice(text);
}

fn take(bytes: &mut Bytes) -> Result<Bytes, Broken> {
    let mut length = 0;
    for shift in (0..28).step_by(7) {
        let part = byte(bytes)?;
        length |= usize::from(part & 0x7f) << shift;
        if part & 0x80 == 0 {
            return if length <= bytes.len() { Ok(bytes.split_to(length)) } else { Err(SHORT) };
        }
    }
    Err(Broken("a length that is none"))
}
