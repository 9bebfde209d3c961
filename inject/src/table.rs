//! The table of fields: everything that is put into a pod.

use crate::{
    annotation,
    expression::{self, ALWAYS, Expression, SAFE_TO_EVICT, listeners, metrics, probes, resources},
    field::{
        Field::{self, After, Downward, Flag, List, Number, Object, Text, Where},
        Line,
        Source::{self, Annotation, Constant, Expression as Found, Lines, Setting},
        Style::{Plain, Quoted},
    },
    setting,
    switch::SIDECAR,
};

/// Something that is added to a pod.
#[derive(Debug)]
pub struct Addition {
    /// Name of its variable in the policy.
    pub name: &'static str,
    /// Where: a JSON pointer as in RFC 6902, with `-` for the end of a list; a key that stands behind it is escaped.
    pub path: &'static str,
    /// A key to add to `path`, where it is one with a slash.
    pub key: &'static str,
    /// What is put there, from which sources.
    pub value: Field,
    /// Whether it is needed.
    pub when: &'static Expression,
}

/// Annotation that says what has been done.
pub const STATUS: &str = "selvedge.dev/status";

/// Annotation that asks the CNI plugin to capture the pod, with how.
pub const ASKED: &str = "selvedge.dev/capture";
/// Name of the volume with the sidecar's token.
pub const TOKEN: &str = "selvedge-token";
/// Name of the volume with the sidecar's state.
pub const STATE: &str = "selvedge-state";
/// Name of the container that sets the capture rules.
pub const CAPTURE: &str = "selvedge-capture";

/// Folder of the sidecar's token.
const TOKEN_FOLDER: &str = "/var/run/secrets/selvedge";
/// Folder of the sidecar's state.
const STATE_FOLDER: &str = "/var/lib/selvedge";

/// Everything that is added, in its order. The capture container comes to stand before the sidecar, which is ready only
/// when it is captured; both come before the containers of the application's.
pub const ADDITIONS: [Addition; 11] = [
    Addition::to("metadata", "/metadata", Object(&[]), &expression::NO_METADATA),
    Addition::to("annotationsField", "/metadata/annotations", Object(&[]), &expression::NO_ANNOTATIONS),
    Addition::to("initContainersField", "/spec/initContainers", List(&[]), &expression::NO_INIT_CONTAINERS),
    Addition::to("volumesField", "/spec/volumes", List(&[]), &expression::NO_VOLUMES),
    Addition::to("tokenVolume", "/spec/volumes/-", TOKEN_VOLUME, &expression::NO_TOKEN_VOLUME),
    Addition::to("stateVolume", "/spec/volumes/-", STATE_VOLUME, &expression::NO_STATE_VOLUME),
    Addition::to("sidecar", "/spec/initContainers/0", SIDECAR_CONTAINER, &ALWAYS),
    Addition::to("captureContainer", "/spec/initContainers/0", CAPTURE_CONTAINER, &expression::NEEDS_CAPTURE_CONTAINER),
    Addition::annotation("status", STATUS, Text(Constant("injected")), &ALWAYS),
    Addition::annotation("safeToEvict", SAFE_TO_EVICT, Text(Found(&expression::VOLUMES_SAFE_TO_EVICT)), &ALWAYS),
    // The plugin gets the annotations of a pod and knows no settings.
    Addition::annotation(
        "captureAnnotation",
        ASKED,
        Text(Found(&expression::CAPTURE_OPTIONS)),
        &expression::CAPTURED_BY_CNI,
    ),
];

/// How many of [`ADDITIONS`], from the first, do nothing but make room for annotations.
pub const ROOM_FOR_ANNOTATIONS: usize = 2;

impl Addition {
    const fn to(name: &'static str, path: &'static str, value: Field, when: &'static Expression) -> Self {
        Self { name, path, key: "", value, when }
    }

    const fn annotation(name: &'static str, key: &'static str, value: Field, when: &'static Expression) -> Self {
        Self { name, path: "/metadata/annotations/", key, value, when }
    }

    /// The path with its key, escaped as in RFC 6901.
    pub fn pointer(&self) -> String {
        format!("{}{}", self.path, self.key.replace('~', "~0").replace('/', "~1"))
    }
}

