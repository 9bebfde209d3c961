//! What the control plane counts.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use selvedge_xds::{kinds::SELVEDGE, resource::TypeUrl};

use crate::{audit, own_process::OwnProcess, store::Counts};

/// Every metric of the control plane, in one registry.
#[derive(Clone, Debug)]
pub struct Telemetry {
    registry: Registry,
    /// `selvedge_control_plane_sidecars`: discovery streams open now.
    pub sidecars: IntGauge,
    /// `selvedge_control_plane_snapshot`: number of the snapshot being served.
    pub snapshot: IntGauge,
    /// `selvedge_control_plane_objects{state}`: the user's objects that are `current`, in force as they last were good
    /// (`stale`), or in no version in force (`refused`).
    pub objects: IntGaugeVec,
    /// `selvedge_control_plane_responses_total{kind}`: discovery responses sent.
    pub responses: IntCounterVec,
    /// `selvedge_control_plane_response_bytes_total`: bytes of resources in them.
    pub response_bytes: IntCounter,
    /// `selvedge_control_plane_replies_total{kind,answer}`: what sidecars said of them, `ack` or `nack`.
    pub replies: IntCounterVec,
    /// `selvedge_control_plane_push_seconds`: from a new snapshot to a stream having sent all it owes of it.
    pub push_seconds: Histogram,
    /// `selvedge_control_plane_certificates_total{way,result}`: signing requests by `join` or `renew`.
    pub certificates: IntCounterVec,
    /// `selvedge_control_plane_unborne_renewals_total`: renewals for identities that no workload is known to have.
    pub unborne_renewals: IntCounter,
    /// `selvedge_control_plane_certificate_expiry_seconds`: end of the own certificate, Unix time.
    pub certificate_expiry: IntGauge,
    /// `selvedge_control_plane_authority_expiry_seconds`: end of the authority that signs, Unix time.
    pub authority_expiry: IntGauge,
    /// `selvedge_control_plane_injections_total{result}`: what the webhook answered about pods: `injected`, `unchanged` for
    /// one that has a sidecar, `left_alone`, `refused`, and `failed` when the cluster could not be looked at.
    pub injections: IntCounterVec,
    /// `selvedge_control_plane_pods_without_sidecar`: pods that run and should have a sidecar and have none.
    pub pods_without_sidecar: IntGauge,
    /// `selvedge_control_plane_handshakes_refused_total`: TLS handshakes that failed or took too long, and connections over the limits.
    pub handshakes_refused: IntCounter,
    /// `selvedge_control_plane_audit_events_total{result}`: events for the audit log, by what has become of them.
    pub audit_events: IntCounterVec,
    /// `selvedge_control_plane_process_*`: what the program itself takes.
    own: OwnProcess,
}

impl Telemetry {
    /// A registry with everything at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let name = |end: &str| format!("selvedge_control_plane_{end}");
        let gauge = |end: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name(end), help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counter = |end: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let metric = IntCounter::new(name(end), help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |end: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name(end), help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let push_seconds = Histogram::with_opts(
            HistogramOpts::new(name("push_seconds"), "From a new snapshot to a sidecar having been sent it.")
                .buckets(vec![0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]),
        )?;
        registry.register(Box::new(push_seconds.clone()))?;
        let telemetry = Self {
            sidecars: gauge("sidecars", "Discovery streams open now.")?,
            snapshot: gauge("snapshot", "Number of the snapshot being served.")?,
            objects: {
                let metric = IntGaugeVec::new(Opts::new(name("objects"), "The user's objects by state."), &["state"])?;
                registry.register(Box::new(metric.clone()))?;
                metric
            },
            responses: counters("responses_total", "Discovery responses sent.", &["kind"])?,
            response_bytes: counter("response_bytes_total", "Bytes of resources in discovery responses.")?,
            replies: counters("replies_total", "What sidecars said of discovery responses.", &["kind", "answer"])?,
            push_seconds,
            certificates: counters("certificates_total", "Certificate signing requests.", &["way", "result"])?,
            unborne_renewals: counter(
                "unborne_renewals_total",
                "Certificates renewed for identities that no workload is known to have.",
            )?,
            certificate_expiry: gauge("certificate_expiry_seconds", "End of the own certificate, Unix time.")?,
            authority_expiry: gauge("authority_expiry_seconds", "End of the authority that signs, Unix time.")?,
            injections: counters("injections_total", "What the webhook answered about pods.", &["result"])?,
            pods_without_sidecar: gauge("pods_without_sidecar", "Pods that should have a sidecar and have none.")?,
            handshakes_refused: counter(
                "handshakes_refused_total",
                "TLS handshakes that failed or took too long, and connections over the limits.",
            )?,
            audit_events: counters(
                "audit_events_total",
                "Events for the audit log, by what has become of them.",
                &["result"],
            )?,
            own: OwnProcess::new(&registry, &name("process_"))?,
            registry,
        };
        telemetry.show_zeros();
        Ok(telemetry)
    }

    /// Shows everything that may happen before it does: a rate sees a first refusal only in a series that was there before it.
    fn show_zeros(&self) {
        for kind in SELVEDGE.order().iter().map(|kind| kind_label(*kind)) {
            self.responses.with_label_values(&[&*kind]);
            for answer in ["ack", "nack"] {
                self.replies.with_label_values(&[&*kind, answer]);
            }
        }
        for way in ["join", "renew"] {
            for result in ["issued", "refused"] {
                self.certificates.with_label_values(&[way, result]);
            }
        }
        for result in ["injected", "unchanged", "left_alone", "refused", "failed"] {
            self.injections.with_label_values(&[result]);
        }
        for result in audit::RESULTS {
            self.audit_events.with_label_values(&[result]);
        }
        self.set_objects(Counts::default());
    }

    /// Shows how many objects there are in which state.
    pub(crate) fn set_objects(&self, counts: Counts) {
        let Counts { current, stale, refused } = counts;
        for (state, objects) in [("current", current), ("stale", stale), ("refused", refused)] {
            self.objects.with_label_values(&[state]).set(i64::try_from(objects).unwrap_or(i64::MAX));
        }
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        self.own.look();
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8_lossy(&text).into_owned(),
            Err(e) => format!("# the metrics could not be rendered: {e}\n"),
        }
    }
}

/// The label value of a kind of resource, such as `trust_bundle`.
pub(crate) fn kind_label(kind: TypeUrl) -> String {
    let mut label = String::new();
    for c in kind.name().chars() {
        if c.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(c.to_ascii_lowercase());
    }
    label
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_metric_is_documented() {
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/control-plane.md")).unwrap();
        let telemetry = Telemetry::new().unwrap();
        let families = telemetry.registry.gather();
        assert_eq!(families.len(), 19);
        for family in families {
            assert!(page.contains(&format!("`{}`", family.name())), "{} is not documented", family.name());
        }
    }
}
