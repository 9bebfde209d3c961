use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::*;

const INSIDE: &str = "SELVEDGE_TEST_NAMESPACE";

/// Runs the test named `name` again in a new network namespace, or `body` when this is that run.
fn in_namespace(name: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut made = Command::new("unshare");
    if !made.args(["-n", "true"]).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        // Past the capture of the test harness, so that every skip shows.
        return drop(writeln!(
            std::io::stderr(),
            "skipped: {name}: needs root to make network namespaces, and unshare"
        ));
    }
    let full = format!("nftables::tests::{name}");
    let test = std::env::current_exe().unwrap();
    let status =
        Command::new("unshare").arg("-n").arg(test).args(["--exact", &full, "--nocapture"]).env(INSIDE, "1").status();
    assert!(status.unwrap().success(), "{name} failed in its namespace");
}

/// A kernel built without IPv6 has no tables for both families.
#[test]
fn without_ipv6_the_rules_are_those_of_ipv4() {
    in_namespace("without_ipv6_the_rules_are_those_of_ipv4", || {
        let capture = Capture::from_options(["--exempt-uid=1337", "--exclude-cidrs=10.0.0.0/8,fd00::/8"]).unwrap();
        apply_to(Family::Ip, &capture, Unheard::Refused).unwrap();
        let shown = show().unwrap();
        assert!(shown.starts_with("table ip selvedge\n") && shown.contains("ip daddr 10.0.0.0/8 return"), "{shown}");
        assert!(!shown.contains("ip6") && !shown.contains("fd00"), "{shown}");
        remove().unwrap();
        assert_eq!(show().unwrap(), "");
    });
}

/// Kernels that cannot tell whether somebody listens are captured as well.
#[test]
fn without_a_look_for_sockets_everything_is_redirected() {
    in_namespace("without_a_look_for_sockets_everything_is_redirected", || {
        for (unheard, looks) in [(Unheard::Refused, true), (Unheard::Redirected, false)] {
            apply_to(Family::Inet, &Capture::default(), unheard).unwrap();
            let shown = show().unwrap();
            assert_eq!((shown.contains("socket "), shown.contains("reject ")), (looks, looks), "{shown}");
            assert!(shown.contains("redirect to :15006"), "{shown}");
        }
    });
}

#[test]
fn what_the_kernel_refuses_is_named_and_leaves_what_was_there() {
    in_namespace("what_the_kernel_refuses_is_named_and_leaves_what_was_there", || {
        apply_to(Family::Inet, &Capture::default(), Unheard::Refused).unwrap();
        let before = show().unwrap();
        let rule = Rule::default().jump("nowhere");
        let body = [text(1, TABLE), text(2, OUTBOUND), rule.expressions()].concat();
        let change =
            Change { operation: NEW_RULE, flags: CREATE | APPEND, family: Family::Inet as u8, body, what: rule.text() };
        let table = text(1, TABLE);
        let gone =
            Change { operation: DELETE_TABLE, flags: 0, family: Family::Inet as u8, body: table, what: String::new() };
        let Err(Failure::Refused(refused)) = transact(&[change, gone]) else { panic!("it was taken") };
        assert!(refused.contains("jump nowhere: No such file or directory"), "{refused}");
        assert_eq!(show().unwrap(), before);
    });
}

/// A pod may ask for so many at most.
#[test]
fn as_many_exclusions_as_a_pod_may_ask_for_are_taken_at_once() {
    in_namespace("as_many_exclusions_as_a_pod_may_ask_for_are_taken_at_once", || {
        let list = |each: fn(u16) -> String| (1..=64).map(each).collect::<Vec<_>>().join(",");
        let options = [
            format!("--exclude-inbound-ports=15020,{}", list(|port| port.to_string())),
            format!("--exclude-outbound-ports={}", list(|port| port.to_string())),
            format!("--exclude-cidrs={}", list(|network| format!("fd00:{network:x}::/32"))),
        ];
        let capture = Capture::from_options(options.iter().map(String::as_str)).unwrap();
        apply_to(Family::Inet, &capture, Unheard::Refused).unwrap();
        assert!(show().unwrap().lines().count() > 3 * 64);
        remove().unwrap();
    });
}
