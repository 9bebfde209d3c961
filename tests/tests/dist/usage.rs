//! What an operator does with the packages, from installing to removing them.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
};

use selvedge_tests::{client, skip, upstream::Upstream, wait};

use crate::system::System;

/// Installs the packages of `folder/one`, uses what they bring, and removes them.
pub(crate) async fn whole_life(folder: &Path) {
    let system = System::of(folder);
    if !system.does("test -e /tmp/whole && dpkg-query --show libc6") {
        return skip("no copy of this system can be mounted, or it is on several file systems");
    }
    // Containers of Debian leave manual pages out.
    for setting in fs::read_dir(system.path("etc/dpkg/dpkg.cfg.d")).into_iter().flatten().flatten() {
        if !setting.path().is_file() {
            continue;
        }
        fs::remove_file(setting.path()).expect("it goes, from the copy");
    }
    system.pretend_systemd();
    // Triggers are others' business, such as an index of all manual pages.
    system.say("dpkg --no-triggers --install /mnt/*.deb");
    let restart = "--no-block try-restart selvedge-control-plane.service";
    assert_eq!(system.told_systemd(), [restart, "daemon-reload"]);
    what_is_installed_is_what_was_meant(&system);
    units_start_what_they_name(&system).await;
    a_mesh_of_the_installed_programs(&system).await;
    system.say("dpkg --no-triggers --remove selvedge selvedge-proxy");
    let ended = [
        "disable --now selvedge-control-plane.service",
        "disable selvedge-proxy@.service",
        "stop selvedge-proxy@*.service",
    ];
    assert_eq!(system.told_systemd(), [&["daemon-reload"], &ended[..]].concat());
    let state = |path: &String| path.starts_with("var/lib/selvedge");
    let left = |system: &System| system.changed().into_iter().filter(|path| !state(path)).collect::<Vec<_>>();
    assert_eq!(left(&system), ["etc/selvedge/mesh/mesh.yaml"], "what users may have changed stays");
    system.say("dpkg --no-triggers --purge selvedge selvedge-proxy");
    assert_eq!(left(&system), [""; 0]);
    assert!(
        system.changed().iter().any(|path| path.ends_with("ca.pem")),
        "the authority stays: {:?}",
        system.changed()
    );
}

fn what_is_installed_is_what_was_meant(system: &System) {
    for program in ["selvedge", "selvedge-proxy"] {
        let version = system.say(&format!("{program} --version"));
        assert!(
            system.say(&format!("dpkg-query --show {program}")).contains(version.trim().rsplit(' ').next().unwrap())
        );
        let documents = system.path(&format!("usr/share/doc/{program}"));
        let terms = fs::read_to_string(documents.join("copyright")).expect("on which terms");
        for words in ["tokio 1.", "h2 0.", "Permission is hereby granted", "Copyright", "END OF TERMS AND CONDITIONS"] {
            assert!(terms.contains(words), "{program}: {words}");
        }
        for file in [format!("zsh/vendor-completions/_{program}"), format!("fish/vendor_completions.d/{program}.fish")]
        {
            let completions = fs::read_to_string(system.path(&format!("usr/share/{file}"))).expect("completions");
            assert!(completions.contains("capture"), "{file}");
        }
        assert!(system.say(&format!("zcat /usr/share/man/man1/{program}.1.gz")).contains("capture"));
    }
    let complete = "bash -c 'source /usr/share/bash-completion/completions/selvedge; COMP_WORDS=(selvedge jo); COMP_CWORD=1; \
                    _selvedge selvedge jo selvedge; echo ${COMPREPLY[@]}'";
    assert_eq!(system.say(complete).trim(), "join");
    assert!(system.say("zcat /usr/share/man/man1/selvedge-join.1.gz").contains("port of 127.0.0.1"));
    assert!(system.say("selvedge lint /etc/selvedge/mesh").contains("no findings"));
    // Before 250 it also complains of what others' units lack.
    if system.does("systemd-analyze --help | grep -q recursive-errors") {
        let verify = "systemd-analyze verify --man=no --recursive-errors=no /usr/lib/systemd/system/selvedge-*.service";
        system.say(verify);
    }
}

/// A service of one workload, which has a sidecar.
const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: { name: api, namespace: shop }
spec: { selector: { app: api }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: { name: api-1, namespace: shop, labels: { app: api } }
spec: { serviceAccount: api, address: 127.0.0.1, ports: [{ port: 8080, dial: 8443 }] }
";

/// The file of its sidecar, as it is beside the unit.
const SIDECAR: &str = "
workload: shop/api-1
controlPlane: 127.0.0.1:15010
joinTokenFile: /run/credentials/selvedge-proxy@api.service/token
stateDir: /var/lib/selvedge-proxy/api
inbound: [{ listen: '127.0.0.1:8443', forward: '127.0.0.1:8080' }]
";

/// Does what systemd would do, but for the sandbox.
async fn units_start_what_they_name(system: &System) {
    system.say("mkdir -p /run/selvedge /run/credentials/selvedge-proxy@api.service");
    let control_plane = system.start("selvedge-control-plane.service", "", local(15014)).await;
    let files = [("etc/selvedge/mesh/shop.yaml", SHOP), ("etc/selvedge/sidecars/api.yaml", SIDECAR)];
    for (file, text) in files {
        fs::write(system.path(file), text).expect("a file");
    }
    let token = token(&system.path("run/selvedge/join.sock"));
    fs::write(system.path("run/credentials/selvedge-proxy@api.service/token"), token).expect("a file");
    let sidecar = system.start("selvedge-proxy@.service", "api", local(15020)).await;
    for mut process in [sidecar, control_plane] {
        process.terminate();
        assert!(process.ended().await.success(), "{}", process.log());
    }
    for (file, _) in files {
        fs::remove_file(system.path(file)).expect("it goes");
    }
}

/// A join token for the workload, from the control plane's socket.
fn token(socket: &Path) -> String {
    let asked = r#"{"identity": "shop/api", "workload": "shop/api-1"}"#;
    let request = format!(
        "POST /token HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{asked}",
        asked.len()
    );
    let (mut stream, mut answer) = (UnixStream::connect(socket).expect("the socket"), String::new());
    stream.write_all(request.as_bytes()).expect("it is sent");
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, token) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
    token.to_owned()
}

async fn a_mesh_of_the_installed_programs(system: &System) {
    let api = Upstream::start("api").await;
    let port = api.address().port();
    system.say("selvedge up");
    system.say(&format!("selvedge join api --port {port}"));
    system.say(&format!("selvedge join web --call api:{port}=9001"));
    wait::until_true("the service is reached", || async {
        client::get(local(9001), "/").await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
    assert!(api.served() > 0);
    system.say("selvedge down");
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
