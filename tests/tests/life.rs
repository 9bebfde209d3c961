//! The life of a pod: a sidecar that is told that its application is gone, or leaves, costs nobody a request.

use std::{net::SocketAddr, time::Duration};

use http::Method;
use selvedge_tests::{
    around::talk,
    client::{self, Connection, expect_bytes, request},
    load::{self, Load, Plan},
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST, Pair},
    process::binary,
    upstream::{Scenario, Upstream},
    wait,
};
use tokio::{io::AsyncWriteExt, net::TcpListener, time::Instant};

/// How soon a sidecar ends whose application is gone. Tests wait ten times as long.
const END: Duration = Duration::from_secs(1);

/// As the injector writes it.
const GONE: &str = "sigterm: applicationGone\n";

/// Checks a measured time against ten times its goal, and says what it was.
fn assert_within(what: &str, took: Duration, goal: Duration) {
    println!("{what}: {took:?}, goal {goal:?}");
    assert!(took < goal * 10, "{what} took {took:?}, more than ten times {goal:?}");
}

#[tokio::test]
async fn a_job_that_was_never_called_is_followed_at_once() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "http");
    let _api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address())).await;
    let mut job = mesh.sidecar(Workload::new("shop/job").calls(DESTINATION).with(GONE)).await;
    let entry = job.outbound(DESTINATION);
    wait::until_true("the service can be reached", || client::answers(entry)).await;
    // A pool's connections, idle when their process ended. A network would close them; here the peer just stays.
    let idle = [Connection::open(entry).await.unwrap(), Connection::open_http2(entry).await.unwrap()];
    let start = Instant::now();
    job.process().terminate();
    assert!(job.process().ended().await.success());
    assert_within("the end of a job's sidecar", start.elapsed(), END);
    drop(idle);
}

#[tokio::test]
async fn what_is_in_flight_when_the_application_is_gone_is_still_answered() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "http");
    let mut api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address()).with(GONE)).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION)).await;
    let entry = web.outbound(DESTINATION);
    wait::until_true("the service can be reached", || client::answers(entry)).await;
    upstream.play(Scenario::Slow(Duration::from_millis(1500)));
    let (called, served) = (&upstream, upstream.served());
    let call = tokio::spawn(async move {
        client::call(entry, request(Method::GET, HOST, "/")).await.map_err(|error| error.to_string())
    });
    wait::until_true("the request is under way", || async move { called.served() > served }).await;
    api.process().terminate();
    let inbound = api.inbound(8080);
    wait::until_true("no new connection is taken", || async move { !client::accepts(inbound).await }).await;
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let start = Instant::now();
    assert!(api.process().ended().await.success());
    assert_within("the end after the last answer", start.elapsed(), END);
}

/// Runs the preStop hook of a sidecar; how long it took.
async fn leave(sidecar: &Sidecar, arguments: &[&str]) -> Duration {
    let mut command = tokio::process::Command::new(binary("selvedge-proxy"));
    let text = std::fs::read_to_string(sidecar.home().join("sidecar.yaml")).unwrap();
    command.arg("leave").args(arguments).env("SELVEDGE_CONFIG", text);
    let start = Instant::now();
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    start.elapsed()
}

