//! Which of several instances of a service gets a request, seen by how many each was given.
//! `UPDATE_GENERATED=1 cargo test -p selvedge-tests --test balancing one_that_refuses` draws the picture of the page anew.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use selvedge_tests::{
    client::{self, Connection, Failure},
    mesh::{Sidecar, Workload},
    pair::{HOST, Pair},
    upstream::{Scenario, Upstream},
    wait,
};
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

#[path = "balancing/picture.rs"]
mod picture;

use picture::Group;

/// Two instances of `api`, each behind its own sidecar.
struct Two {
    pair: Pair,
    twin: Upstream,
    _second: Sidecar,
}

impl Two {
    async fn start() -> Self {
        let pair = Pair::start().await;
        let twin = Upstream::start("twin").await;
        let second = Workload::new("shop/api-2").runs_as("api").backs("api").serves(8080, twin.address());
        let second = pair.mesh.sidecar(second).await;
        let both = || async {
            pair.get("/").await;
            twin.served() > 0
        };
        wait::until_true("both instances are called", both).await;
        Self { pair, twin, _second: second }
    }

    /// Has the caller forget what it has seen of them. It begins with what it saved, which may be what was in force before.
    async fn forget(&mut self) {
        let before = self.configuration().await;
        self.pair.web.restart();
        self.pair.web.ready().await;
        wait::until_true("it has the same in force", async || self.configuration().await == before).await;
        let entry = self.pair.entry();
        wait::until_true("it listens", || selvedge_tests::client::accepts(entry)).await;
    }

    async fn configuration(&self) -> Value {
        let mut shown = client::get(self.pair.web.admin(), "/config").await.unwrap().json();
        shown["generation"] = Value::Null; // counted from its start
        shown
    }

    /// The share of the second instance for callers that have seen neither. Where it is not right, the middle one of three:
    /// a busy machine may hold an instance up once.
    async fn usual_share(&mut self, load: (usize, usize), grpc: bool, is_right: impl Fn(f64) -> bool) -> f64 {
        let mut shares = Vec::new();
        while shares.len() < 3 && !(shares.len() == 1 && is_right(shares[0])) {
            self.forget().await;
            shares.push(self.share_of_twin(load.0, load.1, grpc).await);
        }
        shares.sort_by(f64::total_cmp);
        shares[shares.len() / 2]
    }

    /// The share of the second instance in requests of so many callers, each of which has one at a time; every one of them
    /// was given to exactly one instance.
    async fn share_of_twin(&self, callers: usize, each: usize, grpc: bool) -> f64 {
        let (before, first) = (self.twin.served(), self.pair.upstream.served());
        let entry = self.pair.entry();
        let mut all = JoinSet::new();
        for _ in 0..callers {
            all.spawn(async move {
                let mut connection =
                    if grpc { Connection::open_http2(entry).await? } else { Connection::open(entry).await? };
                for _ in 0..each {
                    connection.call(request(grpc)).await?;
                }
                Ok::<_, Failure>(())
            });
        }
        while let Some(caller) = all.join_next().await {
            caller.unwrap().unwrap();
        }
        let (twin, first) = (self.twin.served() - before, self.pair.upstream.served() - first);
        assert_eq!((twin + first) as usize, callers * each, "each was tried once");
        let share = f64::from(twin) / f64::from(twin + first);
        println!("{callers} callers at a time gave it {share:.4}");
        share
    }
}

fn request(grpc: bool) -> Request<Full<bytes::Bytes>> {
    let builder = Request::builder().method(if grpc { "POST" } else { "GET" });
    let builder =
        if grpc { builder.header("content-type", "application/grpc").header("te", "trailers") } else { builder };
    let uri = if grpc { format!("http://{HOST}/a.B/C") } else { "/".to_owned() };
    let builder = if grpc { builder } else { builder.header("host", HOST) };
    builder.uri(uri).body(Full::default()).unwrap()
}

/// Callers, and requests of each.
const LOADS: [(usize, usize); 3] = [(1, 300), (8, 60), (32, 30)];

