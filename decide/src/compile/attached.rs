//! What users attached to something: their documents as they are read, told apart and told of.

use std::sync::Arc;

use selvedge_policies::{
    kind::{Attached, Problem},
    names,
    policy::Needs,
    registry,
    request::{PolicySet, Unsound},
};
use selvedge_xds::{kinds::object, proto::mesh::Attachment};
use serde_json::Value;

/// The object of an attachment and the version of it, for people.
pub(super) fn describe(attachment: &Attachment) -> String {
    let generation = attachment.origin.as_ref().map_or(0, |origin| origin.generation);
    format!("{} (generation {generation})", object(&attachment.origin.clone().unwrap_or_default()))
}

/// What is wrong with the objects named, for people.
pub(super) fn problems(attachment: &str, problems: &[Problem]) -> String {
    let told = |problem: &Problem| match problem.path.is_empty() {
        true => problem.message.clone(),
        false => format!("spec.{}: {}", problem.path, problem.message),
    };
    format!("{attachment}: {}", problems.iter().map(told).collect::<Vec<_>>().join("; "))
}

/// The kind of a document, and the document with the name of its object.
pub(crate) fn read(attachment: &Attachment) -> Result<(String, Attached<Value>), String> {
    let origin = attachment.origin.clone().unwrap_or_default();
    let spec = serde_json::from_str(&attachment.document).map_err(|e| format!("{}: {e}", describe(attachment)))?;
    Ok((origin.kind, Attached { name: names::object(&origin.namespace, &origin.name).into(), spec }))
}

/// Policies in the order in which they decide.
pub(crate) fn sorted(mut policies: Vec<&Attachment>) -> Vec<&Attachment> {
    policies.sort_by_key(|policy| {
        let origin = policy.origin.as_ref();
        let phase = origin.and_then(|origin| registry::find(&origin.kind)?.phase());
        (phase, origin.map(|origin| (&origin.kind, &origin.namespace, &origin.name)))
    });
    policies
}

/// What users wrote, and the names of the objects that cannot be enforced here: everything is refused in their place.
pub(super) fn apart<'a>(attachments: impl Iterator<Item = &'a Attachment>) -> (Vec<&'a Attachment>, Vec<Arc<str>>) {
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    for attachment in attachments {
        match &attachment.stands_for {
            Some(object) => refused.push(names::object(&object.namespace, &object.name).into()),
            None => written.push(attachment),
        }
    }
    (written, refused)
}

/// Why attachments cannot be put in force, each with its object and version.
pub(super) fn unsound(attachments: &[&Attachment], found: &[Unsound]) -> String {
    let names = |kind: &str| {
        let of_kind = attachments.iter().filter(|a| a.origin.as_ref().is_some_and(|origin| origin.kind == kind));
        of_kind.map(|attachment| describe(attachment)).collect::<Vec<_>>().join(", ")
    };
    let told = found.iter().map(|unsound| problems(&names(&unsound.kind), &unsound.problems));
    told.collect::<Vec<_>>().join("; ")
}

/// A sidecar reads no more of the content of a request ahead than it can send again.
pub(super) fn with_content_in_bounds(policies: PolicySet) -> Result<PolicySet, String> {
    match policies.needs().body {
        0..=Needs::MOST_BODY => Ok(policies),
        bytes => Err(format!(
            "a policy needs {bytes} bytes of the content: a sidecar reads ahead {} at most",
            Needs::MOST_BODY
        )),
    }
}
