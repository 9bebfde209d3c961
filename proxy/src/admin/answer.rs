//! The pages, one function each.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header, request::Parts};
use http_body_util::Full;
use selvedge_decide::describe::describe;
use selvedge_policies::duration::Span;
use selvedge_scrape::gzip;
use serde_json::Value;
use tokio::sync::mpsc::error::TrySendError;

use super::{AdminState, Scope};
use crate::{
    config::InForce,
    drain::{LEAVE, Phase},
    surroundings::{captured::Captured, direct::InboundPort},
    telemetry::View,
};

const TEXT: &str = "text/plain; charset=utf-8";
/// The Prometheus text format, as `prometheus::TEXT_FORMAT` with its character set.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
/// OpenMetrics, as its section on negotiation has it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const INDEX: &str = "\
GET  /metrics  metrics in the Prometheus text format, or as OpenMetrics; those of traffic under
               the names of other meshes in /metrics/istio and /metrics/linkerd
GET  /ready    200 when traffic is taken, else 503
GET  /live     200 while the process runs
GET  /config   the configuration in force, as JSON
POST /leave    not ready from now on; ?for=5s later callers are told: 202 until then, 200 after
POST /drain    finish what is in flight, then exit
";

const ENDING: &str = "the process is ending already\n";

type Page = Response<Full<Bytes>>;

/// Answers one request, which came to the address `own`; its body is never read.
pub(super) async fn answer(request: &Parts, state: &AdminState, scope: Scope, own: Option<IpAddr>) -> Page {
    if scope == Scope::Admin && !names_loopback(request) {
        return text(StatusCode::FORBIDDEN, "this port answers only to localhost, 127.0.0.1 and [::1]\n");
    }
    let admin = scope == Scope::Admin;
    let path = request.uri.path();
    if let Some(view) = View::at(path) {
        return match get_only(request) {
            None => scraped(request, EXPOSITION, state.telemetry.render_view(view).await),
            Some(refusal) => refusal,
        };
    }
    match path {
        "/metrics" => match get_only(request) {
            None => metrics(request, state, own).await,
            Some(refusal) => refusal,
        },
        "/ready" => get_only(request).unwrap_or_else(|| ready(state)),
        "/live" => get_only(request).unwrap_or_else(|| text(StatusCode::OK, "live\n")),
        "/config" if admin => get_only(request).unwrap_or_else(|| config(state)),
        "/leave" if admin => leave(request, state),
        "/drain" if admin => drain(request, state),
        "/" if admin => get_only(request).unwrap_or_else(|| text(StatusCode::OK, INDEX)),
        _ => text(StatusCode::NOT_FOUND, "no such page\n"),
    }
}

/// The application's last, so that what is missing of them is counted in the same scrape. They are in the text format of
/// Prometheus, which cannot stand in OpenMetrics.
async fn metrics(request: &Parts, state: &AdminState, own: Option<IpAddr>) -> Page {
    let text = match &state.application {
        None if accepts_open_metrics(request) => {
            let text = state.telemetry.render_open_metrics(state.created_timestamps).await;
            return scraped(request, OPEN_METRICS, text);
        }
        None => state.telemetry.render().await,
        Some(application) => {
            let application = application.metrics(own, &state.telemetry).await;
            state.telemetry.render().await + &application
        }
    };
    scraped(request, EXPOSITION, text)
}

/// Metrics, in gzip for who asks for it.
fn scraped(request: &Parts, content_type: &'static str, text: String) -> Page {
    let short = if gzip::is_accepted(&request.headers) { gzip::encode(text.as_bytes()) } else { None };
    let is_short = short.is_some();
    let mut page = page(StatusCode::OK, content_type, short.unwrap_or_else(|| text.into_bytes()));
    page.headers_mut().insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if is_short {
        page.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    page
}

/// Whether OpenMetrics is asked for by name (RFC 9110 section 12.5.1), and no more modestly than plain text is.
fn accepts_open_metrics(request: &Parts) -> bool {
    let weight = |name: &str| {
        let lines = request.headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
        let wanted = lines.flat_map(|line| line.split(',')).filter_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            parts.next().filter(|kind| kind.eq_ignore_ascii_case(name))?;
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |weight| weight.parse().ok());
            weight.filter(|weight: &f64| weight.is_finite())
        });
        wanted.fold(0.0, f64::max)
    };
    let open_metrics = weight("application/openmetrics-text");
    open_metrics > 0.0 && open_metrics >= weight("text/plain")
}

