//! Everything the sidecar says about itself: metrics, the access log, the audit log and spans.
//!
//! Recording takes no lock and shares nothing: each worker counts in cells of its own ([`WorkerTelemetry`]) and hands
//! over what it counted when somebody looks. [`Telemetry::render`], on the control thread, asks every worker, waits
//! [`FLUSH_LIMIT`] at most and writes the Prometheus text format. A worker too busy to answer is not lost: its
//! numbers are in the next scrape.
//!
//! Every metric is declared in [`metrics`]; `docs/metrics.md` is generated from there.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use selvedge_decide::config::{AccessLogMode, RuntimeConfig};
use selvedge_identity::audit::Trail;
use selvedge_policies::names;
use tokio::sync::{Mutex, mpsc, watch};

mod access_log;
mod audit_log;
mod cardinality;
mod cells;
mod configured;
mod delta;
mod flow;
pub(crate) mod metrics;
mod open_metrics;
mod origin;
mod outcome;
mod process;
mod record;
pub(crate) mod span;
mod store;
mod timestamp;
mod views;
mod worker;

pub(crate) use flow::Flow;
pub(crate) use metrics::PROBE;
pub(crate) use record::{
    ConnectionRecord, Direction, EndpointSeen, Ends, Hop, Ids, Party, ProbeOutcome, Protocol, RequestRecord,
    RetryOutcome, SpanRecord, WorkerSeen,
};
pub(crate) use span::{Finished, Queue, Sampling};
pub(crate) use views::View;
pub(crate) use worker::WorkerTelemetry;

use access_log::{FINISH_LIMIT, Sink};
use audit_log::AuditLog;
pub(crate) use audit_log::open as open_audit_log;
use configured::Configured;
use process::ProcessMetrics;
use span::Spans;
use store::{Link, Store};

/// The longest a scrape waits for the workers.
pub(crate) const FLUSH_LIMIT: Duration = Duration::from_millis(200);

/// Series one metric may have; what comes after is counted under labels that all read `overflow`.
pub(crate) const SERIES_LIMIT: usize = 2_000;

/// What telemetry needs to know at start.
#[derive(Clone, Debug, Default)]
pub(crate) struct TelemetrySettings {
    /// Name of the workload, without its namespace.
    pub workload: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// Where access log lines go; standard output when absent. Opened for appending.
    pub access_log_file: Option<PathBuf>,
    /// The audit log; it goes to standard output when absent.
    pub audit_log: Option<Trail>,
}

/// The metrics and the access log of one process; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    process: ProcessMetrics,
    store: Mutex<Store>,
    configured: watch::Sender<Arc<Configured>>,
    joining: mpsc::UnboundedSender<Link>,
    log: Sink,
    audit: Trail,
    /// `namespace/name` of the workload, as the audit log has it.
    reporter: Arc<str>,
    /// Set once, before there are workers, if spans are made at all.
    spans: OnceLock<Spans>,
}

