//! What finding the endpoints of one outbound request costs: by the link that was made when the configuration was compiled,
//! and by the name `namespace/name:port`, made and looked up for each request, as a sidecar without links would.

use std::{collections::HashMap, hint::black_box, sync::Arc};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use selvedge_decide::{
    compile::Compiler,
    config::{ClusterConfig, Destination, RuntimeConfig},
    resources::{Resources, Versioned},
    route,
};
use selvedge_policies::route::Backend;
use selvedge_xds::proto::mesh::{self, Attachment, Endpoint, Endpoints, Origin, Port};
use serde_json::json;

const PORT: u16 = 80;

fn versioned<T>(name: &str, value: T) -> (String, Arc<Versioned<T>>) {
    (name.to_owned(), Arc::new(Versioned { name: name.to_owned(), version: String::new(), value }))
}

/// A sidecar that calls so many services, each of which routes to another one.
fn config(services: usize) -> RuntimeConfig {
    let name = |number: usize| format!("service-{:05}", number % services);
    let destination = |number: usize| {
        let next = json!({ "backendRefs": [{ "name": name(number + 1), "port": PORT }] });
        let document =
            json!({ "parentRefs": [{ "kind": "Service", "name": name(number) }], "rules": [next] }).to_string();
        let origin = Origin { kind: "HTTPRoute".into(), namespace: "shop".into(), name: name(number), generation: 1 };
        let port = Port { port: PORT.into(), app_protocol: "http".into(), ..Port::default() };
        let value = mesh::Destination {
            namespace: "shop".into(),
            name: name(number),
            ports: vec![port],
            routes: vec![Attachment { origin: Some(origin), document, ..Attachment::default() }],
            ..mesh::Destination::default()
        };
        versioned(&format!("shop/{}", name(number)), value)
    };
    let endpoints = |number: usize| {
        let endpoint = Endpoint { address: "10.0.0.1:80".into(), weight: 1, ..Endpoint::default() };
        versioned(
            &format!("shop/{}:{PORT}", name(number)),
            Endpoints { endpoints: vec![endpoint], ..Default::default() },
        )
    };
    Compiler::default().compile(&Arc::new(Resources {
        destinations: (0..services).map(destination).collect(),
        endpoints: (0..services).map(endpoints).collect(),
        ..Resources::default()
    }))
}

fn by_link<'a>(config: &'a RuntimeConfig, called: &Destination, backend: &Backend) -> Option<&'a Arc<ClusterConfig>> {
    config.clusters.get(route::cluster(called, Some(backend), PORT).ok()?.place())
}

fn by_name<'a>(
    clusters: &'a HashMap<String, Arc<ClusterConfig>>,
    called: &Destination,
    backend: &Backend,
) -> Option<&'a Arc<ClusterConfig>> {
    clusters.get(&route::cluster_name(called, Some(backend), PORT).to_string())
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("endpoints of a request");
    for services in [10, 1_000] {
        let config = config(services);
        let named: HashMap<_, _> =
            config.clusters.iter().map(|found| (found.name.to_string(), found.clone())).collect();
        let Some(called) = config.destinations.values().next() else { continue };
        let Some(backend) = called.routes.values().flat_map(|routes| routes.backends()).next() else { continue };
        assert_eq!(by_link(&config, called, backend), by_name(&named, called, backend), "both find the same");
        group.bench_function(BenchmarkId::new("by link", services), |bencher| {
            bencher.iter(|| by_link(black_box(&config), black_box(called), black_box(backend)).is_some());
        });
        group.bench_function(BenchmarkId::new("by name", services), |bencher| {
            bencher.iter(|| by_name(black_box(&named), black_box(called), black_box(backend)).is_some());
        });
    }
}

criterion_group!(benches, find);
criterion_main!(benches);
