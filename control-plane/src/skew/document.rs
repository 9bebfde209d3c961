//! One document: what becomes of it at sidecars that do not know all it says.

use std::collections::BTreeSet;

use selvedge_policies::{
    kind::vocabulary,
    policy::{Phase, Role},
    registry,
};
use selvedge_xds::{
    capability::Capabilities,
    proto::mesh::{Attachment, Origin},
};
use serde_json::Value;

use super::closed;

/// The field by which a user says what is to become of it. It is for the control plane, so nobody has to know it.
const WISH: &str = "onUnsupported";

/// What becomes of a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// It is told like this, which the sidecar knows in full.
    Known(Attachment),
    /// The sidecar does not know this of it.
    Unknown(String, Instead),
}

/// What holds in place of a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Instead {
    /// All that the document is attached to is refused.
    Refused,
    /// Nothing: the document is left out.
    LeftOut,
    /// The last form that was known; where there is none, what follows.
    LastForm(Box<Instead>),
    /// This part of it, which is known; in words.
    Part(Value, &'static str),
    /// This route, in which rules that are not known answer with an error.
    Rules(Value),
}

/// What becomes of `attachment` at sidecars that know this.
pub(super) fn fate(attachment: &Attachment, knows: &Capabilities) -> Fate {
    let origin = attachment.origin.clone().unwrap_or_default();
    let words = knows.0.get(&origin.kind);
    let Ok(mut document) = serde_json::from_str::<Value>(&attachment.document) else {
        return Fate::Known(attachment.clone()); // it would be a defect, and the sidecar says so
    };
    let is_other = words.is_some_and(|words| closed::backends(&mut document, words));
    let wish = document.as_object_mut().and_then(|fields| fields.remove(WISH));
    let unknown = match words {
        Some(words) => vocabulary::unknown(words, &document),
        None => Some(format!("kind: {}", origin.kind)),
    };
    let Some(unknown) = unknown else {
        let is_plain = wish.is_some() && words.is_some_and(|words| !words.contains(WISH));
        return Fate::Known(match is_plain || is_other {
            true => Attachment { document: document.to_string(), ..attachment.clone() },
            false => attachment.clone(),
        });
    };
    let instead = wished(wish.as_ref().and_then(Value::as_str), instead(&origin, &document, knows));
    Fate::Unknown(unknown, instead)
}

/// What holds in place of a document whose user has this wish, where without one `instead` would.
fn wished(wish: Option<&str>, instead: Instead) -> Instead {
    match wish {
        Some("close") => Instead::Refused,
        Some("keep") => Instead::LastForm(Box::new(instead)),
        _ => instead,
    }
}

/// What holds in place of `document` where its user has no wish.
fn instead(origin: &Origin, document: &Value, knows: &Capabilities) -> Instead {
    let words = knows.0.get(&origin.kind).cloned().unwrap_or_default();
    let Some(kind) = registry::find(&origin.kind) else { return Instead::Refused };
    match kind.role {
        Role::Routes(_) => Instead::LastForm(Box::new(Instead::Rules(closed::rules(document, &origin.kind, knows)))),
        Role::Tries => {
            let mut known = document.clone();
            vocabulary::reduce(&words, &mut known);
            // Settings for a part of a service are none for all of it.
            let is_sound = known["targetRef"] == document["targetRef"] && (kind.kind.check)(&known).is_empty();
            Instead::LastForm(Box::new(match is_sound && !words.is_empty() {
                true => Instead::Part(known, "settings it does not know are left out"),
                false => Instead::LeftOut,
            }))
        }
        Role::Decides(phase, _) => decision(phase, document, &words),
    }
}

/// What holds in place of a document that decides in this phase. Its kind may be known, though not all of it.
fn decision(phase: Phase, document: &Value, words: &BTreeSet<String>) -> Instead {
    match (phase, document["action"].as_str()) {
        (Phase::Authorize, Some("AUDIT")) | (Phase::Limit | Phase::Transform | Phase::Fault, _) => Instead::LeftOut,
        (Phase::Authorize, Some("ALLOW")) if words.contains("action=ALLOW") => {
            Instead::Part(closed::lets_nobody_pass(document, words), "it lets nobody pass")
        }
        (Phase::Authenticate | Phase::Authorize, _) => Instead::Refused,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// In a word: of which phase and action, with which wish.
    fn told(phase: Phase, action: Option<&str>, wish: Option<&str>) -> String {
        let document = action.map_or(json!({}), |action| json!({"action": action}));
        let short = |instead: &Instead| match instead {
            Instead::Refused => "refuse",
            Instead::LeftOut => "leave out",
            Instead::Part(..) => "nobody",
            Instead::LastForm(_) | Instead::Rules(_) => "?",
        };
        match wished(wish, decision(phase, &document, &BTreeSet::from(["action=ALLOW".to_owned()]))) {
            Instead::LastForm(without) => format!("last form, or {}", short(&without)),
            instead => short(&instead).to_owned(),
        }
    }

    #[test]
    fn what_keeps_out_stays_closed_and_what_lets_pass_anyway_is_left_out() {
        let cases = [
            (Phase::Authenticate, None, "refuse"),
            (Phase::Authorize, Some("DENY"), "refuse"),
            (Phase::Authorize, Some("ALLOW"), "nobody"),
            (Phase::Authorize, Some("AUDIT"), "leave out"),
            (Phase::Authorize, Some("CHALLENGE"), "refuse"),
            (Phase::Authorize, None, "refuse"),
            (Phase::Limit, None, "leave out"),
            (Phase::Transform, None, "leave out"),
            (Phase::Fault, None, "leave out"),
        ];
        for (phase, action, expected) in cases {
            assert_eq!(told(phase, action, None), expected, "{phase:?} {action:?}");
            assert_eq!(told(phase, action, Some("close")), "refuse", "{phase:?} {action:?}");
            let kept = format!("last form, or {expected}");
            assert_eq!(told(phase, action, Some("keep")), kept, "{phase:?} {action:?}");
        }
        assert_eq!(
            decision(Phase::Authorize, &json!({"action": "ALLOW"}), &BTreeSet::new()),
            Instead::Refused,
            "an unknown kind"
        );
    }
}
