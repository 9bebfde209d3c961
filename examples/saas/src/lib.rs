//! Modules stand data first: each uses only those listed above it.
//!
//! A small software-as-a-service product in seven services: the example that Selvedge runs, tests and measures.
//!
//! `ui` renders pages from `auth`, `content` and `reports`; these keep their state in `data`, the only service with a
//! database; `integrations` calls a third party; everything reports to `metrics-log`. HTTP/1, gRPC and a raw TCP
//! protocol occur. No service knows of a mesh: each takes the address it listens on and the addresses of what it
//! calls, answers `/healthz`, passes `x-request-id` and `traceparent` on, and finishes its requests before it ends.

use std::{net::SocketAddr, path::PathBuf};

use http::uri::Authority;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

mod clock;
mod error;
mod context;
mod proto;
pub mod faults;

mod journal;
mod server;
mod client;
mod api;

pub mod metrics_log;
pub mod data;
pub mod local_postgres;
pub mod auth;
pub mod content;
pub mod reports;
pub mod integrations;
pub mod third_party;
pub mod ui;

pub mod mesh;

pub use error::Error;

use journal::Journal;
use server::Stop;

/// The tenants that `data --seed` creates.
pub const SEEDED_TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// The one user of each seeded tenant.
pub const SEEDED_USER: &str = "ada";
/// The password of the seeded users.
pub const SEEDED_PASSWORD: &str = "analytical engine";

/// What every service is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Allow another socket of the same user to be bound to the same address.
    #[arg(long)]
    pub reuse_port: bool,
    /// Write the address really bound to this file, as JSON, once listening.
    #[arg(long, value_name = "FILE")]
    pub ports_file: Option<PathBuf>,
    /// The name of this instance in the metrics log.
    #[arg(long, env = "INSTANCE", default_value = "0")]
    pub instance: String,
    /// Where `metrics-log` is; without it nothing is reported.
    #[arg(long, env = "METRICS_LOG_ADDR", value_name = "HOST:PORT")]
    pub metrics_log: Option<Authority>,
}

/// A service with its settings.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Service {
    /// Pages for people (HTTP).
    Ui(ui::Config),
    /// Articles (HTTP, JSON).
    Content(content::Config),
    /// Sessions (gRPC).
    Auth(auth::Config),
    /// The database (gRPC).
    Data(data::Config),
    /// Usage (HTTP, JSON).
    Reports(reports::Config),
    /// Event lines into a file (TCP).
    MetricsLog(metrics_log::Config),
    /// Calls to third parties (HTTP, JSON).
    Integrations(integrations::Config),
    /// The third party itself, which is not part of the product (HTTP, JSON).
    ThirdParty(third_party::Config),
}

impl Service {
    /// The name, as on the command line.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ui(_) => "ui",
            Self::Content(_) => "content",
            Self::Auth(_) => "auth",
            Self::Data(_) => "data",
            Self::Reports(_) => "reports",
            Self::MetricsLog(_) => "metrics-log",
            Self::Integrations(_) => "integrations",
            Self::ThirdParty(_) => "third-party",
        }
    }

    const fn common(&self) -> &Common {
        match self {
            Self::Ui(config) => &config.common,
            Self::Content(config) => &config.common,
            Self::Auth(config) => &config.common,
            Self::Data(config) => &config.common,
            Self::Reports(config) => &config.common,
            Self::MetricsLog(config) => &config.common,
            Self::Integrations(config) => &config.common,
            Self::ThirdParty(config) => &config.common,
        }
    }
}

/// A service that listens.
pub struct Running {
    /// The address on which it really listens.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Stops the service and waits until its requests in flight are done.
    ///
    /// # Errors
    /// What made the service end badly.
    pub async fn stop(self) -> Result<(), Error> {
        self.stop.send_replace(true);
        self.task.await.unwrap_or(Err(Error::Stopping))
    }
}

/// Binds the service's address and serves on the current runtime.
///
/// # Errors
/// The address cannot be bound, or a setting is unusable.
pub async fn start(service: Service) -> Result<Running, Error> {
    let common = service.common().clone();
    let bound = server::bind(common.listen, common.reuse_port);
    let listener = bound.map_err(Error::io(format!("listening on {}", common.listen)))?;
    let address = listener.local_addr().map_err(Error::io("reading the address listened on"))?;
    let (stop, stopped) = watch::channel(false);
    let stopped = Stop(stopped);
    let source = format!("{}/{}", service.name(), common.instance);
    let journal = Journal::start(source, common.metrics_log.as_ref());
    let task = match service {
        Service::Ui(config) => tokio::spawn(http(listener, api::app(ui::Ui::new(&config)?), journal, stopped)),
        Service::Content(config) => {
            tokio::spawn(http(listener, api::app(content::Content::new(&config)?), journal, stopped))
        }
        Service::Auth(config) => {
            let app = proto::auth_server::AuthServer::new(auth::Auth::new(&config)?);
            tokio::spawn(http(listener, app, journal, stopped))
        }
        Service::Data(config) => {
            let app = proto::data_server::DataServer::new(data::Data::open(&config).await?);
            tokio::spawn(http(listener, app, journal, stopped))
        }
        Service::Reports(config) => {
            tokio::spawn(http(listener, api::app(reports::Reports::new(&config)?), journal, stopped))
        }
        Service::MetricsLog(config) => tokio::spawn(metrics_log::serve(config, listener, stopped)),
        Service::Integrations(config) => {
            tokio::spawn(http(listener, api::app(integrations::Integrations::new(&config)), journal, stopped))
        }
        Service::ThirdParty(_) => {
            tokio::spawn(http(listener, api::app(third_party::ThirdParty::default()), journal, stopped))
        }
    };
    Ok(Running { address, stop, task })
}

async fn http(
    listener: tokio::net::TcpListener,
    app: impl server::App,
    journal: Journal,
    stop: Stop,
) -> Result<(), Error> {
    server::serve(listener, app, journal, stop).await;
    Ok(())
}

/// Runs the service until SIGTERM or SIGINT, then finishes what is in flight.
///
/// # Errors
/// As [`start`], and when the ports file cannot be written.
pub async fn run(service: Service) -> Result<(), Error> {
    let (name, ports_file) = (service.name(), service.common().ports_file.clone());
    let watch = |kind| signal(kind).map_err(Error::io("watching for signals"));
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    let running = start(service).await?;
    tracing::info!("{name} listens on {}", running.address);
    if let Some(path) = ports_file {
        let ports = serde_json::json!({ "listen": running.address }).to_string();
        std::fs::write(&path, ports).map_err(Error::io(format!("writing {}", path.display())))?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    running.stop().await
}
