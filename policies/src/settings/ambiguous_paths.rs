//! `ambiguousPaths`: what becomes of paths that services read in different ways.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Effect, Setting};
use crate::{matching::canonical::Ambiguity, merge::Strictness};

pub(super) const SETTING: Setting = Setting {
    field: "ambiguousPaths",
    schema: |generator| generator.subschema_for::<Option<AmbiguousPaths>>(),
    check: |_| Vec::new(),
    strict: &[("ambiguousPaths", Strictness::Words(&["refuse", "rewrite", "pass"]))],
    effect: Effect::Chooses(|value, modes| {
        modes.ambiguous_paths = Some(AmbiguousPaths::deserialize(value)?);
        Ok(())
    }),
    in_pods: None,
};

/// What becomes of a request received whose path services read in different ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AmbiguousPaths {
    /// It is refused; any other path goes on as it was sent.
    #[default]
    Refuse,
    /// It goes on in its canonical form, where all services read that alike; else it is refused.
    Rewrite,
    /// It goes on as it was sent, and rules see its canonical form.
    Pass,
}

/// What becomes of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// The request goes on with the path that was sent.
    AsSent,
    /// The request goes on with the canonical form of it.
    Canonical,
    /// The request does not go on, because of this.
    Refused(Ambiguity),
}

impl AmbiguousPaths {
    /// What becomes of a path with this ambiguity.
    ///
    /// ```
    /// use selvedge_policies::{matching::canonical::Ambiguity::{DotSegment, HiddenSlash}, settings::{AmbiguousPaths, Onward}};
    ///
    /// let onward = |paths: AmbiguousPaths| [None, Some(DotSegment), Some(HiddenSlash)].map(|found| paths.onward(found));
    /// let refused = Onward::Refused(HiddenSlash);
    /// assert_eq!(onward(AmbiguousPaths::Refuse), [Onward::AsSent, Onward::Refused(DotSegment), refused]);
    /// assert_eq!(onward(AmbiguousPaths::Rewrite), [Onward::Canonical, Onward::Canonical, refused]);
    /// assert_eq!(onward(AmbiguousPaths::Pass), [Onward::AsSent; 3]);
    /// ```
    pub fn onward(self, found: Option<Ambiguity>) -> Onward {
        match (self, found) {
            (Self::Pass, _) | (Self::Refuse, None) => Onward::AsSent,
            (Self::Refuse, Some(found)) => Onward::Refused(found),
            (Self::Rewrite, Some(found)) if !found.is_resolved() => Onward::Refused(found),
            (Self::Rewrite, _) => Onward::Canonical,
        }
    }
}
