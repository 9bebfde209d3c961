//! What one change costs the control plane: 10 000 endpoints, one of them changes, 1 000 sidecars hear of it.

use std::{collections::HashMap, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use selvedge_xds::{
    kinds::{self, SELVEDGE},
    proto::{
        discovery::DeltaDiscoveryRequest,
        mesh::{Endpoint, Endpoints},
    },
    resource::Encoded,
    server::{Response, Stream},
};

const ENDPOINTS: usize = 10_000;
const STREAMS: usize = 1_000;
/// Names each stream is subscribed to, where there are as many.
const PEERS: usize = 20;

type Resources = HashMap<String, Arc<Encoded>>;

fn push(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push/10000 endpoints, 1 change, 1000 streams");
    group.sample_size(10);
    for (name, services) in [("1000 services", 1_000), ("100 services", 100), ("1 service", 1)] {
        let resources: Resources = (0..services).map(|n| service(n, ENDPOINTS / services, 1)).collect();
        let mut changed = resources.clone();
        changed.extend([service(0, ENDPOINTS / services, 2)]);
        group.bench_function(name, |bencher| {
            let streams = || (0..STREAMS).map(|n| subscribed(n, services, &resources)).collect::<Vec<_>>();
            bencher.iter_batched(streams, |mut streams| tell(&mut streams, &changed), BatchSize::PerIteration);
        });
    }
    group.finish();
}

/// Service `n` with `count` endpoints; the weight of the first is `weight`.
fn service(n: usize, count: usize, weight: u32) -> (String, Arc<Encoded>) {
    let name = format!("shop/service-{n:04}:80");
    let endpoint = |index: usize| Endpoint {
        address: format!("10.{}.{}.{}:8080", n % 250, index / 250, index % 250),
        identity: "spiffe://mesh.local/ns/shop/sa/api".to_owned(),
        weight: if index == 0 { weight } else { 1 },
        ..Endpoint::default()
    };
    let message = Endpoints { endpoints: (0..count).map(endpoint).collect(), ..Default::default() };
    (name.clone(), Arc::new(Encoded::new(kinds::ENDPOINTS, name, Vec::new(), &message)))
}

/// Stream `n`, which holds the changing service and others, and has acknowledged them all.
fn subscribed(n: usize, services: usize, resources: &Resources) -> Stream {
    let others = (1..PEERS.min(services)).map(|peer| 1 + (n * PEERS + peer) % (services - 1));
    let names = [0].into_iter().chain(others).map(|service| format!("shop/service-{service:04}:80")).collect();
    let mut stream = Stream::new(&SELVEDGE);
    let subscribe = DeltaDiscoveryRequest { resource_names_subscribe: names, ..request() };
    assert_eq!(stream.request(subscribe), Ok(None));
    loop {
        let responses = answers(&mut stream, resources);
        if responses.is_empty() {
            return stream;
        }
        for response in responses {
            assert!(
                stream
                    .request(DeltaDiscoveryRequest { response_nonce: response.nonce.to_string(), ..request() })
                    .is_ok()
            );
        }
    }
}

fn request() -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kinds::ENDPOINTS.to_string(), ..DeltaDiscoveryRequest::default() }
}

fn answers(stream: &mut Stream, resources: &Resources) -> Vec<Response> {
    stream.responses(&|_, name| resources.get(name).cloned(), &"1".into())
}

fn tell(streams: &mut [Stream], resources: &Resources) {
    for stream in streams {
        stream.changed_name(kinds::ENDPOINTS, "shop/service-0000:80");
        assert_eq!(black_box(answers(stream, resources)).len(), 1);
    }
}

criterion_group!(benches, push);
criterion_main!(benches);
