//! The sidecar beside a workload: it takes the workload's calls, in and out, and gives them identity, encryption,
//! routing, policy, resilience and a record.
//!
//! In the order of a request's life ([`pipeline`] tells it line by line, `docs/life-of-a-request.md` in prose):
//! accept → detect → tls → identity → http → route → filter → attempt → balance → upstream → record. Configuration
//! comes in through [`xds`] and [`config`]; [`process`] holds the threads.

pub mod accept;
pub mod admin;
pub mod attempt;
pub mod balance;
pub mod bootstrap;
pub mod clock;
pub mod config;
pub mod detect;
pub mod error;
pub mod exchange;
pub mod filter;
pub mod http;
pub mod identity;
pub mod opaque;
pub mod pipeline;
pub mod process;
pub mod record;
pub mod route;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod xds;

pub use process::control::{StartError, run, run_until};
