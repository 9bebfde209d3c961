//! Gateways whose hosts anybody chooses: what callers from outside make up costs those of the mesh nothing.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread,
    time::Duration,
};

use selvedge_tests::{
    long,
    mesh::Mesh,
    nodes::{self, HUB, Node},
    wait,
};
use tokio::time::Instant;

/// What the test runs on a node beside its sidecar: `steady`, `flood`, or the text to answer with.
const ROLE: &str = "SELVEDGE_TEST_GATEWAY";
/// How many hosts that look like services, how many that do not, and how many addresses a flood calls.
const HOSTS: usize = 5_000;
const ADDRESSES: u16 = 1_000;
/// How many connections of a flood are open at once.
const CALLERS: usize = 50;
/// Where every request is sent, whatever host it names.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 11);
/// The application's own caller of services may wait for an answer so long at most, in nearly all calls: ten times the goal. It is
/// looked at in the long form, which has the machine for itself.
const PATIENCE: Duration = Duration::from_millis(500);
/// What a flood may add to the resident memory of the sidecar, in bytes.
const GROWTH: f64 = 32.0 * 1024.0 * 1024.0;

fn web() -> SocketAddr {
    (WEB, 8080).into()
}

/// Run on a node, as what its application does.
#[test]
fn is_an_application() {
    match std::env::var(ROLE).as_deref() {
        Ok("steady") => steady(),
        Ok("flood") => flood(),
        Ok(text) => answer(text),
        Err(_) => {}
    }
}

/// Answers every request with this text.
fn answer(text: &str) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).unwrap();
    for stream in listener.incoming().flatten() {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        thread::spawn(move || {
            let mut requests = BufReader::new(stream);
            let mut line = String::new();
            // A request without content ends with an empty line.
            while matches!(requests.read_line(&mut line), Ok(1..)) {
                if line == "\r\n" && requests.get_mut().write_all(answer.as_bytes()).is_err() {
                    return;
                }
                line.clear();
            }
        });
    }
}

/// Calls two services again and again, and says of each call how it ended and how long it took.
fn steady() {
    let mut connection = Connection::open(web());
    loop {
        for (host, expected) in [("web.shop", "other"), ("zoo.shop.svc", "web")] {
            let began = Instant::now();
            match connection.get(host) {
                Ok(text) if text == expected => println!("ok {}", began.elapsed().as_micros()),
                other => {
                    println!("failed {host}: {other:?}");
                    connection = Connection::open(web());
                }
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Names ever new hosts that look like services and ones that do not, and calls ever new addresses.
fn flood() {
    let part = |from: usize| {
        let mut connection = Connection::open(web());
        for n in (from..HOSTS).step_by(CALLERS) {
            for host in [format!("h{n}.n{n}"), format!("www.h{n}.example")] {
                match connection.get(&host) {
                    Ok(text) if text == "web" => {}
                    other => println!("failed {host}: {other:?}"),
                }
            }
        }
        for n in (0..ADDRESSES).skip(from).step_by(CALLERS) {
            // No workload is there and nobody listens, which the sidecar finds out and answers.
            let answer = Connection::open(SocketAddr::from((HUB, 20_000 + n))).get("nobody.example");
            if !answer.as_ref().is_err_and(|answer| answer.starts_with("HTTP/1.1 503")) {
                println!("failed {n}: {answer:?}");
            }
        }
    };
    let parts: Vec<_> = (0..CALLERS).map(|from| thread::spawn(move || part(from))).collect();
    for part in parts {
        part.join().unwrap();
        println!("done");
    }
}

struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(BufReader::new(stream))
    }

    /// The content of an answer with status 200.
    fn get(&mut self, host: &str) -> Result<String, String> {
        let fault = |error: std::io::Error| error.to_string();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).map_err(fault)?;
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let before = head.len();
            if self.0.read_line(&mut head).map_err(fault)? == 0 {
                return Err(format!("closed after {head:?}"));
            }
            let line = head[before..].trim().to_ascii_lowercase();
            if let Some(said) = line.strip_prefix("content-length:") {
                length = said.trim().parse().map_err(|_| line.clone())?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).map_err(fault)?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if head.starts_with("HTTP/1.1 200") { Ok(text) } else { Err(head + &text) }
    }
}

fn shop() -> String {
    let policy = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: open, namespace: shop}\nspec: \
                  {mtls: {inbound: PERMISSIVE, outbound: PREFER}}\n---\n";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: away, namespace: shop}\nspec: \
                 {parentRefs: [{kind: Service, group: '', name: web}], rules: [{backendRefs: [{name: other, port: 80}]}]}\n---\n";
    let mut yaml = policy.to_owned() + route;
    for (name, app) in [("web", "web"), ("zoo", "web"), ("other", "other")] {
        yaml += &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{selector: {{app: {app}}}, \
             ports: [{{port: 80, targetPort: 8080}}]}}\n---\n"
        );
    }
    for (name, number) in [("gateway", 10), ("web", 11), ("other", 13)] {
        yaml += &format!(
            "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop, labels: {{app: \
             {name}}}}}\nspec: {{serviceAccount: {name}, address: 10.99.0.{number}}}\n---\n"
        );
    }
    yaml
}

