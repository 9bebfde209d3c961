//! What a kubelet calls of a pod: startup, liveness and readiness probes and lifecycle hooks, by HTTP, TCP and gRPC, of
//! every container that runs as long as the pod. They are told to the sidecar, not rewritten.
//!
//! Left out is what the kubelet sends elsewhere (`host`), and what is TLS: of that the sidecar could not tell a probe from
//! any other call. So is a path with letters that YAML has no room for, or with very many: the sidecar could not start.

use serde_json::Value;

use crate::{
    expression::{Expression, metrics::SCRAPE, quoted},
    pod,
};

/// Letters that a path has at most.
const LONGEST_PATH: usize = 1024;

/// Where a container names what is called; a JSON pointer each.
pub(crate) const HANDLERS: [&str; 5] =
    ["/startupProbe", "/livenessProbe", "/readinessProbe", "/lifecycle/postStart", "/lifecycle/preStop"];

/// `probes` of the sidecar's file, a list of YAML on one line: what a kubelet calls, and what scrapers read.
pub const PROBES: Expression = Expression {
    name: "probes",
    text: |request| {
        let entries = [(OF_CONTAINERS.text)(request), (SCRAPE.text)(request)];
        entries.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
    },
    cel: "[variables.probesOfContainers, variables.scrape].filter(text, text != '').join(', ')",
};

/// What a kubelet calls, as a part of [`PROBES`].
///
/// Without optional elements of lists (`[?a]`): of some types they end an API server of 1.36 in a panic.
pub const OF_CONTAINERS: Expression = Expression {
    name: "probesOfContainers",
    text: |request| {
        let probes = handlers(request.pod).filter_map(|(container, handler)| probe(container, handler));
        probes.collect::<Vec<_>>().join(", ")
    },
    cel: r#"(object.spec[?'containers'].orValue(dyn([])) + object.spec[?'initContainers'].orValue(dyn([])).filter(c, c[?'restartPolicy'].orValue('') == 'Always')).map(c,
  ((has(c.startupProbe) ? [c.startupProbe] : []) + (has(c.livenessProbe) ? [c.livenessProbe] : [])
    + (has(c.readinessProbe) ? [c.readinessProbe] : [])
    + (has(c.lifecycle) && has(c.lifecycle.postStart) ? [c.lifecycle.postStart] : [])
    + (has(c.lifecycle) && has(c.lifecycle.preStop) ? [c.lifecycle.preStop] : [])).map(handler,
    (has(handler.httpGet) && handler.httpGet[?'scheme'].orValue('') != 'HTTPS' ? [handler.httpGet] : has(handler.tcpSocket) ? [handler.tcpSocket] : [])
      .filter(call, call[?'host'].orValue('') == '' && (has(handler.tcpSocket)
        || [call[?'path'].orValue('')].exists(path, path.size() <= 1024 && path.matches('^[^\\x00-\\x06\\x0e-\\x1f\\x7f-\\x9f\\x{fffe}\\x{ffff}]*$'))))
      .map(call,
        ([string(call.port)].filter(port, port.matches('^[1-9][0-9]*$'))
          + c[?'ports'].orValue(dyn([])).filter(port, port[?'name'].orValue('') == string(call.port)).map(port, string(port.containerPort)))
        .map(port, '{port: ' + port + (has(handler.tcpSocket) ? ', tcp: true}' : ', path: ' + [call[?'path'].orValue('')].map(path,
          path.startsWith('/') ? path : '/' + path).map(path, strings.quote(path).replace('$', '$$'))[0] + '}'))
        .join(', '))
      .filter(text, text != '').join(', ')
    + (has(handler.grpc) ? '{port: ' + string(handler.grpc.port) + ', grpc: true}' : ''))
  .filter(text, text != '').join(', '))
.filter(text, text != '').join(', ')"#,
};

/// What is called of a pod, each with its container.
fn handlers(pod: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    pod::running(pod)
        .flat_map(|container| HANDLERS.iter().filter_map(move |pointer| Some((container, container.pointer(pointer)?))))
}

/// One entry of the list, if the sidecar can tell it from other calls.
fn probe(container: &Value, handler: &Value) -> Option<String> {
    if let Some(port) = handler.pointer("/grpc/port").and_then(Value::as_u64) {
        return Some(format!("{{port: {port}, grpc: true}}"));
    }
    let http = handler.get("httpGet").filter(|http| pod::text(http, "/scheme") != "HTTPS");
    let call = http.or_else(|| handler.get("tcpSocket"))?;
    if !pod::text(call, "/host").is_empty() {
        return None;
    }
    let port = number(container, call.get("port")?)?;
    if http.is_none() {
        return Some(format!("{{port: {port}, tcp: true}}"));
    }
    let path = Some(pod::text(call, "/path")).filter(|path| can_be_told(path))?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(format!("{{port: {port}, path: {}}}", quoted(&path)))
}

/// A port that is written as a number, or as the name of a port of the same container.
fn number(container: &Value, port: &Value) -> Option<u64> {
    if let Some(number) = port.as_u64() {
        return (number > 0).then_some(number);
    }
    let mut ports = pod::list(container, "/ports").iter();
    let name = port.as_str()?;
    let named = ports.find(|candidate| pod::text(candidate, "/name") == name)?;
    named.get("containerPort")?.as_u64()
}

/// Whether a path may stand in the sidecar's file.
fn can_be_told(path: &str) -> bool {
    let is_untold =
        |letter| matches!(letter, '\0'..='\x06' | '\x0e'..='\x1f' | '\x7f'..='\u{9f}' | '\u{fffe}' | '\u{ffff}');
    path.chars().count() <= LONGEST_PATH && !path.chars().any(is_untold)
}
