//! What is odd in conditions that are sound: callers that nobody is, conditions that exclude each other, patterns that match
//! more than they read.

use super::{
    covers::covers_glob,
    glob::Glob,
    host::host_glob,
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
        let left_out = open_prefixes(&operation.not_paths, &format!("{at}.notPaths"));
        let unseen = unseen(operation, &at, at_opaque, around);
        prefixes.into_iter().chain(left_out).chain(unseen).chain(contradiction(operation, &at))
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

/// A field that leaves out all that another one names.
fn contradiction(operation: &Operation, path: &str) -> Option<Advice> {
    let is_covered = |not: &String, is: &String| covers_glob(Glob::new(not), Glob::new(is));
    let is_host = |not: &String, is: &String| covers_glob(host_glob(not), host_glob(is));
    let has = |name: &String| operation.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
    let fields = [
        ("notMethods", "methods", excludes(&operation.not_methods, &operation.methods, String::eq)),
        ("notPaths", "paths", excludes(&operation.not_paths, &operation.paths, is_covered)),
        ("notHosts", "hosts", excludes(&operation.not_hosts, &operation.hosts, is_host)),
        ("notPorts", "ports", excludes(&operation.not_ports, &operation.ports, u16::eq)),
        ("absentHeaders", "headers", operation.absent_headers.iter().any(has)),
    ];
    let (field, named, _) = fields.into_iter().find(|(_, _, excludes)| *excludes)?;
    let message = format!("nothing matches: this leaves out what {named} names: expected one of the two to be changed");
    Some(Advice::new(Code::MatchesNothing, format!("{path}.{field}"), message))
}

/// Whether each of `named`, of which there are some, is one that `left_out` leaves out.
fn excludes<L, N>(left_out: &[L], named: &[N], covers: impl Fn(&L, &N) -> bool) -> bool {
    !named.is_empty() && named.iter().all(|named| left_out.iter().any(|left_out| covers(left_out, named)))
}

/// A condition on requests where none are seen.
fn unseen(operation: &Operation, path: &str, at_opaque: &str, around: &Surroundings<'_>) -> Option<Advice> {
    let what = around.opaque?;
    let fields = [
        ("methods", operation.methods.is_empty()),
        ("paths", operation.paths.is_empty()),
        ("headers", operation.headers.is_empty()),
        ("notMethods", operation.not_methods.is_empty()),
        ("notPaths", operation.not_paths.is_empty()),
        ("absentHeaders", operation.absent_headers.is_empty()),
    ];
    let (field, _) = fields.into_iter().find(|(_, is_empty)| !is_empty)?;
    let message =
        format!("{what} carries no requests of HTTP, so {at_opaque}: expected conditions on callers, ports or hosts");
    Some(Advice::new(Code::HttpOnTcp, format!("{path}.{field}"), message))
}
