//! What joins the lines that several sidecars, and the applications between them, write about one request.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::canonical::MAX_FIELDS;
use crate::telemetry::{Ids, Sampling};

mod b3;
mod span;

pub(crate) use span::Span;

// Text would have to be made a name for each request, which costs more than to look for it.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The value of `x-request-id`.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(&REQUEST_ID).cloned()
}

/// Gives a request that has none an id of its own, a UUID by chance (RFC 9562 section 5.4), for the log and for whoever
/// handles it after this.
pub(crate) fn identify(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let id = HeaderValue::from_str(&uuid(fastrand::u128(..))).ok()?;
    headers.insert(&REQUEST_ID, id.clone());
    Some(id)
}

fn uuid(bits: u128) -> String {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0b11 << 62;
    let bits = bits & !VERSION & !VARIANT | 4 << 76 | 0b10 << 62;
    let mut text = String::with_capacity(36);
    for (at, part) in [(96, 8), (80, 4), (64, 4), (48, 4), (0, 12)] {
        let separator = if text.is_empty() { "" } else { "-" };
        let part_of = bits >> at & ((1 << (4 * part)) - 1);
        let _ = write!(text, "{separator}{part_of:0part$x}"); // a String takes all
    }
    text
}

/// The span of a request with this head, where spans are made, and what logs and metrics say that the request is part of: the span,
/// or what its caller says.
pub(crate) fn begin(headers: &HeaderMap, sampling: Option<Sampling>) -> (Option<Box<Span>>, Option<HeaderValue>) {
    let span = sampling.and_then(|sampling| Span::begin(headers, sampling));
    let traceparent = span.as_ref().map_or_else(|| parent(headers), |span| span.traceparent());
    (span, traceparent)
}

/// What a request is part of, as `traceparent` (W3C Trace Context section 3.2). Where it says that in the forms of B3, that is
/// read as well.
fn parent(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(&TRACEPARENT).cloned().or_else(|| {
        let (trace, span) = b3::ids(headers)?;
        HeaderValue::from_str(&format!("00-{trace:032x}-{span:016x}-00")).ok()
    })
}

/// The value of a field that is text.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Sets a field, unless that would be one more than the next may take.
fn put(headers: &mut HeaderMap, name: &HeaderName, value: impl TryInto<HeaderValue>) {
    if let Ok(value) = value.try_into()
        && (headers.len() < MAX_FIELDS || headers.contains_key(name))
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn b3_is_read_as_the_standard_is() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let w3c = format!("00-{trace}-{span}-01");
        let read =
            |headers: &[(&'static str, &str)]| parent(&fields(headers)).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(read(&[("traceparent", &w3c), ("b3", "0")]), Some(w3c));
        let same = Some(format!("00-{trace}-{span}-00"));
        assert_eq!(read(&[("b3", &format!("{trace}-{span}-1-05e3ac9a4f6e3b90"))]), same);
        assert_eq!(read(&[("b3", &format!("{trace}-{span}"))]), same);
        assert_eq!(read(&[("x-b3-traceid", trace), ("x-b3-spanid", span), ("x-b3-sampled", "1")]), same);
        let short = read(&[("x-b3-traceid", &trace[16..]), ("x-b3-spanid", span)]);
        assert_eq!(short, Some(format!("00-0000000000000000{}-{span}-00", &trace[16..])));
        for nothing in [
            "0",
            "1",
            "",
            "d",
            "x-y",
            &format!("{trace}-"),
            &format!("{trace}-{span}0"),
            &format!("g{}-{span}", &trace[1..]),
        ] {
            assert_eq!(read(&[("b3", nothing)]), None, "{nothing:?}");
        }
    }

    #[test]
    fn an_id_is_a_uuid_by_chance() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let (mut headers, mut others) = (HeaderMap::new(), HeaderMap::new());
        let id = identify(&mut headers);
        assert!(id.is_some() && id == request_id(&headers) && id != identify(&mut others));
    }
}
