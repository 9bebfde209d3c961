//! With capture `none`, the sidecar's listeners, from pairs in annotations: `8443=8080`, `9001=shop/api:80`. A list of
//! YAML on one line each.

use crate::{
    annotation::{Annotation, CAPTURE, INBOUND, OUTBOUND},
    expression::Expression,
    pod::Request,
};

/// `inbound` of the sidecar's file.
pub const INBOUND_LISTENERS: Expression = Expression {
    name: "inboundListeners",
    text: |request| {
        listeners(request, &INBOUND, |listen, forward| {
            format!("{{listen: \"[::]:{listen}\", forward: \"127.0.0.1:{forward}\"}}")
        })
    },
    cel: r#"variables.capture != 'none' || variables.inbound == '' ? '' : variables.inbound.split(',').map(pair, pair.split('=')).map(pair,
  '{listen: "[::]:' + pair[0] + '", forward: "127.0.0.1:' + pair[1] + '"}').join(', ')"#,
};

/// `outbound` of the sidecar's file.
pub const OUTBOUND_LISTENERS: Expression = Expression {
    name: "outboundListeners",
    text: |request| {
        listeners(request, &OUTBOUND, |listen, to| format!("{{listen: \"127.0.0.1:{listen}\", to: \"{to}\"}}"))
    },
    cel: r#"variables.capture != 'none' || variables.outbound == '' ? '' : variables.outbound.split(',').map(pair, pair.split('=')).map(pair,
  '{listen: "127.0.0.1:' + pair[0] + '", to: "' + pair[1] + '"}').join(', ')"#,
};

fn listeners(request: &Request<'_>, annotation: &Annotation, entry: fn(&str, &str) -> String) -> String {
    if CAPTURE.of(request) != "none" {
        return String::new();
    }
    let pairs = annotation.of(request);
    let pairs = pairs.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(left, right)| entry(left, right)).collect::<Vec<_>>().join(", ")
}
