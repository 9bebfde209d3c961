//! From what users wrote to a snapshot: a mesh of 1 000 services and 10 000 workloads, whole and one endpoint at a time.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use selvedge_control_plane::{
    source::{Change, Document},
    store::Store,
};

const SERVICES: usize = 1_000;
const WORKLOADS_EACH: usize = 10;
const NAMESPACES: usize = 20;

/// One file for each service, with its workloads and a policy.
fn files() -> Vec<Change> {
    (0..SERVICES).map(|service| file(service, 1)).collect()
}

fn file(service: usize, weight: u32) -> Change {
    let namespace = service % NAMESPACES;
    let own = "apiVersion: selvedge.dev/v1alpha1";
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: n{namespace}}}\n\
         spec: {{selector: {{app: s{service}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n\
         {own}\nkind: AuthorizationPolicy\nmetadata: {{name: p{service}, namespace: n{namespace}}}\n\
         spec: {{targetRef: {{kind: Service, name: s{service}}}, action: ALLOW, rules: [{{from: [{{namespaces: [n1]}}]}}]}}\n"
    );
    for n in 0..WORKLOADS_EACH {
        let (weight, third, fourth) = (if n == 0 { weight } else { 1 }, service / 250, service % 250);
        let head = format!("metadata: {{name: s{service}-{n}, namespace: n{namespace}, labels: {{app: s{service}}}}}");
        let spec = format!("spec: {{serviceAccount: a, address: 10.{n}.{third}.{fourth}, weight: {weight}}}");
        text += &format!("---\n{own}\nkind: Workload\n{head}\n{spec}\n");
    }
    Change::Put(Document { origin: format!("{service}.yaml").into(), text: Ok(text.into()) })
}

fn full() -> Store {
    let mut store = Store::new("mesh.local");
    for change in files() {
        store.take(change);
    }
    store.take(Change::Complete);
    store
}

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    group.bench_function("read 1000 files", |bencher| bencher.iter(|| black_box(full())));
    group
        .bench_function("all", |bencher| bencher.iter_batched(full, |mut store| store.commit(), BatchSize::LargeInput));
    let mut store = full();
    let mut before = store.commit().0;
    let mut weight = 1;
    group.bench_function("one endpoint", |bencher| {
        bencher.iter(|| {
            weight = weight % 100 + 1;
            store.take(file(500, weight));
            store.take(Change::Complete);
            let (after, _) = store.commit();
            let changes = after.changed_since(&before).len();
            before = after;
            changes
        });
    });
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
