//! Two commands from nothing to the first service in a mesh, four to a pair of them, and back to nothing.

use std::{
    collections::BTreeSet,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use http::StatusCode;
use selvedge_tests::{
    client,
    metrics::Metrics,
    ports::Reserved,
    process::binary,
    upstream::{Scenario, Upstream},
    wait,
};
use tempfile::TempDir;
use tokio::time::Instant;

/// How long the four commands may take. The test waits ten times as long.
const PAIR: Duration = Duration::from_secs(30);

/// A folder of a mesh; what runs in it ends with the value.
struct Home {
    folder: TempDir,
    /// Of the control plane: where sidecars connect, and its admin port.
    ports: [Reserved; 2],
}

impl Home {
    fn new() -> Self {
        Self {
            folder: TempDir::with_prefix("selvedge-test-").expect("a folder"),
            ports: [Reserved::new(), Reserved::new()],
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("home").join(name)
    }

    /// `selvedge` here, as a user types it.
    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(binary("selvedge"));
        command.args(words.split_whitespace()).env("SELVEDGE_HOME", self.folder.path().join("home"));
        command
    }

    async fn ask(&self, words: &str) -> Output {
        tokio::process::Command::from(self.command(words)).output().await.expect("selvedge runs")
    }

    /// What it prints; it has to succeed.
    async fn say(&self, words: &str) -> String {
        let Output { status, stdout, stderr } = self.ask(words).await;
        let [out, problems] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(status.success(), "selvedge {words}: {status}\n{out}\n{problems}");
        out
    }

    async fn up(&self) -> String {
        self.say(&self.up_command()).await
    }

    fn up_command(&self) -> String {
        let [listen, admin] = &self.ports;
        format!("up --listen {} --admin {}", listen.address(), admin.address())
    }

    /// What it says against the command, with exit code 2.
    async fn refusal(&self, words: &str) -> String {
        let Output { status, stderr, .. } = self.ask(words).await;
        assert_eq!(status.code(), Some(2), "selvedge {words}");
        String::from_utf8_lossy(&stderr).into_owned()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let ended = self.command("down").output();
        if std::thread::panicking() {
            println!("{ended:?}");
            for log in std::fs::read_dir(self.path("logs")).into_iter().flatten().flatten() {
                println!("--- {}\n{}", log.path().display(), std::fs::read_to_string(log.path()).unwrap_or_default());
            }
        }
    }
}

/// The address of a page behind these words in what was printed.
fn told(printed: &str, words: &str) -> SocketAddr {
    told_as(printed, words, '/')
}

/// The address behind these words, and before what begins with `end`.
fn told_as(printed: &str, words: &str, end: char) -> SocketAddr {
    let line =
        printed.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("no '{words}' in\n{printed}"));
    let text = line.split_once(words).map_or("", |(_, text)| text.trim());
    let text = text.rsplit("http://").next().unwrap_or_default().split([end, ',']).next().unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("no address in '{line}'"))
}

async fn answers_200(address: SocketAddr) -> bool {
    client::get(address, "/").await.is_ok_and(|answer| answer.status == StatusCode::OK)
}