/// Starts this program on the node as `role`, and returns where it says what it does.
fn plays(node: &mut Node, mesh: &Mesh, role: &str) -> PathBuf {
    let said = mesh.folder().join(role);
    let script = format!(
        "{ROLE}={role} exec \"{}\" --exact is_an_application --nocapture > {}",
        std::env::current_exe().unwrap().display(),
        said.display()
    );
    node.runs(role, "sh", &["-c", &script]);
    said
}

/// How long each call of the steady caller took. None may have failed.
fn calls(said: &PathBuf) -> Vec<Duration> {
    let said = std::fs::read_to_string(said).unwrap_or_default();
    let failed: Vec<&str> = said.lines().filter(|line| line.starts_with("failed")).collect();
    assert!(failed.is_empty(), "{} calls failed, such as {:?}", failed.len(), failed.first());
    let took = said.lines().filter_map(|line| line.strip_prefix("ok ")?.parse().ok());
    took.map(Duration::from_micros).collect()
}

#[test]
fn a_flood_of_hosts_and_addresses_that_nobody_has_costs_other_calls_nothing() {
    nodes::among("a_flood_of_hosts_and_addresses_that_nobody_has_costs_other_calls_nothing", async || {
        let mesh = Mesh::start_on(HUB, &[]).await;
        mesh.write("shop.yaml", &shop());
        let mut gateway = Node::start(10, mesh.folder()).await;
        gateway.sidecar(&mesh, "shop/gateway", "shop/gateway", "ingress: host\n").await;
        let mut services = Vec::new();
        for (number, name) in [(11, "web"), (13, "other")] {
            let mut node = Node::start(number, mesh.folder()).await;
            plays(&mut node, &mesh, name);
            node.sidecar(&mesh, &format!("shop/{name}"), &format!("shop/{name}"), "").await;
            services.push(node);
        }
        let steady = plays(&mut gateway, &mesh, "steady");
        wait::until_true("the steady caller calls", || async { calls(&steady).len() >= 100 }).await;
        let metrics = gateway.metrics();
        let gauge = async |name: &str| metrics.value(name, &[]).await;
        let (generation, memory) =
            (gauge("selvedge_config_generation").await, gauge("selvedge_process_resident_memory_bytes").await);
        let (before, began) = (calls(&steady).len(), Instant::now());

        let flood = plays(&mut gateway, &mesh, "flood");
        let said = || std::fs::read_to_string(&flood).unwrap_or_default();
        let count = |what: &str| said().lines().filter(|line| *line == what).count();
        for callers in 1..=CALLERS {
            wait::until_true("the flood goes on", || async { count("done") >= callers }).await;
        }
        let (all, failed) = (said(), |line: &&str| line.starts_with("failed"));
        assert_eq!(all.lines().find(failed), None, "who names a host that nobody has is answered at the address");

        let mut took = calls(&steady).split_off(before);
        took.sort_unstable();
        let of_hundred = |n: usize| took[took.len() * n / 100];
        println!("{} calls beside the flood: p50 {:?}, p99 {:?}", took.len(), of_hundred(50), of_hundred(99));
        assert!(of_hundred(90) < long::either(Duration::MAX, PATIENCE), "p90 {:?}", of_hundred(90));
        let made = gauge("selvedge_config_generation").await - generation;
        let lasted = began.elapsed().as_secs_f64();
        let grown = gauge("selvedge_process_resident_memory_bytes").await - memory;
        println!("{made} configurations made in {lasted:.0} s, {grown} bytes more resident");
        // Thousands would be, one for each host or address; a few come with time, whatever is called.
        assert!(made < 5.0 + lasted, "{made} configurations were made of what nobody has");
        assert!(grown < GROWTH, "{grown} bytes more are resident");
        assert!(metrics.value("selvedge_hosts_not_asked_total", &[]).await > 0.0, "not every host is asked for");
    });
}
