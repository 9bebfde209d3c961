//! A pair of our own forwarders that do nothing but forward: what no proxy can be below.

use std::net::SocketAddr;

use anyhow::ensure;
use selvedge_benches::port::Port;
use tokio::process::Command;

use super::{Name, Peer};
use crate::{
    certificates::{CALLED_HOST, Leaf},
    ground::Ground,
    process::Process,
};

pub(super) fn start(ground: &Ground) -> anyhow::Result<Peer> {
    let entry = [Port::free()?, Port::free()?];
    let hop = [Port::free()?, Port::free()?];
    let [entries, hops] = [&entry, &hop].map(|ports| ports.each_ref().map(|port| port.address));
    let application = [ground.http1.address, ground.http2.address];
    let certificates = &ground.certificates;
    let called = half(ground, "called", &certificates.called, hops, application)?;
    let calling = half(ground, "calling", &certificates.caller, entries, hops)?;
    let [http1, http2] = entries;
    Ok(Peer { name: Name::Floor, http1, http2, proxies: vec![calling, called], support: Vec::new() })
}

fn half(
    ground: &Ground,
    side: &str,
    leaf: &Leaf,
    listen: [SocketAddr; 2],
    next: [SocketAddr; 2],
) -> anyhow::Result<Process> {
    let program = ground.binaries.join("floor");
    ensure!(program.is_file(), "{} is not built; benches/run builds it", program.display());
    let both = |[one, two]: [SocketAddr; 2]| format!("{one},{two}");
    let mut command = Command::new(program);
    command.args([side, "--name", CALLED_HOST, "--listen", &both(listen), "--next", &both(next)]);
    command.arg("--certificate").arg(&leaf.certificate).arg("--key").arg(&leaf.key);
    command.arg("--authority").arg(&ground.certificates.authority);
    Process::start(side, &mut command, &ground.folder("floor")?)
}
