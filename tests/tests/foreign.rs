//! Clients and servers that others wrote work through the mesh: curl and h2load in front, nginx and nghttpd behind.

use std::{fs, net::SocketAddr, process::Command};

use selvedge_tests::{
    client,
    mesh::{Mesh, Sidecar, Workload},
    pair::{DESTINATION, HOST, Pair},
    ports::Reserved,
    process::Process,
    program, wait,
};

#[tokio::test]
async fn curl_calls_over_both_versions_and_uploads() {
    let Some(curl) = program("curl") else { return };
    let pair = Pair::start().await;
    let file = pair.mesh.folder().join("upload");
    fs::write(&file, vec![b'z'; 200_000]).unwrap();
    let upload = format!("@{}", file.display());
    let expecting = ["--data-binary", &upload, "--header", "Expect: 100-continue"];
    for arguments in [&["--http1.1"][..], &["--http2-prior-knowledge"], &["--data-binary", &upload], &expecting] {
        let url = format!("http://{}/from-curl", pair.entry());
        let mut command = tokio::process::Command::new(&curl);
        command
            .args(["--silent", "--show-error", "--fail", "--max-time", "20", "--header"])
            .arg(format!("Host: {HOST}"));
        let output = command.args(arguments).arg(&url).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("\"servedBy\":\"api\""), "curl {arguments:?}: {text}");
        assert!(arguments.len() == 1 || text.contains("\"bodyLength\":200000"), "curl {arguments:?}: {text}");
    }
}

#[tokio::test]
async fn h2load_drives_many_streams_without_a_failure() {
    let Some(h2load) = program("h2load") else { return };
    let pair = Pair::start().await;
    for protocol in [&["-m", "10"][..], &["--h1"]] {
        let mut command = tokio::process::Command::new(&h2load);
        command.args(["-n", "2000", "-c", "8"]).args(protocol);
        let output = command.arg(format!("http://{}/load", pair.entry())).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx"), "h2load {protocol:?}:\n{text}");
    }
}

#[tokio::test]
async fn nginx_serves_files_through_the_mesh() {
    let Some(nginx) = program("nginx") else { return };
    let (port, folder) = (Reserved::new(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("index.html"), "<p>hello from nginx</p>".repeat(5000)).unwrap();
    let settings = format!(
        "daemon off; pid {home}/pid; error_log {home}/error.log; events {{}}\nhttp {{ access_log off; client_body_temp_path \
         {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; \
         scgi_temp_path {home}/scgi; server {{ listen {}; root {home}; }} }}\n",
        port.address(),
        home = folder.path().display()
    );
    fs::write(folder.path().join("nginx.conf"), settings).unwrap();
    // Started by root, the workers run as another user, who must be able to read the page.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-c").arg(folder.path().join("nginx.conf")).arg("-p").arg(folder.path());
    let mut server = Process::start("nginx", &mut command, folder.path());
    wait::until_true("nginx listens", || client::accepts(port.address())).await;
    let (_mesh, web, _api) = in_front_of(port.address()).await;
    let answer = until_ok(&web, "/index.html").await;
    assert_eq!(answer.body.len(), "<p>hello from nginx</p>".len() * 5000);
    assert!(answer.header("server").starts_with("nginx"), "{:?}", answer.headers);
    server.terminate();
    server.ended().await;
}

#[tokio::test]
async fn nghttpd_serves_http2_through_the_mesh() {
    let Some(nghttpd) = program("nghttpd") else { return };
    let (port, folder) = (Reserved::new(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("page"), "nghttpd speaks").unwrap();
    let mut command = Command::new(nghttpd);
    command.args(["--no-tls", "--address=127.0.0.1", "--htdocs"]).arg(folder.path());
    let _server = Process::start("nghttpd", command.arg(port.address().port().to_string()), folder.path());
    wait::until_true("nghttpd listens", || client::accepts(port.address())).await;
    let (_mesh, web, _api) = in_front_of(port.address()).await;
    let entry = web.outbound(DESTINATION);
    let answer = wait::until("nghttpd answers", || async move {
        let mut connection = client::Connection::open_http2(entry).await.ok()?;
        let answer = connection.call(client::request(http::Method::GET, HOST, "/page")).await.ok()?;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.text(), "nghttpd speaks");
}

/// A mesh in which `web` calls `api`, which is the server at `application`.
async fn in_front_of(application: SocketAddr) -> (Mesh, Sidecar, Sidecar) {
    let mesh = Mesh::start().await;
    mesh.service("shop/api", 80, 8080, "");
    let api = mesh.sidecar(Workload::new("shop/api").serves(8080, application)).await;
    let web = mesh.sidecar(Workload::new("shop/web").calls(DESTINATION)).await;
    (mesh, web, api)
}

async fn until_ok(web: &Sidecar, target: &str) -> client::Answer {
    let entry = web.outbound(DESTINATION);
    wait::until("the server answers through the mesh", || async move {
        let answer = client::call(entry, client::request(http::Method::GET, HOST, target)).await.ok()?;
        (answer.status == 200).then_some(answer)
    })
    .await
}
