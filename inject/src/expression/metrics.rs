//! Where the application's metrics are, from the annotations that scrapers read, which stay as they are.

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
        let port = pod::annotation(request.pod, SCRAPE_PORT);
        if METRICS.of(request) != "merge" || !is_port(port) {
            return String::new();
        }
        let path = match pod::annotation(request.pod, SCRAPE_PATH) {
            "" => "/metrics".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        format!("port: {port}, path: {}", quoted(&path))
    },
    cel: r#"variables.metrics != 'merge' || !variables.annotations[?'prometheus.io/port'].orValue('').matches('^[1-9][0-9]{0,4}$') ? ''
: 'port: ' + variables.annotations['prometheus.io/port'] + ', path: ' + [variables.annotations[?'prometheus.io/path'].orValue('')].map(path,
  path == '' ? '/metrics' : path.startsWith('/') ? path : '/' + path).map(path, strings.quote(path).replace('$', '$$'))[0]"#,
};

/// Whether a text is a number that looks like a port.
pub fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0')
}
