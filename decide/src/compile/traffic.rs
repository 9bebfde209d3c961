//! How a destination is tried: what the settings attached to it come to.

use std::collections::BTreeMap;

use selvedge_policies::{
    attempt::{TrafficPolicySpec, retry::RetryPolicy},
    kind::{self, Attached, Problem},
    merge::{self, Merged, Precedence},
};
use serde_json::Value;

use crate::config::Traffic;

/// The settings of a destination, each with its object as `Kind namespace/name`, merged, and the object each field is from.
/// They are attached in the order in which they win.
pub(super) fn compile(
    attached: &[(String, Attached<Value>)],
) -> Result<(Traffic, BTreeMap<String, String>), Vec<Problem>> {
    let Some((_, first)) = attached.first() else { return Ok(Default::default()) };
    let said = attached.iter().enumerate().filter_map(|(place, (object, document))| {
        let precedence = Precedence::new(place, None, document.name.clone(), "".into());
        Some((precedence, object.clone(), document.spec.as_object()?))
    });
    let Merged { mut value, from, .. } = merge::merge(said, merge::no_strictness);
    value.insert("targetRef".to_owned(), first.spec.get("targetRef").cloned().unwrap_or_default());
    Ok((traffic(&kind::parse(&value.into())?), from))
}

fn traffic(spec: &TrafficPolicySpec) -> Traffic {
    let timeouts = spec.timeouts.clone().unwrap_or_default();
    Traffic {
        retry: spec.retry.as_ref().map(RetryPolicy::new),
        budget: spec.retry.as_ref().map(|retry| retry.budget.clone()).unwrap_or_default(),
        request_timeout: timeouts.request.map(|span| span.0),
        try_timeout: timeouts.backend_request.map(|span| span.0),
        connect_timeout: timeouts.connect.map(|span| span.0),
        breaker: spec.breaker.clone(),
        balancer: spec.balancer.unwrap_or_default(),
    }
}
