//! Modules stand callers first: each uses only those listed below it.
//!
//! The sidecar beside a workload: it takes the workload's calls, in and out, and gives them identity, encryption,
//! routing, policy, resilience and a record.
//!
//! In the order of a request's life ([`pipeline`] tells it line by line, `docs/life-of-a-request.md` in prose):
//! accept → detect → tls → identity → http → route → filter → attempt → balance → upstream → respond → record.
//! Configuration comes in through [`xds`] and [`config`]; [`process`] holds the threads.

pub mod process;
pub mod admin;

pub mod pipeline;
pub mod accept;
pub mod detect;
pub mod terminate;
pub mod identify;
pub mod serve;
pub mod respond;
pub mod opaque;
pub mod dial;
pub mod receive;
pub mod judge;
pub mod route;
pub mod filter;
pub mod attempt;
pub mod upstream;
pub mod record;

pub mod routed;
pub mod message;
pub mod exchange;
pub mod arrival;
pub mod balance;
pub mod connection;
pub mod worker;
pub mod drain;
pub mod cluster;
pub mod config;
pub mod xds;
pub mod identity;
pub mod channel;
pub mod tls;
pub mod credentials;
pub mod bootstrap;
pub mod http;
pub mod sniff;
pub mod telemetry;
pub mod socket;
pub mod grpc;
pub mod heading;
pub mod error;
pub mod clock;

pub use process::{
    control::{run, run_until},
    services::StartError,
};
