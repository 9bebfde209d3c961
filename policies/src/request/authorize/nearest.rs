//! Why nothing lets a caller pass, in words: the rule that comes closest, and what of it does not match.

use super::index::RuleIndex;
use crate::{facts::Moment, matching::rule::RuleMatcher};

/// Rules that are compared at most: whoever is refused must not cost much more than whoever passes.
const MOST: usize = 32;

/// Why no rule of `allow` matches at this time, given whether the caller and the operation of a rule do. `covering` is one of
/// the ALLOW policies, if there is any.
pub(super) fn why(
    allow: &RuleIndex,
    covering: Option<&str>,
    now: Moment,
    is_caller: impl Fn(&RuleMatcher) -> bool,
    is_operation: impl Fn(&RuleMatcher) -> bool,
) -> String {
    let Some(covering) = covering else {
        return "No ALLOW policy covers this, and the default posture is deny.".to_owned();
    };
    let looked = allow.rules().iter().take(MOST);
    let looked = looked.map(|rule| ((is_caller(rule), is_operation(rule), now.unix < rule.expires), rule));
    // The first of those that are equally close.
    let nearest = looked.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let Some((matches, rule)) = nearest else {
        return format!("No ALLOW rule matches: {covering} covers this and has none.");
    };
    let what = match matches {
        (true, true, _) => "which has expired",
        (true, false, _) => "of which 'to' does not match",
        (false, true, _) => "of which 'from' does not match",
        (false, false, _) => "of which neither 'from' nor 'to' matches",
    };
    format!("No ALLOW rule matches: the nearest is rules[{}] of {}, {what}.", rule.number, rule.policy)
}
