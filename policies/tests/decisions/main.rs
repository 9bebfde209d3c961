//! The request policies and routes as their users see them: documents in, verdicts out.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where its own set-up fails")]

use std::sync::Arc;

use selvedge_policies::{
    context::Context,
    facts::Moment,
    kind::{Attached, Problem},
    policy::{Place, Posture},
    registry,
    request::PolicySet,
    testing::Request,
    verdict::{Answer, Verdict},
};
use serde_json::Value;

mod authorize;
mod cors;
mod documents;
mod fault;
mod lax_services;
mod left_out;
mod rate_limit;
mod routes;
mod shadows;
mod words;

/// An attachment as the control plane sends it.
fn attach(kind: &str, name: &str, spec: Value) -> (String, Attached<Value>) {
    (kind.to_owned(), Attached { name: Arc::from(name), spec })
}

/// The policies in force for one target.
struct Target(PolicySet);

impl Target {
    fn new(attached: &[(String, Attached<Value>)], posture: Posture) -> Self {
        Self::after(attached, posture, &PolicySet::new())
    }

    fn after(attached: &[(String, Attached<Value>)], posture: Posture, before: &PolicySet) -> Self {
        let compiled = registry::compile(Place::Called, attached, posture, before);
        Self(compiled.expect("documents that are sound compile"))
    }

    /// Why a request ends here, if it does.
    fn refusal(&self, request: &Request, now: Moment) -> Option<Answer> {
        answer(self.0.on_request(&request.facts(), &mut context(now)))
    }

    /// Why an opaque connection ends here, if it does.
    fn connection_refusal(&self, request: &Request, now: Moment) -> Option<Answer> {
        answer(self.0.on_connection(&request.connection(), &mut context(now)))
    }
}

fn answer(verdict: Verdict) -> Option<Answer> {
    match verdict {
        Verdict::Continue => None,
        Verdict::Answer(answer) => Some(answer),
        pause => panic!("no policy of today waits: {pause:?}"),
    }
}

/// What a decision at `now` is handed.
fn context(now: Moment) -> Context {
    Context::new(now, fastrand::Rng::with_seed(7))
}

/// What the check of a kind says of a document, as `path: message`.
fn complaints(kind: &str, spec: &Value) -> Vec<String> {
    let kind = registry::find(kind).expect("the kind is registered");
    (kind.kind.check)(spec).into_iter().map(|Problem { path, message }| format!("{path}: {message}")).collect()
}

/// What a kind says of what is written and empty, as `path: message`.
fn complaints_of_close(kind: &str, spec: &Value) -> Vec<String> {
    let kind = registry::find(kind).expect("the kind is registered");
    (kind.kind.close)(&mut spec.clone())
        .into_iter()
        .map(|Problem { path, message }| format!("{path}: {message}"))
        .collect()
}

/// Asserts that each complaint is there, by its beginning and some words of it, and no other.
fn assert_complaints(kind: &str, spec: &Value, expected: &[(&str, &str)]) {
    let found = complaints(kind, spec);
    for (path, words) in expected {
        let is_it = |complaint: &&String| complaint.starts_with(&format!("{path}: ")) && complaint.contains(words);
        assert!(found.iter().any(|complaint| is_it(&complaint)), "no '{path}: ..{words}..' in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}
