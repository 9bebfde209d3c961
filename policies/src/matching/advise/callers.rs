//! Callers that nobody is, and conditions on callers that exclude each other.

use super::excludes;
use crate::{
    advice::{Advice, Surroundings},
    cidr::Cidr,
    facts::Identity,
    finding::Code,
    matching::{
        covers::covers_identity,
        principal::{IdentityPattern, ServiceAccount},
        rule::Source,
    },
    names,
    suggest::nearest,
};

/// What is odd in a caller, found at `path`, of a policy of the namespace `home`.
pub(super) fn of(source: &Source, home: &str, path: &str, around: &Surroundings<'_>) -> Vec<Advice> {
    let fields: [(&str, &[String], Look); 6] = [
        ("identities", &source.identities, identity),
        ("notIdentities", &source.not_identities, identity),
        ("serviceAccounts", &source.service_accounts, account),
        ("notServiceAccounts", &source.not_service_accounts, account),
        ("namespaces", &source.namespaces, namespace),
        ("notNamespaces", &source.not_namespaces, namespace),
    ];
    let mut advice = Vec::new();
    for (field, texts, look) in fields {
        let found = texts.iter().enumerate().filter_map(|(n, text)| {
            let (code, message) = look(text, home, around)?;
            Some(Advice::new(code, format!("{path}.{field}[{n}]"), message))
        });
        advice.extend(found);
    }
    advice.extend(star_among_others(&source.identities, path));
    for (field, networks) in [("ipBlocks", &source.ip_blocks), ("notIpBlocks", &source.not_ip_blocks)] {
        let found = networks.iter().enumerate();
        advice.extend(found.filter_map(|(n, network)| host_bits(network, &format!("{path}.{field}[{n}]"))));
    }
    advice.extend(contradiction(source, home, path));
    advice
}

/// What is odd in one text, which is of a policy of this namespace.
type Look = fn(&str, &str, &Surroundings<'_>) -> Option<(Code, String)>;

fn identity(text: &str, _: &str, around: &Surroundings<'_>) -> Option<(Code, String)> {
    let pattern = IdentityPattern::new(text).ok()?;
    let ours = format!("spiffe://{}/", around.trust_domain);
    if !is_of(&pattern, &ours) {
        let meant = match &pattern {
            IdentityPattern::Exact(of) => Identity::new(around.trust_domain, &of.namespace, &of.service_account).ok(),
            IdentityPattern::Any | IdentityPattern::Prefix(_) => None,
        };
        let hint = meant.map_or(String::new(), |meant| format!(": did you mean '{meant}'?"));
        let message = format!("'{text}' is not of this mesh, whose trust domain is '{}'{hint}", around.trust_domain);
        return Some((Code::UnknownTrustDomain, message));
    }
    let known = || around.accounts.iter().filter_map(|(of, name)| Identity::new(around.trust_domain, of, name).ok());
    if around.accounts.is_empty() || known().any(|known| pattern.matches(&known)) {
        return None;
    }
    let meant = match &pattern {
        IdentityPattern::Exact(of) => meant(&of.namespace, &of.service_account, around),
        IdentityPattern::Any | IdentityPattern::Prefix(_) => None,
    };
    let meant = meant.and_then(|(of, name)| Identity::new(around.trust_domain, of, name).ok());
    let hint = did_you_mean(meant.map(|meant| meant.to_string()).as_deref());
    Some((Code::UnknownIdentity, format!("no workload has an identity '{text}'{hint}")))
}

fn is_of(pattern: &IdentityPattern, trust_domain: &str) -> bool {
    match pattern {
        IdentityPattern::Any => true,
        IdentityPattern::Prefix(prefix) => prefix.starts_with(trust_domain) || trust_domain.starts_with(&**prefix),
        IdentityPattern::Exact(identity) => identity.to_string().starts_with(trust_domain),
    }
}

fn account(text: &str, home: &str, around: &Surroundings<'_>) -> Option<(Code, String)> {
    let named = ServiceAccount::new(text, home).ok()?;
    let is_named = |of: &str, name: &str| *named.namespace == *of && *named.name == *name;
    if around.accounts.is_empty() || around.accounts.iter().any(|(of, name)| is_named(of, name)) {
        return None;
    }
    let is_short = names::parts(text).is_none();
    let written = |(of, name): (&str, &str)| {
        if is_short && of == home { name.to_owned() } else { names::object(of, name) }
    };
    let hint = did_you_mean(meant(&named.namespace, &named.name, around).map(written).as_deref());
    let message =
        format!("no workload of namespace '{}' has the service account '{}'{hint}", named.namespace, named.name);
    Some((Code::UnknownIdentity, message))
}

/// The account that was probably meant: one of that name in another namespace, or one of the namespace with a name that is
/// close.
fn meant<'a>(namespace: &str, name: &str, around: &Surroundings<'a>) -> Option<(&'a str, &'a str)> {
    let mut all = around.accounts.iter().map(|(of, name)| (&**of, &**name));
    let there = all.clone().filter(|(of, _)| *of == namespace);
    all.find(|(_, known)| *known == name)
        .or_else(|| Some((there.clone().next()?.0, nearest(name, there.map(|(_, name)| name))?)))
}

