//! Where the application's metrics are, from the annotations that scrapers read, which stay as they are.

use crate::{
    annotation::{METRICS, SCRAPERS},
    expression::{Expression, quoted},
    pod,
};

/// Annotation with the port of the application's metrics.
pub const SCRAPE_PORT: &str = "prometheus.io/port";
/// Annotation with the path of the application's metrics; `/metrics` when absent.
pub const SCRAPE_PATH: &str = "prometheus.io/path";

/// Letters that a path has at most.
const LONGEST_PATH: usize = 1024;

/// Port and path of the application's metrics, where the annotations say them: a port that is not the sidecar's own, and a
/// path of letters that a path may have.
pub const SCRAPE_TARGET: Expression = Expression {
    name: "scrapeTarget",
    text: |request| {
        let (port, path) = (pod::annotation(request.pod, SCRAPE_PORT), pod::annotation(request.pod, SCRAPE_PATH));
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-/._~%?&=+:@,;".contains(letter);
        if !is_port(port) || path.len() > LONGEST_PATH || !path.chars().all(is_plain) {
            return String::new();
        }
        let path = match path {
            "" => "/metrics".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        format!("port: {port}, path: {}", quoted(&path))
    },
    cel: r#"!variables.annotations[?'prometheus.io/port'].orValue('').matches('^[1-9][0-9]{0,4}$')
|| int(variables.annotations['prometheus.io/port']) > 65535
|| variables.annotations['prometheus.io/port'] == '15020'
|| variables.annotations[?'prometheus.io/path'].orValue('').size() > 1024
|| !variables.annotations[?'prometheus.io/path'].orValue('').matches('^[-A-Za-z0-9/._~%?&=+:@,;]*$') ? ''
: 'port: ' + variables.annotations['prometheus.io/port'] + ', path: ' + [variables.annotations[?'prometheus.io/path'].orValue('')].map(path,
  path == '' ? '/metrics' : path.startsWith('/') ? path : '/' + path).map(path, strings.quote(path).replace('$', '$$'))[0]"#,
};

/// `applicationMetrics` of the sidecar's file: port and path, where they are to be merged.
pub const APPLICATION_METRICS: Expression = Expression {
    name: "applicationMetrics",
    text: |request| if METRICS.of(request) == "merge" { (SCRAPE_TARGET.text)(request) } else { String::new() },
    cel: "variables.metrics == 'merge' ? variables.scrapeTarget : ''",
};

/// One of the `probes` of the sidecar's file: what scrapers without an identity may read, where some are named.
pub const SCRAPE: Expression = Expression {
    name: "scrape",
    text: |request| {
        let (scrapers, target) = (SCRAPERS.of(request), (SCRAPE_TARGET.text)(request));
        if scrapers.is_empty() || target.is_empty() {
            return String::new();
        }
        format!("{{{target}, from: \"{scrapers}\"}}")
    },
    cel: r#"variables.scrapers == '' || variables.scrapeTarget == '' ? ''
: '{' + variables.scrapeTarget + ', from: "' + variables.scrapers + '"}'"#,
};

/// Whether a text is the port of an application, written as a plain number.
fn is_port(text: &str) -> bool {
    let is_number = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number && text != "15020" && text.parse::<u16>().is_ok()
}