fn ready(state: &AdminState) -> Page {
    match *state.ready.borrow() {
        true => text(StatusCode::OK, "ready\n"),
        false => match &state.surroundings.borrow().captured {
            Captured::Not(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
            Captured::NotRequired | Captured::Yes => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        },
    }
}

fn config(state: &AdminState) -> Page {
    let InForce { config, trust } = state.config.borrow().clone();
    let authorities = trust.mesh.as_ref().map(|tls| tls.authorities.clone());
    let mut shown = describe(&config);
    shown["certificate"] = authorities.is_some().into();
    shown["authorities"] = authorities.map_or(Value::Null, Value::from);
    let listeners: Vec<Value> = state.surroundings.borrow().inbound.iter().map(InboundPort::shown).collect();
    shown["inbound"]["listeners"] = listeners.into();
    page(StatusCode::OK, "application/json", format!("{shown:#}\n"))
}

/// Asked again and again it says when callers have been told.
fn leave(request: &Parts, state: &AdminState) -> Page {
    if let Some(refusal) = post_only(request) {
        return refusal;
    }
    let hearing = match request.uri.query().map(|query| query.strip_prefix("for=").map(str::parse::<Span>)) {
        None => LEAVE,
        Some(Some(Ok(hearing))) => hearing.0,
        Some(_) => return text(StatusCode::BAD_REQUEST, "the query is not for=DURATION, such as for=5s\n"),
    };
    if *state.phase.borrow() >= Phase::Told {
        return text(StatusCode::OK, "left\n");
    }
    match state.leave.try_send(hearing) {
        Ok(()) | Err(TrySendError::Full(_)) => text(StatusCode::ACCEPTED, "leaving\n"),
        Err(TrySendError::Closed(_)) => text(StatusCode::SERVICE_UNAVAILABLE, ENDING),
    }
}

fn drain(request: &Parts, state: &AdminState) -> Page {
    if let Some(refusal) = post_only(request) {
        return refusal;
    }
    match state.drain.try_send(()) {
        Ok(()) | Err(TrySendError::Full(())) => text(StatusCode::ACCEPTED, "draining\n"),
        Err(TrySendError::Closed(())) => text(StatusCode::SERVICE_UNAVAILABLE, ENDING),
    }
}

/// The refusal of any method but POST, and of browsers: they say where a request comes from, and no page has a reason to
/// send one that changes something.
fn post_only(request: &Parts) -> Option<Page> {
    if request.method != Method::POST {
        return Some(not_allowed("POST"));
    }
    let is_browser = request.headers.contains_key(header::ORIGIN);
    is_browser.then(|| text(StatusCode::FORBIDDEN, "this is not for browsers\n"))
}

/// The refusal of any method but GET and HEAD.
fn get_only(request: &Parts) -> Option<Page> {
    (!matches!(request.method, Method::GET | Method::HEAD)).then(|| not_allowed("GET, HEAD"))
}

fn not_allowed(allow: &'static str) -> Page {
    let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "wrong method\n");
    refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    refusal
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Page {
    page(status, TEXT, body)
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    let headers = page.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    page
}

/// Whether the request was meant for loopback: an absolute target and `Host` both count, each must be there once.
fn names_loopback(request: &Parts) -> bool {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let named = |authority: &str| {
        let uri = format!("http://{authority}/").parse::<Uri>().ok();
        let host = uri.as_ref().and_then(Uri::host).map(|host| host.trim_matches(['[', ']']).to_ascii_lowercase());
        host.is_some_and(|host| host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()))
    };
    host.to_str().is_ok_and(named) && request.uri.authority().is_none_or(|authority| named(authority.as_str()))
}
