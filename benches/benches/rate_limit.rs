//! What counting a request costs: without key, with one caller, with many, and under invented keys.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use selvedge_benches::policy;
use selvedge_policies::testing::{Clock, Request};
use serde_json::{Value, json};

fn take(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rate limit");
    for (name, key, callers) in [
        ("no key", json!([]), 1),
        ("identity, 1 caller", json!(["identity"]), 1),
        ("identity, 10 callers", json!(["identity"]), 10),
        ("identity, 10000 callers", json!(["identity"]), 10_000),
        ("identity and header, 10 callers", json!(["identity", { "header": "x-tenant" }]), 10),
        ("identity, 100000 callers, full table", json!(["identity"]), 100_000),
    ] {
        group.bench_function(name, |bencher| {
            let (policy, mut clock) = (policy("RateLimit", limit(&key)), Clock::default());
            let requests: Vec<Request> = (0..callers).map(caller).collect();
            let mut turns = (0..requests.len()).cycle();
            bencher.iter(|| {
                clock.advance(Duration::from_micros(10));
                let request = &requests[turns.next().unwrap_or_default()];
                black_box(policy.on_request(&black_box(request).facts(), &mut clock.context()))
            });
        });
    }
}

/// Wide enough that every request passes, and buckets stay in use.
fn limit(key: &Value) -> Value {
    json!({ "limits": [{ "requests": 1_000, "per": "1s", "burst": 4_000_000, "key": key }] })
}

fn caller(n: usize) -> Request {
    Request::new("GET", "/v1/orders").from(&format!("shop/caller-{n:06}")).header("x-tenant", "gold")
}

criterion_group!(benches, take);
criterion_main!(benches);
