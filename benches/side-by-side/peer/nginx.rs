//! nginx: the application behind every peer, and the single hop without TLS.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::Context;
use selvedge_benches::{client::METHOD, port::Port};
use tokio::process::Command;

use super::{Name, Peer};
use crate::{
    ground::{Ground, SMALL},
    process::{Process, find},
};

/// One process in the foreground, nothing on disk outside `folder`.
fn head(folder: &Path) -> String {
    let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .collect();
    format!(
        "{user}daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr error;\nworker_rlimit_nofile \
         40000;\nevents {{ worker_connections 16384; }}\nhttp {{\n{temporary}  access_log off;\n  keepalive_requests \
         1000000000;\n  http2_max_requests 1000000000;\n  sendfile on;\n  tcp_nodelay on;\n"
    )
}

/// The application: 1 KiB from memory, 1 MiB from a file, and the answer of a gRPC method, over HTTP/1 and cleartext
/// HTTP/2. nginx refuses to POST to a file; its answer to that is the file.
pub(crate) fn application(folder: &Path, http1: SocketAddr, http2: SocketAddr) -> String {
    let body = "x".repeat(SMALL);
    let (head, folder) = (head(folder), folder.display());
    format!(
        "{head}  default_type text/plain;\n  open_file_cache max=8 inactive=1h;\n  server {{\n    listen {http1};\n    \
         listen {http2} http2;\n    location = /1k {{ return 200 \"{body}\"; }}\n    location = /1m {{ root {folder}; \
         }}\n    location = {METHOD} {{ alias {folder}/call; default_type application/grpc; add_trailer grpc-status 0; \
         error_page 405 =200 {METHOD}; }}\n  }}\n}}\n"
    )
}

/// The single hop. It has no HTTP/2 towards the application.
pub(super) fn start(ground: &Ground) -> anyhow::Result<Peer> {
    let program = find("nginx", "NGINX").context("nginx is missing")?;
    let folder = ground.folder("nginx")?;
    let (http1, http2) = (Port::free()?, Port::free()?);
    let config = format!(
        "{}  upstream application {{ server {}; keepalive 512; keepalive_requests 1000000000; }}\n  upstream calls {{ \
         server {}; keepalive 512; keepalive_requests 1000000000; }}\n  server {{\n    listen \
         {};\n    listen {} http2;\n    location {METHOD} {{ grpc_pass grpc://calls; }}\n    location / {{\n      proxy_pass http://application;\n      proxy_http_version \
         1.1;\n      proxy_set_header Connection \"\";\n      proxy_buffers 16 64k;\n      proxy_buffer_size 16k;\n    \
         }}\n  }}\n}}\n",
        head(&folder),
        ground.http1.address,
        ground.http2.address,
        http1.address,
        http2.address
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&file).arg("-p").arg(&folder);
    let proxy = Process::start("nginx", &mut command, &folder)?;
    Ok(Peer {
        name: Name::Nginx,
        http1: http1.address,
        http2: http2.address,
        proxies: vec![proxy],
        support: Vec::new(),
    })
}
