//! Applications that others wrote work through two sidecars as they do without, on ports that nothing is said of. Those that are
//! installed are tried; `docs/compatibility.md` lists what they all come to.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use selvedge_tests::{
    client, long,
    mesh::{Mesh, Workload},
    ports::Reserved,
    process::{Process, binary},
    program, skip, wait,
};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

const ROWS: &str = include_str!("applications/rows.yaml");

/// How many are tried at once.
const AT_ONCE: usize = 3;
/// How long one that starts slowly may take, and one call.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// The Debian packages that have it.
    package: String,
    needs: Vec<String>,
    /// Succeeds where what is no program is there too.
    #[serde(default)]
    asks: Option<String>,
    version: String,
    server: String,
    client: String,
    prints: String,
}

impl Row {
    fn is_installed(&self) -> bool {
        let answers = |asked: &str| {
            let is_there = script(Command::new("env"), asked).output().unwrap().status.success();
            if !is_there {
                skip(&format!("`{asked}` fails"));
            }
            is_there
        };
        self.needs.iter().all(|name| program(name).is_some()) && self.asks.as_deref().is_none_or(answers)
    }
}

/// A row, the port of its server and the folder that is its own.
struct Application {
    row: Row,
    port: Reserved,
    folder: TempDir,
}

impl Application {
    fn new(row: Row) -> Self {
        let folder = tempfile::Builder::new().prefix("selvedge-test-").tempdir().unwrap();
        // Some become another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { row, port: Reserved::new(), folder }
    }

    /// The script in its folder, about this port.
    fn script(&self, command: Command, text: &str, port: u16) -> Command {
        let mut command = script(command, text);
        command.env("PORT", port.to_string()).env("DIR", self.folder.path()).current_dir(self.folder.path());
        command
    }

    /// The server, which ends with everything that it has started: what ends the namespace is a shell that stays what it is, since
    /// who becomes another user does not end with its parent.
    fn serve(&self) -> Process {
        let mut alone = Command::new("unshare");
        alone.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        alone.args(["bash", "-c", "\"$@\" & wait", "bash"]);
        let mut command = self.script(alone, &self.row.server, self.port.address().port());
        Process::start("server", &mut command, self.folder.path())
    }

    /// What the client prints that calls this port.
    async fn call(&self, port: u16) -> String {
        let out = tempfile::tempdir().unwrap();
        let mut command = tokio::process::Command::from(self.script(Command::new("env"), &self.row.client, port));
        let output = timeout(PATIENCE, command.env("OUT", out.path()).kill_on_drop(true).output()).await;
        output.map_or_else(
            |_| format!("nothing within {PATIENCE:?}"),
            |output| String::from_utf8_lossy(&output.unwrap().stdout).into_owned(),
        )
    }

    fn version(&self) -> String {
        let output = self.script(Command::new("env"), &self.row.version, 0).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().lines().next().unwrap_or_default().to_owned()
    }

    /// What is not the same through the mesh.
    async fn differs(&self, entry: u16) -> Option<String> {
        let _server = self.serve();
        let (row, at) = (&self.row, self.port.address());
        wait::until_within(PATIENCE, &row.name, || async move { client::accepts(at).await.then_some(()) }).await;
        let direct = wait::until_within(PATIENCE, &row.name, || async move {
            let printed = self.call(at.port()).await;
            printed.contains(&row.prints).then_some(printed)
        });
        let direct = direct.await;
        let meshed = self.call(entry).await;
        let _told = writeln!(
            io::stderr(),
            "{} ({}): {}",
            row.name,
            self.version(),
            if direct == meshed { "the same" } else { "differs" }
        );
        (direct != meshed).then(|| format!("--- {}, direct:\n{direct}\n--- through the mesh:\n{meshed}", row.name))
    }
}

/// Bash with the script, by way of `command`, where programs are found wherever Debian has them, and modules of Python where
/// `.ci/setup` brings them.
fn script(mut command: Command, text: &str) -> Command {
    let modules = binary("selvedge").parent().and_then(Path::parent).unwrap().join("python");
    command.args(["bash", "-c", text]).env("PATH", path()).env("PYTHONPATH", modules);
    command
}

/// Where programs are looked for.
fn path() -> OsString {
    let postgres = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let own = env::var_os("PATH").unwrap_or_default();
    env::join_paths(env::split_paths(&own).chain(usual).chain(postgres)).unwrap()
}

#[tokio::test]
async fn applications_do_through_the_mesh_what_they_do_without() {
    if !rustix::process::getuid().is_root() {
        return skip("only root can give each application processes of its own");
    }
    let rows: Vec<Row> = serde_saphyr::from_str(ROWS).unwrap();
    let rows = rows.into_iter().filter(|row| long::is_asked(&row.name) && row.is_installed());
    let all: Vec<Application> = rows.map(Application::new).collect();

    let mesh = Mesh::start().await;
    let (mut store, mut web) = (Workload::new("shop/store"), Workload::new("shop/web"));
    let mut service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: store, namespace: shop}\nspec:\n  selector: {app: \
                       store}\n  ports:\n"
            .to_owned();
    for (port, application) in (6000..).zip(&all) {
        service.push_str(&format!("  - {{name: p{port}, port: {port}}}\n"));
        store = store.serves(port, application.port.address());
        web = web.calls(&format!("shop/store:{port}"));
    }
    mesh.write("store.yaml", &service);
    let _store = mesh.sidecar(store).await;
    let web = mesh.sidecar(web).await;

    let (places, mut trying) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (port, application) in (6000..).zip(all) {
        let (places, entry) = (Arc::clone(&places), web.outbound(&format!("shop/store:{port}")).port());
        trying.spawn(async move {
            let _place = places.acquire().await.unwrap();
            application.differs(entry).await
        });
    }
    let differing: Vec<String> = trying.join_all().await.into_iter().flatten().collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// The page lists every row, and nothing that is none.
#[test]
fn the_page_lists_what_is_tried() {
    let rows: Vec<Row> = serde_saphyr::from_str(ROWS).unwrap();
    let page = fs::read_to_string(selvedge_tests::workspace().join("docs/compatibility.md")).unwrap();
    let listed: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("| application |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(listed, names);
    let packages: Vec<&str> = rows.iter().flat_map(|row| row.package.trim_start_matches("PyPI: ").split(' ')).collect();
    let setup = fs::read_to_string(selvedge_tests::workspace().join(".ci/setup")).unwrap();
    for package in packages {
        assert!(setup.contains(package), "`.ci/setup applications` installs {package}");
    }
}
