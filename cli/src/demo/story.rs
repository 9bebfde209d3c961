//! What the mesh did about the planted faults, in sentences with measured numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    metrics::Series,
    observe::{Sidecar, Span},
    plan::POSTGRES,
    summary::{share, total},
};

/// How often an instance was found resting behind an open breaker.
#[derive(Debug, Default)]
pub(super) struct Rested {
    looks: BTreeMap<String, u32>,
    of: u32,
}

impl Rested {
    /// Takes note of the breakers that are open at the end of `span`.
    pub(super) fn note(&mut self, span: &Span) {
        let now = span.sidecars.iter().flat_map(|change| &change.now);
        let open = now.filter(|series| series.name == "selvedge_breaker_state" && series.value >= 2.0);
        let names: BTreeSet<&str> = open.map(|series| instance_at(span, series.label("endpoint"))).collect();
        for name in names {
            *self.looks.entry(name.to_owned()).or_default() += 1;
        }
        self.of += 1;
    }
}

/// One sentence for each thing that happened.
pub(super) fn tell(span: &Span, rested: &Rested) -> Vec<String> {
    let sentences =
        [retries(span), breakers(rested), balance(span), denials(span), limits(span), canary(span), database(span)];
    sentences.into_iter().flatten().collect()
}

fn retries(span: &Span) -> Option<String> {
    let outcome = |wanted| move |(_, s): &(Sidecar, &Series)| s.label("outcome") == wanted;
    let made = |wanted| total(span.grown("selvedge_retries_total").filter(outcome(wanted)));
    let (hidden, failed) = (made("success"), made("failure"));
    (hidden + failed > 0.0).then(|| {
        format!("retries      {hidden:.0} failures of content-2 hidden by a retry; {failed:.0} retries failed")
    })
}

fn breakers(rested: &Rested) -> Option<String> {
    let parts: Vec<String> = rested.looks.iter().map(|(name, looks)| format!("{name} at {looks}")).collect();
    (!parts.is_empty())
        .then(|| format!("breaker      rested {} of {} looks, a second apart", parts.join(", "), rested.of))
}

/// How much of the load the slow instance got.
fn balance(span: &Span) -> Option<String> {
    let of = |name: Option<&'static str>| {
        total(span.grown("selvedge_requests_total").filter(|(sidecar, series)| {
            let content = sidecar.instance.service == "content" && series.label("direction") == "inbound";
            content && name.is_none_or(|name| sidecar.instance.name == name)
        }))
    };
    let slow = share(of(Some("content-3")), of(None))?;
    Some(format!("balancing    content-3 (150 ms slower) got {:.1} % of content's requests", slow * 100.0))
}

fn denials(span: &Span) -> Option<String> {
    let denied = |(_, s): &(Sidecar, &Series)| s.label("direction") == "inbound" && s.value > 0.0;
    let parts: Vec<String> = span
        .grown("selvedge_denials_total")
        .filter(denied)
        .map(|(sidecar, series)| {
            let (from, to, reason) = (caller(series), sidecar.instance.service, series.label("reason"));
            format!("{:.0} calls {from} -> {to} ({reason})", series.value)
        })
        .collect();
    (!parts.is_empty()).then(|| format!("denied       {}", parts.join(", ")))
}

fn limits(span: &Span) -> Option<String> {
    let limited = |(_, s): &(Sidecar, &Series)| s.label("direction") == "inbound";
    let count = total(span.grown("selvedge_rate_limited_total").filter(limited));
    let all = total(
        span.grown("selvedge_requests_total")
            .filter(|(sidecar, s)| sidecar.instance.service == "integrations" && s.label("direction") == "inbound"),
    );
    (count > 0.0)
        .then(|| format!("rate limit   {count:.0} of {all:.0} calls to integrations got 429 (2 a second pass)"))
}

fn canary(span: &Span) -> Option<String> {
    let measured = share(span.load.canary as f64, span.load.versioned as f64)?;
    Some(format!("canary       {:.1} % of the pages came from ui v2 (10 % wanted)", measured * 100.0))
}

/// Connections live long and are counted from the start.
fn database(span: &Span) -> Option<String> {
    let own = span.sidecars.iter().filter(|change| change.sidecar.instance.service == POSTGRES);
    let opened = own.flat_map(|change| &change.now).filter(|series| {
        series.name == "selvedge_tcp_connections_opened_total" && series.label("direction") == "inbound"
    });
    let (over_mtls, all) = opened.fold((0.0, 0.0), |(over_mtls, all), series| {
        (over_mtls + if series.label("tls") == "mtls" { series.value } else { 0.0 }, all + series.value)
    });
    (all > 0.0)
        .then(|| format!("database     PostgreSQL, as opaque bytes: {over_mtls:.0} of {all:.0} connections over mTLS"))
}

/// The caller's service account, from its identity.
fn caller(series: &Series) -> &str {
    series.label("source_identity").rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("somebody unknown")
}

fn instance_at<'a>(span: &'a Span, endpoint: &'a str) -> &'a str {
    let known = span.sidecars.iter().map(|change| change.sidecar);
    known
        .filter(|s| s.dialed.is_some_and(|a| a.to_string() == endpoint))
        .map(|s| s.instance.name)
        .next()
        .unwrap_or(endpoint)
}
