//! The only place where an error becomes a response.

use std::time::{Duration, UNIX_EPOCH};

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};
use selvedge_policies::{reason::Reason, verdict::Answer};

use super::{Body, hop};
use crate::{clock, error::Error};

/// How a call of gRPC has ended.
pub(crate) static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Bytes that a sidecar is told of a detail.
const MAX_TOLD: usize = 1024;

/// What decides how an error is written for the one who asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// A meshed caller learns the reason; any other learns the status and code only.
    pub meshed: bool,
    /// A sidecar, which writes in its own log what is said here.
    pub sidecar: bool,
    /// The request was gRPC, so the answer is trailers-only (gRPC over HTTP/2).
    pub grpc: bool,
}

/// True for gRPC requests, by content type.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The reason for which a sidecar gave this answer, where it says so.
pub(crate) fn reason(headers: &HeaderMap) -> Option<Reason> {
    let code = headers.get(&hop::REASON)?.as_bytes();
    Reason::ALL.iter().copied().find(|known| known.code().as_bytes() == code)
}

/// True when the endpoint's own sidecar could not connect to the application.
pub(crate) fn found_nobody<B>(response: &Response<B>) -> bool {
    // Sidecars of earlier releases say of their application what others say of an endpoint.
    matches!(
        reason(response.headers()),
        Some(Reason::ApplicationUnreachable | Reason::UpstreamConnectFailed | Reason::UpstreamConnectTimeout)
    )
}

/// The status that says how an endpoint fared. gRPC tells it beside the status of HTTP, which is 200: by the reason of
/// the sidecar that answered, or by an answer of trailers only.
pub(crate) fn status<B>(response: &Response<B>, grpc: bool) -> u16 {
    let headers = response.headers();
    let told = if grpc { reason(headers).map(Reason::status).or_else(|| grpc_as_http(headers)) } else { None };
    told.unwrap_or(response.status().as_u16())
}

/// The status of HTTP that says what the `grpc-status` in these fields does of an endpoint, where there is one.
pub(crate) fn grpc_as_http(fields: &HeaderMap) -> Option<u16> {
    match fields.get(&GRPC_STATUS)?.as_bytes() {
        b"7" => Some(403),  // PERMISSION_DENIED
        b"8" => Some(429),  // RESOURCE_EXHAUSTED
        b"14" => Some(503), // UNAVAILABLE
        b"4" => Some(504),  // DEADLINE_EXCEEDED
        _ => None,
    }
}

/// True for an answer of gRPC that says how it ended behind its content.
pub(crate) fn tells_later<B>(response: &Response<B>, grpc: bool) -> bool {
    grpc && response.status() == StatusCode::OK && !response.headers().contains_key(&GRPC_STATUS)
}

/// How long whoever answered wants to be left alone (RFC 9110 section 10.2.3): so many seconds, or until a date.
pub(crate) fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(until.saturating_sub(clock::since_epoch()))
}

