//! What is told of the process as a whole, set by the control thread.

use prometheus::{
    Counter, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, GenericCounter, GenericGauge},
    proto::MetricFamily,
};
use selvedge_scrape::process;

use super::{
    TelemetrySettings,
    metrics::{self, Metric},
    span::Counted,
};

/// An error text is for people; its start says enough.
const ERROR_MAX: usize = 200;

#[derive(Debug)]
pub(super) struct ProcessMetrics {
    registry: Registry,
    certificate_expiration: IntGauge,
    config_generation: IntGauge,
    config_refused: IntCounter,
    config_last_error: IntGaugeVec,
    xds_connected: IntGauge,
    captured: IntGaugeVec,
    enforced: IntGaugeVec,
    application_errors: IntCounterVec,
    spans: IntCounterVec,
    memory: IntGauge,
    open_files: IntGauge,
    max_files: IntGauge,
    cpu: Counter,
}

impl ProcessMetrics {
    pub(super) fn new(settings: &TelemetrySettings) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build = IntGaugeVec::new(opts(&metrics::BUILD_INFO), metrics::BUILD_INFO.labels)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), &settings.workload, &settings.namespace]).set(1);
        register(&registry, build)?;
        let gauge = |metric| register(&registry, GenericGauge::with_opts(opts(metric))?);
        let series = |metric: &Metric| register(&registry, IntGaugeVec::new(opts(metric), metric.labels)?);
        Ok(Self {
            certificate_expiration: gauge(&metrics::CERTIFICATE_EXPIRATION)?,
            config_generation: gauge(&metrics::CONFIG_GENERATION)?,
            config_refused: register(&registry, GenericCounter::with_opts(opts(&metrics::CONFIG_REFUSED))?)?,
            config_last_error: series(&metrics::CONFIG_LAST_ERROR)?,
            xds_connected: gauge(&metrics::XDS_CONNECTED)?,
            captured: series(&metrics::CAPTURED)?,
            enforced: series(&metrics::INBOUND_ENFORCED)?,
            application_errors: register(
                &registry,
                IntCounterVec::new(opts(&metrics::APPLICATION_ERRORS), metrics::APPLICATION_ERRORS.labels)?,
            )?,
            spans: register(&registry, IntCounterVec::new(opts(&metrics::SPANS), metrics::SPANS.labels)?)?,
            memory: gauge(&metrics::MEMORY)?,
            open_files: gauge(&metrics::OPEN_FILES)?,
            max_files: gauge(&metrics::MAX_FILES)?,
            cpu: register(&registry, GenericCounter::with_opts(opts(&metrics::CPU))?)?,
            registry,
        })
    }

    pub(super) fn gather(&self) -> Vec<MetricFamily> {
        self.memory.set(process::resident_memory().unwrap_or_default());
        self.open_files.set(process::open_files().unwrap_or_default());
        self.max_files.set(process::max_files());
        let cpu = process::cpu_seconds().unwrap_or_default();
        self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
        self.registry.gather()
    }

    pub(super) fn set_certificate_expiration(&self, unix_seconds: u64) {
        self.certificate_expiration.set(i64::try_from(unix_seconds).unwrap_or(i64::MAX));
    }

    pub(super) fn config_applied(&self, generation: u64) {
        self.config_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    pub(super) fn config_error(&self, error: Option<&str>) {
        self.config_last_error.reset();
        if let Some(error) = error {
            self.config_refused.inc();
            let start: String = error.chars().take(ERROR_MAX).collect();
            self.config_last_error.with_label_values(&[start]).set(1);
        }
    }

    pub(super) fn set_captured(&self, captured: bool) {
        self.captured.with_label_values::<&str>(&[]).set(i64::from(captured));
    }

    pub(super) fn set_enforced(&self, ports: impl Iterator<Item = (u16, bool)>) {
        self.enforced.reset();
        for (port, enforced) in ports {
            self.enforced.with_label_values(&[port.to_string()]).set(i64::from(enforced));
        }
    }

    pub(super) fn application_metrics_missing(&self, error: &str) {
        self.application_errors.with_label_values(&[error]).inc();
    }

    pub(super) fn spans(&self) -> Counted {
        let [exported, dropped, failed, rejected] =
            ["exported", "dropped", "failed", "rejected"].map(|result| self.spans.with_label_values(&[result]));
        Counted { exported, dropped, failed, rejected }
    }

    pub(super) fn set_xds_connected(&self, connected: bool) {
        self.xds_connected.set(i64::from(connected));
    }
}

fn opts(metric: &Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