#[tokio::test]
async fn who_leaves_is_not_ready_goes_on_serving_and_tells_callers_later() {
    let pair = Pair::start().await;
    let mut caller = Connection::open(pair.entry()).await.unwrap();
    let mut own = Connection::open_http2(pair.entry()).await.unwrap();
    let hook = async { leave(&pair.api, &["--for", "2s"]).await };
    let meanwhile = async {
        wait::until_true("readiness is off", || async { !pair.api.is_ready().await }).await;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            let answer = caller.call(request(Method::GET, HOST, "/")).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (took, ()) = tokio::join!(hook, meanwhile);
    assert!((2..10).contains(&took.as_secs()), "{took:?}");
    // The calls of the application that leaves go on, on the connection that it has.
    leave(&pair.web, &["--for", "1s"]).await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(own.is_open());
    assert_eq!(own.call(request(Method::GET, HOST, "/")).await.unwrap().status, 200);
}

#[tokio::test]
async fn who_was_never_called_leaves_at_once() {
    let mesh = Mesh::start().await;
    let job = mesh.sidecar(Workload::new("shop/job").with(GONE)).await;
    // Far longer than it may take: nobody has to hear of it.
    let took = leave(&job, &["--for", "1m"]).await;
    assert_within("leaving of a workload that nobody calls", took, Duration::from_secs(1));
    assert!(!job.is_ready().await);
    let output = std::process::Command::new(binary("selvedge-proxy"))
        .args(["leave", "--config-env", "SELVEDGE_NO_SUCH_VARIABLE"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("$SELVEDGE_NO_SUCH_VARIABLE"), "{message}");
}

/// The endpoints of `shop/api`, as a cluster tells them.
struct Endpoints<'a> {
    mesh: &'a Mesh,
    /// By the name of the pod, and whether it is about to end.
    pods: Vec<(String, bool)>,
}

impl Endpoints<'_> {
    fn write(&self) {
        let endpoint = |(pod, terminating): &(String, bool)| {
            format!(
                "- {{addresses: [127.0.0.1], conditions: {{ready: {}, serving: true, terminating: {terminating}}}, \
                 targetRef: {{kind: Pod, name: {pod}}}}}\n",
                !terminating
            )
        };
        let endpoints: String = self.pods.iter().map(endpoint).collect();
        self.mesh.write(
            "slice.yaml",
            &format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: api-1, namespace: shop, labels: \
                 {{kubernetes.io/service-name: api}}}}\naddressType: IPv4\nendpoints:\n{endpoints}ports:\n- {{name: main, \
                 port: 8080}}\n"
            ),
        );
    }

    fn add(&mut self, pod: &str) {
        self.pods.push((pod.to_owned(), false));
        self.write();
    }

    fn terminate(&mut self, pod: &str) {
        self.pods.iter_mut().filter(|(name, _)| name == pod).for_each(|(_, terminating)| *terminating = true);
        self.write();
    }

    fn remove(&mut self, pod: &str) {
        self.pods.retain(|(name, _)| name != pod);
        self.write();
    }
}

/// A pod of `shop/api`: the application, and its sidecar.
struct Pod {
    name: String,
    application: Upstream,
    sidecar: Sidecar,
}

impl Pod {
    async fn start(mesh: &Mesh, name: &str) -> Self {
        let application = Upstream::start(name).await;
        let workload = Workload::new(&format!("shop/{name}")).runs_as("api").backs("api");
        let sidecar = mesh.sidecar(workload.serves(8080, application.address()).with(GONE)).await;
        Self { name: name.to_owned(), application, sidecar }
    }

    /// As a kubelet and the controller of endpoints end a pod. `patience` is the application's: it stops taking connections
    /// after that, which may be before anybody has heard of its end.
    async fn end(self, endpoints: &mut Endpoints<'_>, patience: Duration) {
        let Self { name, application, mut sidecar } = self;
        let hook = async { leave(&sidecar, &["--for", "1s"]).await };
        let cluster = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            endpoints.terminate(&name);
        };
        let application = async {
            tokio::time::sleep(patience).await;
            drop(application);
        };
        tokio::join!(hook, cluster, application);
        sidecar.process().terminate();
        assert!(sidecar.process().ended().await.success());
        endpoints.remove(&name);
    }
}

#[tokio::test]
async fn a_rolling_restart_of_a_service_fails_no_request() {
    let mesh = Mesh::start().await;
    mesh.service("shop/api", 80, 8080, "http");
    let mut endpoints = Endpoints { mesh: &mesh, pods: Vec::new() };
    let mut pods = Vec::new();
    for name in ["api-1", "api-2"] {
        pods.push(Pod::start(&mesh, name).await);
        endpoints.add(name);
    }
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION)).await;
    let entry = web.outbound(DESTINATION);
    wait::until_true("the service can be reached", || client::answers(entry)).await;
    let plan = Plan::new(entry, HOST, "/");
    let loads = [Load::start(&plan, 4, load::ok), Load::start(&plan.clone().over_http2(), 2, load::ok)];
    // An application may end in order, or be gone at once.
    for (number, patience) in [(3, 2_000), (4, 0), (5, 2_000), (6, 0)] {
        let pod = Pod::start(&mesh, &format!("api-{number}")).await;
        endpoints.add(&pod.name);
        wait::until_true("the new pod is called", || async { pod.application.served() > 20 }).await;
        pods.push(pod);
        pods.remove(0).end(&mut endpoints, Duration::from_millis(patience)).await;
        for load in &loads {
            load.progress(50).await;
        }
    }
    for load in loads {
        load.stop().await.assert_flawless(200);
    }
}

