//! The rules for iptables: chains of our own in the `nat` table, once for each family.

use std::{fmt::Write, path::Path};

use super::{CHECK, Capture, Failure, INBOUND_MARK, INBOUND_SOURCE, OUTBOUND_MARK, Tool, of_family};

const CHAINS: [&str; 3] = ["SELVEDGE_INBOUND", "SELVEDGE_OUTBOUND", "SELVEDGE_TO_INBOUND"];

/// Where the kernel's chains branch off into ours.
const HOOKS: [&str; 2] =
    ["PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SELVEDGE_INBOUND", "OUTPUT -p tcp -j SELVEDGE_OUTBOUND"];

/// `iptables` or `ip6tables` of one variant (`""` or `"-legacy"`).
struct Family {
    v6: bool,
    name: &'static str,
    loopback: &'static str,
}

const V4: Family = Family { v6: false, name: "iptables", loopback: "127.0.0.0/8" };
const V6: Family = Family { v6: true, name: "ip6tables", loopback: "::1/128" };

/// The families of this host; one booted with IPv6 off has nothing to capture there.
fn families() -> Vec<Family> {
    let has_v6 = Path::new("/proc/thread-self/net/if_inet6").exists();
    std::iter::once(V4).chain(has_v6.then_some(V6)).collect()
}

pub(super) fn apply(variant: &str, capture: &Capture) -> Result<(), Failure> {
    families().iter().try_for_each(|family| {
        let before = ours(family, variant)?;
        let outcome = restore(family, variant, &script(family, capture, &before));
        // One family alone would leave the other open.
        outcome.inspect_err(|_| drop(remove(variant)))
    })
}

pub(super) fn remove(variant: &str) -> Result<(), Failure> {
    for family in families() {
        let rules = ours(&family, variant)?;
        if rules.is_empty() {
            continue;
        }
        let mut script = String::from("*nat\n");
        script.extend(hooks(&rules).map(|hook| format!("-D {hook}\n")));
        let chains = CHAINS.iter().filter(|chain| rules.contains(&format!(":{chain} ")));
        for verb in ["-F", "-X"] {
            script.extend(chains.clone().map(|chain| format!("{verb} {chain}\n")));
        }
        script.push_str("COMMIT\n");
        restore(&family, variant, &script)?;
    }
    Ok(())
}

pub(super) fn show(variant: &str) -> Result<String, Failure> {
    let mut text = String::new();
    for family in families() {
        let rules = ours(&family, variant)?;
        if !rules.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, "# {}{variant}\n{rules}", family.name);
        }
    }
    Ok(text)
}

/// The rules among `rules` by which the kernel's chains branch off into ours.
fn hooks(rules: &str) -> impl Iterator<Item = &str> {
    rules.lines().filter_map(|line| line.strip_prefix("-A ")).filter(|rule| !rule.starts_with("SELVEDGE_"))
}

/// The lines of the `nat` table that are ours; none when the kernel has no such table.
fn ours(family: &Family, variant: &str) -> Result<String, Failure> {
    let tables = format!("/proc/thread-self/net/{}", if family.v6 { "ip6_tables_names" } else { "ip_tables_names" });
    // Asking for the table would create it.
    if variant == "-legacy" && !std::fs::read_to_string(tables).is_ok_and(|names| names.contains("nat")) {
        return Ok(String::new());
    }
    let program = format!("{}{variant}-save", family.name);
    match (Tool { program: &program, args: &["-t", "nat"] }).run("") {
        Ok(saved) => {
            Ok(saved.lines().filter(|line| line.contains("SELVEDGE_")).map(|line| format!("{line}\n")).collect())
        }
        Err(failure @ Failure::Refused(_)) if !failure.is_forbidden() => Ok(String::new()),
        Err(failure) => Err(failure),
    }
}

fn restore(family: &Family, variant: &str, script: &str) -> Result<(), Failure> {
    let program = format!("{}{variant}-restore", family.name);
    Tool { program: &program, args: &["--noflush", "--wait"] }.run(script).map(drop)
}

/// Replaces `before`, all at once: naming a chain empties it.
fn script(family: &Family, capture: &Capture, before: &str) -> String {
    let Capture { inbound_port, outbound_port, .. } = capture;
    let mut text = String::from("*nat\n");
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    CHAINS.iter().for_each(|chain| line(format!(":{chain} - [0:0]")));
    hooks(before).for_each(|hook| line(format!("-D {hook}")));
    HOOKS.iter().for_each(|hook| line(format!("-A {hook}")));
    for chain in ["SELVEDGE_INBOUND", "SELVEDGE_OUTBOUND"] {
        line(format!("-A {chain} -p tcp ! --tcp-flags SYN,ACK SYN -j RETURN"));
    }
    line("-A SELVEDGE_INBOUND -j SELVEDGE_TO_INBOUND".into());
    for port in &capture.exclude_inbound_ports {
        line(format!("-A SELVEDGE_TO_INBOUND -p tcp --dport {port} -j RETURN"));
    }
    line(format!("-A SELVEDGE_TO_INBOUND -p tcp -j REDIRECT --to-ports {inbound_port}"));
    for check in CHECK.into_iter().filter(|check| check.is_ipv6() == family.v6) {
        let (address, port) = (check.ip(), check.port());
        let redirect = format!("REDIRECT --to-ports {outbound_port}");
        line(format!("-A SELVEDGE_OUTBOUND -p tcp -d {address} --dport {port} -j {redirect}"));
    }
    line(format!("-A SELVEDGE_OUTBOUND -m mark --mark {INBOUND_MARK:#x} -j RETURN"));
    if !family.v6 {
        line(format!("-A SELVEDGE_OUTBOUND -o lo -s {INBOUND_SOURCE} -j RETURN"));
    }
    let marked = format!("-m mark --mark {OUTBOUND_MARK:#x}");
    line(format!("-A SELVEDGE_OUTBOUND -o lo ! -d {} {marked} -j SELVEDGE_TO_INBOUND", family.loopback));
    line(format!("-A SELVEDGE_OUTBOUND {marked} -j RETURN"));
    if let Some(uid) = capture.exempt_uid {
        let own = format!("-m owner --uid-owner {uid}");
        // Not for IPv6: there a sidecar without marks cannot tell its connections to the workload from the others.
        if !family.v6 {
            line(format!("-A SELVEDGE_OUTBOUND -o lo ! -d {} {own} -j SELVEDGE_TO_INBOUND", family.loopback));
        }
        line(format!("-A SELVEDGE_OUTBOUND {own} -j RETURN"));
    }
    line("-A SELVEDGE_OUTBOUND -o lo -j RETURN".into());
    for cidr in of_family(&capture.exclude_cidrs, family.v6) {
        line(format!("-A SELVEDGE_OUTBOUND -d {cidr} -j RETURN"));
    }
    for port in &capture.exclude_outbound_ports {
        line(format!("-A SELVEDGE_OUTBOUND -p tcp --dport {port} -j RETURN"));
    }
    line(format!("-A SELVEDGE_OUTBOUND -p tcp -j REDIRECT --to-ports {outbound_port}"));
    line("COMMIT".into());
    text
}
