//! One rule, in two languages at once: expressions for the kernel, and the words of nft(8) for people.

use std::net::IpAddr;

use crate::netlink::{attribute, nested, number, text};

/// `NFT_REG_1`, the register that everything here goes through, and `NFT_REG_VERDICT`.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;

/// What a packet is asked for by `meta`: `NFT_META_...`.
#[derive(Clone, Copy)]
enum Meta {
    Mark = 3,
    OutInterface = 5,
    Uid = 10,
    Family = 15,
    Protocol = 16,
}

/// `NFT_PAYLOAD_NETWORK_HEADER` and `NFT_PAYLOAD_TRANSPORT_HEADER`.
#[derive(Clone, Copy)]
enum Header {
    Network = 1,
    Transport = 2,
}

/// `NFT_CMP_EQ`, `NFT_CMP_NEQ` and `NFT_CMP_LTE`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// Equal.
    In = 0,
    /// Not equal.
    NotIn = 1,
    /// Not greater.
    AtMost = 3,
}

/// A rule under construction: conditions, then what happens.
#[derive(Default)]
pub(super) struct Rule {
    words: Vec<String>,
    expressions: Vec<Vec<u8>>,
}

impl Rule {
    /// As nft(8) shows it.
    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }

    /// `NFTA_RULE_EXPRESSIONS`.
    pub(super) fn expressions(&self) -> Vec<u8> {
        nested(4, &self.expressions)
    }

    /// For packets with this mark.
    pub(super) fn mark(self, mark: u32) -> Self {
        self.say(format!("meta mark {mark:#010x}")).meta(Meta::Mark).compare(Is::In, &mark.to_ne_bytes())
    }

    /// For packets of this user.
    pub(super) fn uid(self, uid: u32) -> Self {
        self.say(format!("meta skuid {uid}")).meta(Meta::Uid).compare(Is::In, &uid.to_ne_bytes())
    }

    /// For packets that do not leave this host. Every network namespace has its loopback device as the first.
    pub(super) fn loopback(self) -> Self {
        self.say("oif \"lo\"").meta(Meta::OutInterface).compare(Is::In, &1_u32.to_ne_bytes())
    }

    /// For TCP.
    pub(super) fn tcp(self) -> Self {
        self.say("meta l4proto tcp").only_tcp()
    }

    /// For TCP to this port.
    pub(super) fn port(self, port: u16) -> Self {
        let rule = self.say(format!("tcp dport {port}")).only_tcp();
        rule.payload(Header::Transport, 2, 2).compare(Is::In, &port.to_be_bytes())
    }

    /// For packets of TCP that do not open a connection: with flags other than SYN and not ACK.
    pub(super) fn under_way(self) -> Self {
        let rule = self.say("tcp flags != syn / syn,ack").only_tcp();
        rule.payload(Header::Transport, 13, 1).and(&[0x12]).compare(Is::NotIn, &[0x02])
    }

    /// For packets from this address of IPv4.
    pub(super) fn from(self, address: std::net::Ipv4Addr) -> Self {
        let rule = self.say(format!("ip saddr {address}")).family(2);
        rule.payload(Header::Network, 12, 4).compare(Is::In, &address.octets())
    }

    /// For packets to this network, or to any other of the same family.
    pub(super) fn to(self, is: Is, (address, prefix): (IpAddr, u8)) -> Self {
        let (name, family, offset, bytes) = match address {
            IpAddr::V4(v4) => ("ip", 2, 16, v4.octets().to_vec()),
            IpAddr::V6(v6) => ("ip6", 10, 24, v6.octets().to_vec()),
        };
        let whole = usize::from(prefix) == bytes.len() * 8;
        let not = if is == Is::NotIn { "!= " } else { "" };
        let length = if whole { String::new() } else { format!("/{prefix}") };
        let rule = self.say(format!("{name} daddr {not}{address}{length}")).family(family);
        let rule = rule.payload(Header::Network, offset, u32::try_from(bytes.len()).unwrap_or_default());
        if whole { rule } else { rule.mask(prefix, bytes.len()) }.compare(is, &bytes)
    }

    /// For packets to an address of this host.
    pub(super) fn local(self) -> Self {
        // NFT_FIB_RESULT_ADDRTYPE by NFTA_FIB_F_DADDR; RTN_LOCAL.
        let fib = [number(1, REGISTER), number(2, 3), number(3, 2)];
        self.say("fib daddr type local").expression("fib", &fib).compare(Is::In, &2_u32.to_ne_bytes())
    }

    /// For packets to a socket of this host. Whether it is transparent does not matter: where there is none, nothing is
    /// compared.
    pub(super) fn listened_for(self) -> Self {
        // NFT_SOCKET_TRANSPARENT by NFTA_SOCKET_KEY, of one byte.
        let socket = [number(1, 0), number(2, REGISTER)];
        self.say("socket transparent <= 1").expression("socket", &socket).compare(Is::AtMost, &[1])
    }

    /// Nothing more happens in this chain.
    pub(super) fn returns(self) -> Self {
        self.say("return").verdict(-5, None)
    }

    /// Another chain has its say.
    pub(super) fn jump(self, chain: &str) -> Self {
        self.say(format!("jump {chain}")).verdict(-3, Some(chain))
    }

    /// The caller is told that nobody listens.
    pub(super) fn refuse(self) -> Self {
        // NFT_REJECT_TCP_RST by NFTA_REJECT_TYPE.
        self.say("reject with tcp reset").expression("reject", &[number(1, 1)])
    }

    /// The connection goes to a port of this host.
    pub(super) fn redirect(self, port: u16) -> Self {
        let value = nested(2, &[attribute(1, &port.to_be_bytes())]);
        let rule = self.say(format!("redirect to :{port}")).expression("immediate", &[number(1, REGISTER), value]);
        rule.expression("redir", &[number(1, REGISTER)])
    }

    fn say(mut self, words: impl Into<String>) -> Self {
        self.words.push(words.into());
        self
    }

    fn expression(mut self, name: &str, data: &[Vec<u8>]) -> Self {
        self.expressions.push(nested(1, &[text(1, name), nested(2, data)]));
        self
    }

    fn meta(self, key: Meta) -> Self {
        self.expression("meta", &[number(1, REGISTER), number(2, key as u32)])
    }

    fn compare(self, is: Is, value: &[u8]) -> Self {
        let data = nested(3, &[attribute(1, value)]);
        self.expression("cmp", &[number(1, REGISTER), number(2, is as u32), data])
    }

    fn payload(self, header: Header, offset: u32, length: u32) -> Self {
        let parts = [number(1, REGISTER), number(2, header as u32), number(3, offset), number(4, length)];
        self.expression("payload", &parts)
    }

    /// Leaves the first `prefix` bits of so many bytes.
    fn mask(self, prefix: u8, length: usize) -> Self {
        let bits = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0).to_be_bytes();
        self.and(&bits[..length])
    }

    /// Leaves the bits of `mask`.
    fn and(self, mask: &[u8]) -> Self {
        let size = number(3, u32::try_from(mask.len()).unwrap_or_default());
        let (mask, zero) = (attribute(1, mask), attribute(1, &vec![0; mask.len()]));
        let parts = [number(1, REGISTER), number(2, REGISTER), size, nested(4, &[mask]), nested(5, &[zero])];
        self.expression("bitwise", &parts)
    }

    fn only_tcp(self) -> Self {
        self.meta(Meta::Protocol).compare(Is::In, &[6])
    }

    fn family(self, family: u8) -> Self {
        self.meta(Meta::Family).compare(Is::In, &[family])
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let mut parts = vec![attribute(1, &code.to_be_bytes())];
        parts.extend(chain.map(|chain| text(2, chain)));
        self.expression("immediate", &[number(1, VERDICT), nested(2, &[nested(2, &parts)])])
    }
}
