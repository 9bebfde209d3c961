//! Workloads that call one another by address, through real sidecars with transparent capture: each is called as itself.
//! Needs root; without it the tests say so.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use selvedge_tests::{
    api_server::ApiServer,
    mesh::Mesh,
    nodes::{self, HUB, Node},
    program, wait,
};
use serde_json::json;

/// The namespace of the control plane.
const SYSTEM: &str = "selvedge-system";
const ANSWERS: &str = "SELVEDGE_TEST_ANSWERS";

/// Run by [`answering`] in a node: answers every request on port 8080 with the node's name.
#[test]
fn answers_with_a_name() {
    let Ok(name) = std::env::var(ANSWERS) else { return };
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
    for stream in listener.incoming() {
        let (mut stream, name) = (stream.unwrap(), name.clone());
        thread::spawn(move || {
            let _ = stream.read(&mut [0; 4096]);
            let length = name.len();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
        });
    }
}

/// A node with a service that answers with `name`.
async fn answering(number: u8, mesh: &Mesh, name: &str) -> Node {
    let mut node = Node::start(number, mesh.folder()).await;
    let test = std::env::current_exe().unwrap().display().to_string();
    let setting = format!("{ANSWERS}={name}");
    node.runs("answers", "env", &[&setting, &test, "--exact", "answers_with_a_name", "--nocapture"]);
    node
}

fn workload(name: &str, app: &str, number: u8) -> String {
    format!(
        "---\napiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop, labels: {{app: \
         {app}}}}}\nspec: {{serviceAccount: {app}, address: 10.99.0.{number}}}\n"
    )
}

fn service(name: &str, spec: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n")
}

/// What `curl` is answered from a node, and with which status.
fn get(node: &Node, url: &str, host: &str) -> String {
    let host = format!("Host: {host}");
    node.prints("curl", &["-s", "-m", "5", "-H", &host, "-w", " %{http_code}", url])
}

#[test]
fn a_workload_that_is_called_at_its_address_answers_itself_whatever_routes_and_host_say() {
    nodes::among("a_workload_that_is_called_at_its_address_answers_itself_whatever_routes_and_host_say", async || {
        if program("curl").is_none() {
            return;
        }
        let mesh = Mesh::start_on(HUB, &[]).await;
        let mut yaml =
            service("web", "clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]")
                + &service("other", "selector: {app: other}, ports: [{port: 80, targetPort: 8080}]");
        for (name, app, number) in
            [("ui", "ui", 10), ("web-1", "web", 11), ("web-2", "web", 12), ("other", "other", 13)]
        {
            yaml += &workload(name, app, number);
        }
        yaml += "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: away, namespace: \
                 shop}\nspec: {parentRefs: [{kind: Service, group: '', name: web}], rules: [{backendRefs: [{name: \
                 other, port: 80}]}]}\n---\napiVersion: selvedge.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: slow, \
                 namespace: shop}\nspec: {targetRef: {kind: Service, name: web}, timeouts: {connect: 7s}}\n---\n\
                 apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: open, namespace: shop}\nspec: \
                 {mtls: {inbound: PERMISSIVE, outbound: PREFER}}\n";
        mesh.write("shop.yaml", &yaml);
        let mut ui = Node::start(10, mesh.folder()).await;
        ui.sidecar(&mesh, "shop/ui", "shop/ui", "").await;
        let mut servers = Vec::new();
        for (number, name, app) in [(11, "web-1", "web"), (12, "web-2", "web"), (13, "other", "other")] {
            let mut node = answering(number, &mesh, name).await;
            node.sidecar(&mesh, &format!("shop/{name}"), &format!("shop/{app}"), "").await;
            servers.push(node);
        }
        let ui = &ui;
        let answer = async |url: &str, wanted: &str| {
            wait::until_true(&format!("{url} is answered: {wanted}"), || async { get(ui, url, "web.shop") == wanted })
                .await;
        };
        answer("http://10.96.0.1/", "other 200").await;
        answer("http://10.99.0.11:8080/", "web-1 200").await;
        for _ in 0..10 {
            assert_eq!(get(ui, "http://10.99.0.11:8080/", "web.shop"), "web-1 200");
            assert_eq!(get(ui, "http://10.99.0.12:8080/", "web-1.example"), "web-2 200");
        }
        let by_itself = [
            "direction=\"outbound\"",
            "destination_workload=\"web-1\"",
            "destination_service=\"shop/web\"",
            "tls=\"mtls\"",
        ];
        assert!(ui.metrics().value("selvedge_requests_total", &by_itself).await >= 10.0);
        let config = ui.config();
        let shown = &config["endpoints"]["shop/web-1@10.99.0.11:8080"]["endpoints"][0];
        assert_eq!((&shown["transport"], &shown["connectTimeout"]), (&"mtls".into(), &"7s".into()), "{config:#}");

        servers[0].kill("answers");
        let refused = wait::until("nobody answers for the one that is down", || async {
            Some(get(ui, "http://10.99.0.11:8080/", "web.shop")).filter(|answer| !answer.starts_with("web-1"))
        })
        .await;
        assert!(refused.contains("application_unreachable") && refused.ends_with(" 503"), "{refused}");
        // From now on the application itself could be reached in plaintext, and plaintext may go out.
        servers[1].kill("sidecar");
        servers[1].release();
        for _ in 0..5 {
            let answer = get(ui, "http://10.99.0.12:8080/", "web.shop");
            assert!(answer.ends_with(" 503"), "{answer}");
        }
        let clear = ["direction=\"outbound\"", "destination_workload=\"web-2\"", "tls=\"none\""];
        ui.metrics().absent("selvedge_requests_total", &clear).await;
    });
}

