//! Whether one rule matches all that another one matches. Yes is certain, whichever way doubt is decided; no means that it
//! cannot be told field by field.

use super::{
    glob::Glob,
    host::host_glob,
    operation::Operation,
    principal::{IdentityPattern, ServiceAccount},
    rule::{Rule, Source, home},
};

/// Whether `broad`, of the policy `namespace/name` given with it, matches whatever `narrow` of its policy matches.
pub(crate) fn covers((broad, of_broad): (&Rule, &str), (narrow, of_narrow): (&Rule, &str)) -> bool {
    let homes = (home(of_broad), home(of_narrow));
    each(&broad.from, &narrow.from, |broad, narrow| covers_source(broad, narrow, homes))
        && each(&broad.to, &narrow.to, covers_operation)
}

/// Whether each alternative of `narrow` is covered by one of `broad`; an empty list excludes nothing.
fn each<T>(broad: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    let is_covered = |narrow: &T| broad.iter().any(|broad| covers(broad, narrow));
    broad.is_empty() || (!narrow.is_empty() && narrow.iter().all(is_covered))
}

/// Whether `narrow` leaves out whatever `broad` leaves out.
fn leaves_out<T>(broad: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    broad.iter().all(|left_out| narrow.iter().any(|narrow| covers(narrow, left_out)))
}

fn covers_source(broad: &Source, narrow: &Source, (of_broad, of_narrow): (&str, &str)) -> bool {
    let account = |one: &String, home: &str| ServiceAccount::new(one, home).ok();
    let is_same = |one: Option<ServiceAccount>, other| one.is_some() && one == other;
    each(&broad.identities, &narrow.identities, |broad, narrow| covers_identity(broad, narrow))
        && each(&broad.service_accounts, &narrow.service_accounts, |broad, narrow| {
            is_same(account(broad, of_broad), account(narrow, of_narrow))
        })
        && each(&broad.namespaces, &narrow.namespaces, String::eq)
        && each(&broad.ip_blocks, &narrow.ip_blocks, PartialEq::eq)
        && leaves_out(&broad.not_identities, &narrow.not_identities, |narrow, broad| covers_identity(narrow, broad))
        && leaves_out(&broad.not_service_accounts, &narrow.not_service_accounts, |narrow, broad| {
            is_same(account(narrow, of_narrow), account(broad, of_broad))
        })
        && leaves_out(&broad.not_namespaces, &narrow.not_namespaces, String::eq)
        && leaves_out(&broad.not_ip_blocks, &narrow.not_ip_blocks, PartialEq::eq)
}

fn covers_operation(broad: &Operation, narrow: &Operation) -> bool {
    each(&broad.methods, &narrow.methods, String::eq)
        && each(&broad.paths, &narrow.paths, |broad, narrow| covers_glob(Glob::new(broad), Glob::new(narrow)))
        && each(&broad.hosts, &narrow.hosts, |broad, narrow| covers_glob(host_glob(broad), host_glob(narrow)))
        && each(&broad.ports, &narrow.ports, PartialEq::eq)
        && broad.headers.iter().all(|header| narrow.headers.contains(header))
        && leaves_out(&broad.not_methods, &narrow.not_methods, String::eq)
        && leaves_out(&broad.not_paths, &narrow.not_paths, |narrow, broad| {
            covers_glob(Glob::new(narrow), Glob::new(broad))
        })
        && leaves_out(&broad.not_hosts, &narrow.not_hosts, |narrow, broad| {
            covers_glob(host_glob(narrow), host_glob(broad))
        })
        && leaves_out(&broad.not_ports, &narrow.not_ports, PartialEq::eq)
        && leaves_out(&broad.absent_headers, &narrow.absent_headers, |one, other| one.eq_ignore_ascii_case(other))
}

/// Whether one pattern for identities matches all that another one matches.
pub(crate) fn covers_identity(broad: &str, narrow: &str) -> bool {
    let (Ok(broad), Ok(narrow)) = (IdentityPattern::new(broad), IdentityPattern::new(narrow)) else { return false };
    match (&broad, &narrow) {
        (IdentityPattern::Any, _) => true,
        (_, IdentityPattern::Exact(identity)) => broad.matches(identity),
        (IdentityPattern::Prefix(broad), IdentityPattern::Prefix(narrow)) => narrow.starts_with(&**broad),
        (IdentityPattern::Prefix(_) | IdentityPattern::Exact(_), _) => false,
    }
}

/// Whether one pattern matches all that another one matches.
pub(crate) fn covers_glob(broad: Result<Glob, String>, narrow: Result<Glob, String>) -> bool {
    let (Ok(broad), Ok(narrow)) = (broad, narrow) else { return false };
    match (&broad, &narrow) {
        (Glob::Any, _) => true,
        (_, Glob::Exact(text)) => broad.matches(text),
        (Glob::Prefix(broad), Glob::Prefix(narrow)) => narrow.starts_with(&**broad),
        (Glob::Suffix(broad), Glob::Suffix(narrow)) => narrow.ends_with(&**broad),
        (Glob::Prefix(_) | Glob::Suffix(_) | Glob::Exact(_), _) => false,
    }
}
