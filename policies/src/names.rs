//! The names of what there is in a mesh. Each is read in one way and written in one way, here and nowhere else: what has
//! one of these types is sound, and reads as it was written.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not {expected}")]
pub struct NameError {
    given: String,
    expected: &'static str,
}

impl NameError {
    fn new(given: &str, expected: &'static str) -> Self {
        Self { given: given.chars().take(200).collect(), expected }
    }
}

/// `namespace/name` of any object.
///
/// ```
/// use selvedge_policies::names;
///
/// assert_eq!(names::object("shop", "web"), "shop/web");
/// ```
pub fn object(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// Both parts of `namespace/name`; `None` when there are not exactly two, or one of them is no part of a name.
///
/// ```
/// use selvedge_policies::names;
///
/// assert_eq!(names::parts("shop/web"), Some(("shop", "web")));
/// assert_eq!((names::parts("web"), names::parts("a/b/c")), (None, None));
/// ```
pub fn parts(text: &str) -> Option<(&str, &str)> {
    let is_part = |part: &str| !part.is_empty() && !part.contains(['/', ':']);
    text.split_once('/').filter(|(namespace, name)| is_part(namespace) && is_part(name))
}

/// The namespace of those who run the mesh: what covers all of it is written here.
pub const ROOT_NAMESPACE: &str = "selvedge-system";

/// What follows `NAME.NAMESPACE` in the host names of a service of the mesh.
const DOMAINS: [&str; 3] = ["", ".svc", ".svc.cluster.local"];

/// The host names by which callers reach the service `name` of `namespace`, the shortest first.
///
/// ```
/// use selvedge_policies::names;
///
/// assert_eq!(names::hosts("shop", "web"), ["web.shop", "web.shop.svc", "web.shop.svc.cluster.local"]);
/// ```
pub fn hosts(namespace: &str, name: &str) -> [String; 3] {
    DOMAINS.map(|domain| format!("{name}.{namespace}{domain}"))
}

/// Namespace and name of the only service of the mesh that can answer to `host`, in lower case and without a port; `None`
/// where none can.
///
/// ```
/// use selvedge_policies::names;
///
/// for host in names::hosts("shop", "web") {
///     assert_eq!(names::service_of_host(&host), Some(("shop", "web")));
/// }
/// assert_eq!(names::service_of_host("www.example.com"), None);
/// ```
pub fn service_of_host(host: &str) -> Option<(&str, &str)> {
    let bare = DOMAINS.iter().rev().find_map(|domain| {
        host.strip_suffix(domain)?.split_once('.').filter(|(name, namespace)| is_label(name) && is_label(namespace))
    });
    bare.map(|(name, namespace)| (namespace, name))
}

/// The name of what callers of a namespace are told in the place of the service `service`, which is written `namespace/name`.
///
/// ```
/// use selvedge_policies::names;
///
/// assert_eq!(names::view("bank/ledger", "shop"), "bank/ledger@shop");
/// ```
pub fn view(service: &str, namespace: &str) -> String {
    format!("{service}@{namespace}")
}

/// The service and the namespace of a [`view`]; `None` for a name of another form.
///
/// ```
/// use selvedge_policies::names;
///
/// assert_eq!(names::viewed("bank/ledger@shop"), Some(("bank/ledger", "shop")));
/// assert_eq!(names::viewed("bank/ledger"), None);
/// ```
pub fn viewed(name: &str) -> Option<(&str, &str)> {
    name.split_once('@')
}

/// Whether `text` is a DNS label (RFC 1123 section 2.1), as names of services and namespaces are.
///
/// ```
/// use selvedge_policies::names;
///
/// assert!(names::is_label("web-2") && !names::is_label("-web") && !names::is_label("a.b"));
/// ```
pub fn is_label(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(fine) && !text.starts_with('-') && !text.ends_with('-')
}

/// `namespace/name` of a service, in the mesh or outside.
///
/// ```
/// use selvedge_policies::names::ServiceName;
///
/// let web: ServiceName = "shop/web".parse().unwrap();
/// assert_eq!((web.namespace(), web.name()), ("shop", "web"));
/// assert_eq!(web, ServiceName::new("shop", "web"));
/// assert_eq!((&**web.text(), web.port(80).port), ("shop/web", 80));
/// assert!("web".parse::<ServiceName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Path);

/// `namespace/name` of a workload.
///
/// ```
/// use selvedge_policies::names::WorkloadName;
///
/// let web = WorkloadName::new("shop", "web-1");
/// assert_eq!((web.namespace(), web.name()), ("shop", "web-1"));
/// assert!("web-1".parse::<WorkloadName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadName(Path);

/// `namespace/name:port` of a port of a service.
///
/// ```
/// use selvedge_policies::names::PortName;
///
/// let port: PortName = "shop/web:80".parse().unwrap();
/// assert_eq!((port.service.name(), port.port), ("web", 80));
/// assert_eq!(port.to_string(), "shop/web:80");
/// assert!("shop/web".parse::<PortName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortName {
    /// The service whose port it is.
    pub service: ServiceName,
    /// The port that callers name, which need not be the application's.
    pub port: u16,
}