const TOKEN_VOLUME: Field = Object(&[
    ("name", Text(Constant(TOKEN))),
    (
        "projected",
        Object(&[(
            "sources",
            List(&[Object(&[(
                "serviceAccountToken",
                Object(&[
                    ("audience", Text(Constant("selvedge"))),
                    ("expirationSeconds", Number(Constant("3600"))),
                    ("path", Text(Constant("token"))),
                ]),
            )])]),
        )]),
    ),
]);

const STATE_VOLUME: Field = Object(&[
    ("name", Text(Constant(STATE))),
    ("emptyDir", Object(&[("medium", Text(Constant("Memory"))), ("sizeLimit", Text(Constant("16Mi")))])),
]);

const SIDECAR_CONTAINER: Field = Object(&[
    ("name", Text(Constant(SIDECAR))),
    ("image", Text(Setting(&setting::IMAGE))),
    ("imagePullPolicy", Text(Setting(&setting::IMAGE_PULL_POLICY))),
    // A native sidecar: it starts before the application and ends after it.
    ("restartPolicy", Text(Constant("Always"))),
    ("args", List(&[Text(Constant("run")), Text(Constant("--config-env")), Text(Constant("SELVEDGE_CONFIG"))])),
    ("env", ENVIRONMENT),
    (
        "ports",
        List(&[Object(&[
            ("name", Text(Constant("mesh-metrics"))),
            ("containerPort", Number(Constant("15020"))),
            ("protocol", Text(Constant("TCP"))),
        ])]),
    ),
    ("startupProbe", STARTUP_PROBE),
    ("readinessProbe", READINESS_PROBE),
    (
        "lifecycle",
        Object(&[(
            "preStop",
            Object(&[(
                "exec",
                Object(&[("command", List(&[Text(Constant("/selvedge-proxy")), Text(Constant("leave"))]))]),
            )]),
        )]),
    ),
    ("resources", RESOURCES),
    ("securityContext", SECURITY_CONTEXT),
    (
        "volumeMounts",
        List(&[
            Object(&[
                ("name", Text(Constant(TOKEN))),
                ("mountPath", Text(Constant(TOKEN_FOLDER))),
                ("readOnly", Flag(true)),
            ]),
            Object(&[("name", Text(Constant(STATE))), ("mountPath", Text(Constant(STATE_FOLDER)))]),
        ]),
    ),
]);

