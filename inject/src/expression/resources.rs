//! CPU and memory that the sidecar requests, and the memory that it may use.

use crate::{
    annotation::{Annotation, CPU_REQUEST, MEMORY_LIMIT, MEMORY_REQUEST},
    expression::Expression,
    pod::{self, Request},
};

/// The CPU requested. A pod that requests some as a whole (KEP-2837) has it for the sidecar too, unless the annotation says
/// otherwise: an API server refuses a pod whose containers request more than the pod.
pub const CPU_REQUESTED: Expression = Expression {
    name: "cpuRequested",
    text: |request| requested(request, &CPU_REQUEST, "/spec/resources/requests/cpu"),
    cel: "object.spec[?'resources'][?'requests'][?'cpu'].hasValue() \
          && !('config.selvedge.dev/cpu-request' in variables.annotations) ? '' : variables.cpuRequest",
};

/// The memory requested, as [`CPU_REQUESTED`] is.
pub const MEMORY_REQUESTED: Expression = Expression {
    name: "memoryRequested",
    text: |request| requested(request, &MEMORY_REQUEST, "/spec/resources/requests/memory"),
    cel: "object.spec[?'resources'][?'requests'][?'memory'].hasValue() \
          && !('config.selvedge.dev/memory-request' in variables.annotations) ? '' : variables.memoryRequest",
};

fn requested(request: &Request<'_>, annotation: &Annotation, of_pod: &str) -> String {
    let is_written = pod::annotations(request.pod).is_some_and(|all| all.contains_key(&annotation.name()));
    if pod::has(request.pod, of_pod) && !is_written { String::new() } else { annotation.of(request) }
}

/// What a sidecar cannot run without; idle it has 13 MiB.
const NEEDED: &str = "16Mi";

/// The limit: what is written, or what is requested or needed where that is more. An API server refuses a pod with a limit
/// below a request, and the kernel ends a sidecar with less than it needs.
pub const LIMIT_IN_FORCE: Expression = Expression {
    name: "memoryLimitInForce",
    text: |request| {
        let written = MEMORY_LIMIT.of(request);
        if written.is_empty() {
            return written;
        }
        let amounts = [written, MEMORY_REQUEST.of(request), NEEDED.to_owned()];
        let greater = |one: String, other: String| if bytes(&other) > bytes(&one) { other } else { one };
        amounts.into_iter().reduce(greater).unwrap_or_default()
    },
    cel: "variables.memoryLimit == '' ? '' : [[variables.memoryLimit, variables.memoryRequest, '16Mi']].map(amounts, \
          amounts.filter(one, amounts.all(other, !quantity(one).isLessThan(quantity(other))))[0])[0]",
};

/// The bytes of an amount of memory.
fn bytes(amount: &str) -> u64 {
    let digits = amount.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = amount.split_at(digits);
    let factor = match unit {
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => 1,
    };
    number.parse::<u64>().unwrap_or_default().saturating_mul(factor)
}
