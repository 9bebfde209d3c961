//! `data` over SQLite and over a real PostgreSQL: the product cannot tell them apart.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{
    io::Write,
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::{Child, Command as Process, Stdio},
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_saas::{
    Running, SEEDED_TENANTS, Service,
    local_postgres::{self, Installed, LocalPostgres},
    start,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;

#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    service: Service,
}

async fn service(arguments: &str) -> Running {
    let words = std::iter::once("saas").chain(arguments.split_whitespace());
    start(Command::try_parse_from(words).expect("valid arguments").service).await.expect("a running service")
}

/// A PostgreSQL with an empty database; it ends with the value.
struct Postgres {
    database: LocalPostgres,
    address: SocketAddr,
    server: Child,
    _folder: TempDir,
    _held: TcpSocket,
}

impl Postgres {
    /// `None`, with the reason printed, where there is none.
    fn start() -> Option<Self> {
        // Past the capture of the test harness, so that every skip shows.
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let skip = |reason| drop(writeln!(std::io::stderr(), "skipped: {name}: {reason}"));
        let installed = Installed::find().map_err(skip).ok()?;
        let folder = tempfile::tempdir().expect("a folder");
        let database = LocalPostgres::prepare(&installed, folder.path()).expect("a folder for PostgreSQL");
        // PostgreSQL takes no port 0. A bound socket that never listens keeps others away but not it (SO_REUSEADDR).
        let held = TcpSocket::new_v4().expect("a socket");
        held.set_reuseaddr(true).expect("supported");
        held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = held.local_addr().expect("its address");
        let server = serve(&database, address);
        Some(Self { database, address, server, _folder: folder, _held: held })
    }

    fn flags(&self) -> String {
        let password = self.database.password_file();
        format!("--database {} --database-password-file {}", local_postgres::url(self.address), password.display())
    }

    fn start_again(&mut self) {
        self.server = serve(&self.database, self.address);
    }

    fn stop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.server.id()).expect("a process id")).expect("a process id");
        kill_process(pid, Signal::INT).expect("it runs");
        assert!(self.server.wait().expect("it ends").success());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop();
        }
    }
}

fn serve(database: &LocalPostgres, address: SocketAddr) -> Child {
    let words = database.command(address);
    let mut command = Process::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::null());
    if let Some(user) = database.user() {
        command.uid(user).gid(user);
    }
    command.spawn().expect("a shell starts")
}

/// `data`, and the two services that show what is in it.
struct Product {
    content: Running,
    reports: Running,
    data: Running,
}

impl Product {
    async fn start(database: &str) -> Self {
        let data = service(&format!("data --seed {database}")).await;
        let content = service(&format!("content --data {}", data.address)).await;
        // Nothing listens there, as if the mesh denied the call.
        let reports = service(&format!("reports --data {} --auth 127.0.0.1:9", data.address)).await;
        let product = Self { content, reports, data };
        product.finds_its_database().await;
        product
    }

    /// Waits until there are answers: a database takes longer to start than a request has patience on a busy machine.
    async fn finds_its_database(&self) {
        let answers = async {
            while call(&self.content, Method::GET, "/v1/tenants/early/articles", "").await.0 != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answers).await.expect("a database that answers");
    }

    async fn stop(self) {
        for service in [self.content, self.reports, self.data] {
            service.stop().await.expect("a good end");
        }
    }

    async fn list(&self, tenant: &str) -> Value {
        let (status, body) = call(&self.content, Method::GET, &format!("/v1/tenants/{tenant}/articles"), "").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    async fn create(&self, tenant: &str, title: &str, body: &str) -> (StatusCode, Value) {
        let article = json!({ "title": title, "body": body }).to_string();
        call(&self.content, Method::POST, &format!("/v1/tenants/{tenant}/articles"), &article).await
    }
}

async fn call(service: &Running, method: Method, path: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(format!("http://{}{path}", service.address));
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
    let (head, body) = client.request(request).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (head.status, serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into()))
}

fn titles(articles: &Value) -> Vec<&str> {
    articles.as_array().expect("a list").iter().map(|article| article["title"].as_str().expect("a title")).collect()
}

/// What the product does with any database, in an order that shows in the answers.
async fn behaves(database: &str) {
    let product = Product::start(database).await;
    let seeded = ["What changed this week", "How we bill", "Welcome"];
    for tenant in SEEDED_TENANTS {
        assert_eq!(titles(&product.list(tenant).await), seeded, "{database}");
    }
    assert_eq!(product.list("nobody").await, json!([]));

    let (status, created) = product.create("acme", "Ünïcode, 'quotes' and %s", "new\nlines").await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    let path = format!("/v1/tenants/acme/articles/{}", created["id"]);
    assert_eq!(call(&product.content, Method::GET, &path, "").await, (StatusCode::OK, created.clone()));
    let elsewhere = path.replace("acme", "globex");
    assert_eq!(call(&product.content, Method::GET, &elsewhere, "").await.0, StatusCode::NOT_FOUND);
    for (title, body) in [(" ", ""), ("NUL", "a\0b"), ("long", &*"x".repeat(33 << 10))] {
        assert_eq!(product.create("acme", title, body).await.0, StatusCode::BAD_REQUEST, "{title}");
    }

    for number in 0..20 {
        assert_eq!(product.create("acme", &format!("note {number}"), "").await.0, StatusCode::CREATED);
    }
    let newest = product.list("acme").await;
    let newest = titles(&newest);
    assert_eq!((newest.len(), newest[0], newest[19]), (20, "note 19", "note 0"));

    let (status, report) = call(&product.reports, Method::GET, "/v1/tenants/acme/usage", "").await;
    assert_eq!((status, &report["usage"]), (StatusCode::OK, &json!({ "list": 2, "read": 1, "write": 21 })), "{report}");
    product.stop().await;

    let again = Product::start(database).await;
    assert_eq!(titles(&again.list("globex").await), seeded, "{database}: seeded twice");
    assert_eq!(titles(&again.list("acme").await)[0], "note 19", "{database}: forgotten");
    again.stop().await;
}

#[tokio::test]
async fn sqlite_and_postgresql_behave_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = format!("--database {}/saas.db", folder.path().display());
    let postgres = Postgres::start();
    for database in std::iter::once(sqlite).chain(postgres.as_ref().map(Postgres::flags)) {
        behaves(&database).await;
    }
}

#[tokio::test]
async fn many_at_once_share_the_connection_and_none_is_lost() {
    let Some(postgres) = Postgres::start() else { return };
    let product = std::sync::Arc::new(Product::start(&postgres.flags()).await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let product = std::sync::Arc::clone(&product);
        tasks.spawn(async move { product.create("acme", &format!("note {number}"), "").await.0 });
    }
    assert!(tasks.join_all().await.iter().all(|status| *status == StatusCode::CREATED));
    let (_, report) = call(&product.reports, Method::GET, "/v1/tenants/acme/usage", "").await;
    assert_eq!(report["usage"], json!({ "write": 50 }), "every statement counted once");
}

#[tokio::test]
async fn data_says_that_postgresql_is_away_and_finds_it_again() {
    let Some(mut postgres) = Postgres::start() else { return };
    let product = Product::start(&postgres.flags()).await;
    product.list("acme").await;
    postgres.stop();
    let (status, body) = call(&product.content, Method::GET, "/v1/tenants/acme/articles", "").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
    postgres.start_again();
    product.finds_its_database().await;
}
