//! `selvedge confirm`, with a control plane of its own: what is missing is held until somebody says that it is meant.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
const DENY: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: deny}\n\
                    spec: {targetRef: {name: a}, action: DENY, rules: [{}]}\n";

/// A running control plane, killed when dropped.
struct ControlPlane {
    folder: TempDir,
    process: Child,
    admin: SocketAddr,
}

impl ControlPlane {
    fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let inside = |name: &str| folder.path().join(name);
        fs::create_dir(inside("mesh")).expect("a folder");
        fs::write(inside("mesh/a.yaml"), SERVICE).expect("a file");
        fs::write(inside("mesh/deny.yaml"), DENY).expect("a file");
        let process = Command::new(env!("CARGO_BIN_EXE_selvedge"))
            .args(["control-plane", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--config-dir", "mesh", "--state-dir", "state", "--ports-file", "ports.json"])
            .current_dir(folder.path())
            .stderr(fs::File::create(inside("log")).expect("a log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("selvedge runs");
        let ports: Value =
            eventually("the ports file", || serde_json::from_slice(&fs::read(inside("ports.json")).ok()?).ok());
        let admin = ports["admin"].as_str().expect("an address").parse().expect("an address");
        let plane = Self { folder, process, admin };
        plane.until(|objects, findings| objects.len() == 2 && findings.is_empty());
        plane
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until the names of the objects and the findings are like this, and returns the findings.
    fn until(&self, is_so: impl Fn(&[String], &[String]) -> bool) -> Vec<String> {
        eventually("the objects and findings", || {
            let answer = http(self.admin, "GET /status", &[], "").ok()?;
            let status: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
            let texts = |list: &str, field: &str| -> Vec<String> {
                let items = status[list].as_array().into_iter().flatten();
                items.filter_map(|item| item[field].as_str().map(str::to_owned)).collect()
            };
            let (objects, findings) = (texts("objects", "name"), texts("findings", "message"));
            is_so(&objects, &findings).then_some(findings)
        })
    }

    fn confirm(&self, path: &Path, from: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
        command.args(["confirm", "--admin", &self.admin.to_string()]).arg(path).current_dir(from);
        command.output().expect("selvedge runs")
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks again and again until there is an answer.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        if let Some(answer) = ask() {
            return answer;
        }
        thread::sleep(PAUSE);
    }
    panic!("{what}: nothing in {PATIENCE:?}")
}

/// The whole answer to one request.
fn http(address: SocketAddr, request: &str, headers: &[&str], body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn an_empty_file_keeps_its_policy_until_somebody_says_that_it_is_meant() {
    let plane = ControlPlane::start();
    fs::write(plane.path("mesh/deny.yaml"), "").expect("the file is emptied");
    let findings = plane.until(|objects, findings| objects.len() == 2 && !findings.is_empty());
    assert!(findings[0].starts_with("the file is empty"), "{findings:?}");

    // As the finding names it, from wherever that is; and as it is called here.
    let elsewhere = plane.confirm(Path::new("mesh/a.yaml"), Path::new("/"));
    assert_eq!(elsewhere.status.code(), Some(2), "{elsewhere:?}");
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("nothing at mesh/a.yaml waits to be confirmed"));
    let confirmed = plane.confirm(Path::new("deny.yaml"), &plane.path("mesh"));
    assert!(confirmed.status.success(), "{confirmed:?}");
    assert_eq!(String::from_utf8_lossy(&confirmed.stdout), "confirmed: mesh/deny.yaml\n");
    plane.until(|objects, findings| objects == ["a"] && findings.is_empty());

    fs::write(plane.path("mesh/draft"), DENY).expect("a draft");
    fs::rename(plane.path("mesh/draft"), plane.path("mesh/deny.yaml")).expect("it takes the file's place");
    plane.until(|objects, findings| objects.len() == 2 && findings.is_empty());
    fs::write(plane.path("mesh/deny.yaml"), "# not any more\n").expect("the file is written");
    let findings = plane.until(|objects, findings| objects.len() == 1 && !findings.is_empty());
    assert!(findings[0].contains("its default posture is allow"), "{findings:?}");
    assert!(plane.confirm(Path::new("mesh/deny.yaml"), Path::new("/")).status.success());
    plane.until(|_, findings| findings.is_empty());

    let log = fs::read_to_string(plane.path("log")).expect("a log");
    for (fate, generation) in [("accepted", 1), ("removed", 1), ("accepted", 2), ("removed", 2)] {
        let line = |line: &&str| {
            line.contains(&format!("object {fate} object=AuthorizationPolicy default/deny generation={generation} "))
        };
        assert_eq!(strip_colours(&log).lines().filter(line).count(), 1, "{fate} {generation}: {log}");
    }
    for told in ["mesh/deny.yaml: error: the file is empty", "its default posture is allow: expected the file, or"] {
        let line = |line: &&str| line.contains(told) && line.contains("`selvedge confirm mesh/deny.yaml`");
        assert_eq!(strip_colours(&log).lines().filter(line).count(), 1, "{told}: {log}");
    }
}

/// The log without the escapes of a terminal.
fn strip_colours(log: &str) -> String {
    let mut parts = log.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn neither_a_page_in_a_browser_nor_a_mere_reader_confirms_anything() {
    let plane = ControlPlane::start();
    fs::write(plane.path("mesh/deny.yaml"), "").expect("the file is emptied");
    plane.until(|_, findings| !findings.is_empty());
    let body = r#"["mesh/deny.yaml"]"#;
    let rebound = format!("Host: evil.example:{}", plane.admin.port());
    for (request, headers, status) in [
        ("GET /confirm", &[][..], "405"),
        ("OPTIONS /confirm", &["Origin: http://evil.example"], "405"),
        ("POST /confirm", &["Origin: http://evil.example"], "403"),
        ("POST /confirm", &["Origin: null", "Content-Type: text/plain"], "403"),
        ("POST /confirm", &[&*rebound], "421"),
        ("POST /status", &[], "405"),
    ] {
        let answer = http(plane.admin, request, headers, body).expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request} {headers:?}: {answer}");
    }
    let senseless = http(plane.admin, "POST /confirm", &[], "mesh").expect("an answer");
    assert!(senseless.starts_with("HTTP/1.1 400"), "{senseless}");
    plane.until(|objects, findings| objects.len() == 2 && !findings.is_empty());
}

#[test]
fn without_a_control_plane_it_says_what_to_look_at() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let free = listener.local_addr().expect("an address");
    drop(listener);
    let output = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["confirm", "mesh/a.yaml", "--admin", &free.to_string()])
        .output()
        .expect("selvedge runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains(&format!("no control plane answers on {free}")) && error.contains("--admin"), "{error}");
}
