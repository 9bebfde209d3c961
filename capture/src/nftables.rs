//! The rules for nftables, spoken to the kernel without a program in between: one table for both families, replaced in
//! one transaction. Each rule carries its own words, so that reading back needs no decoder.

use std::{net::IpAddr, path::Path};

use rustix::io::Errno;

mod kernel;
mod rule;

use kernel::{Change, Kernel};
use rule::{Is, Rule};

use super::{CHECK, Capture, Failure, INBOUND_MARK, INBOUND_SOURCE, OUTBOUND_MARK};
use crate::netlink::{attribute, attributes, nested, number, text};

const TABLE: &str = "selvedge";
const TO_INBOUND: &str = "to_inbound";
const INBOUND: &str = "inbound";
const OUTBOUND: &str = "outbound";

/// `NFT_MSG_...`.
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
/// `NLM_F_CREATE` and `NLM_F_APPEND`.
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// The type of our words within `NFTA_RULE_USERDATA`, which nft(8) does not know and passes over.
const WORDS: u8 = 0x5e;

/// The families of a table: `NFPROTO_...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// Both; a kernel built without IPv6 does not have it.
    Inet = 1,
    /// IPv4 alone.
    Ip = 2,
}

impl Family {
    const ALL: [Self; 2] = [Self::Inet, Self::Ip];

    /// That of this host; one without IPv6 has nothing to capture there. The thread may be in another namespace than the
    /// process.
    fn here() -> Self {
        if Path::new("/proc/thread-self/net/if_inet6").exists() { Self::Inet } else { Self::Ip }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
        }
    }
}

/// What becomes of connections from outside to a port on which nobody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unheard {
    /// The kernel refuses them, as it would without us.
    Refused,
    /// The sidecar takes them.
    Redirected,
}

pub(super) fn apply(capture: &Capture) -> Result<(), Failure> {
    let family = Family::here();
    apply_to(family, capture, Unheard::Refused).or_else(|refused| {
        // A kernel may be built without the look for sockets, or refuse nothing that early (before 5.9).
        apply_to(family, capture, Unheard::Redirected).map_err(|_| refused)
    })
}

fn apply_to(family: Family, capture: &Capture, unheard: Unheard) -> Result<(), Failure> {
    let change = |operation, flags, body, what: String| Change { operation, flags, family: family as u8, body, what };
    // Adding first makes deleting succeed whether or not the table is there.
    let mut changes = [NEW_TABLE, DELETE_TABLE, NEW_TABLE]
        .map(|operation| change(operation, CREATE, text(1, TABLE), format!("table {} {TABLE}", family.name())))
        .into_iter()
        .collect::<Vec<_>>();
    for (chain, hook) in [(TO_INBOUND, None), (INBOUND, Some(0)), (OUTBOUND, Some(3))] {
        let body = [text(1, TABLE), text(3, chain), hook.map(nat).unwrap_or_default()].concat();
        changes.push(change(NEW_CHAIN, CREATE, body, format!("chain {chain}")));
    }
    for (chain, rule) in rules(family, capture, unheard) {
        let (words, place) = (rule.text(), [text(1, TABLE), text(2, chain)].concat());
        let body = [place, rule.expressions(), attribute(7, &tagged(&words))].concat();
        changes.push(change(NEW_RULE, CREATE | APPEND, body, format!("'{words}'")));
    }
    transact(&changes)
}

/// What makes a chain one that the kernel calls at `hook` (`NF_INET_...`) for destinations: `NF_IP_PRI_NAT_DST`, accept.
fn nat(hook: u32) -> Vec<u8> {
    let place = nested(4, &[number(1, hook), attribute(2, &(-100_i32).to_be_bytes())]);
    [place, number(5, 1), text(7, "nat")].concat()
}

pub(super) fn remove() -> Result<(), Failure> {
    let Some(kernel) = open()? else { return Ok(()) };
    let Some(tables) = here(kernel.list(GET_TABLE))? else { return Ok(()) };
    let ours = |family: &Family| tables.iter().any(|table| is_ours(table, *family));
    let changes: Vec<Change> = Family::ALL
        .into_iter()
        .filter(ours)
        .map(|family| Change {
            operation: DELETE_TABLE,
            flags: 0,
            family: family as u8,
            body: text(1, TABLE),
            what: format!("removing table {} {TABLE}", family.name()),
        })
        .collect();
    if changes.is_empty() { Ok(()) } else { transact(&changes) }
}

/// The rules in force in the words of nft(8); empty when there are none.
pub(super) fn show() -> Result<String, Failure> {
    let Some(kernel) = open()? else { return Ok(String::new()) };
    let Some(rules) = here(kernel.list(GET_RULE))? else { return Ok(String::new()) };
    let mut shown = String::new();
    for family in Family::ALL {
        let mut last = String::new();
        for (chain, words) in rules.iter().filter(|rule| is_ours(rule, family)).filter_map(|rule| told(rule)) {
            if last.is_empty() {
                shown.push_str(&format!("table {} {TABLE}\n", family.name()));
            }
            if last != chain {
                shown.push_str(&format!("\tchain {chain}\n"));
            }
            shown.push_str(&format!("\t\t{words}\n"));
            last = chain;
        }
    }
    Ok(shown)
}

