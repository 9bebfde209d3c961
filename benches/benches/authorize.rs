//! Whether a caller may, among 10 to 10 000 rules.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use selvedge_benches::{SIZES, authorization};
use selvedge_policies::testing::{Clock, Request};
use serde_json::{Value, json};

/// What the rules allow, and a request.
type Shape = (&'static str, fn(usize) -> Value, fn(usize) -> Request);

const SHAPES: [Shape; 4] = [
    (
        "a service account each",
        |n| json!({ "from": [{ "serviceAccounts": [format!("team-{}/caller-{n:05}", n % 50)] }], "to": [{ "methods": ["GET"] }] }),
        |n| Request::new("GET", "/v1/orders").from(&format!("team-{}/caller-{n:05}", n % 50)),
    ),
    (
        "a path each",
        |n| {
            let to = json!({ "methods": ["POST"], "paths": [format!("/shop.v1.Service{n:05}/*")] });
            json!({ "from": [{ "serviceAccounts": ["shop/web"] }], "to": [to] })
        },
        |n| Request::new("POST", &format!("/shop.v1.Service{n:05}/Get")).from("shop/web"),
    ),
    (
        "callers and paths",
        |n| {
            let accounts = json!([format!("shop/caller-{:03}", n % 100)]);
            json!({ "from": [{ "serviceAccounts": accounts }], "to": [{ "paths": [format!("/v1/{:03}", n / 100)] }] })
        },
        |n| Request::new("GET", &format!("/v1/{:03}", n / 100)).from(&format!("shop/caller-{:03}", n % 100)),
    ),
    (
        "refused",
        |n| json!({ "from": [{ "serviceAccounts": [format!("shop/caller-{n:05}")] }], "to": [{ "paths": ["/v1/*"] }] }),
        |_| Request::new("GET", "/v1/orders").from("shop/stranger"),
    ),
];

fn decide(criterion: &mut Criterion) {
    let clock = Clock::default();
    for (name, rule, request) in SHAPES {
        let mut group = criterion.benchmark_group(format!("authorize/{name}"));
        for size in SIZES {
            let (policy, request) = (authorization(size, rule), request(size / 2));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| policy.on_request(black_box(&request.facts()), &mut clock.context()));
            });
        }
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);