#[tokio::test]
async fn one_that_refuses_gets_hardly_anything() {
    let mut two = Two::start().await;
    let mut groups = Vec::new();
    for (title, scenario, grpc) in [
        ("200", Scenario::Echo, false),
        ("429", Scenario::Fail(u32::MAX, 429), false),
        ("403", Scenario::Fail(u32::MAX, 403), false),
        ("500", Scenario::Fail(u32::MAX, 500), false),
        ("503", Scenario::Fail(u32::MAX, 503), false),
        ("Retry-After", Scenario::Later(u32::MAX, 9), false),
        ("gRPC 8", Scenario::Grpc(8, false), true),
        ("gRPC 8, late", Scenario::Grpc(8, true), true),
    ] {
        two.twin.play(scenario);
        let mut bars = Vec::new();
        for (callers, each) in LOADS {
            let is_right = |share: f64| title == "200" || share <= 0.05;
            let share = two.usual_share((callers, each), grpc, is_right).await;
            assert!(is_right(share), "{callers} callers gave {share} to the one that says {title}");
            bars.push((callers, share));
        }
        groups.push(Group { title, bars });
    }
    picture::update(&groups);
}

#[tokio::test]
async fn instances_that_refuse_alike_stay_evenly_spread() {
    let mut two = Two::start().await;
    for scenario in [Scenario::Fail(u32::MAX, 429), Scenario::Later(u32::MAX, 9)] {
        two.twin.play(scenario);
        two.pair.upstream.play(scenario);
        for (callers, each) in LOADS {
            let is_right = |share: f64| (0.3..0.7).contains(&share);
            let share = two.usual_share((callers, each), false, is_right).await;
            assert!(is_right(share), "{callers} callers gave {share} to one of two that say {scenario:?}");
        }
    }
}

#[tokio::test]
async fn one_caller_spreads_over_two_that_are_equal() {
    let mut two = Two::start().await;
    // An instance that a busy machine holds up twice in a row is slow, and rightly left alone for a while.
    let mut shares = Vec::new();
    for _ in 0..5 {
        two.forget().await;
        shares.push(two.share_of_twin(1, 300, false).await);
    }
    shares.sort_by(f64::total_cmp);
    assert!((0.4..=0.6).contains(&shares[2]), "one of two got {shares:?}");
}

/// Has one refused request repeated, once that is in force.
async fn repeat(pair: &Pair, others: &[&Upstream]) {
    pair.mesh.write(
        "traffic.yaml",
        "apiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  \
         targetRef: {kind: Service, name: api}\n  retry: {attempts: 1, codes: [503]}\n",
    );
    let all = || [&pair.upstream].into_iter().chain(others.iter().copied());
    let repeats = || async {
        all().for_each(|upstream| upstream.play(Scenario::Fail(1, 503)));
        let before: u32 = all().map(Upstream::served).sum();
        pair.get("/").await;
        all().map(Upstream::served).sum::<u32>() > before + 1
    };
    wait::until_true("a refused request is repeated", repeats).await;
}

#[tokio::test]
async fn a_retry_waits_for_as_long_as_it_is_asked_to_and_none_waits_long() {
    let pair = Pair::start().await;
    repeat(&pair, &[]).await;
    pair.upstream.play(Scenario::Later(1, 1));
    let began = Instant::now();
    assert_eq!(pair.get("/").await.status, 200);
    assert!(began.elapsed() >= Duration::from_secs(1), "the retry came after {:?}", began.elapsed());

    pair.upstream.play(Scenario::Later(1, 3600));
    let (before, began) = (pair.upstream.served(), Instant::now());
    let answer = pair.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "3600"), "it is passed on");
    assert_eq!(pair.upstream.served(), before + 1, "nobody comes sooner");
    assert!(began.elapsed() < Duration::from_secs(60), "nobody waits for an hour");
}

#[tokio::test]
async fn a_retry_goes_at_once_to_an_instance_that_has_not_asked_to_wait() {
    let mut two = Two::start().await;
    repeat(&two.pair, &[&two.twin]).await;
    two.forget().await;
    two.pair.upstream.play(Scenario::Later(u32::MAX, 3600));
    two.twin.play(Scenario::Echo);
    let (before, began) = (two.pair.upstream.served(), Instant::now());
    for _ in 0..20 {
        assert_eq!(two.pair.get("/").await.status, 200);
    }
    assert!(two.pair.upstream.served() > before, "one was refused, and answered by the other");
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
}
