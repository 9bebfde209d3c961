//! The processes: a control plane, three callers and four workloads that are called, each with its sidecar; and what they
//! were seen to do.

use std::{collections::HashMap, fs, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use selvedge_control_plane::{
    source::{Change, Document},
    store::Store,
};
use selvedge_decide::mesh::Mesh as InMemory;
use selvedge_tests::{
    client::{self, Connection},
    mesh::{Mesh, Sidecar, Workload},
    upstream::Upstream,
    wait,
};
use selvedge_xds::kinds::SELVEDGE;
use serde_json::Value;

use super::cases::{CALLED, CALLERS, Case};

const DOCUMENTS: &str = include_str!("documents.yaml");

/// Workloads that are called, with the label of their service and their ports.
const SERVING: [(&str, &str, &[u16]); 4] = [
    ("shop/api-1", "api", &[8080, 8081]),
    ("shop/api-2", "api", &[8080, 8081]),
    ("shop/next-1", "next", &[8080]),
    ("pay/ledger-1", "ledger", &[8080, 9090]),
];

/// What became of one request.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// The service that answered; empty when the mesh did.
    pub(crate) served_by: String,
    /// What the caller's sidecar logged as the route.
    pub(crate) route: String,
    /// What the called workload's sidecar logged as the policy that decided, and as the one that looked on.
    pub(crate) policy: String,
    pub(crate) audited: String,
    /// The workload whose sidecar got it.
    pub(crate) workload: String,
}

pub(crate) struct Processes {
    mesh: Mesh,
    callers: HashMap<&'static str, Sidecar>,
    called: HashMap<&'static str, Sidecar>,
    _upstreams: Vec<Upstream>,
}

impl Processes {
    /// All of them, in sync with one another.
    pub(crate) async fn start() -> Self {
        let mesh = Mesh::start().await;
        mesh.write("mesh.yaml", DOCUMENTS);
        let (mut callers, mut called, mut upstreams) = (HashMap::new(), HashMap::new(), Vec::new());
        for (name, label, ports) in SERVING {
            let upstream = Upstream::start(name).await;
            let workload = Workload::new(name).runs_as(label).backs(label);
            let workload = ports.iter().fold(workload, |workload, port| workload.serves(*port, upstream.address()));
            called.insert(name, mesh.sidecar(workload).await);
            upstreams.push(upstream);
        }
        for name in CALLERS {
            let account = name.split(['/', '-']).nth(1).expect("namespace/account-1");
            let workload = Workload::new(name).runs_as(account);
            let workload = CALLED.iter().fold(workload, |workload, (to, port)| workload.calls(&format!("{to}:{port}")));
            callers.insert(name, mesh.sidecar(workload).await);
        }
        for caller in callers.values() {
            wait::until_true("the caller knows every endpoint", || async {
                let config = client::get(caller.admin(), "/config").await.expect("the admin port answers").json();
                let known = |name: &str| config["endpoints"][name]["endpoints"].as_array().map_or(0, Vec::len);
                [known("shop/api:80"), known("shop/next:80"), known("pay/ledger:80")] == [2, 1, 1]
            })
            .await;
        }
        Self { mesh, callers, called, _upstreams: upstreams }
    }

    /// The same mesh in memory, from the same files.
    pub(crate) fn in_memory(&self) -> InMemory {
        let mut store = Store::new("mesh.local");
        for file in fs::read_dir(self.mesh.config_dir()).expect("the configuration").flatten() {
            let text = fs::read_to_string(file.path()).expect("a file");
            let origin = file.file_name().to_string_lossy().into();
            store.take("files", Document { origin, text: Ok(text.into()) }.put());
        }
        store.take("files", Change::Complete);
        let (snapshot, report) = store.commit();
        let wrong: Vec<_> = report.findings.iter().map(|finding| finding.render(false)).collect();
        println!("{}", wrong.join("\n"));
        let mut mesh = InMemory::default();
        for resource in SELVEDGE.order().iter().flat_map(|kind| snapshot.resources(*kind)) {
            mesh.put(resource).expect("what the control plane compiles can be put in force");
        }
        mesh
    }