/// What the sidecar is told. Kubernetes replaces `$(NAME)` in the last of them by those before it.
const ENVIRONMENT: Field = List(&[
    Downward("POD_NAME", "metadata.name"),
    Downward("POD_NAMESPACE", "metadata.namespace"),
    Downward("POD_UID", "metadata.uid"),
    Downward("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    Downward("POD_IPS", "status.podIPs"),
    Downward("HOST_IPS", "status.hostIPs"),
    Downward("NODE_NAME", "spec.nodeName"),
    Downward("ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
    Where(
        Annotation(&annotation::LOG),
        &Object(&[("name", Text(Constant("SELVEDGE_LOG"))), ("value", Text(Annotation(&annotation::LOG)))]),
    ),
    Object(&[("name", Text(Constant("SELVEDGE_CONFIG"))), ("value", Text(Lines(&FILE)))]),
]);

/// The sidecar's file, in YAML.
pub const FILE: [Line; 17] = [
    Line::plain("workload: ", Constant("\"$(POD_NAMESPACE)/$(POD_NAME)\"")),
    Line { before: "controlPlane: ", value: Setting(&setting::CONTROL_PLANE), style: Quoted, after: "" },
    Line::plain("serviceAccountTokenFile: ", Constant("/var/run/secrets/selvedge/token")),
    Line { before: "trustBundle: ", value: Setting(&setting::TRUST_BUNDLE), style: Quoted, after: "" },
    Line::plain("stateDir: ", Constant("/var/lib/selvedge/state")),
    Line::plain("sigterm: ", Constant("applicationGone")),
    Line::plain("capture: ", Found(&expression::CAPTURE_OF_FILE)),
    Line::plain("captureRequired: ", Found(&expression::CAPTURE_REQUIRED)),
    Line::plain("ingress: ", Annotation(&annotation::INGRESS)),
    Line::plain("locality: ", Constant("{zone: \"$(ZONE)\", node: \"$(NODE_NAME)\"}")),
    Line { before: "probers: \"", value: Found(&expression::PROBER_ADDRESSES), style: Plain, after: "\"" },
    Line { before: "probes: [", value: Found(&probes::PROBES), style: Plain, after: "]" },
    Line { before: "inbound: [", value: Found(&listeners::INBOUND_LISTENERS), style: Plain, after: "]" },
    Line { before: "outbound: [", value: Found(&listeners::OUTBOUND_LISTENERS), style: Plain, after: "]" },
    Line { before: "applicationMetrics: {", value: Found(&metrics::APPLICATION_METRICS), style: Plain, after: "}" },
    Line::plain("workers: ", Annotation(&annotation::WORKERS)),
    Line::plain("drainDeadline: ", Annotation(&annotation::DRAIN_DEADLINE)),
];

impl Line {
    const fn plain(before: &'static str, value: Source) -> Self {
        Self { before, value, style: Plain, after: "" }
    }
}

const STARTUP_PROBE: Field = Object(&[
    ("httpGet", Object(&[("path", Text(Constant("/ready"))), ("port", Number(Constant("15020")))])),
    ("periodSeconds", Number(Constant("1"))),
    ("failureThreshold", Number(Constant("120"))),
]);

const READINESS_PROBE: Field = Object(&[
    ("httpGet", Object(&[("path", Text(Constant("/ready"))), ("port", Number(Constant("15020")))])),
    ("periodSeconds", Number(Constant("5"))),
]);

const RESOURCES: Field = Object(&[
    (
        "requests",
        Object(&[
            ("cpu", Where(Found(&resources::CPU_REQUESTED), &Text(Found(&resources::CPU_REQUESTED)))),
            ("memory", Where(Found(&resources::MEMORY_REQUESTED), &Text(Found(&resources::MEMORY_REQUESTED)))),
        ]),
    ),
    (
        "limits",
        Where(Annotation(&annotation::MEMORY_LIMIT), &Object(&[("memory", Text(Found(&resources::LIMIT_IN_FORCE)))])),
    ),
]);

/// What the Pod Security Standard `restricted` asks for, and never anything of the application's.
const SECURITY_CONTEXT: Field = Object(&[
    ("runAsUser", Number(Annotation(&annotation::UID))),
    ("runAsGroup", Number(Annotation(&annotation::UID))),
    ("runAsNonRoot", Flag(true)),
    ("allowPrivilegeEscalation", Flag(false)),
    ("readOnlyRootFilesystem", Flag(true)),
    ("capabilities", Object(&[("drop", List(&[Text(Constant("ALL"))]))])),
    ("seccompProfile", Object(&[("type", Text(Constant("RuntimeDefault")))])),
]);

/// Sets the capture rules and ends. It may change the network of its own pod, and nothing else.
const CAPTURE_CONTAINER: Field = Object(&[
    ("name", Text(Constant(CAPTURE))),
    ("image", Text(Setting(&setting::CAPTURE_IMAGE))),
    ("imagePullPolicy", Text(Setting(&setting::IMAGE_PULL_POLICY))),
    (
        "args",
        List(&[
            Text(Constant("apply")),
            After("--exempt-uid=", Annotation(&annotation::UID)),
            After("--exclude-inbound-ports=", Found(&expression::EXCLUDED_INBOUND)),
            Where(
                Annotation(&annotation::EXCLUDE_OUTBOUND_PORTS),
                &After("--exclude-outbound-ports=", Annotation(&annotation::EXCLUDE_OUTBOUND_PORTS)),
            ),
            Where(
                Annotation(&annotation::EXCLUDE_CIDRS),
                &After("--exclude-cidrs=", Annotation(&annotation::EXCLUDE_CIDRS)),
            ),
        ]),
    ),
    (
        "resources",
        Object(&[("requests", Object(&[("cpu", Text(Constant("10m"))), ("memory", Text(Constant("20Mi")))]))]),
    ),
    (
        "securityContext",
        Object(&[
            ("runAsUser", Number(Constant("0"))),
            ("runAsGroup", Number(Constant("0"))),
            ("runAsNonRoot", Flag(false)),
            ("allowPrivilegeEscalation", Flag(false)),
            ("readOnlyRootFilesystem", Flag(true)),
            (
                "capabilities",
                Object(&[("drop", List(&[Text(Constant("ALL"))])), ("add", List(&[Text(Constant("NET_ADMIN"))]))]),
            ),
            ("seccompProfile", Object(&[("type", Text(Constant("RuntimeDefault")))])),
        ]),
    ),
]);
