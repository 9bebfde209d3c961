//! What is neither written in an annotation nor set as it is: each expression in Rust and in CEL, side by side. The tests
//! of this package hold the two against each other.
//!
//! All of them are texts. An empty one means that there is nothing to say, and as a condition that it does not hold.

use crate::{
    annotation::{CAPTURE, EXCLUDE_CIDRS, EXCLUDE_INBOUND_PORTS, EXCLUDE_OUTBOUND_PORTS, PROBERS, UID},
    pod::{self, Request},
};

pub mod listeners;
pub mod metrics;
pub mod probes;
pub mod resources;

/// One expression: the same in Rust and in CEL.
#[derive(Debug)]
pub struct Expression {
    /// Name of its variable in the policy.
    pub name: &'static str,
    /// The text for a pod.
    pub text: fn(&Request<'_>) -> String,
    /// The expression that gives this text in CEL, from `object` and the `variables` before it.
    pub cel: &'static str,
}

/// What a condition is when it holds.
const HOLDS: &str = "yes";

fn holds(condition: bool) -> String {
    if condition { HOLDS.to_owned() } else { String::new() }
}

/// Key of the annotation with the volumes that do not keep a node from being removed.
pub const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// The sidecar's own word for how connections reach it.
pub const CAPTURE_OF_FILE: Expression = Expression {
    name: "captureOfFile",
    text: |request| (if CAPTURE.of(request) == "none" { "explicit" } else { "transparent" }).to_owned(),
    cel: "variables.capture == 'none' ? 'explicit' : 'transparent'",
};

/// Whether the sidecar waits until it is captured.
pub const CAPTURE_REQUIRED: Expression = Expression {
    name: "captureRequired",
    text: |request| (if CAPTURE.of(request) == "none" { "" } else { "true" }).to_owned(),
    cel: "variables.capture == 'none' ? '' : 'true'",
};

/// Holds where an init container sets the capture rules.
pub const CAPTURED_BY_INIT: Expression = Expression {
    name: "capturedByInit",
    text: |request| holds(CAPTURE.of(request) == "init"),
    cel: "variables.capture == 'init' ? 'yes' : ''",
};

/// Holds where the CNI plugin sets the capture rules.
pub const CAPTURED_BY_CNI: Expression = Expression {
    name: "capturedByCni",
    text: |request| holds(CAPTURE.of(request) == "cni"),
    cel: "variables.capture == 'cni' ? 'yes' : ''",
};

/// Ports of the pod that are never captured: the sidecar's own, and what users name.
pub const EXCLUDED_INBOUND: Expression = Expression {
    name: "excludedInbound",
    text: |request| {
        let more = EXCLUDE_INBOUND_PORTS.of(request);
        if more.is_empty() { "15020".to_owned() } else { format!("15020,{more}") }
    },
    cel: "variables.excludeInboundPorts == '' ? '15020' : '15020,' + variables.excludeInboundPorts",
};

/// What the CNI plugin is asked for: the options of `selvedge-capture apply` on one line.
pub const CAPTURE_OPTIONS: Expression = Expression {
    name: "captureOptions",
    text: |request| {
        let mut options =
            format!("--exempt-uid={} --exclude-inbound-ports={}", UID.of(request), (EXCLUDED_INBOUND.text)(request));
        for annotation in [&EXCLUDE_OUTBOUND_PORTS, &EXCLUDE_CIDRS] {
            let value = annotation.of(request);
            if !value.is_empty() {
                options += &format!(" --{}={value}", annotation.key);
            }
        }
        options
    },
    cel: "'--exempt-uid=' + variables.uid + ' --exclude-inbound-ports=' + variables.excludedInbound \
          + (variables.excludeOutboundPorts == '' ? '' : ' --exclude-outbound-ports=' + variables.excludeOutboundPorts) \
          + (variables.excludeCidrs == '' ? '' : ' --exclude-cidrs=' + variables.excludeCidrs)",
};

/// Addresses that probes come from: those of the node, and what users name.
pub const PROBER_ADDRESSES: Expression = Expression {
    name: "proberAddresses",
    text: |request| {
        let more = PROBERS.of(request);
        if more.is_empty() { "$(HOST_IPS)".to_owned() } else { format!("$(HOST_IPS),{more}") }
    },
    cel: "variables.probers == '' ? '$(HOST_IPS)' : '$(HOST_IPS),' + variables.probers",
};

/// Volumes that do not keep a node from being removed: those of the user's, and the sidecar's state.
pub const VOLUMES_SAFE_TO_EVICT: Expression = Expression {
    name: "volumesSafeToEvict",
    text: |request| {
        let written = pod::annotation(request.pod, SAFE_TO_EVICT);
        if written.is_empty() || written.split(',').any(|volume| volume == "selvedge-state") {
            return if written.is_empty() { "selvedge-state".to_owned() } else { written.to_owned() };
        }
        format!("{written},selvedge-state")
    },
    cel: "[variables.annotations[?'cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes'].orValue('')].map(written, \
          written == '' ? 'selvedge-state' \
          : written.split(',').exists(volume, volume == 'selvedge-state') ? written \
          : written + ',selvedge-state')[0]",
};

/// The condition of what every injected pod gets.
pub const ALWAYS: Expression = Expression { name: "always", text: |_| holds(true), cel: "'yes'" };

/// Holds where a pod has no metadata, as a template may.
pub const NO_METADATA: Expression = Expression {
    name: "noMetadata",
    text: |request| holds(!pod::has(request.pod, "/metadata")),
    cel: "has(object.metadata) ? '' : 'yes'",
};

/// Holds where a pod has no annotations.
pub const NO_ANNOTATIONS: Expression = Expression {
    name: "noAnnotations",
    text: |request| holds(!pod::has(request.pod, "/metadata/annotations")),
    cel: "has(object.metadata) && has(object.metadata.annotations) ? '' : 'yes'",
};

/// Holds where a pod has no volumes.
pub const NO_VOLUMES: Expression = Expression {
    name: "noVolumes",
    text: |request| holds(!pod::has(request.pod, "/spec/volumes")),
    cel: "has(object.spec.volumes) ? '' : 'yes'",
};

/// Holds where a pod has no init containers.
pub const NO_INIT_CONTAINERS: Expression = Expression {
    name: "noInitContainers",
    text: |request| holds(!pod::has(request.pod, "/spec/initContainers")),
    cel: "has(object.spec.initContainers) ? '' : 'yes'",
};

/// Holds where a pod has no volume for the sidecar's token, which an earlier injection may have left.
pub const NO_TOKEN_VOLUME: Expression = Expression {
    name: "noTokenVolume",
    text: |request| holds(!pod::has_named(request.pod, "/spec/volumes", "selvedge-token")),
    cel: "object.spec[?'volumes'].orValue(dyn([])).exists(v, v[?'name'].orValue('') == 'selvedge-token') ? '' : 'yes'",
};

/// Holds where a pod has no volume for the sidecar's state, which an earlier injection may have left.
pub const NO_STATE_VOLUME: Expression = Expression {
    name: "noStateVolume",
    text: |request| holds(!pod::has_named(request.pod, "/spec/volumes", "selvedge-state")),
    cel: "object.spec[?'volumes'].orValue(dyn([])).exists(v, v[?'name'].orValue('') == 'selvedge-state') ? '' : 'yes'",
};

/// Holds where an init container sets the capture rules and is not left of an earlier injection.
pub const NEEDS_CAPTURE_CONTAINER: Expression = Expression {
    name: "needsCaptureContainer",
    text: |request| {
        let left = pod::has_named(request.pod, "/spec/initContainers", "selvedge-capture");
        holds(CAPTURE.of(request) == "init" && !left)
    },
    cel: "variables.capturedByInit == '' \
          || object.spec[?'initContainers'].orValue(dyn([])).exists(c, c.name == 'selvedge-capture') ? '' : 'yes'",
};

/// Every expression, each after those that it uses.
pub const EXPRESSIONS: [&Expression; 27] = [
    &CAPTURE_OF_FILE,
    &CAPTURE_REQUIRED,
    &CAPTURED_BY_INIT,
    &CAPTURED_BY_CNI,
    &EXCLUDED_INBOUND,
    &CAPTURE_OPTIONS,
    &PROBER_ADDRESSES,
    &VOLUMES_SAFE_TO_EVICT,
    &ALWAYS,
    &NO_METADATA,
    &NO_ANNOTATIONS,
    &NO_VOLUMES,
    &NO_INIT_CONTAINERS,
    &NO_TOKEN_VOLUME,
    &NO_STATE_VOLUME,
    &NEEDS_CAPTURE_CONTAINER,
    &resources::CPU_REQUESTED,
    &resources::MEMORY_REQUESTED,
    &resources::LIMIT_IN_FORCE,
    &listeners::PORT_TAKEN,
    &listeners::INBOUND_LISTENERS,
    &listeners::OUTBOUND_LISTENERS,
    &metrics::SCRAPE_TARGET,
    &metrics::APPLICATION_METRICS,
    &metrics::SCRAPE,
    &probes::OF_CONTAINERS,
    &probes::PROBES,
];

/// A text as a scalar of YAML between double quotes, in which Kubernetes finds no variable to replace. Does what
/// `strings.quote` of CEL does.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            '$' => quoted.push_str("$$"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
