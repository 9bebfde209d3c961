//! How a request ends at one sidecar, by the functions that a sidecar calls; chance is not played, and time passes at once.

use http::{HeaderMap, Method};
use selvedge_policies::{
    context::{Context, Resumed},
    facts::{ConnectionFacts, RequestFacts, Section},
    matching::canonical::{Ambiguity, Reading, read},
    reason::Reason,
    request::Asked,
    route::{Backend, RouteRule},
    settings::Onward,
    verdict::Verdict,
};

use crate::{
    admission,
    config::RuntimeConfig,
    route::{self, Scope},
    trace::Ending,
};

/// The backends that requests of a rule may go to, with their shares; `None` stands for the service called.
pub(super) fn possible(rule: Option<&RouteRule>) -> Result<Vec<(Option<&Backend>, f64)>, Reason> {
    let Some(rule) = rule.filter(|rule| !rule.backends.is_empty()) else { return Ok(vec![(None, 1.0)]) };
    let total: f64 = rule.backends.iter().map(|backend| f64::from(backend.weight)).sum();
    let weighty = rule.backends.iter().filter(|backend| backend.weight > 0);
    let possible: Vec<_> = weighty.map(|backend| (Some(backend), f64::from(backend.weight) / total)).collect();
    if possible.is_empty() { Err(rule.nowhere) } else { Ok(possible) }
}

/// What the caller's sidecar answers to a request that it is given, or that it sends it on and with which header section.
pub(super) fn depart(
    scope: &Scope,
    rule: Option<&RouteRule>,
    request: &RequestFacts<'_>,
    context: &mut Context,
) -> (Ending, HeaderMap) {
    let (policies, mut headers) = (scope.policies().afresh(), request.headers.clone());
    let asked = Asked::new(&policies, scope.filters(rule));
    let ending = judge(asked, request, context);
    asked.change(&mut headers, context);
    (ending, headers)
}

/// What a sidecar answers to a request that comes to it, or that it lets it pass.
pub(super) fn receive(config: &RuntimeConfig, request: &RequestFacts<'_>, context: &Context) -> Result<Ending, Reason> {
    admission::may_call(request.peer.identity.as_deref(), config)?;
    let port = config.inbound(request.port);
    let scope = Scope::Inbound(port.clone());
    let Reading { canonical, ambiguity } = path(request)?;
    if let Onward::Refused(_) = scope.ambiguous_paths().onward(ambiguity) {
        return Err(Reason::MalformedPath);
    }
    let ambiguous = ambiguity.is_some() && scope.policies_say_of_paths();
    let request = &RequestFacts { path: &canonical, ambiguous, ..*request };
    let rule = route::rule(&scope, request)?;
    let headers = sanitized(config, request);
    let request = RequestFacts { route: rule.map_or("", |rule| &rule.name), headers: &headers, ..*request };
    Ok(judge(Asked::new(&port.policies.afresh(), None), &request, &mut context.clone()))
}

/// The path of a request as sidecars read it. One that is none they refuse at either end; `*` is for OPTIONS (RFC 9112 section
/// 3.2.4), and there is one way to read it.
pub(super) fn path<'a>(request: &RequestFacts<'a>) -> Result<Reading<'a>, Reason> {
    if request.path == "*" && request.method == Method::OPTIONS {
        return Ok(Reading { canonical: request.path.into(), ambiguity: None });
    }
    let reading = read(request.path);
    if reading.ambiguity == Some(Ambiguity::NotAbsolute) { Err(Reason::MalformedPath) } else { Ok(reading) }
}

/// The header section of a request that comes to a sidecar, without what its caller may not say.
pub(super) fn sanitized(config: &RuntimeConfig, request: &RequestFacts<'_>) -> HeaderMap {
    let mut headers = request.headers.clone();
    config.inbound(request.port).policies.sanitize(Section::Header(request.peer), &mut headers);
    headers
}

/// What becomes of a request by all that is asked. A CONNECT is judged as what it becomes, too: bytes that nobody looks into.
/// Time passes at once where a policy waits; what it asks nobody answers.
fn judge(asked: Asked<'_>, request: &RequestFacts<'_>, context: &mut Context) -> Ending {
    let RequestFacts { peer, port, .. } = *request;
    let becomes = ConnectionFacts { peer, port, server_name: None, earlier: None };
    let becomes = (request.method == Method::CONNECT).then_some(becomes);
    loop {
        match asked.decide(request, becomes.as_ref(), context) {
            Verdict::Continue => {
                let audited = context.audited.as_ref().map(|audited| audited.policy.clone());
                return Ending { audited, ..Ending::default() };
            }
            Verdict::Answer(answer) => {
                let status = Some(answer.status.as_u16());
                return Ending { status, reason: answer.reason, policy: answer.policy, ..Ending::default() };
            }
            Verdict::Wait(_) => context.resume(Resumed::Waited),
            Verdict::Ask(question) => {
                return Ending { asks: Some(question.to.to_string().into()), ..Ending::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_policies::testing::Request;

    use super::*;

    #[test]
    fn a_target_is_a_path_or_that_of_options_for_all() {
        for (method, target, expected) in [
            ("OPTIONS", "*", Ok(("*", None))),
            ("GET", "*", Err(Reason::MalformedPath)),
            ("OPTIONS", "x", Err(Reason::MalformedPath)),
            ("GET", "/%61;b", Ok(("/a;b", Some(Ambiguity::Parameters)))),
        ] {
            let request = Request::new(method, target);
            let reading = path(&request.facts());
            let found = reading.as_ref().map(|reading| (&*reading.canonical, reading.ambiguity));
            assert_eq!(found.map_err(|reason| *reason), expected, "{method} {target}");
        }
    }
}
