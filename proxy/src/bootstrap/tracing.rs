//! Where spans go, and which.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Deserialize;

use crate::telemetry::Sampling;

/// The port of OTLP over gRPC.
const GRPC: u16 = 4317;
/// The port of OTLP over HTTP.
const HTTP: u16 = 4318;

/// Spans of the requests that the sidecar handles.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// The collector that gets spans, and how it is spoken to.
    pub(crate) endpoint: Collector,
    /// The share of the traces that begin here which is recorded, from 0 to 1.
    #[serde(default)]
    pub(crate) sampling: Share,
    /// `service.name`; that of the service before the workload, or else of the workload, when absent.
    #[serde(default)]
    pub(crate) service_name: Option<String>,
    /// Fields that each message to the collector has.
    #[serde(default)]
    pub(crate) headers: Fields,
}

/// A collector that speaks OTLP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Collector {
    /// Its address as it is written; over HTTP with the path that takes spans.
    pub(crate) uri: Uri,
    /// Its name, or its address without brackets.
    pub(crate) host: String,
    /// Its port; where none is written the usual one of gRPC, http or https.
    pub(crate) port: u16,
    /// Whether it is spoken to over TLS.
    pub(crate) tls: bool,
    /// Whether it is spoken to over HTTP with protobuf, not over gRPC.
    pub(crate) http: bool,
}

impl TryFrom<String> for Collector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let problem = |what: &str| format!("endpoint is '{text}'; {what}");
        let example = "expected http:// or https://, such as http://collector:4317 (gRPC) or http://collector:4318/v1/traces (HTTP)";
        let uri: Uri = text.parse().map_err(|_| problem(example))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(problem(example)),
        };
        let authority = uri.authority().ok_or_else(|| problem(example))?;
        if authority.as_str().contains('@') {
            return Err("endpoint has a user or a password; that belongs into headers, as authorization".into());
        }
        let http = uri.path() != "/" || uri.query().is_some();
        if !http && authority.port_u16() == Some(HTTP) {
            return Err(problem(
                "4318 is the port for HTTP; expected the path, which is /v1/traces, or port 4317 for gRPC",
            ));
        }
        let port = authority.port_u16().unwrap_or(match (http, tls) {
            (false, _) => GRPC,
            (true, true) => 443,
            (true, false) => 80,
        });
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self { uri, host, port, tls, http })
    }
}

/// A share of all, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub(crate) struct Share(f64);

impl Default for Share {
    fn default() -> Self {
        Self(1.0)
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(format!("sampling is {share}; expected 0 to 1"))
        }
    }
}

impl From<Share> for Sampling {
    fn from(Share(share): Share) -> Self {
        Self::of(share)
    }
}

/// Fields of a message; their values are not shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub(crate) struct Fields(pub(crate) HeaderMap);

impl TryFrom<BTreeMap<String, String>> for Fields {
    type Error = String;

    fn try_from(fields: BTreeMap<String, String>) -> Result<Self, String> {
        let field = |(name, value): (String, String)| {
            let is_text = !name.ends_with("-bin"); // gRPC has bytes in these
            let known = HeaderName::try_from(&name).ok().filter(|_| is_text);
            let known = known.ok_or_else(|| format!("headers has '{name}', which is no name of a field of text"))?;
            let mut value = HeaderValue::try_from(value).map_err(|_| format!("headers has no text as {name}"))?;
            value.set_sensitive(true);
            Ok((known, value))
        };
        Ok(Self(fields.into_iter().map(field).collect::<Result<_, String>>()?))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bootstrap::Bootstrap;

    fn parse(tracing: &str) -> Result<Tracing, String> {
        let text =
            format!("workload: shop/web-1\ncontrolPlane: 127.0.0.1:15010\nstateDir: /tmp/x\ntracing: {tracing}\n");
        let bootstrap = Bootstrap::parse(&text, Path::new("sidecar.yaml")).map_err(|error| error.to_string())?;
        Ok(bootstrap.tracing.expect("it is there"))
    }

    #[test]
    fn a_path_says_that_a_collector_is_spoken_to_over_http() {
        for (endpoint, host, port, tls, http) in [
            ("http://collector:4317", "collector", 4317, false, false),
            ("https://otel.example.com", "otel.example.com", 4317, true, false),
            ("http://[fd00::1]:4318/v1/traces", "fd00::1", 4318, false, true),
            ("https://otel.example.com/otlp/v1/traces?x=1", "otel.example.com", 443, true, true),
        ] {
            let Collector { host: named, port: at, tls: secure, http: over_http, .. } =
                parse(&format!("{{endpoint: '{endpoint}'}}")).unwrap().endpoint;
            assert_eq!((&*named, at, secure, over_http), (host, port, tls, http), "{endpoint}");
        }
        let whole = parse("{endpoint: 'http://c:4317', sampling: 0.25, headers: {authorization: Bearer x}}").unwrap();
        assert_eq!(Sampling::from(whole.sampling), Sampling::of(0.25));
        assert!(whole.headers.0["authorization"].is_sensitive() && !format!("{whole:?}").contains("Bearer"));
    }

    #[test]
    fn what_cannot_be_meant_is_said_with_what_is_expected() {
        for (tracing, expected) in [
            ("{}", "endpoint"),
            ("{endpoint: collector}", "endpoint is 'collector'; expected http:// or https://"),
            ("{endpoint: 'collector:4317'}", "expected http:// or https://"),
            ("{endpoint: 'grpc://collector:4317'}", "expected http:// or https://"),
            ("{endpoint: 'http://collector:4318'}", "/v1/traces"),
            ("{endpoint: 'http://me:secret@collector:4317'}", "authorization"),
            ("{endpoint: 'http://c:4317', sampling: 2}", "sampling is 2; expected 0 to 1"),
            ("{endpoint: 'http://c:4317', headers: {a b: c}}", "headers has 'a b'"),
            ("{endpoint: 'http://c:4317', ratio: 1}", "ratio"),
        ] {
            let message = parse(tracing).expect_err(tracing);
            assert!(message.contains(expected), "{tracing}: {message}");
        }
    }
}
