//! Which rule a request belongs to, among 10 to 10 000.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use selvedge_benches::{SIZES, routes};
use selvedge_policies::{route::RouteTable, testing::Request};
use serde_json::{Value, json};

/// What the rules match, and a request for the rule in the middle.
type Shape = (&'static str, fn(usize) -> Value, fn(usize) -> Request);

const SHAPES: [Shape; 5] = [
    (
        "exact path",
        |n| json!({ "path": { "type": "Exact", "value": format!("/v1/things/{n:05}") } }),
        |n| Request::new("GET", &format!("/v1/things/{n:05}")),
    ),
    (
        "path prefix",
        |n| json!({ "path": { "value": format!("/v1/tenants/{n:05}") } }),
        |n| Request::new("GET", &format!("/v1/tenants/{n:05}/orders/12345")),
    ),
    (
        "method and header",
        |n| {
            let header = json!({ "name": "x-tenant", "value": format!("{n:05}") });
            json!({ "path": { "value": "/v1" }, "method": "GET", "headers": [header] })
        },
        |n| Request::new("GET", "/v1/orders/12345").header("x-tenant", &format!("{n:05}")),
    ),
    (
        "no match",
        |n| json!({ "path": { "value": format!("/v1/tenants/{n:05}") } }),
        |_| Request::new("GET", "/v2/other"),
    ),
    (
        "query",
        |n| json!({ "path": { "value": "/v1" }, "queryParams": [{ "name": "tenant", "value": format!("{n:05}") }] }),
        |n| Request::new("GET", &format!("/v1/orders?page=3&tenant={n:05}")),
    ),
];

fn select(criterion: &mut Criterion) {
    for (name, matches, request) in SHAPES {
        let mut group = criterion.benchmark_group(format!("route/{name}"));
        for size in SIZES {
            let (table, request) = (routes(size, matches), request(size / 2));
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| found(black_box(&table), black_box(&request)));
            });
        }
    }
}

fn found(table: &RouteTable, request: &Request) -> bool {
    let facts = request.facts();
    table.select(facts.host, facts.method, facts.path, facts.query, facts.headers).is_some()
}

criterion_group!(benches, select);
criterion_main!(benches);