fn namespace(text: &str, _: &str, around: &Surroundings<'_>) -> Option<(Code, String)> {
    let mut known: Vec<&str> = around.accounts.iter().map(|(of, _)| &**of).collect();
    known.dedup();
    if known.is_empty() || known.contains(&text) {
        return None;
    }
    let hint = did_you_mean(nearest(text, known));
    Some((Code::UnknownNamespace, format!("no workload is in namespace '{text}'{hint}")))
}

fn did_you_mean(meant: Option<&str>) -> String {
    meant.map_or(String::new(), |meant| format!(": did you mean '{meant}'?"))
}

fn star_among_others(identities: &[String], path: &str) -> Option<Advice> {
    let star = identities.iter().position(|text| text == "*").filter(|_| identities.len() > 1)?;
    let message = "'*' is every identity of the mesh, so the others beside it make no difference: expected it alone, or \
                   left out";
    Some(Advice::new(Code::NoDifference, format!("{path}.identities[{star}]"), message))
}

fn host_bits(network: &Cidr, path: &str) -> Option<Advice> {
    let meant = network.without_host_bits().filter(|meant| meant != network)?;
    let message =
        format!("'{network}' has bits that its prefix length leaves out, it is the whole network: write '{meant}'");
    Some(Advice { is_certain: true, ..Advice::new(Code::HostBits, path, message) })
}

/// A field that leaves out all that another one names.
fn contradiction(source: &Source, home: &str, path: &str) -> Option<Advice> {
    let account = |text: &String| ServiceAccount::new(text, home).ok();
    let of_account = |text: &String| account(text).map(|account| String::from(account.namespace));
    let leaves_out = [
        (
            "notIdentities",
            "identities",
            excludes(&source.not_identities, &source.identities, |not, is| covers_identity(not, is)),
        ),
        (
            "notServiceAccounts",
            "serviceAccounts",
            excludes(&source.not_service_accounts, &source.service_accounts, |not, is| {
                account(not).is_some() && account(not) == account(is)
            }),
        ),
        ("notNamespaces", "namespaces", excludes(&source.not_namespaces, &source.namespaces, String::eq)),
        (
            "notNamespaces",
            "serviceAccounts",
            excludes(&source.not_namespaces, &source.service_accounts, |not, is| of_account(is).as_ref() == Some(not)),
        ),
        (
            "namespaces",
            "serviceAccounts",
            !source.namespaces.is_empty()
                && excludes(&[()], &source.service_accounts, |(), is| {
                    of_account(is).is_some_and(|of| !source.namespaces.contains(&of))
                }),
        ),
        ("notIpBlocks", "ipBlocks", excludes(&source.not_ip_blocks, &source.ip_blocks, Cidr::covers)),
    ];
    let (field, named, _) = leaves_out.into_iter().find(|(_, _, excludes)| *excludes)?;
    let message =
        format!("nobody matches: this leaves out all that {named} names: expected one of the two to be changed");
    Some(Advice::new(Code::MatchesNothing, format!("{path}.{field}"), message))
}
