//! The rules for nftables: one table for both families, replaced in one transaction.

use std::fmt::Write;

use super::{Capture, Failure, INBOUND_MARK, INBOUND_SOURCE, OUTBOUND_MARK, Tool, of_family};

pub(super) fn apply(capture: &Capture) -> Result<(), Failure> {
    Tool { program: "nft", args: &["-f", "-"] }.run(&script(capture)).map(drop)
}

pub(super) fn remove() -> Result<(), Failure> {
    // Adding first makes deleting succeed whether or not the table is there.
    let script = "add table inet selvedge\ndelete table inet selvedge\n";
    match (Tool { program: "nft", args: &["-f", "-"] }).run(script) {
        Err(Failure::Refused(_)) if show()?.is_empty() => Ok(()),
        outcome => outcome.map(drop),
    }
}

pub(super) fn show() -> Result<String, Failure> {
    // A kernel without nftables, or a table that is not there, means that there are no rules to show.
    match (Tool { program: "nft", args: &["list", "table", "inet", "selvedge"] }).run("") {
        Err(failure @ Failure::Refused(_)) if !failure.is_forbidden() => Ok(String::new()),
        outcome => outcome,
    }
}

/// The rules for connections that this host makes, one a line.
fn outbound(capture: &Capture) -> String {
    let mut outbound = String::new();
    let mut rule = |text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(outbound, "\t\t{text}");
    };
    rule(format!("meta mark {INBOUND_MARK:#x} return"));
    rule(format!("oif lo ip saddr {INBOUND_SOURCE} return"));
    let marked = format!("meta mark {OUTBOUND_MARK:#x}");
    rule(format!("oif lo {marked} ip daddr != 127.0.0.0/8 jump to_inbound"));
    rule(format!("oif lo {marked} ip6 daddr != ::1 jump to_inbound"));
    rule(format!("{marked} return"));
    if let Some(uid) = capture.exempt_uid {
        // Not for IPv6: there a sidecar without marks cannot tell its connections to the workload from the others.
        rule(format!("oif lo meta skuid {uid} ip daddr != 127.0.0.0/8 jump to_inbound"));
        rule(format!("meta skuid {uid} return"));
    }
    rule("oif lo return".into());
    for (family, v6) in [("ip", false), ("ip6", true)] {
        for cidr in of_family(&capture.exclude_cidrs, v6) {
            rule(format!("{family} daddr {cidr} return"));
        }
    }
    for port in &capture.exclude_outbound_ports {
        rule(format!("tcp dport {port} return"));
    }
    rule(format!("meta l4proto tcp redirect to :{}", capture.outbound_port));
    outbound
}

fn script(capture: &Capture) -> String {
    let (inbound_port, outbound) = (capture.inbound_port, outbound(capture));
    let direct: String =
        capture.exclude_inbound_ports.iter().map(|port| format!("\t\ttcp dport {port} return\n")).collect();
    format!(
        "add table inet selvedge
delete table inet selvedge
table inet selvedge {{
	chain to_inbound {{
{direct}\t\tmeta l4proto tcp redirect to :{inbound_port}
	}}
	chain inbound {{
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump to_inbound
	}}
	chain outbound {{
		type nat hook output priority -100; policy accept;
{outbound}	}}
}}
"
    )
}
