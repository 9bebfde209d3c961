//! Modules stand callers first: each uses only those listed below it.
//!
//! The sidecar beside a workload: it takes the workload's calls, in and out, and gives them identity, encryption,
//! routing, policy, resilience and a record.
//!
//! In the order of a request's life (`pipeline` tells it line by line, `docs/life-of-a-request.md` in prose):
//! accept → detect → tls → identity → http → route → filter → attempt → balance → upstream → respond → record.
//! Configuration comes in through `xds` and `config`; `process` holds the threads.
//!
//! Named outside are the start of a sidecar ([`run`], [`Bootstrap`]), what its program takes ([`Arguments`]), what redirected
//! connections need ([`Side`]), and the sidecar's end of the control channel, which tests and benches hold against control
//! planes: how it joins ([`join`], [`join_pod`], [`renew`], [`keep`]), connects ([`connect`]) and follows what the mesh is
//! ([`follow`]).

mod arguments;
mod process;
mod admin;
mod spans;

mod pipeline;
mod accept;
mod detect;
mod terminate;
mod identify;
mod serve;
mod respond;
mod opaque;
mod dial;
mod receive;
mod judge;
mod route;
mod attempt;
mod filter;
mod upstream;
mod record;

mod routed;
mod message;
mod exchange;
mod arrival;
mod balance;
mod connection;
mod worker;
mod drain;
mod cluster;
mod config;
mod xds;
mod resolver;
mod identity;
mod channel;
mod tls;
mod credentials;
mod tenure;
mod surroundings;
mod probes;
mod bootstrap;
mod ledger;
mod http;
mod frames;
mod sniff;
mod telemetry;
mod socket;
mod grpc;
mod heading;
mod error;
mod budget;
mod allowance;
mod clock;
mod turn;

pub use arguments::{Arguments, Command};
pub use bootstrap::{Bootstrap, Source as BootstrapSource};
pub use channel::{connect, explain};
pub use credentials::{Credentials, Svid};
pub use grpc::{
    discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    mesh::certificates_client::CertificatesClient,
};
pub use identity::{IdentityError, ServiceAccount, Settings as IdentitySettings, join, join_pod, keep, new_key, renew};
pub use process::{control::run, descriptors, leave, manager::Manager};
pub use socket::{Side, dial, expect_capture, original_dst};
pub use tenure::Tenure;
pub use tls::{TlsContext, to_control_plane};
pub use xds::{Demand, Handle, IDLE, Settings as FollowSettings, spawn as follow};
