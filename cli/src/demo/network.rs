//! `--transparent`: one network namespace for each workload, a bridge between them, and real capture rules.
//!
//! What was made is taken away when [`Network`] is dropped, and what a demo that was killed left behind is taken away
//! when the next one starts.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use selvedge_capture::Capture;

const PREFIX: &str = "svdemo";
/// Of the range for tests between networks (RFC 2544), so that no real network is shadowed.
const RANGE: [u8; 2] = [198, 18];
const BRIDGE_HOST: u8 = 1;
const FIRST_HOST: u8 = 10;

/// The bridge and the namespaces.
#[derive(Debug)]
pub(super) struct Network {
    tag: String,
    third: u8,
    namespaces: Vec<String>,
}

impl Network {
    /// A bridge without namespaces yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "--transparent makes network namespaces and needs root");
        sweep()?;
        let pid = std::process::id();
        let third = u8::try_from(pid % 250).unwrap_or_default();
        let network = Self { tag: format!("{PREFIX}{pid}"), third, namespaces: Vec::new() };
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", network.gateway()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        Ok(network)
    }

    /// The address of the host on the bridge.
    pub(super) fn gateway(&self) -> IpAddr {
        self.host(BRIDGE_HOST)
    }

    /// Adds a namespace with an address of its own.
    pub(super) fn add(&mut self) -> anyhow::Result<(String, IpAddr)> {
        let number = self.namespaces.len();
        let name = format!("{}-{number}", self.tag);
        let address = self.host(FIRST_HOST + u8::try_from(number).context("too many namespaces")?);
        ip(&["netns", "add", &name])?;
        self.namespaces.push(name.clone());
        let (outside, bridge) = (outside(std::process::id(), number), self.bridge());
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        ip(&["link", "set", &outside, "master", &bridge, "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        ip(&["-n", &name, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        ip(&["-n", &name, "route", "add", "default", "via", &self.gateway().to_string()])?;
        Ok((name, address))
    }

    fn host(&self, last: u8) -> IpAddr {
        Ipv4Addr::new(RANGE[0], RANGE[1], self.third, last).into()
    }

    fn bridge(&self) -> String {
        format!("sv{}br", std::process::id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (number, namespace) in self.namespaces.iter().enumerate() {
            // The kernel takes it away with the namespace, but some time later. That it was never made is no complaint.
            let _ = ip(&["link", "del", &outside(std::process::id(), number)]);
            report(ip(&["netns", "del", namespace]));
        }
        report(ip(&["link", "del", &self.bridge()]));
    }
}

/// The end of a namespace's device that lies outside of it, of the demo that is process `pid`.
fn outside(pid: impl std::fmt::Display, number: impl std::fmt::Display) -> String {
    format!("sv{pid}x{number}")
}

fn report(result: anyhow::Result<()>) {
    if let Err(error) = result {
        eprintln!("selvedge demo: {error:#}");
    }
}

/// Moves the calling thread, and what it starts, into a namespace.
pub(super) fn enter(namespace: &str) -> anyhow::Result<()> {
    let path = PathBuf::from("/run/netns").join(namespace);
    let file = std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("entering a network namespace")
}

/// Puts capture rules in force in a namespace.
pub(super) fn capture(namespace: &str) -> anyhow::Result<()> {
    let namespace = namespace.to_owned();
    let applied = std::thread::spawn(move || {
        enter(&namespace)?;
        selvedge_capture::apply(&Capture::default()).context("capturing connections")?;
        anyhow::Ok(())
    });
    applied.join().unwrap_or_else(|_| bail!("capturing connections failed"))
}

/// The address `host:port`.
pub(super) const fn at(host: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(host, port)
}

/// Takes away what demos left behind that do not run any more.
fn sweep() -> anyhow::Result<()> {
    let listed = run(&["netns", "list"])?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).filter(|pid| !pid.is_empty());
        // One that ended and was not waited for yet has no executable any more.
        if let Some(pid) = owner.filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_err()) {
            let _ = ip(&["link", "del", &outside(pid, name.rsplit('-').next().unwrap_or_default())]);
            ip(&["netns", "del", name])?;
            // The bridge goes with the first of its namespaces.
            let _ = ip(&["link", "del", &format!("sv{pid}br")]);
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = run(arguments)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), complaint.trim());
    Ok(())
}

fn run(arguments: &[&str]) -> anyhow::Result<Output> {
    let started = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    started.context("running `ip`, which --transparent needs (Debian: iproute2)")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn namespaces_reach_each_other_and_leave_nothing_behind() {
        if !rustix::process::geteuid().is_root() || run(&["netns", "list"]).is_err() {
            // Past the capture of the test harness, so that every skip shows.
            let name = std::thread::current().name().unwrap_or("a test").to_owned();
            let _ = writeln!(std::io::stderr(), "skipped: {name}: network namespaces need root and iproute2");
            return;
        }
        let mut network = Network::new().expect("a bridge");
        let (one, address) = network.add().expect("a namespace");
        let (two, _) = network.add().expect("another");
        let listening = std::thread::spawn(move || {
            enter(&one).expect("entered");
            std::net::TcpListener::bind((address, 0)).expect("bound")
        });
        let listener = listening.join().expect("no panic");
        let port = listener.local_addr().expect("an address").port();
        let connecting = std::thread::spawn(move || {
            enter(&two).expect("entered");
            std::net::TcpStream::connect((address, port))
        });
        connecting.join().expect("no panic").expect("a connection between the namespaces");

        let (tag, bridge) = (network.tag.clone(), network.bridge());
        drop(network);
        let left = run(&["netns", "list"]).expect("a list").stdout;
        assert!(!String::from_utf8_lossy(&left).contains(&tag));
        assert!(ip(&["link", "show", &bridge]).is_err(), "the bridge is gone");
    }
}
