//! What choosing an endpoint costs, among 3 to 1 000, and what a try costs around it.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use selvedge_benches::Endpoints;
use selvedge_policies::{
    attempt::{
        breaker::{Breaker, BreakerSpec},
        retry::{BudgetSpec, RetryBudget},
    },
    balance::{BalancerSpec, peak_ewma::Ewma},
    testing::Clock,
};

fn pick(criterion: &mut Criterion) {
    for (name, spec) in [
        ("peak ewma", BalancerSpec::PeakEwma),
        ("least request", BalancerSpec::LeastRequest),
        ("round robin", BalancerSpec::RoundRobin),
        ("random", BalancerSpec::Random),
    ] {
        let mut group = criterion.benchmark_group(format!("balance/{name}"));
        for size in [3, 10, 100, 1_000] {
            let (endpoints, balancer) = (Endpoints::new(size), spec.build());
            let mut chance = fastrand::Rng::with_seed(7);
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| balancer.pick(black_box(&endpoints), &mut chance));
            });
        }
    }
}

fn around_a_try(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("try");
    let mut chance = fastrand::Rng::with_seed(7);
    group.bench_function("breaker admits and records", |bencher| {
        let (breaker, mut clock) = (Breaker::new(&BreakerSpec::default()), Clock::default());
        bencher.iter(|| {
            let now = clock.advance(Duration::from_micros(10));
            let admitted = black_box(&breaker).admit(now);
            breaker.record(true, now, &mut chance);
            admitted
        });
    });
    group.bench_function("retry budget counts a request", |bencher| {
        let (budget, mut clock) = (RetryBudget::new(&BudgetSpec::default()), Clock::default());
        bencher.iter(|| black_box(&budget).deposit(clock.advance(Duration::from_micros(10))));
    });
    group.bench_function("retry budget grants a retry", |bencher| {
        let (budget, mut clock) = (RetryBudget::new(&BudgetSpec::default()), Clock::default());
        bencher.iter(|| black_box(&budget).withdraw(clock.advance(Duration::from_micros(10))));
    });
    group.bench_function("response time observed and read", |bencher| {
        let (ewma, mut clock) = (Ewma::default(), Clock::default());
        bencher.iter(|| {
            let now = clock.advance(Duration::from_micros(10));
            black_box(&ewma).observe(1_000_000, now);
            ewma.value(now)
        });
    });
}

criterion_group!(benches, pick, around_a_try);
criterion_main!(benches);
