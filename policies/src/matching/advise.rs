//! What is odd in conditions that are sound: callers that nobody is, conditions that exclude each other, patterns that match
//! more than they read.

use super::{
    glob::Glob,
    operation::Operation,
    rule::{Rule, home},
};
use crate::{
    advice::{Advice, Surroundings},
    finding::Code,
};

mod callers;

/// What is odd in a rule of `policy`, found at `path`. `at_opaque` says what it does where requests cannot be seen.
pub(crate) fn of_rule(
    rule: &Rule,
    policy: &str,
    path: &str,
    at_opaque: &str,
    around: &Surroundings<'_>,
) -> Vec<Advice> {
    let sources = rule.from.iter().enumerate();
    let from = sources.flat_map(|(n, source)| callers::of(source, home(policy), &format!("{path}.from[{n}]"), around));
    from.chain(of_operations(&rule.to, &format!("{path}.to"), at_opaque, around)).collect()
}

/// What is odd in operations, found at `path`.
pub(crate) fn of_operations(
    operations: &[Operation],
    path: &str,
    at_opaque: &str,
    around: &Surroundings<'_>,
) -> Vec<Advice> {
    let each = operations.iter().enumerate().flat_map(|(n, operation)| {
        let at = format!("{path}[{n}]");
        let prefixes = open_prefixes(&operation.paths, &format!("{at}.paths"));
        prefixes.into_iter().chain(unseen(operation, &at, at_opaque, around))
    });
    each.collect()
}

/// Patterns of paths that end inside a segment.
fn open_prefixes(patterns: &[String], path: &str) -> Vec<Advice> {
    let open = patterns.iter().enumerate().filter_map(|(n, pattern)| {
        let Ok(Glob::Prefix(prefix)) = Glob::new(pattern) else { return None };
        prefix.ends_with(char::is_alphanumeric).then(|| {
            let message = format!(
                "'{pattern}' goes on inside the segment, so it matches '{prefix}-other' too: expected '{prefix}' and \
                 '{prefix}/*' where only that and what is below it is meant"
            );
            Advice::new(Code::PathPrefix, format!("{path}[{n}]"), message)
        })
    });
    open.collect()
}

/// A condition on requests where none are seen.
fn unseen(operation: &Operation, path: &str, at_opaque: &str, around: &Surroundings<'_>) -> Option<Advice> {
    let what = around.opaque?;
    let fields =
        [("methods", operation.methods.len()), ("paths", operation.paths.len()), ("headers", operation.headers.len())];
    let (field, _) = fields.into_iter().find(|(_, count)| *count > 0)?;
    let message =
        format!("{what} carries no requests of HTTP, so {at_opaque}: expected conditions on callers, ports or hosts");
    Some(Advice::new(Code::HttpOnTcp, format!("{path}.{field}"), message))
}
