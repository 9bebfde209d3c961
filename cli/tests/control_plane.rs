//! `selvedge control-plane`: what it refuses to start with, what it says, and what does not end it.
#![expect(clippy::expect_used, reason = "a test may panic")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tempfile::TempDir;

#[test]
fn certificates_that_nobody_could_use_are_not_issued() {
    let directory = TempDir::new().expect("a folder");
    let refused = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["control-plane", "--certificate-lifetime", "0s", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .arg("--config-dir")
        .arg(directory.path())
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .output()
        .expect("selvedge runs");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--certificate-lifetime is 0s"), "{refused:?}");
    assert!(!directory.path().join("state").exists(), "nothing was founded");
}

#[test]
fn an_api_server_that_is_not_there_is_told_in_our_own_words_alone() {
    let directory = TempDir::new().expect("a folder");
    let path = |name: &str| directory.path().join(name);
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port of nobody's");
    let kubeconfig = format!(
        "{{\"current-context\": \"a\", \"contexts\": [{{\"name\": \"a\", \"context\": {{\"cluster\": \"a\", \"user\": \"a\"}}}}], \
         \"clusters\": [{{\"name\": \"a\", \"cluster\": {{\"server\": \"http://{nobody}\"}}}}], \
         \"users\": [{{\"name\": \"a\", \"user\": {{\"token\": \"t\"}}}}]}}"
    );
    fs::write(path("kubeconfig"), kubeconfig).expect("a file");
    fs::create_dir(path("mesh")).expect("a folder");
    // A copy of the cluster's authority, without which nothing would be served.
    let founded = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["ca", "new", "--state-dir"])
        .arg(path("state"))
        .output()
        .expect("selvedge runs");
    assert!(founded.status.success(), "{founded:?}");
    let mut running = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["control-plane", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--kubernetes"])
        .arg("--kubeconfig")
        .arg(path("kubeconfig"))
        .arg("--config-dir")
        .arg(path("mesh"))
        .arg("--state-dir")
        .arg(path("state"))
        .env_remove("SELVEDGE_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .expect("selvedge runs");
    let log = BufReader::new(running.stderr.take().expect("its log"));
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut told: Vec<String> = Vec::new();
    // Workload is the last kind of the state that says so.
    while !told.iter().any(|line| line.contains("the API server does not tell of Workload: client error (Connect)")) {
        told.push(
            lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("nothing more than {told:#?}")),
        );
    }
    running.kill().and_then(|()| running.wait()).expect("it ends");
    assert!(told.iter().all(|line| !line.contains("kube_client")), "{told:#?}");
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_told_in_its_own_words() {
    let directory = TempDir::new().expect("a folder");
    let file = directory.path().join("kubeconfig");
    let refusal = || {
        let refused = Command::new(env!("CARGO_BIN_EXE_selvedge"))
            .args([
                "control-plane",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--kubernetes",
                "--kubeconfig",
            ])
            .arg(&file)
            .arg("--config-dir")
            .arg(directory.path())
            .arg("--state-dir")
            .arg(TempDir::new().expect("a folder").path().join("state"))
            .output()
            .expect("selvedge runs");
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        String::from_utf8(refused.stderr).expect("text")
    };
    let missing = refusal();
    assert_eq!(missing.matches("No such file").count(), 1, "{missing}");
    fs::write(&file, "apiVersion: v1\nkind: Config\n").expect("written");
    assert!(refusal().contains("cannot be used: it has no current-context"));
    fs::write(&file, "apiVersion: v1\nkind: Config\ncurrent-context: home\n").expect("written");
    assert!(refusal().contains("its current-context 'home' is none of its contexts"));
}

/// What a control plane that wrote this file says of itself; nothing where it does not answer.
fn status(ports: &Path) -> String {
    let ports: serde_json::Value = serde_json::from_slice(&fs::read(ports).expect("its ports")).expect("JSON");
    let mut answer = String::new();
    let _silent = TcpStream::connect(ports["admin"].as_str().expect("an address")).and_then(|mut stream| {
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer)
    });
    answer
}

#[test]
fn a_log_that_nobody_reads_any_more_does_not_end_it() {
    let directory = TempDir::new().expect("a folder");
    let config = directory.path().join("config");
    fs::create_dir(&config).expect("a folder");
    let mut running = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["control-plane", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config-dir"])
        .arg(&config)
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .arg("--ports-file")
        .arg(directory.path().join("ports.json"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("selvedge runs");
    let mut log = BufReader::new(running.stderr.take().expect("its log"));
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        assert!(log.read_line(&mut line).expect("a line") > 0, "it ended before it served");
    }
    drop(log);
    // Findings are logged, right after the status has them.
    fs::write(config.join("a.yaml"), "kind: Nothing\n").expect("written");
    let found = (0..1200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        status(&directory.path().join("ports.json")).contains("a.yaml")
    });
    assert!(found, "the finding does not come");
    thread::sleep(Duration::from_secs(1));
    let ended = running.try_wait().expect("asked");
    let _ = running.kill();
    let _ = running.wait();
    assert_eq!(ended, None, "it ended");
}
