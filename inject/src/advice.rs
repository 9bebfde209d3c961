//! What is said of a pod that gets a sidecar, where something in it is not as whoever wrote it will want it: one table, of
//! which the function that warns and the policy that warns are made.

use serde_json::Value;

use crate::{
    annotation::{
        Annotation, CAPTURE, EXCLUDE_CIDRS, EXCLUDE_INBOUND_PORTS, EXCLUDE_OUTBOUND_PORTS, INBOUND, INGRESS,
        MEMORY_LIMIT, METRICS, OUTBOUND, SCRAPERS, UID,
    },
    cel::literal,
    expression::{CAPTURE_REQUIRED, Expression, listeners, metrics::SCRAPE_TARGET, probes, resources},
    field::{
        Source::{self, Annotation as Of, Constant, Expression as Found},
        variable_of_annotation,
    },
    pod::{self, Request},
    switch::SIDECAR,
    table,
};

/// Something to be said.
#[derive(Debug)]
pub struct Advice {
    /// The annotation that it is about, which must be written and of its form; its key is said first.
    pub about: Option<&'static Annotation>,
    /// What has to hold.
    pub when: &'static Expression,
    /// What is said then, one part after the other, behind the key of the annotation.
    pub said: &'static [Source],
}

/// All that there is to say.
pub const ADVICE: [Advice; 15] = [
    Advice::of(&INBOUND, &CAPTURE_REQUIRED, &[FOR_NONE]),
    Advice::of(&OUTBOUND, &CAPTURE_REQUIRED, &[FOR_NONE]),
    Advice::of(&EXCLUDE_INBOUND_PORTS, &NOT_CAPTURED, &[NOTHING_CAPTURED]),
    Advice::of(&EXCLUDE_OUTBOUND_PORTS, &NOT_CAPTURED, &[NOTHING_CAPTURED]),
    Advice::of(&EXCLUDE_CIDRS, &NOT_CAPTURED, &[NOTHING_CAPTURED]),
    Advice::of(&INGRESS, &NOT_CAPTURED, &[NOTHING_CAPTURED]),
    Advice::of(&METRICS, &NO_SCRAPE_TARGET, &[NOWHERE]),
    Advice::of(&SCRAPERS, &NO_SCRAPE_TARGET, &[NOWHERE]),
    Advice::of(
        &MEMORY_LIMIT,
        &RAISED_LIMIT,
        &[Constant("is less than the sidecar requests or needs: its limit is "), Found(&RAISED_LIMIT)],
    ),
    Advice::of_pod(
        &listeners::PORT_TAKEN,
        &[
            Constant(
                "config.selvedge.dev/inbound and config.selvedge.dev/outbound are ignored: two would listen on port ",
            ),
            Found(&listeners::PORT_TAKEN),
            Constant(" (the sidecar has 15000 and 15020 for itself); give each a port of its own"),
        ],
    ),
    Advice::of_pod(
        &LOW_PORT,
        &[
            Constant("the sidecar is to listen on port "),
            Found(&LOW_PORT),
            Constant(
                " and is not root: where the nodes keep ports below 1024 for root, it cannot start; choose one from 1024 up",
            ),
        ],
    ),
    Advice::of_pod(
        &PROBED_BY_TLS,
        &[
            Found(&PROBED_BY_TLS),
            Constant(
                " is probed by HTTPS, which the sidecar cannot tell from other calls: where only the mesh may call (STRICT), \
                 such a probe is refused; probe by HTTP, or another port",
            ),
        ],
    ),
    Advice::of_pod(
        &SAME_USER,
        &[
            Constant("container "),
            Found(&SAME_USER),
            Constant(" runs as user "),
            Of(&UID),
            Constant(
                ", as the sidecar does: its connections go past the sidecar; give it another user, or the sidecar by \
                 config.selvedge.dev/uid",
            ),
        ],
    ),
    Advice::of_pod(
        &SAME_PORT,
        &[
            Found(&SAME_PORT),
            Constant(" is one that the sidecar listens on, so that the container cannot; let it listen on another one"),
        ],
    ),
    Advice::of_pod(
        &NOT_ADMITTED,
        &[
            Constant(
                "this pod will not start: the container that sets the capture rules needs what the Pod Security Standard ",
            ),
            Found(&NOT_ADMITTED),
            Constant(" of its namespace does not admit; capture by config.selvedge.dev/capture: cni, or none"),
        ],
    ),
];

const FOR_NONE: Source =
    Constant("has no effect: connections are captured; it is for config.selvedge.dev/capture: none");
