//! With capture `none`, the sidecar's listeners, from pairs in annotations: `8443=8080`, `9001=shop/api:80`. A list of
//! YAML on one line each.

use crate::{
    annotation::{Annotation, CAPTURE, INBOUND, OUTBOUND},
    expression::Expression,
    pod::Request,
};

/// Ports that the sidecar has for itself in every pod.
const OWN: [&str; 2] = ["15000", "15020"];

/// A port on which two would listen, of the sidecar's listeners, the application behind them and what the sidecar has for
/// itself. Then there are no listeners: one of the two could not start.
pub const PORT_TAKEN: Expression = Expression {
    name: "portTaken",
    text: |request| {
        let (inbound, outbound) = (INBOUND.of(request), OUTBOUND.of(request));
        if CAPTURE.of(request) != "none" {
            return String::new();
        }
        let listened: Vec<&str> = pairs(&inbound).chain(pairs(&outbound)).map(|(listened, _)| listened).collect();
        let is_taken = |port: &&&str| {
            OWN.contains(port)
                || listened.iter().filter(|other| other == port).count() > 1
                || pairs(&inbound).any(|(_, application)| application == **port)
        };
        listened.iter().find(is_taken).map(|port| (*port).to_owned()).unwrap_or_default()
    },
    cel: r#"variables.capture != 'none' ? ''
: [(variables.inbound == '' ? [] : variables.inbound.split(',').map(pair, pair.split('=')[0]))
  + (variables.outbound == '' ? [] : variables.outbound.split(',').map(pair, pair.split('=')[0]))].map(listened,
  (listened.filter(port, port in ['15000', '15020'] || listened.filter(other, other == port).size() > 1
    || variables.inbound.split(',').exists(pair, pair.endsWith('=' + port))) + [''])[0])[0]"#,
};

/// `inbound` of the sidecar's file.
pub const INBOUND_LISTENERS: Expression = Expression {
    name: "inboundListeners",
    text: |request| {
        listeners(request, &INBOUND, |listen, forward| {
            format!("{{listen: \"[::]:{listen}\", forward: \"127.0.0.1:{forward}\"}}")
        })
    },
    cel: r#"variables.capture != 'none' || variables.inbound == '' || variables.portTaken != '' ? '' : variables.inbound.split(',').map(pair, pair.split('=')).map(pair,
  '{listen: "[::]:' + pair[0] + '", forward: "127.0.0.1:' + pair[1] + '"}').join(', ')"#,
};

/// `outbound` of the sidecar's file.
pub const OUTBOUND_LISTENERS: Expression = Expression {
    name: "outboundListeners",
    text: |request| {
        listeners(request, &OUTBOUND, |listen, to| format!("{{listen: \"127.0.0.1:{listen}\", to: \"{to}\"}}"))
    },
    cel: r#"variables.capture != 'none' || variables.outbound == '' || variables.portTaken != '' ? '' : variables.outbound.split(',').map(pair, pair.split('=')).map(pair,
  '{listen: "127.0.0.1:' + pair[0] + '", to: "' + pair[1] + '"}').join(', ')"#,
};

fn listeners(request: &Request<'_>, annotation: &Annotation, entry: fn(&str, &str) -> String) -> String {
    if CAPTURE.of(request) != "none" || !(PORT_TAKEN.text)(request).is_empty() {
        return String::new();
    }
    let written = annotation.of(request);
    pairs(&written).map(|(left, right)| entry(left, right)).collect::<Vec<_>>().join(", ")
}

/// Both sides of each pair.
pub(crate) fn pairs(written: &str) -> impl Iterator<Item = (&str, &str)> {
    written.split(',').filter_map(|pair| pair.split_once('='))
}
