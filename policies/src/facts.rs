//! What a decision may look at: who calls, what for, and when.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use http::{HeaderMap, Method, StatusCode};

use crate::reason::Reason;

/// A point in time, handed to every decision so that tests can set it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Monotonic nanoseconds since an origin the process chose at start.
    pub nanos: u64,
    /// Seconds since the Unix epoch, for documents that expire.
    pub unix: u64,
}

/// A SPIFFE identity of the form `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Trust domain, lower case, no scheme.
    pub trust_domain: Box<str>,
    /// Namespace of the workload.
    pub namespace: Box<str>,
    /// Service account of the workload.
    pub service_account: Box<str>,
}

/// Why a string is not an [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not an identity of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT: {problem}")]
pub struct IdentityError {
    given: String,
    problem: &'static str,
}

impl Identity {
    /// Builds an identity from its three parts, each checked as [`Identity::from_str`] does.
    ///
    /// ```
    /// use selvedge_policies::facts::Identity;
    ///
    /// let web = Identity::new("mesh.local", "shop", "web").unwrap();
    /// assert_eq!(web.to_string(), "spiffe://mesh.local/ns/shop/sa/web");
    /// assert!(Identity::new("mesh.local", "shop", "we b").is_err());
    /// ```
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, IdentityError> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    /// Parses a SPIFFE ID (SPIFFE-ID section 2): lower-case trust domain, no port, query, fragment, empty or
    /// dot segment, at most 2048 bytes.
    fn from_str(given: &str) -> Result<Self, IdentityError> {
        let bad = |problem| IdentityError { given: given.chars().take(200).collect(), problem };
        if given.len() > 2048 {
            return Err(bad("longer than 2048 bytes"));
        }
        let rest = given.strip_prefix("spiffe://").ok_or_else(|| bad("the scheme is not spiffe://"))?;
        let mut parts = rest.split('/');
        let (Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("the path is not /ns/NAMESPACE/sa/SERVICE-ACCOUNT"));
        };
        let domain_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        if trust_domain.is_empty() || trust_domain.len() > 255 || !trust_domain.bytes().all(domain_byte) {
            return Err(bad("the trust domain has characters other than a-z 0-9 - . _"));
        }
        let segment_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        for segment in [namespace, service_account] {
            if matches!(segment, "" | "." | "..") || !segment.bytes().all(segment_byte) {
                return Err(bad(
                    "a path segment is empty, a dot segment, or has characters other than a-z A-Z 0-9 - . _",
                ));
            }
        }
        Ok(Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }
}

/// Who calls: the other end of a connection that comes to a workload, or the workload itself where it calls others.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The identity proven by mTLS, which for calls that are made is what the sidecar proves; `None` for plaintext peers.
    pub identity: Option<Arc<Identity>>,
    /// SHA-256 of the certificate that proved the identity to this sidecar (of its DER form), in lower-case hex.
    pub fingerprint: Option<Arc<str>>,
    /// The peer's network address.
    pub address: IpAddr,
}

/// What is known of a connection before any request on it.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionFacts<'a> {
    /// The caller at the other end of the connection (downstream).
    pub peer: &'a Peer,
    /// The port of the workload that is called; at the caller's side that of the service.
    pub port: u16,
    /// Server name of application TLS that passes through, lower case, when there was one.
    pub server_name: Option<&'a str>,
    /// As what it was let pass before, where policies are asked again because more of it has become known. It is still one
    /// connection: what has counted it, or drawn by chance for it, does so no second time.
    pub earlier: Option<&'a Self>,
}

/// One canonical HTTP request. The same value serves routing, policy, metrics and forwarding.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The caller at the other end of the connection (downstream).
    pub peer: &'a Peer,
    /// The port of the workload that is called; at the caller's side that of the service.
    pub port: u16,
    /// The method, case-sensitive (RFC 9110 section 9.1).
    pub method: &'a Method,
    /// Host of the authority, lower case, without port.
    pub host: &'a str,
    /// Normalised path, begins with `/` (or is `*` for `OPTIONS *`).
    pub path: &'a str,
    /// Services may read the path that was sent in another way, and it is the policies' to say what becomes of that.
    pub ambiguous: bool,
    /// Query without `?`, as sent.
    pub query: Option<&'a str>,
    /// Header fields as they will be forwarded.
    pub headers: &'a HeaderMap,
    /// Name of the route rule the request matched (`namespace/route/rule`), empty when there is none.
    pub route: &'a str,
    /// Of its content what policies [need](crate::policy::Needs::body); nothing where none needs it.
    pub body: Content<'a>,
}

/// The start of the content of a request, as much as policies need and has come in time.
///
/// What is longer or slower than that is the policy's to decide: by what is there, or by refusing with 413 (RFC 9110 section
/// 15.5.14) what it cannot see to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content<'a> {
    /// Its first bytes, as many as policies need at most, as they were sent.
    pub start: &'a [u8],
    /// True when they are all of it.
    pub is_whole: bool,
}

/// A section of fields that a caller sends.
#[derive(Clone, Copy, Debug)]
pub enum Section<'a> {
    /// That in front of the content, from this caller.
    Header(&'a Peer),
    /// That after the content (RFC 9110 section 6.5), which policies have not seen.
    Trailer,
}

/// One try of a request.
#[derive(Clone, Copy, Debug)]
pub struct AttemptFacts<'a> {
    /// 0 for the first try.
    pub number: u32,
    /// The service that is tried, `namespace/name`; empty for an address outside any service.
    pub service: &'a str,
    /// The workload behind the endpoint, without namespace; empty when unknown.
    pub workload: &'a str,
}

/// A response before it goes back.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFacts<'a> {
    /// The status that the service or a sidecar gave.
    pub status: StatusCode,
    /// Its header section, as it came.
    pub headers: &'a HeaderMap,
    /// Why a sidecar further on gave it, where one did.
    pub reason: Option<Reason>,
    /// Method of the request.
    pub method: &'a Method,
    /// Name of the route rule the request matched, empty when there is none.
    pub route: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_round_trips() {
        let id: Identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
        assert_eq!((&*id.namespace, &*id.service_account), ("shop", "web"));
        assert_eq!(id.to_string(), "spiffe://mesh.local/ns/shop/sa/web");
    }

    #[test]
    fn malformed_identities_are_refused() {
        for bad in [
            "",
            "http://mesh.local/ns/a/sa/b",
            "spiffe://",
            "spiffe:///ns/a/sa/b",
            "spiffe://mesh.local",
            "spiffe://mesh.local/ns/a/sa/b/",
            "spiffe://mesh.local/ns/a/sa/",
            "spiffe://mesh.local/ns/../sa/b",
            "spiffe://Mesh.local/ns/a/sa/b",
            "spiffe://mesh.local:80/ns/a/sa/b",
            "spiffe://u@mesh.local/ns/a/sa/b",
            "spiffe://mesh.local/ns/a/sa/b?x",
            "spiffe://mesh.local/ns/a/sa/b\0",
            "spiffe://mesh.local/sa/b/ns/a",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?} was accepted");
        }
    }
}
