//! The request policies and routes as their users see them: documents in, verdicts out.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where its own set-up fails")]

use std::sync::Arc;

use selvedge_policies::{
    facts::Moment,
    kind::{Attached, Problem},
    registry,
    request::{Posture, RequestPolicy},
    testing::Request,
    verdict::{Answer, Verdict},
};
use serde_json::Value;

mod authorize;
mod documents;
mod rate_limit;
mod routes;

/// An attachment as the control plane sends it.
fn attach(kind: &str, name: &str, spec: Value) -> (String, Attached<Value>) {
    (kind.to_owned(), Attached { name: Arc::from(name), spec })
}

/// The policies in force for one target.
struct Target(Vec<Box<dyn RequestPolicy>>);

impl Target {
    fn new(attached: &[(String, Attached<Value>)], posture: Posture) -> Self {
        Self(registry::compile_request(attached, posture).expect("documents that are sound compile"))
    }

    /// Why a request ends here, if it does.
    fn refusal(&self, request: &Request, now: Moment) -> Option<Answer> {
        self.0.iter().find_map(|policy| answer(policy.on_request(&request.facts(), now)))
    }

    /// Why an opaque connection ends here, if it does.
    fn connection_refusal(&self, request: &Request, now: Moment) -> Option<Answer> {
        self.0.iter().find_map(|policy| answer(policy.on_connection(&request.connection(), now)))
    }
}

fn answer(verdict: Verdict) -> Option<Answer> {
    match verdict {
        Verdict::Continue => None,
        Verdict::Answer(answer) => Some(answer),
    }
}

/// What the check of a kind says of a document, as `path: message`.
fn complaints(kind: &str, spec: &Value) -> Vec<String> {
    let kind = registry::find(kind).expect("the kind is registered");
    (kind.check)(spec).into_iter().map(|Problem { path, message }| format!("{path}: {message}")).collect()
}

/// What a kind says of what is written and empty, as `path: message`.
fn complaints_of_close(kind: &str, spec: &Value) -> Vec<String> {
    let kind = registry::find(kind).expect("the kind is registered");
    (kind.close)(&mut spec.clone()).into_iter().map(|Problem { path, message }| format!("{path}: {message}")).collect()
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