#[tokio::test]
async fn a_rolling_restart_of_callers_fails_no_request() {
    let (mesh, upstream) = (Mesh::start().await, Upstream::start("api").await);
    mesh.service("shop/api", 80, 8080, "http");
    let _api = mesh.sidecar(Workload::new("shop/api").serves(8080, upstream.address())).await;
    let mut before: Option<(Sidecar, [Load; 2])> = None;
    for number in 1..=3 {
        let workload = Workload::new(&format!("shop/web-{number}")).runs_as("web").calls(DESTINATION).with(GONE);
        let web = mesh.sidecar(workload).await;
        let entry = web.outbound(DESTINATION);
        // Only a sidecar that has just joined may not have been asked for the destination yet; what it answers is right.
        let plan = Plan::new(entry, HOST, "/");
        let loads = [Load::start(&plan, 3, load::ok), Load::start(&plan.clone().over_http2(), 2, load::ok)];
        for load in &loads {
            load.progress(30).await;
        }
        let Some((mut web, loads)) = before.replace((web, loads)) else { continue };
        leave(&web, &["--for", "1s"]).await;
        for load in &loads {
            load.progress(30).await;
        }
        for load in loads {
            load.stop().await.assert_flawless(60);
        }
        let start = Instant::now();
        web.process().terminate();
        assert!(web.process().ended().await.success());
        assert_within("the end of a caller's sidecar", start.elapsed(), END);
    }
    let (_web, loads) = before.expect("the last one");
    for load in loads {
        load.stop().await.assert_flawless(30);
    }
}

/// How soon a sidecar is ready that starts again beside its state.
const READY: Duration = Duration::from_millis(100);

/// Two pods of `shop/api`, and a caller.
struct Two {
    pods: [Pod; 2],
    web: Sidecar,
    _mesh: Mesh,
}

impl Two {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        mesh.service("shop/api", 80, 8080, "http");
        let pods = [Pod::start(&mesh, "api-1").await, Pod::start(&mesh, "api-2").await];
        let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION)).await;
        let entry = web.outbound(DESTINATION);
        wait::until_true("the service can be reached", || client::answers(entry)).await;
        Self { pods, web, _mesh: mesh }
    }

    fn entry(&self) -> SocketAddr {
        self.web.outbound(DESTINATION)
    }

    fn served(&self) -> [u32; 2] {
        self.pods.each_ref().map(|pod| pod.application.served())
    }

    /// Callers leave alone for a while who failed them before.
    async fn until_both_are_called(&self) {
        let (entry, before) = (self.entry(), self.served());
        let called = async || {
            let _ = client::answers(entry).await; // whoever answers
            self.served().iter().zip(before).all(|(now, before)| *now > before)
        };
        wait::until_true("both are called", called).await;
    }

    /// Waits until the sidecar of this pod is ready, and says how long that took.
    async fn until_ready(&self, pod: usize) -> Duration {
        let start = Instant::now();
        while !self.pods[pod].sidecar.is_ready().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(start.elapsed() < wait::DEADLINE, "it does not get ready");
        }
        start.elapsed()
    }
}

#[tokio::test]
async fn a_sidecar_that_is_killed_and_started_again_costs_no_request() {
    let mut two = Two::start().await;
    let plan = Plan::new(two.entry(), HOST, "/");
    let loads = [Load::start(&plan, 4, load::ok), Load::start(&plan.clone().over_http2(), 2, load::ok)];
    let mut quickest = wait::DEADLINE; // the others waited for a machine that others use, too
    for round in 0..4 {
        two.until_both_are_called().await;
        let pod = &mut two.pods[round % 2];
        pod.sidecar.process().kill();
        for load in &loads {
            load.progress(50).await; // while nobody listens
        }
        let inbound = pod.sidecar.inbound(8080);
        assert!(!client::accepts(inbound).await);
        pod.sidecar.restart();
        let took = two.until_ready(round % 2).await;
        println!("ready again from its state: {took:?}");
        quickest = quickest.min(took);
        for load in &loads {
            load.progress(50).await;
        }
    }
    for load in loads {
        load.stop().await.assert_flawless(200);
    }
    println!("ready again from its state, at best: {quickest:?}, goal {READY:?}");
    assert!(quickest < 50 * READY, "ready again from its state after {quickest:?} at best");
}

