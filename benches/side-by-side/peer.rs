//! The ways from a client to the application that are compared. Each peer is one file that writes a configuration,
//! starts the programs, and says where clients connect.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use selvedge_benches::client::{self, Ask};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::{ground::Ground, process::Process};

mod envoy;
mod floor;
mod haproxy;
pub(crate) mod nginx;
mod ours;

const START: Duration = Duration::from_secs(60);

/// One way to the application, running.
pub(crate) struct Peer {
    /// Which.
    pub(crate) name: Name,
    /// Where HTTP/1 clients connect.
    pub(crate) http1: SocketAddr,
    /// Where HTTP/2 clients connect.
    pub(crate) http2: SocketAddr,
    /// The programs whose cost is counted.
    pub(crate) proxies: Vec<Process>,
    /// Programs that must run beside them and are not in the path of a request.
    pub(crate) support: Vec<Process>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Name {
    /// Our pair of sidecars with everything on.
    Selvedge,
    /// The same with mTLS and no policy.
    SelvedgePlain,
    /// A pair of Envoys.
    Envoy,
    /// A pair of HAProxies.
    Haproxy,
    /// A pair of forwarders that do nothing else.
    Floor,
    /// One nginx, without TLS.
    Nginx,
    /// No proxy.
    Direct,
}

impl Name {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 7] =
        [Self::Selvedge, Self::SelvedgePlain, Self::Envoy, Self::Haproxy, Self::Floor, Self::Nginx, Self::Direct];

    /// Heading in tables and charts.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Selvedge => "Selvedge pair, everything on",
            Self::SelvedgePlain => "Selvedge pair, mTLS only",
            Self::Envoy => "Envoy pair",
            Self::Haproxy => "HAProxy pair",
            Self::Floor => "floor: bare forwarders",
            Self::Nginx => "nginx, one hop, no TLS",
            Self::Direct => "no proxy",
        }
    }

    /// True for our own.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Selvedge | Self::SelvedgePlain)
    }

    /// Starts it and waits until it answers on both ports.
    pub(crate) async fn start(self, ground: &Ground) -> anyhow::Result<Peer> {
        let mut peer = match self {
            Self::Selvedge | Self::SelvedgePlain => ours::start(self, ground).await?,
            Self::Envoy => envoy::start(ground)?,
            Self::Haproxy => haproxy::start(ground)?,
            Self::Floor => floor::start(ground)?,
            Self::Nginx => nginx::start(ground)?,
            Self::Direct => Peer::without_processes(ground),
        };
        peer.answers().await.with_context(|| format!("{} does not get ready", self.title()))?;
        Ok(peer)
    }
}

impl Peer {
    fn without_processes(ground: &Ground) -> Self {
        let (http1, http2) = (ground.http1.address, ground.http2.address);
        Self { name: Name::Direct, http1, http2, proxies: Vec::new(), support: Vec::new() }
    }

    /// Fails when one of its programs is gone.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.proxies.iter_mut().chain(&mut self.support).try_for_each(Process::check)
    }

    /// Ends its proxies in order, so that what they write at their end is whole.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        for proxy in &mut self.proxies {
            proxy.end().await?;
        }
        Ok(())
    }

    /// CPU time of each proxy so far, in nanoseconds, in the order of the path.
    pub(crate) fn cpu_nanos(&self) -> Vec<u64> {
        self.proxies.iter().map(Process::cpu_nanos).collect()
    }

    /// Resident memory of each proxy, in the order of the path.
    pub(crate) fn resident_bytes(&self) -> Vec<u64> {
        self.proxies.iter().map(Process::resident_bytes).collect()
    }

    /// The part of it that is no file.
    pub(crate) fn anonymous_bytes(&self) -> Vec<u64> {
        self.proxies.iter().map(Process::anonymous_bytes).collect()
    }

    async fn answer(&self) -> anyhow::Result<()> {
        client::probe(self.http1, Ask::Http1).await.context("over HTTP/1")?;
        client::probe(self.http2, Ask::Http2).await.context("over HTTP/2")
    }

    /// Waits until it answers on both ports.
    pub(crate) async fn answers(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            self.check()?;
            let problem = self.answer().await;
            let Err(error) = problem else { return Ok(()) };
            if start.elapsed() > START {
                let logs: Vec<String> = self.proxies.iter().chain(&self.support).map(Process::last_words).collect();
                bail!("{error:#} after {START:?}; {}", logs.join(" | "));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
