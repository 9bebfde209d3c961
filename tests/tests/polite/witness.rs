//! Other proxies in front of the same service, where they are installed.

use std::{fs, net::SocketAddr, process::Command};

use selvedge_tests::{client, ports::Reserved, process::Process, program, wait};
use tempfile::TempDir;

/// A proxy that passes everything on.
pub(crate) struct Witness {
    pub(crate) name: &'static str,
    pub(crate) door: SocketAddr,
    _process: Process,
    _port: Reserved,
    _folder: TempDir,
}

impl Witness {
    /// Those that are installed.
    pub(crate) async fn installed(service: SocketAddr) -> Vec<Self> {
        let mut witnesses = Vec::new();
        for (name, settings) in [("haproxy", haproxy as fn(SocketAddr, SocketAddr, &str) -> String), ("nginx", nginx)] {
            let Some(program) = program(name) else { continue };
            let (folder, port) = (TempDir::new().unwrap(), Reserved::new());
            let (file, door) = (folder.path().join("settings"), port.address());
            fs::write(&file, settings(door, service, folder.path().to_str().unwrap())).unwrap();
            let mut command = Command::new(program);
            match name {
                "haproxy" => command.arg("-db").arg("-f").arg(&file),
                _ => command.arg("-p").arg(folder.path()).arg("-c").arg(&file),
            };
            let process = Process::start(name, &mut command, folder.path());
            wait::until_true(&format!("{name} takes connections"), || client::accepts(door)).await;
            witnesses.push(Self { name, door, _process: process, _port: port, _folder: folder });
        }
        witnesses
    }
}

fn haproxy(door: SocketAddr, service: SocketAddr, _: &str) -> String {
    format!(
        "defaults\n mode http\n timeout connect 10s\n timeout client 30s\n timeout server 30s\nfrontend door\n bind {door}\n \
         default_backend service\nbackend service\n server one {service}\n"
    )
}

fn nginx(door: SocketAddr, service: SocketAddr, folder: &str) -> String {
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|of| format!("{of}_temp_path {folder}/{of};"));
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; {} server {{ listen \
         {door} reuseport; large_client_header_buffers 8 64k; location / {{ proxy_pass http://{service}; proxy_http_version 1.1; \
         proxy_set_header Host $http_host; }} }} }}\n",
        temporary.join(" ")
    )
}