const NOTHING_CAPTURED: Source = Constant("has no effect: nothing is captured (config.selvedge.dev/capture: none)");
const NOWHERE: Source = Constant(
    "has no effect: the annotations prometheus.io/port and prometheus.io/path do not say where the application's metrics are",
);

impl Advice {
    const fn of(about: &'static Annotation, when: &'static Expression, said: &'static [Source]) -> Self {
        Self { about: Some(about), when, said }
    }

    const fn of_pod(when: &'static Expression, said: &'static [Source]) -> Self {
        Self { about: None, when, said }
    }

    /// What is to be said of a pod that gets a sidecar; `None` when that is nothing.
    pub(crate) fn text(&self, request: &Request<'_>) -> Option<String> {
        let holds = self.about.is_none_or(|about| about.form.takes(pod::annotation(request.pod, &about.name())))
            && !(self.when.text)(request).is_empty();
        let said: String = self.said.iter().map(|source| source.text(request)).collect();
        holds.then(|| self.about.map(|about| about.name() + " ").unwrap_or_default() + &said)
    }

    /// In CEL: the condition that there is something to say, and what.
    pub(crate) fn cel(&self) -> (String, String) {
        let written = self.about.map(|about| format!("variables.{} != '' && ", variable_of_annotation(about)));
        let holds = format!("{}variables.{} != ''", written.unwrap_or_default(), self.when.name);
        let name = self.about.map(|about| literal(&format!("{} ", about.name())));
        let said: Vec<String> = name.into_iter().chain(self.said.iter().map(Source::cel)).collect();
        (holds, said.join(" + "))
    }
}

/// The expressions that only advice needs, each after those that it uses. Beside the others they read the variables
/// `containers`, which are those of the user's, `spec`, that of the pod, and `around`, the labels of the namespace.
pub(crate) const EXPRESSIONS: [&Expression; 8] =
    [&NOT_CAPTURED, &NO_SCRAPE_TARGET, &RAISED_LIMIT, &LOW_PORT, &PROBED_BY_TLS, &SAME_USER, &SAME_PORT, &NOT_ADMITTED];

const NOT_CAPTURED: Expression = Expression {
    name: "notCaptured",
    text: |request| (if CAPTURE.of(request) == "none" { "yes" } else { "" }).to_owned(),
    cel: "variables.capture == 'none' ? 'yes' : ''",
};

const NO_SCRAPE_TARGET: Expression = Expression {
    name: "noScrapeTarget",
    text: |request| (if (SCRAPE_TARGET.text)(request).is_empty() { "yes" } else { "" }).to_owned(),
    cel: "variables.scrapeTarget == '' ? 'yes' : ''",
};

/// The limit of memory, where it is not the one that is written.
const RAISED_LIMIT: Expression = Expression {
    name: "raisedLimit",
    text: |request| {
        let limit = (resources::LIMIT_IN_FORCE.text)(request);
        if limit == MEMORY_LIMIT.of(request) { String::new() } else { limit }
    },
    cel: "variables.memoryLimitInForce == variables.memoryLimit ? '' : variables.memoryLimitInForce",
};

/// The first port of the sidecar's listeners that many nodes keep for root.
const LOW_PORT: Expression = Expression {
    name: "lowPort",
    text: |request| {
        let written = [INBOUND.of(request), OUTBOUND.of(request)];
        let mut ports = written.iter().flat_map(|written| listeners::pairs(written)).map(|(listened, _)| listened);
        let is_low = |port: &&str| port.parse::<u16>().is_ok_and(|port| port < 1024);
        let low = ports.find(is_low).filter(|_| CAPTURE.of(request) == "none");
        low.unwrap_or_default().to_owned()
    },
    cel: "variables.capture != 'none' ? '' : ([variables.inbound, variables.outbound].filter(written, written != '')\
          .map(written, (written.split(',').map(pair, pair.split('=')[0]).filter(port, int(port) < 1024) + [''])[0])\
          .filter(port, port != '') + [''])[0]",
};

