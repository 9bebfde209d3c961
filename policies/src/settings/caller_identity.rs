//! `callerIdentity`: the header fields in which the application is told who calls, and in which nobody else can say it.
//!
//! Guarantees:
//! - What a caller sends under one of the names, however it spells it, in whichever section and on whichever protocol, is
//!   gone before any policy looks at the request. `x-forwarded-client-cert` is one of the names whatever is written.
//! - What the application is told is what the caller has proven by mTLS. Who has proven nothing is told of in no field.
//! - Nobody is a trusted proxy whom the operator has not named; what those say stays.
//!
//! The format of `x-forwarded-client-cert` is Envoy's (`By`, `Hash` and `URI`, elements joined by commas), so applications
//! read it as they do elsewhere. Its values are quoted there when they have one of `,;="` in them, which a SPIFFE ID cannot
//! ([`Identity`]).

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Effect, Setting};
use crate::{
    context::Context,
    facts::{ConnectionFacts, Identity, Peer, RequestFacts, Section},
    kind::Problem,
    matching::header::is_alias,
    merge::Strictness,
    policy::{Needs, RequestPolicy},
    verdict::{Answer, Verdict},
};

mod name;

/// The field that is always the mesh's own.
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

pub(super) const SETTING: Setting = Setting {
    field: "callerIdentity",
    schema: |generator| generator.subschema_for::<Option<CallerIdentity>>(),
    check,
    strict: &[("callerIdentity.trustedProxies", Strictness::Rights)],
    effect: Effect::Decides(compile),
    in_pods: None,
};

/// The header fields that say who calls.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CallerIdentity {
    /// What becomes of each field, by its name in lower case. `x-forwarded-client-cert` is removed when nobody names it.
    #[serde(default)]
    headers: BTreeMap<String, Mode>,
    /// Callers that may set the fields, by SPIFFE ID; nobody when absent.
    #[serde(default)]
    trusted_proxies: Vec<String>,
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Mode {
    /// The application is told in it who calls: by `x-forwarded-client-cert` in Envoy's format, by any other with the
    /// caller's SPIFFE ID and nothing else.
    Set,
    /// What callers send in it is removed.
    Remove,
}

/// Tells the application who calls.
struct Teller {
    /// Somebody has written the setting.
    is_written: bool,
    headers: Vec<(HeaderName, Mode)>,
    trusted: Vec<Identity>,
    own: Option<Arc<Identity>>,
}

impl RequestPolicy for Teller {
    fn sanitize(&self, section: Section<'_>, fields: &mut HeaderMap) {
        // The section behind the content comes when the application has long been told.
        let may_say = matches!(section, Section::Header(caller) if self.trusts(caller));
        let is_forged = |name: &HeaderName| {
            let of = self.headers.iter().any(|(ours, _)| is_alias(ours.as_str(), name.as_str()));
            of && !(may_say && self.headers.iter().any(|(ours, _)| ours == name))
        };
        if !fields.keys().any(is_forged) {
            return;
        }
        let forged: Vec<HeaderName> = fields.keys().filter(|name| is_forged(name)).cloned().collect();
        for name in forged {
            fields.remove(name);
        }
    }

    fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        let Some(identity) = &request.peer.identity else { return Verdict::Continue };
        for (name, _) in self.headers.iter().filter(|(_, mode)| *mode == Mode::Set) {
            // What is there a trusted proxy has said.
            let value = match (name == CLIENT_CERT, request.headers.contains_key(name)) {
                (true, _) => self.appended(request.headers, identity, request.peer.fingerprint.as_deref()),
                (false, true) => continue,
                (false, false) => identity.to_string().into_bytes(),
            };
            if let Ok(value) = HeaderValue::from_maybe_shared(value) {
                context.changes().request.set(name.clone(), value);
            }
        }
        Verdict::Continue
    }

    /// Nobody can be told anything in bytes that nobody looks into.
    fn on_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Verdict {
        Verdict::Continue
    }

    /// Its application was told when it was opened.
    fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    /// As when it came.
    fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn needs(&self) -> Needs {
        Needs { requests: self.is_written, sanitizes: true, ..Needs::default() }
    }
}

impl Teller {
    fn trusts(&self, caller: &Peer) -> bool {
        caller.identity.as_ref().is_some_and(|identity| self.trusted.contains(identity))
    }

    /// The elements that are there, and that of this caller.
    fn appended(&self, headers: &HeaderMap, caller: &Identity, fingerprint: Option<&str>) -> Vec<u8> {
        let by = self.own.iter().map(|own| format!("By={own}"));
        let hash = fingerprint.iter().map(|fingerprint| format!("Hash={fingerprint}"));
        let parts: Vec<String> = by.chain(hash).chain([format!("URI={caller}")]).collect();
        let element = parts.join(";");
        let before = headers.get_all(CLIENT_CERT).iter().map(HeaderValue::as_bytes);
        let elements: Vec<&[u8]> = before.chain([element.as_bytes()]).filter(|element| !element.is_empty()).collect();
        elements.join(&b","[..])
    }
}

/// What decides, also where nobody has written the setting.
fn compile(
    value: Option<&Value>,
    own: Option<&Arc<Identity>>,
) -> Result<Option<Arc<dyn RequestPolicy>>, serde_json::Error> {
    let is_written = value.is_some();
    let CallerIdentity { headers, trusted_proxies } =
        value.map(CallerIdentity::deserialize).transpose()?.unwrap_or_default();
    let named = headers.iter().filter_map(|(name, mode)| Some((HeaderName::try_from(name).ok()?, *mode)));
    let mut headers: Vec<_> = named.collect();
    if !headers.iter().any(|(name, _)| *name == CLIENT_CERT) {
        headers.push((CLIENT_CERT, Mode::Remove));
    }
    let trusted = trusted_proxies.iter().filter_map(|proxy| proxy.parse().ok()).collect();
    Ok(Some(Arc::new(Teller { is_written, headers, trusted, own: own.cloned() })))
}

fn check(value: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Ok(CallerIdentity { headers, trusted_proxies }) = CallerIdentity::deserialize(value) else { return problems };
    if headers.is_empty() && value.get("headers").is_some() {
        problems
            .push(Problem::new("headers", "{} names no field, as when values get lost: write one, or leave it out"));
    }
    if trusted_proxies.is_empty() && value.get("trustedProxies").is_some() {
        let why =
            "the list is empty, as when values get lost: name a proxy, or leave the field out where none is trusted";
        problems.push(Problem::new("trustedProxies", why));
    }
    let wrong = headers.keys().filter_map(|name| Some((name, name::problem(name)?)));
    problems.extend(wrong.map(|(name, why)| Problem::new(format!("headers.{name}"), why)));
    let wrong = trusted_proxies.iter().map(|proxy| proxy.parse::<Identity>()).enumerate();
    problems.extend(wrong.filter_map(|(n, read)| {
        let why = read.err()?;
        let pattern = if trusted_proxies[n].contains('*') { "; a pattern would trust whoever it matches" } else { "" };
        Some(Problem::new(format!("trustedProxies[{n}]"), format!("{why}{pattern}")))
    }));
    problems
}

#[cfg(test)]
mod tests;
