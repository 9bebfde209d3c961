//! The loads that every peer is put under, and what one run of one of them yields.

use std::time::Duration;

use serde::Serialize;

use crate::{
    ground::{LARGE, SMALL},
    peer::Peer,
};

mod closed;
mod paced;

pub(crate) use closed::{h2load, program};

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// HTTP/1, 1 KiB, 32 connections, requests arrive at random at a fixed mean rate (open loop).
    Http1Paced,
    /// HTTP/1, 1 KiB, 32 connections, each sends its next request when it has its answer (closed loop).
    Http1Closed,
    /// HTTP/2, 1 KiB, 4 connections, random arrivals at a fixed mean rate.
    Http2Paced,
    /// HTTP/2, 1 KiB, 4 connections of 16 requests at a time, closed loop.
    Http2Closed,
    /// HTTP/1, 1 MiB, 8 connections, closed loop.
    Large,
}

/// What one run of a load yields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Answers.
    pub(crate) done: u64,
    /// Requests without the right answer.
    pub(crate) failed: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// From the moment a request was due to its whole answer, in microseconds; empty for closed loops.
    pub(crate) latencies: Vec<u64>,
}

impl Load {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 5] =
        [Self::Http1Paced, Self::Http1Closed, Self::Http2Paced, Self::Http2Closed, Self::Large];

    /// Heading in tables and charts.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Http1Paced => "HTTP/1, 1 KiB, fixed rate",
            Self::Http1Closed => "HTTP/1, 1 KiB, closed loop",
            Self::Http2Paced => "HTTP/2, 1 KiB, fixed rate",
            Self::Http2Closed => "HTTP/2, 1 KiB, closed loop",
            Self::Large => "HTTP/1, 1 MiB, closed loop",
        }
    }

    /// Puts `peer` under this load; `rate` in requests per second is for the paced ones.
    pub(crate) async fn run(self, peer: &Peer, duration: Duration, rate: u32) -> anyhow::Result<Outcome> {
        match self {
            Self::Http1Paced => paced::run(peer.http1, false, rate, duration).await,
            Self::Http2Paced => paced::run(peer.http2, true, rate, duration).await,
            Self::Http1Closed => h2load(peer.http1, &["--h1", "-c32"], ("/1k", SMALL), duration).await,
            Self::Http2Closed => h2load(peer.http2, &["-c4", "-m16"], ("/1k", SMALL), duration).await,
            Self::Large => h2load(peer.http1, &["--h1", "-c8"], ("/1m", LARGE), duration).await,
        }
    }
}