#[tokio::test]
async fn four_commands_make_a_pair_over_mutual_tls() {
    let (home, api, local) = (Home::new(), Upstream::start("api").await, Reserved::new());
    let port = api.address().port();
    let began = Instant::now();
    let up = home.up().await;
    assert!(up.contains("the control plane runs\n"), "{up}");
    home.say(&format!("join api --port {port}")).await;
    let join = format!("join web --call api:{port}={}", local.address().port());
    let web = home.say(&join).await;
    let entry = told(&web, "it calls");
    assert_eq!(entry, local.address());
    wait::until_true("the service is reached", || answers_200(entry)).await;
    let took = began.elapsed();
    println!("from nothing to the first answer: {took:?}, goal {PAIR:?}");
    assert!(took < PAIR * 10, "{took:?}");
    let metrics = Metrics::at(told(&web, "its metrics"));
    let labels = [r#"destination_service="default/api""#, r#"tls="mtls""#, r#"response_code="200""#];
    assert!(metrics.value("selvedge_requests_total", &labels).await >= 1.0);

    // The same command again changes nothing.
    let lock = || std::fs::read_to_string(home.path("run/sidecar-web.lock")).expect("a lock file");
    let before = lock();
    assert_eq!(home.say(&join).await, web);
    assert_eq!(lock(), before);
    assert!(home.up().await.contains("the control plane runs already"));

    // What was written stays, and all of it starts again.
    let down = home.say("down").await;
    assert!(down.contains("the sidecar web has ended") && down.contains("the control plane has ended"), "{down}");
    assert!(!client::accepts(entry).await, "nothing goes on");
    let up = home.say("up").await;
    assert!(up.contains("the sidecar web runs again"), "{up}");
    wait::until_true("the service is reached again", || answers_200(entry)).await;
}

#[tokio::test]
async fn who_leaves_answers_what_is_in_flight() {
    let (home, slow, local) = (Home::new(), Upstream::start("api").await, Reserved::new());
    home.up().await;
    let port = slow.address().port();
    home.say(&format!("join api --port {port}")).await;
    let entry = told(&home.say(&format!("join web --call api:{port}={}", local.address().port())).await, "it calls");
    wait::until_true("the service is reached", || answers_200(entry)).await;
    for (words, after) in
        [(format!("leave api-{port}"), format!("join api --port {port}")), ("down".to_owned(), "up".to_owned())]
    {
        slow.play(Scenario::Slow(Duration::from_secs(3)));
        let (called, served) = (&slow, slow.served());
        let call = tokio::spawn(async move { client::get(entry, "/").await.map(|answer| answer.status).ok() });
        wait::until_true("the request is under way", || async move { called.served() > served }).await;
        home.say(&words).await;
        assert_eq!(call.await.expect("no panic"), Some(StatusCode::OK), "{words}");
        slow.play(Scenario::Echo);
        home.say(&after).await;
        wait::until_true("the service is reached again", || answers_200(entry)).await;
    }
}

#[tokio::test]
async fn what_runs_ends_though_its_folder_was_removed() {
    let (home, api) = (Home::new(), Upstream::start("api").await);
    home.up().await;
    let joined = home.say(&format!("join api --port {}", api.address().port())).await;
    let (control_plane, sidecar) = (home.ports[0].address(), told(&joined, "its metrics"));
    assert!(client::accepts(control_plane).await && client::accepts(sidecar).await);
    // Whoever still runs there may write a file meanwhile.
    wait::until_true("the folder is gone", || {
        let _ = std::fs::remove_dir_all(home.path(""));
        std::future::ready(!home.path("").exists())
    })
    .await;
    let down = home.say("down").await;
    assert!(down.contains("was removed while it ran"), "{down}");
    assert!(!client::accepts(control_plane).await && !client::accepts(sidecar).await);
    let refused = home.refusal("down").await;
    assert!(refused.contains("start one with `selvedge up`"), "{refused}");
}

#[tokio::test]
async fn a_log_that_is_full_is_put_aside_while_it_is_written_to() {
    let (home, api) = (Home::new(), Upstream::start("api").await);
    home.up().await;
    let log = home.path("logs/control-plane.log");
    let mut file = std::fs::File::options().append(true).open(&log).expect("a log");
    file.write_all(&[b'\n'; 11 << 20]).expect("it is filled");
    let aside = home.path("logs/control-plane.log.1");
    wait::until_true("it is put aside", || std::future::ready(aside.exists())).await;
    home.say(&format!("join api --port {}", api.address().port())).await;
    wait::until_true("the log goes on", || {
        std::future::ready(
            std::fs::read_to_string(&log).is_ok_and(|text| text.len() < 1 << 20 && text.contains("INFO")),
        )
    })
    .await;
}

#[tokio::test]
async fn several_join_at_once() {
    let home = Home::new();
    home.up().await;
    let ups = [Upstream::start("api").await, Upstream::start("api").await, Upstream::start("api").await];
    let joins: Vec<String> = ups.iter().map(|api| format!("join api --port {}", api.address().port())).collect();
    let joined = futures_util::future::join_all(joins.iter().map(|words| home.say(words))).await;
    let reached: BTreeSet<SocketAddr> = joined.iter().map(|printed| told_as(printed, "peers reach it", ' ')).collect();
    assert_eq!(reached.len(), 3, "{joined:?}");
    let service = std::fs::read_to_string(home.path("mesh/api.service.yaml")).expect("a Service");
    let first = ups.iter().filter(|api| service.contains(&format!("port: {},", api.address().port()))).count();
    assert_eq!(first, 1, "the first who joined has said the port: {service}");
}

#[tokio::test]
async fn what_cannot_be_is_said_in_words() {
    let home = Home::new();
    let refused = home.refusal("join api --port 8080").await;
    assert!(refused.contains("start one with `selvedge up`"), "{refused}");
    for (words, wanted) in [
        ("join Api --port 8080", "no name of a service"),
        ("join api", "say with --port where api listens"),
        ("join api --port 8080 --call api:80=0", "'0' is no port"),
        ("join api --port 0", "0 is not in 1..=65535"),
        ("join api --port 8080 --call other", "'other' is not SERVICE:PORT"),
        ("leave api", "no mesh is kept in"),
    ] {
        let refused = home.refusal(words).await;
        assert!(refused.contains(wanted), "{words}: {refused}");
    }
    home.up().await;
    assert!(home.refusal("leave api").await.contains("nobody was joined"));
    std::fs::create_dir(home.path("mesh/mine")).expect("a folder");
    std::fs::write(home.path("mesh/mine/api.yaml"), service("default", 9)).expect("a file");
    let refused = home.refusal("join api --port 8080").await;
    assert!(refused.contains("has no port whose targetPort is 8080; it has 9"), "{refused}");
    let refused = Home::new().refusal(&home.up_command()).await;
    assert!(refused.contains("is something else using the port"), "{refused}");
}

#[tokio::test]
async fn a_service_that_is_there_is_joined_by_its_own_labels() {
    let (home, api) = (Home::new(), Upstream::start("api").await);
    let port = api.address().port();
    home.up().await;
    let service = service("shop", port);
    std::fs::write(home.path("mesh/mine.yaml"), &service).expect("a file");
    home.say(&format!("join shop/api --port {port}")).await;
    let local = Reserved::new();
    let web = home.say(&format!("join shop/web --call shop/api:80={}", local.address().port())).await;
    assert_eq!(told(&web, "it calls"), local.address());
    wait::until_true("the service is reached", || answers_200(local.address())).await;
    assert_eq!(std::fs::read_to_string(home.path("mesh/mine.yaml")).expect("the file"), service);
    assert!(is_private(&home.path("run/join.sock")));
}

/// A `Service` that a user wrote.
fn service(namespace: &str, target: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: api, namespace: {namespace} }}\n\
         spec: {{ selector: {{ run: api }}, ports: [{{ port: 80, targetPort: {target} }}] }}\n"
    )
}

fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o077 == 0
}