/// Whether a table or rule that the kernel lists is of our table, whose name is the first attribute of both.
fn is_ours(listed: &[u8], family: Family) -> bool {
    let Some((head, body)) = listed.split_at_checked(4) else { return false };
    head[0] == family as u8 && attributes(body).any(|(kind, value)| kind == 1 && word(value) == TABLE)
}

/// The chain of a rule, and its words.
fn told(rule: &[u8]) -> Option<(String, String)> {
    let find = |wanted| attributes(rule.get(4..)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let words = find(7)?.strip_prefix(&[WORDS])?.get(1..)?;
    Some((word(find(2)?), word(words)))
}

fn word(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

/// `words` as nft(8) writes what a rule carries: type, length, value. The kernel takes 256 bytes, ours are half of it.
fn tagged(words: &str) -> Vec<u8> {
    let words: Vec<u8> = words.bytes().take(250).chain([0]).collect();
    [&[WORDS, u8::try_from(words.len()).unwrap_or(u8::MAX)], &words[..]].concat()
}

fn transact(changes: &[Change]) -> Result<(), Failure> {
    let Some(kernel) = open()? else { return Err(Failure::Missing) };
    match kernel.transact(changes) {
        // Of a rule EINVAL would say that the rule is wrong; of a batch without nf_tables the kernel says this.
        Err((_, errno)) if errno == Errno::OPNOTSUPP => Err(Failure::Missing),
        outcome => outcome.map_err(|(what, errno)| Failure::Refused(format!("nftables, {what}: {errno}"))),
    }
}

/// The way to nf_tables, where the kernel has it.
fn open() -> Result<Option<Kernel>, Failure> {
    here(Kernel::open())
}

fn here<T>(outcome: Result<T, Errno>) -> Result<Option<T>, Failure> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(errno) if is_missing(errno) => Ok(None),
        Err(errno) => Err(Failure::Refused(format!("nftables: {errno}"))),
    }
}

/// What a kernel without nf_tables, or without netlink for packet filters, says.
fn is_missing(errno: Errno) -> bool {
    [Errno::INVAL, Errno::PROTONOSUPPORT, Errno::AFNOSUPPORT].contains(&errno)
}

/// All rules, each with its chain, in their order.
fn rules(family: Family, capture: &Capture, unheard: Unheard) -> Vec<(&'static str, Rule)> {
    let rule = Rule::default;
    let direct = || capture.exclude_inbound_ports.iter().map(|port| rule().port(*port).returns());
    let to_inbound = direct().chain([rule().tcp().redirect(capture.inbound_port)]);
    let mut rules: Vec<_> = to_inbound.map(|rule| (TO_INBOUND, rule)).collect();
    let inbound = [rule().under_way().returns()].into_iter().chain(direct()).chain(inbound(unheard));
    rules.extend(inbound.map(|rule| (INBOUND, rule)));
    rules.extend(outbound(family, capture).into_iter().map(|rule| (OUTBOUND, rule)));
    rules
}

/// The rules for connections from outside to this host. Where nobody listens nothing is redirected: a probe that only
/// connects has to see that. It is refused here, because the application could begin to listen before the kernel looks
/// again, and would be called past the sidecar.
fn inbound(unheard: Unheard) -> Vec<Rule> {
    let local = || Rule::default().local();
    match unheard {
        Unheard::Refused => vec![local().listened_for().jump(TO_INBOUND), local().tcp().refuse()],
        Unheard::Redirected => vec![local().jump(TO_INBOUND)],
    }
}

/// The rules for connections that this host makes.
fn outbound(family: Family, capture: &Capture) -> Vec<Rule> {
    let rule = Rule::default;
    let v6 = family == Family::Inet;
    let fits = |network: &(IpAddr, u8)| network.0.is_ipv4() || v6;
    let check = CHECK.map(|check| (check.ip(), if check.is_ipv4() { 32 } else { 128 })).into_iter().filter(fits);
    let mut rules = vec![rule().under_way().returns()];
    let redirected = |address| rule().to(Is::In, address).port(CHECK[0].port()).redirect(capture.outbound_port);
    rules.extend(check.map(redirected));
    rules.push(rule().mark(INBOUND_MARK).returns());
    rules.push(rule().loopback().from(INBOUND_SOURCE).returns());
    let loopback = [(IpAddr::from([127, 0, 0, 0]), 8), (IpAddr::from(std::net::Ipv6Addr::LOCALHOST), 128)];
    let own = |network| rule().loopback().mark(OUTBOUND_MARK).to(Is::NotIn, network).jump(TO_INBOUND);
    rules.extend(loopback.into_iter().filter(fits).map(own));
    rules.push(rule().mark(OUTBOUND_MARK).returns());
    if let Some(uid) = capture.exempt_uid {
        // Not for IPv6: there a sidecar without marks cannot tell its connections to the workload from the others.
        rules.push(rule().loopback().uid(uid).to(Is::NotIn, loopback[0]).jump(TO_INBOUND));
        rules.push(rule().uid(uid).returns());
    }
    rules.push(rule().loopback().returns());
    let networks = capture.exclude_cidrs.iter().map(|cidr| cidr.network());
    rules.extend(networks.filter(fits).map(|network| rule().to(Is::In, network).returns()));
    rules.extend(capture.exclude_outbound_ports.iter().map(|port| rule().port(*port).returns()));
    rules.push(rule().tcp().redirect(capture.outbound_port));
    rules
}

#[cfg(test)]
mod tests;