/// The response for `error`.
pub(crate) fn reply(error: &Error, caller: Caller) -> Response<Body> {
    let mut response = match &error.answer {
        _ if caller.grpc => grpc(error),
        Some(answer) => told(answer, error, caller),
        None => json(error, caller),
    };
    let headers = response.headers_mut();
    if caller.meshed {
        headers.insert(&hop::REASON, HeaderValue::from_static(error.reason.code()));
    }
    if caller.sidecar {
        tell(headers, hop::DETAIL, &error.detail);
        tell(headers, hop::POLICY, &error.policy);
    }
    if let Some(after) = error.retry_after {
        headers.insert(RETRY_AFTER, seconds(after));
    }
    if is_untrustworthy(error.reason) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Says in a field what there is to say, as far as a field can.
fn tell(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_bytes(&text.as_bytes()[..text.len().min(MAX_TOLD)])
        && !value.is_empty()
    {
        headers.insert(name, value);
    }
}

/// What a sidecar said in such a field, which goes no further.
pub(crate) fn heard(headers: &mut HeaderMap, name: &HeaderName) -> Option<String> {
    headers.remove(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A time in whole seconds, rounded up (RFC 9110 section 10.2.3).
pub(crate) fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// An error that a policy tells in its own words: status and fields, and content where it has some.
fn told(answer: &Answer, error: &Error, caller: Caller) -> Response<Body> {
    let mut response = match answer.body.is_empty() {
        true => json(error, caller),
        false => Response::new(Body::full(answer.body.clone())),
    };
    *response.status_mut() = answer.status;
    let mut headers = answer.headers.clone();
    hop::strip_answer(&mut headers);
    response.headers_mut().extend(headers);
    response
}

/// True when what follows on the connection may not be what its sender means (RFC 9112 section 11.2).
const fn is_untrustworthy(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::MalformedFraming
            | Reason::UnsupportedTransferCoding
            | Reason::MalformedHost
            | Reason::MalformedPath
            | Reason::MalformedHeader
            | Reason::HeadersTooLarge
            | Reason::CallerTimeout
    )
}

fn json(error: &Error, caller: Caller) -> Response<Body> {
    let mut body = serde_json::json!({ "error": error.reason.code(), "page": error.reason.page() });
    if caller.meshed {
        body["detail"] = error.detail.as_ref().into();
        if !error.policy.is_empty() {
            body["policy"] = error.policy.as_ref().into();
        }
    }
    let mut response = Response::new(Body::full(format!("{body}\n")));
    *response.status_mut() = StatusCode::from_u16(error.reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn grpc(error: &Error) -> Response<Body> {
    let own = error.answer.as_ref().map(|answer| (answer.status.as_u16(), answer.grpc_status));
    let (status, code) = own.unwrap_or((error.reason.status(), None));
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(&GRPC_STATUS, HeaderValue::from(code.unwrap_or(grpc_status(status))));
    headers.insert(&GRPC_MESSAGE, grpc_message(error.reason));
    response
}

/// What a person reads who calls by gRPC: the code, and the page that explains it.
fn grpc_message(reason: Reason) -> HeaderValue {
    // Both are ASCII without anything to escape, so that it never fails.
    HeaderValue::try_from(format!("{reason}, see {}", reason.page()))
        .unwrap_or_else(|_| HeaderValue::from_static(reason.code()))
}

/// The gRPC status code for a status (gRPC's table of HTTP statuses, with 429 as RESOURCE_EXHAUSTED).
const fn grpc_status(status: u16) -> u16 {
    match status {
        400 | 431 => 13,
        401 => 16,
        403 => 7,
        404 | 501 => 12,
        429 => 8,
        499 => 1,
        504 => 4,
        500 => 2,
        _ => 14,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Error {
        Error { policy: "shop/deny".into(), ..Error::new(Reason::PolicyDenied, "because") }
    }

    #[test]
    fn only_meshed_callers_learn_the_reason() {
        let meshed = reply(&denied(), Caller { meshed: true, sidecar: true, grpc: false });
        assert_eq!(meshed.status(), 403);
        assert_eq!(meshed.headers()["selvedge-reason"], "policy_denied");
        assert_eq!([&hop::DETAIL, &hop::POLICY].map(|name| &meshed.headers()[name]), ["because", "shop/deny"]);
        let own = reply(&denied(), Caller { meshed: true, sidecar: false, grpc: false });
        assert!(!own.headers().contains_key(&hop::DETAIL), "an application has it in the content");
        let stranger = reply(&denied(), Caller { meshed: false, sidecar: false, grpc: false });
        assert!(!stranger.headers().contains_key("selvedge-reason"));
    }

    #[tokio::test]
    async fn every_refusal_names_its_page_to_whoever_called() {
        for reason in Reason::ALL {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
            let page = std::fs::read_to_string(format!("{root}/{}", reason.page())).unwrap();
            assert!(page.starts_with(&format!("# {reason}\n")), "{reason}");
            for meshed in [true, false] {
                let caller = Caller { meshed, sidecar: meshed, grpc: false };
                let answer = reply(&Error::new(*reason, "because"), caller);
                let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
                let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!((&told["error"], &told["page"]), (&reason.code().into(), &reason.page().into()));
                assert!(body.len() < 200, "{reason}: {} bytes", body.len());
                let called = reply(&Error::new(*reason, "because"), Caller { grpc: true, ..caller });
                assert_eq!(called.headers()["grpc-message"], format!("{reason}, see {}", reason.page()));
            }
        }
    }

    #[test]
    fn a_grpc_failure_is_told_as_one() {
        let caller = Caller { meshed: true, sidecar: true, grpc: true };
        let unreachable = Error::new(Reason::UpstreamConnectFailed, "");
        assert_eq!(status(&reply(&unreachable, caller), true), Reason::UpstreamConnectFailed.status());
        assert_eq!(status(&reply(&denied(), caller), true), 403);
        let by_service = |code: &'static str| Response::builder().header("grpc-status", code).body(()).unwrap();
        assert_eq!(["0", "5", "14", "4"].map(|code| status(&by_service(code), true)), [200, 200, 503, 504]);
        assert_eq!(status(&by_service("14"), false), 200, "it is no gRPC");
    }

    #[test]
    fn grpc_callers_get_a_grpc_status() {
        let response = reply(&denied(), Caller { meshed: true, sidecar: true, grpc: true });
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "7");
    }

    #[test]
    fn a_grpc_caller_is_told_what_a_policy_says_in_its_own_words() {
        let caller = Caller { meshed: true, sidecar: true, grpc: true };
        let told = |status, grpc_status| {
            let refusal = Answer::refuse(Reason::PolicyDenied, "shop/deny".into());
            let answer = Answer { status: StatusCode::from_u16(status).unwrap(), grpc_status, ..refusal };
            let response = reply(&Error::answered(answer), caller);
            (response.status().as_u16(), response.headers()["grpc-status"].to_str().unwrap().to_owned())
        };
        assert_eq!([told(403, None), told(429, None), told(403, Some(16))].map(|(_, code)| code), ["7", "8", "16"]);
        assert_eq!(told(503, Some(5)), (200, "5".to_owned()));
    }

    #[test]
    fn a_service_says_when_to_come_back() {
        let asked = |value: &str| retry_after(&Response::builder().header(RETRY_AFTER, value).body(()).unwrap());
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("99999999999999999999999"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO), "that is over");
        let to_come = asked("Thu, 31 Dec 2099 23:59:59 GMT");
        assert!(to_come > Some(Duration::from_secs(86_400)), "{to_come:?}");
        assert_eq!((asked("soon"), asked("-5"), asked("")), (None, None, None));
    }

    #[test]
    fn retry_after_is_rounded_up_to_seconds() {
        let mut error = Error::new(Reason::RateLimited, "");
        error.retry_after = Some(std::time::Duration::from_millis(1200));
        assert_eq!(reply(&error, Caller { meshed: false, sidecar: false, grpc: false }).headers()["retry-after"], "2");
    }
}
