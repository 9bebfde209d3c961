//! Who calls: identities, service accounts and namespaces, matched on the parts of an identity.

use std::cmp::Ordering;

use crate::{
    facts::{Identity, IdentityError},
    names,
};

/// A pattern for SPIFFE identities.
///
/// ```
/// use selvedge_policies::{facts::Identity, matching::principal::IdentityPattern};
///
/// let web: Identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
/// let mut patterns = ["spiffe://mesh.local/ns/pay/*", "spiffe://mesh.local/ns/shop/*"].map(|text| IdentityPattern::new(text).unwrap());
/// assert!(!patterns[0].matches(&web) && patterns[1].matches(&web));
/// patterns.sort();
/// assert!(IdentityPattern::any_matches(&patterns, &web));
/// assert!(IdentityPattern::new("web").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdentityPattern {
    /// `*`: whoever has proven an identity by mTLS.
    Any,
    /// Every identity whose URI begins with this.
    Prefix(Box<str>),
    /// This identity and no other.
    Exact(Identity),
}

impl IdentityPattern {
    /// Reads `spiffe://...`, `spiffe://...*` or `*`. The error says what was expected.
    pub fn new(pattern: &str) -> Result<Self, String> {
        match pattern.strip_suffix('*') {
            Some("") => Ok(Self::Any),
            Some(prefix) if prefix.contains('*') => {
                Err(format!("'{pattern}' has more than one '*': only one, at the end, may be"))
            }
            Some(prefix) if !prefix.starts_with("spiffe://") => {
                Err(format!("'{pattern}' matches no identity: a pattern begins with spiffe://"))
            }
            Some(prefix) => Ok(Self::Prefix(prefix.into())),
            None => pattern.parse().map(Self::Exact).map_err(|error: IdentityError| error.to_string()),
        }
    }

    /// True when the identity matches.
    pub fn matches(&self, identity: &Identity) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == identity,
            Self::Prefix(prefix) => uri_starts_with(identity, prefix),
        }
    }

    /// True when one of the patterns, which are sorted, matches.
    pub fn any_matches(sorted: &[Self], identity: &Identity) -> bool {
        let globs = sorted.partition_point(|pattern| !matches!(pattern, Self::Exact(_)));
        sorted[..globs].iter().any(|pattern| pattern.matches(identity))
            || sorted[globs..].binary_search_by(|pattern| pattern.cmp_exact(identity)).is_ok()
    }

    fn cmp_exact(&self, identity: &Identity) -> Ordering {
        match self {
            Self::Exact(exact) => exact.cmp(identity),
            Self::Any | Self::Prefix(_) => Ordering::Less,
        }
    }
}

/// Compares `prefix` with the identity's URI without building the URI.
fn uri_starts_with(identity: &Identity, prefix: &str) -> bool {
    let parts =
        ["spiffe://", &*identity.trust_domain, "/ns/", &*identity.namespace, "/sa/", &*identity.service_account];
    let mut rest = prefix;
    for part in parts {
        match rest.strip_prefix(part) {
            Some(after) => rest = after,
            None => return part.starts_with(rest),
        }
    }
    rest.is_empty()
}

/// A service account of a namespace, in any trust domain that the mesh trusts.
///
/// ```
/// use selvedge_policies::{facts::Identity, matching::principal::ServiceAccount};
///
/// let web: Identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
/// let named = ServiceAccount::new("web", "shop").unwrap();
/// assert!(named.matches(&web) && ServiceAccount::any_matches(&[named], &web));
/// assert!(!ServiceAccount::new("web", "pay").unwrap().matches(&web), "a name alone is of the policy's namespace");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceAccount {
    /// The namespace, as Kubernetes names it.
    pub namespace: Box<str>,
    /// The name of the account within the namespace.
    pub name: Box<str>,
}

impl ServiceAccount {
    /// Reads `name` (in `home`, the policy's own namespace) or `namespace/name`.
    pub fn new(text: &str, home: &str) -> Result<Self, String> {
        let (namespace, name) = names::parts(text).unwrap_or((home, text));
        match Identity::new("any", namespace, name) {
            Ok(_) => Ok(Self { namespace: namespace.into(), name: name.into() }),
            Err(_) => Err(format!("'{text}' is not a service account: expected NAME or NAMESPACE/NAME")),
        }
    }

    /// True when the identity is this service account.
    pub fn matches(&self, identity: &Identity) -> bool {
        self.namespace == identity.namespace && self.name == identity.service_account
    }

    /// True when one of the service accounts, which are sorted, matches.
    pub fn any_matches(sorted: &[Self], identity: &Identity) -> bool {
        let key = (&identity.namespace, &identity.service_account);
        sorted.binary_search_by(|account| (&account.namespace, &account.name).cmp(&key)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identities_match_patterns() {
        let web: Identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
        for (pattern, expected) in [
            ("*", true),
            ("spiffe://mesh.local/ns/shop/sa/web", true),
            ("spiffe://mesh.local/ns/shop/sa/webhook", false),
            ("spiffe://mesh.local/ns/shop/*", true),
            ("spiffe://mesh.local/ns/shop/sa/web*", true),
            ("spiffe://mesh.local/ns/shop/sa/webh*", false),
            ("spiffe://mesh.local/ns/sho*", true),
            ("spiffe://other.local/*", false),
        ] {
            assert_eq!(IdentityPattern::new(pattern).unwrap().matches(&web), expected, "{pattern}");
        }
        for bad in ["", "web", "http://*", "*web", "spiffe://*/ns/*", "spiffe://mesh.local/ns/shop"] {
            assert!(IdentityPattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn service_accounts_are_relative_to_the_namespace_of_the_policy() {
        let web: Identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
        for (text, home, expected) in [("web", "shop", true), ("web", "other", false), ("shop/web", "other", true)] {
            assert_eq!(ServiceAccount::new(text, home).unwrap().matches(&web), expected, "{text} in {home}");
        }
        for bad in ["", "a/b/c", "/web", "shop/", "we b", "*"] {
            assert!(ServiceAccount::new(bad, "shop").is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn prefixes_compare_as_on_the_uri(namespace in "[ab]{1,3}", name in "[ab]{1,3}", cut in 0usize..40, tail in "[ab/]{0,2}") {
            let identity = Identity::new("ab", &namespace, &name).unwrap();
            let uri = identity.to_string();
            let prefix = format!("{}{tail}", &uri[..cut.min(uri.len())]);
            prop_assert_eq!(uri_starts_with(&identity, &prefix), uri.starts_with(&prefix));
        }
    }
}
