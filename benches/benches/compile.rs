//! From what users wrote to a snapshot: a mesh of 1 000 services and 10 000 workloads, whole and one endpoint at a time.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use selvedge_benches::mesh;
use selvedge_control_plane::{
    source::{Change, Document},
    store::Store,
};

fn change(service: usize, weight: u32) -> Change {
    Document { origin: format!("{service}.yaml").into(), text: Ok(mesh::file(service, weight).into()) }.put()
}

fn full() -> Store {
    let mut store = Store::new("mesh.local");
    for service in 0..mesh::SERVICES {
        store.take("files", change(service, 1));
    }
    store.take("files", Change::Complete);
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
            store.take("files", change(500, weight));
            store.take("files", Change::Complete);
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
