//! A pair of HAProxies with mutual TLS 1.3 and HTTP/2 between them, an allowed caller and a limit that never limits.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::Context;
use selvedge_benches::port::Port;
use tokio::process::Command;

use super::{Name, Peer};
use crate::{
    certificates::CALLED_HOST,
    ground::Ground,
    process::{Process, find},
};

const HEAD: &str = "global\n  nbthread 1\n  maxconn 8000\n  tune.h2.max-concurrent-streams 1000\ndefaults\n  mode http\n  \
                    timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  http-reuse always\n  retries 2\n";

pub(super) fn start(ground: &Ground) -> anyhow::Result<Peer> {
    let program = find("haproxy", "HAPROXY").context("haproxy is missing (Debian package haproxy)")?;
    let folder = ground.folder("haproxy")?;
    let entry = [Port::free()?, Port::free()?];
    let hop = [Port::free()?, Port::free()?];
    let calling = run(&program, &folder, "haproxy-a", &calling(ground, &entry, &hop))?;
    let called = run(&program, &folder, "haproxy-b", &called(ground, &hop))?;
    let [http1, http2] = entry.map(|port| port.address);
    Ok(Peer { name: Name::Haproxy, http1, http2, proxies: vec![calling, called], support: Vec::new() })
}

fn run(program: &Path, folder: &Path, name: &str, config: &str) -> anyhow::Result<Process> {
    let file = folder.join(format!("{name}.cfg"));
    fs::write(&file, config)?;
    Process::start(name, Command::new(program).arg("-db").arg("-f").arg(&file), folder)
}

fn calling(ground: &Ground, entry: &[Port; 2], hop: &[Port; 2]) -> String {
    let certificates = &ground.certificates;
    let tls = format!(
        "ssl crt {} ca-file {} verify required alpn h2 ssl-min-ver TLSv1.3 sni str({CALLED_HOST}) verifyhost \
         {CALLED_HOST}",
        certificates.caller.both.display(),
        certificates.authority.display()
    );
    let section = |version: usize, listen: SocketAddr, next: SocketAddr, client: &str| {
        format!(
            "frontend in{version}\n  bind {listen}{client}\n  default_backend next{version}\nbackend next{version}\n  \
             server b {next} {tls}\n"
        )
    };
    format!(
        "{HEAD}{}{}",
        section(1, entry[0].address, hop[0].address, ""),
        section(2, entry[1].address, hop[1].address, " proto h2")
    )
}

fn called(ground: &Ground, hop: &[Port; 2]) -> String {
    let certificates = &ground.certificates;
    let tls = format!(
        "ssl crt {} ca-file {} verify required alpn h2 ssl-min-ver TLSv1.3",
        certificates.called.both.display(),
        certificates.authority.display()
    );
    let section = |version: usize, listen: SocketAddr, next: SocketAddr, server: &str| {
        format!(
            "frontend in{version}\n  bind {listen} {tls}\n  stick-table type string len 64 size 10k expire 60s store \
             http_req_rate(1s)\n  http-request deny unless {{ ssl_c_s_dn(CN) -m str web }}\n  http-request track-sc0 \
             ssl_c_s_dn(CN)\n  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000 }}\n  \
             default_backend next{version}\nbackend next{version}\n  server application {next}{server}\n"
        )
    };
    format!(
        "{HEAD}{}{}",
        section(1, hop[0].address, ground.http1.address, ""),
        section(2, hop[1].address, ground.http2.address, " proto h2")
    )
}