const OPEN: &str = "---\napiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: open, namespace: \
                    shop}\nspec: {mtls: {inbound: PERMISSIVE, outbound: PREFER}}\n";

#[test]
fn a_gateway_finds_services_by_host_and_each_service_before_a_workload_is_counted_by_its_name() {
    nodes::among(
        "a_gateway_finds_services_by_host_and_each_service_before_a_workload_is_counted_by_its_name",
        async || {
            if program("curl").is_none() {
                return;
            }
            let mesh = Mesh::start_on(HUB, &[]).await;
            let behind = |address: &str, app: &str| {
                format!("clusterIP: {address}, selector: {{app: {app}}}, ports: [{{port: 80, targetPort: 8080}}]")
            };
            let mut yaml = service("all", &behind("10.96.0.1", "web"))
                + &service("web", &behind("10.96.0.2", "web"))
                + &service("zoo", &behind("10.96.0.3", "web"))
                + &service("other", &behind("10.96.0.4", "other"))
                + OPEN;
            for (name, number) in [("gateway", 10), ("web", 11), ("other", 13)] {
                yaml += &workload(name, name, number);
            }
            yaml += "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: away, namespace: \
                 shop}\nspec: {parentRefs: [{kind: Service, group: '', name: web}], rules: [{backendRefs: [{name: \
                 other, port: 80}]}]}\n";
            mesh.write("shop.yaml", &yaml);
            let mut gateway = Node::start(10, mesh.folder()).await;
            gateway.sidecar(&mesh, "shop/gateway", "shop/gateway", "ingress: host\n").await;
            let (mut web, mut other) = (answering(11, &mesh, "web").await, answering(13, &mesh, "other").await);
            web.sidecar(&mesh, "shop/web", "shop/web", "").await;
            other.sidecar(&mesh, "shop/other", "shop/other", "").await;
            let _outside = answering(14, &mesh, "outside").await;
            let answer = async |node: &Node, url: &str, host: &str, wanted: &str| {
                let what = format!("{url} with Host {host} is answered: {wanted}");
                wait::until_true(&what, || async { get(node, url, host) == wanted }).await;
            };
            let own = "http://10.99.0.11:8080/";
            answer(&gateway, own, "web.shop", "other 200").await;
            answer(&gateway, own, "www.example.com", "web 200").await;
            answer(&gateway, own, "zoo.shop", "web 200").await;
            answer(&gateway, own, "zoo.shop.svc.cluster.local:80", "web 200").await;
            let counted =
                async |node: &Node, labels: &[&str]| node.metrics().value("selvedge_requests_total", labels).await;
            let inbound = |service: &'static str| ["direction=\"inbound\"", "tls=\"mtls\"", service];
            assert!(counted(&web, &inbound("destination_service=\"shop/zoo\"")).await >= 2.0);
            assert!(counted(&web, &inbound("destination_service=\"shop/all\"")).await >= 1.0, "at its own address");
            // No other workload looks at the host.
            answer(&other, own, "web.shop", "web 200").await;

            let before = counted(&web, &inbound("destination_service=\"shop/zoo\"")).await;
            answer(&web, "http://10.96.0.3/", "zoo.shop", "web 200").await;
            assert!(counted(&web, &inbound("destination_service=\"shop/zoo\"")).await > before, "it has called itself");
            answer(&web, "http://10.99.0.14:8080/", "web.shop", "outside 200").await;
            let passed = ["direction=\"outbound\"", "destination_service=\"passthrough\"", "tls=\"none\""];
            assert!(counted(&web, &passed).await >= 1.0);
        },
    );
}

