//! Who is inside is not trusted: what a peer with a good certificate, or the workload's own application, floods the sidecar
//! with costs it little, and others nothing. In the long form every attack lasts, and others are answered in time.

use std::{fs, net::SocketAddr, sync::mpsc, thread, time::Duration};

use http::Method;
use selvedge_tests::{
    client::{self, Connection, request},
    long,
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST},
    upstream::Upstream,
    wait,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

#[path = "attacks/attacker.rs"]
mod attacker;
#[path = "attacks/honest.rs"]
mod honest;
#[path = "attacks/stalled.rs"]
mod stalled;
#[path = "rogue/stolen.rs"]
mod stolen;
#[path = "attacks/unread.rs"]
mod unread;
#[path = "attacks/wire.rs"]
mod wire;

use attacker::{Attacker, Door, used};
use stolen::{older, stolen};
use wire::{ATTACKS, Attack};

/// What resident memory may grow by, in bytes.
const MEMORY: u64 = 64 << 20;
/// What the sidecar may use of a processor for what the attacker uses.
const DEARER: u32 = 10;
/// What it may use beside that, for requests that are as good as any: so long, or what a hundred of others cost if that is more.
const REQUESTS: Duration = Duration::from_secs(1);
/// How long nearly every request of others may take. It is looked at where attacks are given time: in a second a busy machine has
/// room for few requests.
const PATIENCE: Duration = Duration::from_millis(250);

/// `api` is called by `web`, and attacked by `rogue`.
struct Scene {
    web: Sidecar,
    api: Sidecar,
    rogue: Sidecar,
    _mesh: Mesh,
}

impl Scene {
    async fn start() -> Self {
        let application = application();
        let mesh = Mesh::start().await;
        mesh.service("shop/api", 80, 8080, "");
        let api = mesh.start_sidecar(Workload::new("shop/api").serves(8080, application));
        let web = mesh.start_sidecar(Workload::new("shop/web").calls(DESTINATION));
        let rogue = mesh.start_sidecar(Workload::new("shop/rogue").calls(DESTINATION));
        for sidecar in [&api, &web, &rogue] {
            sidecar.ready().await;
        }
        let entry = web.outbound(DESTINATION);
        wait::until_true("a request gets through", || client::answers(entry)).await;
        Self { web, api, rogue, _mesh: mesh }
    }
}

/// A service on a thread of its own, so that what it is made to do holds up nobody of the test.
fn application() -> SocketAddr {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let upstream = Upstream::start("api").await;
            tell.send(upstream.address()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    told.recv().unwrap()
}

/// How long the requests of somebody took, and what was wrong with answers.
#[derive(Default)]
struct Asked {
    took: Vec<Duration>,
    failed: Vec<String>,
}

impl Asked {
    /// What 99 of 100 took at most.
    fn most(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }
}

/// Requests one after the other for so long.
fn ask(entry: SocketAddr, span: Duration) -> JoinHandle<Asked> {
    tokio::spawn(async move {
        let (mut asked, mut kept, began) = (Asked::default(), None, Instant::now());
        while began.elapsed() < span {
            let started = Instant::now();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(entry).await.unwrap(),
            };
            match connection.call(request(Method::GET, HOST, "/")).await {
                Ok(answer) if answer.status == 200 => kept = Some(connection),
                other => asked.failed.push(format!("{:?}", other.map(|answer| answer.text()))),
            }
            asked.took.push(started.elapsed());
            sleep(Duration::from_millis(5)).await;
        }
        asked
    })
}

/// The time of a processor that all threads of a process have used.
fn used_by(process: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.map(|thread| used(thread.unwrap().path().strip_prefix("/proc").unwrap().to_str().unwrap())).sum()
}

/// Who is attacked, and by which way.
struct Target<'a> {
    sidecar: &'a mut Sidecar,
    entry: SocketAddr,
    door: Door,
}

/// What an attack came to.
struct Outcome {
    grown: u64,
    used: Duration,
    attacker: Duration,
    spare: Duration,
    others: Asked,
}

impl Outcome {
    /// What of it is more than it may be, where nearly all others are answered within `patience`.
    fn wrong(&self, patience: Duration) -> Vec<&'static str> {
        let found = [
            (self.grown > MEMORY, "memory"),
            (self.used > self.attacker * DEARER + self.spare, "processor"),
            (!self.others.failed.is_empty(), "others"),
            (self.others.most() > patience, "patience"),
        ];
        found.into_iter().filter_map(|(wrong, what)| wrong.then_some(what)).collect()
    }
}

/// `each` is what one request of others costs.
async fn endure(target: &mut Target<'_>, attack: &Attack, each: Duration, span: Duration) -> Outcome {
    let process = target.sidecar.process();
    let (memory, before) = (process.resident_bytes(), used_by(process.id()));
    let attacker = Attacker::start(&target.door, attack);
    let (others, mut most) = (ask(target.entry, span), memory);
    while !others.is_finished() {
        most = most.max(process.resident_bytes());
        sleep(Duration::from_millis(20)).await;
    }
    let others = others.await.unwrap();
    let used = used_by(process.id()) - before;
    let attacker = attacker.stop();
    let used = used.saturating_sub(each * u32::try_from(others.took.len()).unwrap());
    let spare = REQUESTS.max(each * 100);
    Outcome { grown: most.saturating_sub(memory), used, attacker, spare, others }
}

async fn endure_all(mut target: Target<'_>) {
    let (seconds, patience) = long::either((1, Duration::MAX), (10, PATIENCE));
    let span = Duration::from_secs(seconds);
    // What others cost and take without an attack.
    let before = used_by(target.sidecar.process().id());
    let calm = ask(target.entry, span).await.unwrap();
    let each = (used_by(target.sidecar.process().id()) - before) / u32::try_from(calm.took.len()).unwrap();
    let mut wrong = Vec::new();
    for attack in ATTACKS.iter().filter(|attack| long::is_asked(attack.name)) {
        let hurts_itself = attack.hurts_itself && matches!(target.door, Door::Own(_));
        if hurts_itself || target.door.round(attack).is_none() {
            continue;
        }
        let outcome = endure(&mut target, attack, each, span).await;
        let found = outcome.wrong(patience);
        let Outcome { grown, used, attacker, others, .. } = outcome;
        let line = format!(
            "{:<24} {:>4} MiB, {used:>6.2?} for {attacker:>6.2?} of the attacker, {:>4} requests of others, p99 {:>6.1?} {found:?}",
            attack.name,
            grown >> 20,
            others.took.len(),
            others.most(),
        );
        println!("{line}");
        if !found.is_empty() {
            wrong.push(format!("{line} {:?}", others.failed.first()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn the_workload_itself_floods_its_sidecar() {
    let mut scene = Scene::start().await;
    let entry = scene.web.outbound(DESTINATION);
    endure_all(Target { sidecar: &mut scene.web, entry, door: Door::Own(entry) }).await;
}

#[tokio::test]
async fn a_peer_floods_a_sidecar_over_http2() {
    let mut scene = Scene::start().await;
    let door = Door::Http2(scene.api.inbound(8080), older(&stolen(scene.rogue.home())));
    endure_all(Target { entry: scene.web.outbound(DESTINATION), sidecar: &mut scene.api, door }).await;
}

#[tokio::test]
async fn a_peer_floods_a_sidecar_in_frames() {
    let mut scene = Scene::start().await;
    let door = Door::Frames(scene.api.inbound(8080), stolen(scene.rogue.home()).frames.clone());
    endure_all(Target { entry: scene.web.outbound(DESTINATION), sidecar: &mut scene.api, door }).await;
}
