//! Where the application's metrics are, from the annotations that scrapers read, which stay as they are.

use serde_json::Value;

use crate::{
    annotation::METRICS,
    expression::{Expression, quoted},
    pod,
};

/// Annotation with the port of the application's metrics.
pub const SCRAPE_PORT: &str = "prometheus.io/port";
/// Annotation with the path of the application's metrics; `/metrics` when absent.
pub const SCRAPE_PATH: &str = "prometheus.io/path";

/// `applicationMetrics` of the sidecar's file: port and path, where they are to be merged.
pub const APPLICATION_METRICS: Expression = Expression {
    name: "applicationMetrics",
    text: |request| {
        if METRICS.of(request) != "merge" || !are_found(request.pod) {
            return String::new();
        }
        let port = pod::annotation(request.pod, SCRAPE_PORT);
        let path = match pod::annotation(request.pod, SCRAPE_PATH) {
            "" => "/metrics".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        format!("port: {port}, path: {}", quoted(&path))
    },
    cel: r#"variables.metrics != 'merge'
|| !variables.annotations[?'prometheus.io/port'].orValue('').matches('^[1-9][0-9]{0,4}$')
|| variables.annotations['prometheus.io/port'] == '15020'
|| !variables.annotations[?'prometheus.io/path'].orValue('').matches('^[-A-Za-z0-9/._~%?&=+:@,;]*$') ? ''
: 'port: ' + variables.annotations['prometheus.io/port'] + ', path: ' + [variables.annotations[?'prometheus.io/path'].orValue('')].map(path,
  path == '' ? '/metrics' : path.startsWith('/') ? path : '/' + path).map(path, strings.quote(path).replace('$', '$$'))[0]"#,
};

/// Whether the annotations say where the application's metrics are: at a port that is not the sidecar's own, under a path of
/// letters that a path may have.
pub fn are_found(pod: &Value) -> bool {
    let port = pod::annotation(pod, SCRAPE_PORT);
    let is_port = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-/._~%?&=+:@,;".contains(letter);
    is_port && !port.starts_with('0') && port != "15020" && pod::annotation(pod, SCRAPE_PATH).chars().all(is_plain)
}
