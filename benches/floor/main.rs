//! The floor of a pair of sidecars: the least that two programs can do that forward HTTP over one connection with mutual
//! TLS 1.3. What a proxy costs above it is the proxy's own.
//!
//! The calling half puts what clients send into frames of one connection, the called half takes them out for the
//! application, and answers go back the same way. Heads are read only to see where a message ends; no policy, no retry,
//! no metric. One thread, edge-triggered epoll, one write a socket and round. It serves the clients and the application
//! of the bench and nobody else: no pipelining, no chunked answers, and whatever it does not expect ends a connection.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use clap::{Parser, ValueEnum};

use crate::forwarder::Forwarder;

mod cutter;
mod forwarder;
mod frame;
mod sockets;
mod tls;

/// Forward over one TLS connection with as little as possible.
#[derive(Parser)]
#[command(name = "floor")]
struct Arguments {
    /// Which half.
    side: Side,
    /// Where to listen for HTTP/1 and for HTTP/2, or what of them comes from the other half.
    #[arg(long, value_delimiter = ',')]
    listen: Vec<SocketAddr>,
    /// Where the one and the other go on.
    #[arg(long, value_delimiter = ',')]
    next: Vec<SocketAddr>,
    /// PEM file of this half's certificate.
    #[arg(long)]
    certificate: PathBuf,
    /// PEM file of its private key.
    #[arg(long)]
    key: PathBuf,
    /// PEM file of the authority of both halves.
    #[arg(long)]
    authority: PathBuf,
    /// Name in the certificate of the called half.
    #[arg(long)]
    name: String,
}

/// The two halves of the pair.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// In front of the clients.
    Calling,
    /// In front of the application.
    Called,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let identity = tls::Identity::read(&arguments.certificate, &arguments.key, &arguments.authority)?;
    let tls = match arguments.side {
        Side::Calling => tls::Half::calling(identity, arguments.name)?,
        Side::Called => tls::Half::called(identity)?,
    };
    let lanes = arguments.listen.into_iter().zip(arguments.next);
    Forwarder::new(tls, lanes)?.run().context("forwarding")
}