    /// Sends every case, so many at a time, each sender over connections that it keeps.
    pub(crate) async fn send(&self, cases: &[Case], at_once: usize) -> Vec<Seen> {
        let cases: Arc<[(usize, SocketAddr, Case)]> =
            cases.iter().enumerate().map(|(id, case)| (id, self.address(case), case.clone())).collect();
        let senders = (0..at_once).map(|sender| {
            let cases = cases.clone();
            tokio::spawn(async move {
                let mut connections = HashMap::new();
                let mut seen = Vec::new();
                for (id, address, case) in cases.iter().skip(sender).step_by(at_once) {
                    seen.push((*id, call(&mut connections, *id, *address, case).await));
                }
                seen
            })
        });
        let mut seen: Vec<Seen> = cases.iter().map(|_| Seen::default()).collect();
        for sender in senders.collect::<Vec<_>>() {
            for (id, answered) in sender.await.expect("a sender ends") {
                seen[id] = answered;
            }
        }
        self.read_logs(&mut seen).await;
        seen
    }

    fn address(&self, case: &Case) -> SocketAddr {
        match case.straight_to() {
            Some(workload) => self.called[workload].inbound(case.port),
            None => self.callers[case.from].outbound(&format!("{}:{}", case.to, case.port)),
        }
    }

    /// Adds what the logs say. A request has a line at its caller's sidecar, if there is one, and a line at the called one
    /// when it got there, which that of the caller tells by the address.
    async fn read_logs(&self, seen: &mut [Seen]) {
        let (called, callers) = wait::until("every request is in the logs", || async {
            let called: HashMap<usize, (&str, Value)> = self
                .called
                .iter()
                .flat_map(|(name, sidecar)| lines(sidecar).map(|(id, line)| (id, (*name, line))))
                .collect();
            let callers: HashMap<usize, Value> = self.callers.values().flat_map(lines).collect();
            let is_written = |id: usize| match callers.get(&id) {
                Some(line) if line["destination.address"].is_null() => true,
                _ => called.contains_key(&id),
            };
            (0..seen.len()).all(is_written).then_some((called, callers))
        })
        .await;
        for (id, line) in callers {
            seen[id].route = text(&line, "http.route");
        }
        for (id, (name, line)) in called {
            seen[id].workload = name.to_owned();
            seen[id].policy = text(&line, "selvedge.policy");
            seen[id].audited = text(&line, "selvedge.audited");
            // Who comes in plaintext is not told why it is refused.
            if seen[id].reason.is_empty() {
                seen[id].reason = text(&line, "selvedge.reason");
            }
        }
    }
}

fn lines(sidecar: &Sidecar) -> impl Iterator<Item = (usize, Value)> + use<> {
    sidecar.access_log().into_iter().filter_map(|line| Some((text(&line, "request_id").parse().ok()?, line)))
}

fn text(line: &Value, key: &str) -> String {
    line[key].as_str().unwrap_or_default().to_owned()
}

/// Sends one request over the connection to its address, or over a new one where there is none.
async fn call(
    connections: &mut HashMap<(SocketAddr, bool), Connection>,
    id: usize,
    address: SocketAddr,
    case: &Case,
) -> Seen {
    let place = (address, case.http2);
    let connection = match connections.remove(&place).filter(Connection::is_open) {
        Some(open) => open,
        None if case.http2 => Connection::open_http2(address).await.expect("the sidecar takes connections"),
        None => Connection::open(address).await.expect("the sidecar takes connections"),
    };
    let connection = connections.entry(place).or_insert(connection);
    let answer = connection.call(request(id, case)).await.expect("every request is answered");
    Seen {
        status: answer.status.as_u16(),
        reason: answer.reason().to_owned(),
        served_by: answer.header("served-by").to_owned(),
        ..Seen::default()
    }
}

fn request(id: usize, case: &Case) -> Request<Full<Bytes>> {
    let mut request = client::request(case.method.parse::<Method>().expect("a method"), case.host, &case.target);
    let headers = request.headers_mut();
    headers.insert("x-request-id", id.into());
    for (name, value) in &case.headers {
        headers.append(*name, value.parse().expect("a header value"));
    }
    request
}