/// As the OOM killer has it: whichever, whenever, again as soon as it runs, and before callers have forgotten the last time.
#[tokio::test]
async fn sidecars_that_are_killed_again_and_again_cost_no_request() {
    let mut two = Two::start().await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let plan = Plan::new(two.entry(), HOST, "/");
    let loads = [Load::start(&plan, 8, load::ok), Load::start(&plan.clone().over_http2(), 8, load::ok)];
    for _ in 0..30 {
        let pod = chance.usize(..2);
        tokio::time::sleep(Duration::from_millis(chance.u64(..300))).await;
        two.pods[pod].sidecar.process().kill();
        tokio::time::sleep(Duration::from_millis(chance.u64(..100))).await;
        two.pods[pod].sidecar.restart();
        two.until_ready(pod).await;
    }
    for load in &loads {
        load.progress(100).await;
    }
    for load in loads {
        load.stop().await.assert_flawless(100);
    }
}

/// What had reached the application may have been done, so only what may be done twice is repeated.
#[tokio::test]
async fn what_a_sidecar_takes_with_it_is_repeated_where_it_may_be_done_twice() {
    let mut two = Two::start().await;
    for (method, status) in [(Method::GET, 200), (Method::PUT, 200), (Method::DELETE, 200), (Method::POST, 502)] {
        two.until_both_are_called().await;
        two.pods.iter().for_each(|pod| pod.application.play(Scenario::Slow(Duration::from_secs(3))));
        let (entry, before, asked) = (two.entry(), two.served(), request(method.clone(), HOST, "/"));
        let call = tokio::spawn(async move { client::call(entry, asked).await.map_err(|error| error.to_string()) });
        let called = async || two.served().iter().zip(before).position(|(now, before)| *now > before);
        let taken = wait::until("the request is under way", called).await;
        two.pods[taken].sidecar.process().kill();
        let answer = call.await.unwrap().unwrap();
        assert_eq!(answer.status, status, "{method}: {}", answer.text());
        let repeated = two.served()[1 - taken] - before[1 - taken];
        assert_eq!(repeated, u32::from(status == 200), "{method}");
        if status != 200 {
            assert_eq!(answer.reason(), "upstream_reset");
        }
        two.pods.iter().for_each(|pod| pod.application.play(Scenario::Echo));
        two.pods[taken].sidecar.restart();
        two.until_ready(taken).await;
    }
}

#[tokio::test]
async fn an_open_connection_to_an_application_that_is_gone_does_not_hold_up_the_end() {
    let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mesh = Mesh::start().await;
    mesh.service("shop/api", 80, 8080, "tcp");
    let serving = Workload::new("shop/api").serves(8080, application.local_addr().unwrap()).with(GONE);
    let mut gone = mesh.sidecar(serving).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION)).await;
    let entry = web.outbound(DESTINATION);
    // A client of a database keeps its connection, and does not look at it before it has something to ask.
    let (mut client, mut served) = wait::until("the application is called", async || {
        let mut client = client::connect(entry).await.ok()?;
        client.write_all(b"hello").await.ok()?;
        let accepted = tokio::time::timeout(Duration::from_secs(2), application.accept()).await;
        Some((client, accepted.ok()?.ok()?.0))
    })
    .await;
    expect_bytes(&mut served, b"hello").await;
    served.write_all(b"bye").await.unwrap();
    drop((served, application));
    let start = Instant::now();
    gone.process().terminate();
    assert!(gone.process().ended().await.success());
    assert_within("the end with a connection that its caller keeps", start.elapsed(), END);
    assert_eq!(talk(&mut client, b"", "bye", 1).await, "bye", "what it said last has come");
}
