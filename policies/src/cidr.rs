//! Networks, as users write them.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A network in CIDR form (RFC 4632, RFC 4291), or one address.
///
/// ```
/// use selvedge_policies::cidr::Cidr;
///
/// let network: Cidr = "10.0.0.0/8".parse().unwrap();
/// assert!(network.contains("10.1.2.3".parse().unwrap()));
/// assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
/// assert!("10.0.0.0/99".parse::<Cidr>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNet);

/// Why a string is not a [`Cidr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{given}' is not a network: expected an address with an optional prefix length, such as 10.0.0.0/8 or fd00::/8"
)]
pub struct CidrError {
    given: String,
}

impl Cidr {
    /// The `format` of the JSON schema.
    pub(crate) const FORMAT: &'static str = "cidr";

    /// True when `address` is in the network. An IPv4-mapped IPv6 address is the IPv4 address it stands for.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Its first address, and how many bits of it all addresses share.
    ///
    /// ```
    /// use selvedge_policies::cidr::Cidr;
    ///
    /// let network: Cidr = "10.1.2.3/8".parse().unwrap();
    /// assert_eq!(network.network(), ("10.0.0.0".parse().unwrap(), 8));
    /// ```
    pub fn network(&self) -> (IpAddr, u8) {
        (self.0.network(), self.0.prefix_len())
    }

    /// The network as it is usually written, where every bit of its address counts; `None` when it is one address.
    ///
    /// ```
    /// use selvedge_policies::cidr::Cidr;
    ///
    /// let written: Cidr = "10.1.2.3/8".parse().unwrap();
    /// assert_eq!(written.without_host_bits().unwrap().to_string(), "10.0.0.0/8");
    /// assert_eq!("10.1.2.3".parse::<Cidr>().unwrap().without_host_bits(), None);
    /// ```
    pub fn without_host_bits(&self) -> Option<Self> {
        (self.0.prefix_len() < self.0.max_prefix_len()).then(|| Self(self.0.trunc()))
    }

    /// True when every address of `other` is in this network.
    ///
    /// ```
    /// use selvedge_policies::cidr::Cidr;
    ///
    /// let [wide, narrow] = ["10.0.0.0/8", "10.1.0.0/16"].map(|text| text.parse::<Cidr>().unwrap());
    /// assert!(wide.covers(&narrow) && !narrow.covers(&wide));
    /// ```
    pub fn covers(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }
}

impl From<IpNet> for Cidr {
    fn from(network: IpNet) -> Self {
        match network {
            IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
                Some(v4) => Self(ipnet::Ipv4Net::new_assert(v4, v6.prefix_len() - 96).into()),
                None => Self(network),
            },
            _ => Self(network),
        }
    }
}

impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        IpNet::from(address).into()
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(given: &str) -> Result<Self, CidrError> {
        let network = given.parse::<IpNet>().or_else(|_| given.parse::<IpAddr>().map(IpNet::from));
        network.map(Self::from).map_err(|_| CidrError { given: given.chars().take(64).collect() })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Cidr {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": Self::FORMAT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_match() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "10.1.1.1", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fd12::1", true),
        ] {
            let (cidr, ip): (Cidr, IpAddr) = (network.parse().unwrap(), address.parse().unwrap());
            assert_eq!(cidr.contains(ip), expected, "{address} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in ["", "10.0.0.0/33", "10.0.0", "example.com", "fd00::/129", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