/// `namespace/name`, with the place of the slash, so that no request has to look for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Path {
    text: Arc<str>,
    slash: usize,
}

impl Path {
    fn new(namespace: &str, name: &str) -> Self {
        Self { text: object(namespace, name).into(), slash: namespace.len() }
    }

    /// Exactly two parts, each of them part of a name.
    fn read(given: &str, expected: &'static str) -> Result<Self, NameError> {
        let (namespace, _) = parts(given).ok_or_else(|| NameError::new(given, expected))?;
        Ok(Self { text: given.into(), slash: namespace.len() })
    }

    fn namespace(&self) -> &str {
        &self.text[..self.slash]
    }

    fn name(&self) -> &str {
        &self.text[self.slash + 1..]
    }
}

/// The place of the slash says nothing that the text does not, and a name is found by its text.
impl Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl ServiceName {
    /// The service `name` of `namespace`, both as Kubernetes has them.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(Path::new(namespace, name))
    }

    /// The part before the slash.
    pub fn namespace(&self) -> &str {
        self.0.namespace()
    }

    /// Its name without namespace.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The whole of it, shared.
    pub const fn text(&self) -> &Arc<str> {
        &self.0.text
    }

    /// One of its ports.
    pub fn port(&self, port: u16) -> PortName {
        PortName { service: self.clone(), port }
    }
}

impl WorkloadName {
    /// The workload `name` of `namespace`, both as Kubernetes has them.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(Path::new(namespace, name))
    }

    /// The part before the slash.
    pub fn namespace(&self) -> &str {
        self.0.namespace()
    }

    /// Its name without namespace.
    pub fn name(&self) -> &str {
        self.0.name()
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(given: &str) -> Result<Self, NameError> {
        Path::read(given, "the name of a service: expected NAMESPACE/NAME").map(Self)
    }
}

impl FromStr for WorkloadName {
    type Err = NameError;

    fn from_str(given: &str) -> Result<Self, NameError> {
        Path::read(given, "the name of a workload: expected NAMESPACE/NAME").map(Self)
    }
}

impl FromStr for PortName {
    type Err = NameError;

    fn from_str(given: &str) -> Result<Self, NameError> {
        let expected = "the name of a port of a service: expected NAMESPACE/NAME:PORT";
        let read_port = |(service, port): (&str, &str)| {
            let is_plain = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
            Some(Self { service: service.parse().ok()?, port: port.parse().ok().filter(|_| is_plain)? })
        };
        given.rsplit_once(':').and_then(read_port).ok_or_else(|| NameError::new(given, expected))
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// A service is found by its text, too; that hashes and compares alike.
impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_a_name_is_refused() {
        for bad in ["", "/", "a/", "/b", "a", "a/b/c", "a/b:1", "a:b/c"] {
            assert!(bad.parse::<ServiceName>().is_err() && bad.parse::<WorkloadName>().is_err(), "{bad:?}");
        }
        for bad in ["a/b", "a/b:", "a/b:x", "a/b:0", "a/b:080", "a/b:+80", "a/b:65536", "b:80", ":80", "a/b:1:2"] {
            assert!(bad.parse::<PortName>().is_err(), "{bad:?}");
        }
        let why = "web:80".parse::<PortName>().unwrap_err().to_string();
        assert_eq!(why, "'web:80' is not the name of a port of a service: expected NAMESPACE/NAME:PORT");
    }

    proptest! {
        #[test]
        fn names_read_as_they_are_written(namespace in "[a-z][a-z0-9-]{0,9}", name in "[a-z][a-z0-9.-]{0,9}", port in 1u16..) {
            let service = ServiceName::new(&namespace, &name);
            prop_assert_eq!((service.namespace(), service.name()), (&*namespace, &*name));
            prop_assert_eq!(&service.to_string().parse::<ServiceName>().unwrap(), &service);
            prop_assert_eq!(service.port(port).to_string().parse::<PortName>().unwrap(), service.port(port));
            let workload = WorkloadName::new(&namespace, &name);
            prop_assert_eq!((workload.namespace(), workload.name()), (&*namespace, &*name));
            prop_assert_eq!(workload.to_string().parse::<WorkloadName>().unwrap(), workload);
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "[a-z0-9/:]{0,12}") {
            if let Ok(name) = text.parse::<ServiceName>() {
                prop_assert_eq!(name.to_string(), text.clone());
            }
            if let Ok(name) = text.parse::<PortName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