impl Telemetry {
    /// Starts with no workers and all counters at zero.
    ///
    /// # Errors
    /// When the access log file cannot be opened or a writer thread cannot be started.
    pub(crate) fn new(settings: &TelemetrySettings) -> io::Result<Self> {
        let (joining, joined) = mpsc::unbounded_channel();
        let shared = Shared {
            process: ProcessMetrics::new(settings).map_err(io::Error::other)?,
            store: Mutex::new(Store::new(joined, SERIES_LIMIT)),
            configured: watch::Sender::default(),
            joining,
            log: Sink::open(settings.access_log_file.as_deref())?,
            audit: settings.audit_log.clone().map_or_else(|| audit_log::open(None), Ok)?,
            reporter: names::object(&settings.namespace, &settings.workload).into(),
            spans: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The recorder of the calling worker thread. The worker must also spawn [`WorkerTelemetry::serve_flushes`].
    pub(crate) fn worker(&self) -> WorkerTelemetry {
        let audit = AuditLog::new(self.shared.audit.clone(), Arc::clone(&self.shared.reporter));
        let spans = self.shared.spans.get().cloned();
        let (worker, link) = WorkerTelemetry::new(self.shared.log.clone(), audit, spans, SERIES_LIMIT);
        // The receiver lives as long as `shared`.
        let _ = self.shared.joining.send(link);
        worker
    }

    /// Makes spans from now on, of workers that are not there yet; where they come to be taken. Call it once.
    pub(crate) fn make_spans(&self, sampling: Sampling) -> Queue {
        let (spans, queue) = span::queue(sampling, self.shared.process.spans());
        let _ = self.shared.spans.set(spans); // a second queue would get nothing
        queue
    }

    /// All metrics in the Prometheus text format, the workers' numbers as of now.
    pub(crate) async fn render(&self) -> String {
        let mut store = self.shared.store.lock().await;
        store.collect(FLUSH_LIMIT, &self.configured()).await;
        let ours = store.families().map(|family| &family.shown);
        metrics::encode(self.shared.process.gather().iter().chain(ours))
    }

    /// All metrics as OpenMetrics 1.0, the workers' numbers as of now; `created`: with the time when each counter and histogram
    /// began.
    pub(crate) async fn render_open_metrics(&self, created: bool) -> String {
        let mut store = self.shared.store.lock().await;
        store.collect(FLUSH_LIMIT, &self.configured()).await;
        let process = self.shared.process.gather();
        let ours = store.families().map(|family| (&family.shown, Some(family)));
        open_metrics::encode(process.iter().map(|shown| (shown, None)).chain(ours), created)
    }

    /// The requests and connections of all workers under the names that another mesh has for them, in the Prometheus text
    /// format.
    pub(crate) async fn render_view(&self, view: View) -> String {
        let mut store = self.shared.store.lock().await;
        store.collect(FLUSH_LIMIT, &self.configured()).await;
        let families = view.of(store.families().map(|family| &family.shown));
        drop(store);
        metrics::encode(families.iter())
    }

    /// Writes out every line of both logs so far, those that workers still hold too; call this last.
    pub(crate) async fn finish_logs(&self) {
        self.shared.store.lock().await.collect(FLUSH_LIMIT, &self.configured()).await;
        self.shared.log.finish().await;
        let audit = self.shared.audit.clone();
        // It fails when the runtime ends, and then nobody waits.
        let finished = tokio::task::spawn_blocking(move || audit.finish(FINISH_LIMIT)).await;
        if !finished.unwrap_or(true) {
            tracing::warn!("the last audit log lines are lost: nobody reads them");
        }
    }

    /// Says when the workload's certificate expires, in seconds since the Unix epoch.
    pub(crate) fn set_certificate_expiration(&self, unix_seconds: u64) {
        self.shared.process.set_certificate_expiration(unix_seconds);
    }

    /// Says that this configuration is in force: what may happen by it is shown from now on, at zero.
    pub(crate) fn config_applied(&self, config: &RuntimeConfig) {
        self.shared.process.config_applied(config.generation);
        self.shared.configured.send_replace(Arc::new(Configured::of(config)));
    }

    fn configured(&self) -> Arc<Configured> {
        self.shared.configured.borrow().clone()
    }

    /// Says why the newest change was refused and what it would have replaced stays in force; `None` when nothing is
    /// refused any more. Each error that is said counts as a refusal.
    pub(crate) fn config_error(&self, error: Option<&str>) {
        self.shared.process.config_error(error);
    }

    /// Says whether connections come to the sidecar that must.
    pub(crate) fn set_captured(&self, captured: bool) {
        self.shared.process.set_captured(captured);
    }

    /// Says of which declared inbound ports it is known whether all calls to them meet policies, and whether they do.
    pub(crate) fn set_enforced(&self, ports: impl Iterator<Item = (u16, bool)>) {
        self.shared.process.set_enforced(ports);
    }

    /// Counts a scrape without the application's metrics, by what kept them away.
    pub(crate) fn application_metrics_missing(&self, error: &str) {
        self.shared.process.application_metrics_missing(error);
    }

    /// Says whether the stream to the control plane is up.
    pub(crate) fn set_xds_connected(&self, connected: bool) {
        self.shared.process.set_xds_connected(connected);
    }
}

#[cfg(test)]
pub(crate) mod tests;
