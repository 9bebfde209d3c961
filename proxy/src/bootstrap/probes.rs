//! What the kubelet asks of the application, as the pod's specification declares it.

use std::{fmt, net::IpAddr};

use selvedge_policies::cidr::Cidr;
use serde::Deserialize;

/// One probe or lifecycle hook of a container of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Probe {
    /// The port of the application that is asked.
    pub port: u16,
    /// What is asked there.
    pub ask: Ask,
    /// Who may ask; the `probers` when absent.
    pub from: Option<Networks>,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `httpGet`: GET with exactly this path and query.
    Get(String),
    /// `tcpSocket`: whether the port takes a connection.
    Connect,
    /// `grpc`: the health check of gRPC, and no other method.
    Health,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    port: u16,
    path: Option<String>,
    #[serde(default)]
    tcp: bool,
    #[serde(default)]
    grpc: bool,
    from: Option<Networks>,
}

impl TryFrom<Written> for Probe {
    type Error = String;

    fn try_from(Written { port, path, tcp, grpc, from }: Written) -> Result<Self, String> {
        let ask = match (path, tcp, grpc) {
            (Some(path), false, false) => Ask::Get(target(&path)),
            (None, true, false) => Ask::Connect,
            (None, false, true) => Ask::Health,
            _ => return Err("a probe has one of path: PATH, tcp: true and grpc: true".into()),
        };
        Ok(Self { port, ask, from })
    }
}

/// The target that the kubelet asks for by this `path`: what a URL may not hold is percent-encoded, a fragment left out.
fn target(path: &str) -> String {
    let path = path.split('#').next().unwrap_or_default();
    let mut target = String::from(if path.starts_with('/') { "" } else { "/" });
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | ..=b' ' | 0x7f.. => {
                target.push_str(&format!("%{byte:02X}"));
            }
            plain => target.push(char::from(plain)),
        }
    }
    target
}

/// Addresses and networks, written as one text with commas between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Networks(Vec<Cidr>);

impl Networks {
    /// Whether one of them is this address or has it.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Adds addresses that stand for themselves alone.
    pub fn extend(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.0.extend(addresses.into_iter().map(Cidr::from));
    }
}

impl TryFrom<String> for Networks {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let networks = entries.map(|entry| {
            entry.parse().map_err(|_| format!("'{entry}' is neither an address nor a network such as 10.0.0.0/24"))
        });
        Ok(Self(networks.collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(Cidr::to_string).collect();
        f.write_str(if texts.is_empty() { "nowhere" } else { "" })?;
        f.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_the_kubelet_makes_of_it() {
        for (declared, asked) in [
            ("/health", "/health"),
            ("health", "/health"),
            ("", "/"),
            ("/ready?full=1&x", "/ready?full=1&x"),
            ("?full", "/?full"),
            ("/health#top", "/health"),
            ("/a b/%2f/\u{e9}", "/a%20b/%2f/%C3%A9"),
            ("/a/../b", "/a/../b"),
        ] {
            assert_eq!(target(declared), asked, "{declared}");
        }
    }

    #[test]
    fn a_probe_asks_one_thing_and_probers_are_a_list() {
        let probe = |yaml: &str| serde_saphyr::from_str::<Probe>(yaml).map_err(|error| error.to_string());
        assert_eq!(probe("{port: 80, path: health}").unwrap().ask, Ask::Get("/health".into()));
        assert_eq!(probe("{port: 80, tcp: true}").unwrap().ask, Ask::Connect);
        assert_eq!(probe("{port: 80, grpc: true}").unwrap().ask, Ask::Health);
        for wrong in ["{port: 80}", "{port: 80, tcp: false}", "{port: 80, path: /, grpc: true}"] {
            assert!(probe(wrong).unwrap_err().contains("one of path"), "{wrong}");
        }
        assert!(probe("{port: 80, tpc: true}").unwrap_err().contains("tpc"));
        assert!(probe("{port: 80, tcp: true, from: 10.0.0.256}").unwrap_err().contains("'10.0.0.256' is neither"));

        let networks: Networks = " 10.0.0.1, 10.1.0.0/16,,fd00::1 ,".to_owned().try_into().unwrap();
        for (address, inside) in [("10.0.0.1", true), ("10.0.0.2", false), ("10.1.2.3", true), ("fd00::1", true)] {
            assert_eq!(networks.contain(address.parse().unwrap()), inside, "{address}");
        }
        assert!(!Networks::default().contain([10, 0, 0, 1].into()));
    }
}
