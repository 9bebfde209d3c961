//! What belongs to one request and travels with every call made for it: `x-request-id` and W3C `traceparent`.

use http::{HeaderMap, HeaderName, HeaderValue};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The identity of a request across services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    request_id: String,
    /// 32 hex digits.
    trace_id: String,
    /// Two hex digits: sampled or not is the decision of whoever began the trace.
    flags: String,
}

impl Context {
    /// The caller's identifiers, or fresh ones where they are missing or malformed.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let (trace_id, flags) = text(TRACEPARENT)
            .and_then(parse_traceparent)
            .unwrap_or_else(|| (format!("{:032x}", fastrand::u128(1..)), "01".into()));
        let request_id = text(REQUEST_ID)
            .filter(|id| !id.is_empty() && id.len() <= 128)
            .map_or_else(|| format!("{:016x}", fastrand::u64(..)), str::to_owned);
        Self { request_id, trace_id, flags }
    }

    /// Writes the identifiers into the headers of a call, under a new span.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        let traceparent = format!("00-{}-{:016x}-{}", self.trace_id, fastrand::u64(1..), self.flags);
        for (name, value) in [(REQUEST_ID, self.request_id.as_str()), (TRACEPARENT, traceparent.as_str())] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }

    /// A gRPC request with `message` that carries the identifiers.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        self.apply(request.metadata_mut().as_mut());
        request
    }
}

/// Trace id and flags of a `traceparent` (W3C Trace Context, section 3.2) of version 00.
fn parse_traceparent(value: &str) -> Option<(String, String)> {
    let [version, trace, span, flags] = value.split('-').collect::<Vec<_>>().try_into().ok()?;
    let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let nonzero = |part: &str| part.bytes().any(|b| b != b'0');
    let valid = version == "00" && hex(trace, 32) && nonzero(trace) && hex(span, 16) && nonzero(span) && hex(flags, 2);
    valid.then(|| (trace.to_owned(), flags.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_under_a_new_span() {
        let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut inbound = HeaderMap::new();
        inbound.insert(TRACEPARENT, HeaderValue::from_static(caller));
        inbound.insert(REQUEST_ID, HeaderValue::from_static("r-1"));
        let mut outbound = HeaderMap::new();
        Context::from_headers(&inbound).apply(&mut outbound);

        let sent = outbound[TRACEPARENT].to_str().expect("text");
        assert!(sent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && sent.ends_with("-01"), "{sent}");
        assert_ne!(sent, caller);
        assert_eq!(outbound[REQUEST_ID], "r-1");
    }

    #[test]
    fn malformed_identifiers_are_replaced() {
        for bad in ["", "00-xyz", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "ff-4bf92f-00-01"] {
            let mut inbound = HeaderMap::new();
            inbound.insert(TRACEPARENT, HeaderValue::from_static(bad));
            let context = Context::from_headers(&inbound);
            assert_eq!(context.trace_id.len(), 32, "{bad:?}");
            assert_eq!(context.request_id.len(), 16);
        }
    }
}