/// Three nodes that run Redis as one cluster, of which `join` starts the sidecar of each as the workload of its name.
async fn redis_cluster(mesh: &Mesh, names: [&str; 3], join: impl AsyncFn(&mut Node, &str)) -> Vec<Node> {
    let redis = program("redis-server").unwrap().display().to_string();
    let mut nodes = Vec::new();
    for (number, name) in (11..).zip(names) {
        let mut node = Node::start(number, mesh.folder()).await;
        join(&mut node, name).await;
        let args = format!(
            "--port 6379 --bind 0.0.0.0 --protected-mode no --save  --cluster-enabled yes --cluster-node-timeout 5000 \
             --cluster-announce-ip {}",
            node.address
        );
        node.runs("redis", &redis, &args.split(' ').collect::<Vec<_>>());
        nodes.push(node);
    }
    let pong = |node: &Node, host: &str| node.prints("redis-cli", &["-h", host, "ping"]).trim() == "PONG";
    for node in &nodes {
        wait::until_true("Redis answers", || async { pong(node, "127.0.0.1") }).await;
    }
    let first = &nodes[0];
    for other in &nodes[1..] {
        let other = other.address.to_string();
        wait::until_true("a node answers another", || async { pong(first, &other) }).await;
    }
    let members: Vec<String> = nodes.iter().map(|node| format!("{}:6379", node.address)).collect();
    // It waits without end for nodes that do not find each other.
    let create = ["60", "redis-cli", "--cluster", "create"];
    let args: Vec<&str> = create.into_iter().chain(members.iter().map(String::as_str)).collect();
    let said = first.prints("timeout", &[&args[..], &["--cluster-yes"]].concat());
    assert!(said.contains("All 16384 slots covered"), "{said}");
    nodes
}

/// Writes through one node and reads through another what any of the three may hold.
async fn works(nodes: &[Node]) {
    for node in nodes {
        wait::until_true("the cluster is whole", || async {
            node.prints("redis-cli", &["cluster", "info"]).contains("cluster_state:ok")
        })
        .await;
    }
    for n in 0..30 {
        let (key, value) = (format!("key{n}"), format!("value{n}"));
        let address = nodes[n % 3].address.to_string();
        assert_eq!(nodes[0].prints("redis-cli", &["-c", "-h", &address, "set", &key, &value]).trim(), "OK");
        assert_eq!(nodes[1].prints("redis-cli", &["-c", "get", &key]).trim(), value);
    }
    for node in nodes {
        let inbound = |tls: &'static str| ["direction=\"inbound\"", tls];
        let metrics = node.metrics();
        assert!(metrics.value("selvedge_tcp_connections_opened_total", &inbound("tls=\"mtls\"")).await >= 2.0);
        metrics.absent("selvedge_tcp_connections_opened_total", &inbound("tls=\"none\"")).await;
        let called = ["direction=\"inbound\"", "destination_service=\"shop/redis\"", "tls=\"mtls\""];
        assert!(metrics.value("selvedge_tcp_received_bytes_total", &called).await > 0.0);
    }
}

