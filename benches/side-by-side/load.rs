//! The loads that every peer is put under, and what one run of one of them yields.

use std::time::Duration;

use selvedge_benches::client::Ask;
use serde::Serialize;

use crate::peer::Peer;

mod closed;
mod paced;

pub(crate) use closed::{Document, h2load, program};

/// How requests arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Load {
    /// HTTP/1, 1 KiB, 32 connections, requests arrive at random at a fixed mean rate (open loop).
    Http1Paced,
    /// The same at a quarter of the rate.
    Http1Slow,
    /// The same at twice the rate.
    Http1Fast,
    /// HTTP/1, 1 KiB, 32 connections, each sends its next request when it has its answer (closed loop).
    Http1Closed,
    /// HTTP/2, 1 KiB, 4 connections, random arrivals at a fixed mean rate.
    Http2Paced,
    /// HTTP/2, 1 KiB, 4 connections of 16 requests at a time, closed loop.
    Http2Closed,
    /// Unary calls of gRPC answered with 1 KiB, 4 connections, random arrivals at a fixed mean rate.
    GrpcPaced,
    /// Unary calls of gRPC answered with 1 KiB, 4 connections of 16 calls at a time, closed loop.
    GrpcClosed,
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
    /// All.
    pub(crate) const ALL: [Self; 9] = [
        Self::Http1Paced,
        Self::Http1Closed,
        Self::Http2Paced,
        Self::Http2Closed,
        Self::GrpcPaced,
        Self::GrpcClosed,
        Self::Large,
        Self::Http1Slow,
        Self::Http1Fast,
    ];
    /// Those that have a table of their own, in this order.
    pub(crate) const TABLES: [Self; 7] = [
        Self::Http1Paced,
        Self::Http1Closed,
        Self::Http2Paced,
        Self::Http2Closed,
        Self::GrpcPaced,
        Self::GrpcClosed,
        Self::Large,
    ];
    /// The same requests at rates that rise.
    pub(crate) const RATES: [Self; 3] = [Self::Http1Slow, Self::Http1Paced, Self::Http1Fast];

    /// Heading in tables and charts.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Http1Paced => "HTTP/1, 1 KiB, fixed rate",
            Self::Http1Slow => "HTTP/1, 1 KiB, quarter of the rate",
            Self::Http1Fast => "HTTP/1, 1 KiB, twice the rate",
            Self::Http1Closed => "HTTP/1, 1 KiB, closed loop",
            Self::Http2Paced => "HTTP/2, 1 KiB, fixed rate",
            Self::Http2Closed => "HTTP/2, 1 KiB, closed loop",
            Self::GrpcPaced => "gRPC, 1 KiB, fixed rate",
            Self::GrpcClosed => "gRPC, 1 KiB, closed loop",
            Self::Large => "HTTP/1, 1 MiB, closed loop",
        }
    }

    /// Puts `peer` under this load; `rate` in requests per second is the fixed one.
    pub(crate) async fn run(self, peer: &Peer, duration: Duration, rate: u32) -> anyhow::Result<Outcome> {
        let (http1, http2) = (peer.http1, peer.http2);
        match self {
            Self::Http1Slow => paced::run(http1, Ask::Http1, rate / 4, duration).await,
            Self::Http1Paced => paced::run(http1, Ask::Http1, rate, duration).await,
            Self::Http1Fast => paced::run(http1, Ask::Http1, rate * 2, duration).await,
            Self::Http2Paced => paced::run(http2, Ask::Http2, rate, duration).await,
            Self::GrpcPaced => paced::run(http2, Ask::Grpc, rate, duration).await,
            Self::Http1Closed => h2load(http1, &["--h1", "-c32"], Document::Small, duration).await,
            Self::Http2Closed => h2load(http2, &["-c4", "-m16"], Document::Small, duration).await,
            Self::GrpcClosed => h2load(http2, &["-c4", "-m16"], Document::Call, duration).await,
            Self::Large => h2load(http1, &["--h1", "-c8"], Document::Large, duration).await,
        }
    }
}