/// Port and container of what a kubelet calls by TLS.
const PROBED_BY_TLS: Expression = Expression {
    name: "probedByTls",
    text: |request| {
        let handlers = of_user(request).flat_map(|container| {
            probes::HANDLERS.iter().filter_map(move |pointer| Some((container, container.pointer(pointer)?)))
        });
        let tls = handlers.filter(|(_, handler)| pod::text(handler, "/httpGet/scheme") == "HTTPS");
        let said = tls.map(|(container, handler)| {
            let port = handler.pointer("/httpGet/port").map(ToString::to_string).unwrap_or_default();
            format!("port {} of container {}", port.replace('"', ""), pod::text(container, "/name"))
        });
        said.collect::<Vec<_>>().join(", ")
    },
    cel: "variables.containers.map(c, ((has(c.startupProbe) ? [c.startupProbe] : []) \
            + (has(c.livenessProbe) ? [c.livenessProbe] : []) + (has(c.readinessProbe) ? [c.readinessProbe] : []) \
            + (has(c.lifecycle) && has(c.lifecycle.postStart) ? [c.lifecycle.postStart] : []) \
            + (has(c.lifecycle) && has(c.lifecycle.preStop) ? [c.lifecycle.preStop] : []))\
          .filter(handler, has(handler.httpGet) && handler.httpGet[?'scheme'].orValue('') == 'HTTPS')\
          .map(handler, 'port ' + string(handler.httpGet.port) + ' of container ' + c.name).join(', '))\
          .filter(text, text != '').join(', ')",
};

/// The first container that the sidecar is taken for: by its user it is told apart where connections are captured.
const SAME_USER: Expression = Expression {
    name: "sameUser",
    text: |request| {
        let user = |of: &Value| of.pointer("/securityContext/runAsUser").and_then(Value::as_i64);
        let (sidecar, of_all) = (UID.of(request), request.pod.get("spec").and_then(user));
        let is_same = |container: &&Value| user(container).or(of_all).is_some_and(|user| user.to_string() == sidecar);
        let same = of_user(request).find(is_same).filter(|_| CAPTURE.of(request) != "none");
        same.map(|container| pod::text(container, "/name").to_owned()).unwrap_or_default()
    },
    cel: "variables.capture == 'none' ? '' : (variables.containers.filter(c, variables.uid == \
          string(c[?'securityContext'][?'runAsUser'].orValue(variables.spec[?'securityContext'][?'runAsUser'].orValue(-1))))\
          .map(c, c.name) + [''])[0]",
};

/// The first declared port of a container that the sidecar has for itself, with the container.
const SAME_PORT: Expression = Expression {
    name: "samePort",
    text: |request| {
        let own: &[u64] = if CAPTURE.of(request) == "none" { &[15000, 15020] } else { &[15000, 15001, 15006, 15020] };
        let is_own = |port: &&Value| {
            let is_tcp = ["", "TCP"].contains(&pod::text(port, "/protocol"));
            is_tcp && port.get("containerPort").and_then(Value::as_u64).is_some_and(|port| own.contains(&port))
        };
        let ports = of_user(request)
            .flat_map(|container| pod::list(container, "/ports").iter().map(move |port| (container, port)));
        let found = ports.filter(|(_, port)| is_own(port)).map(|(container, port)| {
            format!("port {} of container {}", port["containerPort"], pod::text(container, "/name"))
        });
        found.take(1).collect()
    },
    cel: "(variables.containers.map(c, (c[?'ports'].orValue(dyn([])).filter(port, port[?'protocol'].orValue('TCP') == 'TCP' \
          && port.containerPort in (variables.capture == 'none' ? [15000, 15020] : [15000, 15001, 15006, 15020]))\
          .map(port, 'port ' + string(port.containerPort) + ' of container ' + c.name) + [''])[0])\
          .filter(text, text != '') + [''])[0]",
};

/// The Pod Security Standard that keeps the capture container from starting.
const NOT_ADMITTED: Expression = Expression {
    name: "notAdmitted",
    text: |request| {
        let enforced = request.namespace.labels.get("pod-security.kubernetes.io/enforce").and_then(Value::as_str);
        let refusing = enforced.filter(|level| ["baseline", "restricted"].contains(level));
        refusing.filter(|_| CAPTURE.of(request) == "init").unwrap_or_default().to_owned()
    },
    cel: "variables.capture == 'init' && variables.around[?'pod-security.kubernetes.io/enforce'].orValue('') in \
          ['baseline', 'restricted'] ? variables.around['pod-security.kubernetes.io/enforce'] : ''",
};

/// The containers that are not the mesh's.
fn of_user<'a>(request: &Request<'a>) -> impl Iterator<Item = &'a Value> {
    let is_ours = |container: &&Value| [SIDECAR, table::CAPTURE].contains(&pod::text(container, "/name"));
    pod::containers(request.pod).filter(move |container| !is_ours(container))
}