#[test]
fn a_redis_cluster_of_processes_knows_its_members_by_address() {
    nodes::among("a_redis_cluster_of_processes_knows_its_members_by_address", async || {
        if program("redis-server").is_none() || program("redis-cli").is_none() {
            return;
        }
        let mesh = Mesh::start_on(HUB, &[]).await;
        let mut yaml =
            service("redis", "clusterIP: None, selector: {app: redis}, ports: [{port: 6379, appProtocol: tcp}]");
        for number in 0..3 {
            yaml += &workload(&format!("redis-{number}"), "redis", 11 + number);
        }
        mesh.write("redis.yaml", &yaml);
        let join = async |node: &mut Node, name: &str| {
            node.sidecar(&mesh, &format!("shop/{name}"), "shop/redis", "").await;
        };
        let nodes = redis_cluster(&mesh, ["redis-0", "redis-1", "redis-2"], join).await;
        works(&nodes).await;
        let deny = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: closed, namespace: \
                    shop}\nspec: {targetRef: {kind: Workload, name: redis-2}, action: DENY, rules: [{to: [{ports: \
                    [6379]}]}]}\n";
        mesh.write("deny.yaml", deny);
        let ping = |host: &str| nodes[0].prints("redis-cli", &["-h", host, "ping"]);
        wait::until_true("the called member's policy holds", || async { ping("10.99.0.13").trim() != "PONG" }).await;
        assert_eq!(ping("10.99.0.12").trim(), "PONG");
    });
}

const NATS: &str = "SELVEDGE_TEST_NATS";

/// Run in a node as a client of the NATS server there: `answers` answers with what it is asked, `asks` asks one question and
/// prints the answer.
#[test]
fn speaks_nats() {
    let Ok(role) = std::env::var(NATS) else { return };
    // The server may have been started a moment ago.
    let connect =
        |_| TcpStream::connect((Ipv4Addr::LOCALHOST, 4222)).map_err(|_| thread::sleep(Duration::from_millis(50)));
    let stream = (0..600).find_map(|n| connect(n).ok()).unwrap();
    stream.set_read_timeout((role == "asks").then_some(Duration::from_secs(2))).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let mut say = stream;
    say.write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
    match role.as_str() {
        "asks" => say.write_all(b"SUB inbox 1\r\nPUB question inbox 5\r\nhello\r\n").unwrap(),
        _ => say.write_all(b"SUB question 1\r\n").unwrap(),
    }
    while let Some(line) = lines.next() {
        if line.starts_with("PING") {
            say.write_all(b"PONG\r\n").unwrap();
        } else if line.starts_with("MSG question") {
            let said = format!("{} answered", lines.next().unwrap());
            write!(say, "PUB inbox {}\r\n{said}\r\n", said.len()).unwrap();
        } else if line.starts_with("MSG inbox") {
            return println!("{}", lines.next().unwrap());
        }
    }
}

#[test]
fn a_nats_cluster_of_processes_knows_its_members_by_address() {
    nodes::among("a_nats_cluster_of_processes_knows_its_members_by_address", async || {
        let Some(nats) = program("nats-server") else { return };
        let mesh = Mesh::start_on(HUB, &[]).await;
        // Its port is not declared: the one that is called speaks first.
        let mut yaml = service("nats", "clusterIP: None, selector: {app: nats}, ports: [{port: 6222}]");
        for number in 0..3 {
            yaml += &workload(&format!("nats-{number}"), "nats", 11 + number);
        }
        mesh.write("nats.yaml", &yaml);
        let members = [11, 12, 13].map(|number| format!("nats://10.99.0.{number}:6222")).join(",");
        let mut nodes = Vec::new();
        for number in 11..14 {
            let mut node = Node::start(number, mesh.folder()).await;
            node.sidecar(&mesh, &format!("shop/nats-{}", number - 11), "shop/nats", "").await;
            let own = format!("nats://{}:6222", node.address);
            let args =
                ["-a", "0.0.0.0", "-p", "4222", "--cluster_name", "one", "--cluster", &own, "--routes", &members];
            node.runs("nats", &nats, &args);
            nodes.push(node);
        }
        let test = std::env::current_exe().unwrap().display().to_string();
        let client = [&*test, "--exact", "speaks_nats", "--nocapture"];
        nodes[2].runs("answers", "env", &[&[&*format!("{NATS}=answers")], &client[..]].concat());
        for node in &nodes[..2] {
            wait::until_true("a question at one member is answered at another", || async {
                let said = node.prints("env", &[&[&*format!("{NATS}=asks")], &client[..]].concat());
                said.contains("hello answered")
            })
            .await;
        }
        for node in &nodes {
            // Which of two members dials the other is theirs to settle.
            let meshed = ["destination_service=\"shop/nats\"", "tls=\"mtls\""];
            wait::until_true("what a member says is counted as the service's", || async {
                node.metrics().so_far("selvedge_tcp_received_bytes_total", &meshed).await > 0.0
            })
            .await;
            let clear = ["direction=\"inbound\"", "tls=\"none\""];
            node.metrics().absent("selvedge_tcp_connections_opened_total", &clear).await;
        }
    });
}

#[test]
fn a_redis_cluster_of_pods_knows_its_members_by_address() {
    nodes::among("a_redis_cluster_of_pods_knows_its_members_by_address", async || {
        if program("redis-server").is_none() || program("redis-cli").is_none() {
            return;
        }
        let server = ApiServer::double().await;
        server.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": SYSTEM } })).await;
        // Before there are pods: with them and without a key it would take the key for lost.
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig(folder.path()).display().to_string();
        let mesh = Mesh::start_on(HUB, &["--kubernetes", "--kubeconfig", &kubeconfig]).await;
        server
            .put(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": { "namespace": "shop", "name": "redis" },
                "spec": { "clusterIP": "None", "clusterIPs": ["None"], "selector": { "app": "redis" },
                    "ports": [{ "name": "tcp-redis", "port": 6379, "targetPort": 6379, "protocol": "TCP" }] },
            }))
            .await;
        let names = ["redis-0", "redis-1", "redis-2"];
        for (number, name) in (11..).zip(names) {
            let ip = format!("10.99.0.{number}");
            server
                .put(json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": { "namespace": "shop", "name": name, "labels": { "app": "redis" } },
                    "spec": { "serviceAccountName": "redis", "nodeName": "one", "containers": [{ "name": "redis", "image": "redis" }],
                        "initContainers": [{ "name": "selvedge-proxy", "image": "proxy", "restartPolicy": "Always" }] },
                    "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] },
                }))
                .await;
        }
        let bundle = || async {
            let found = server.calls().get("InjectionConfig", SYSTEM, "selvedge-inject").await?;
            Some(found["spec"]["trustBundle"].as_str()?.to_owned())
        };
        let bundle = wait::until("the trust bundle is written", bundle).await;
        let join = async |node: &mut Node, name: &str| {
            let token = server.token("shop", name, "selvedge").await;
            node.pod(&mesh, &format!("shop/{name}"), &token, &bundle).await;
        };
        works(&redis_cluster(&mesh, names, join).await).await;
    });
}
