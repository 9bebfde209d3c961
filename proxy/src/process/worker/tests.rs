//! A worker with real sockets whose policies are doubles: every verdict that the contract has, as a caller meets it.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    thread,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use selvedge_decide::{
    config::{AccessLogMode, Destination, DestinationPort, InboundPort, Traffic},
    resources::Resources,
};
use selvedge_policies::{
    context::{Context, Resumed},
    facts::{AttemptFacts, ConnectionFacts, RequestFacts, ResponseFacts},
    policy::{Needs, RequestPolicy},
    reason::Reason,
    request::PolicySet,
    verdict::{Answer, Question, Unanswered, Verdict},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, timeout},
};

use super::{Setup, run};
use crate::{
    config::{AppProtocol, ClusterConfig, EndpointConfig, InForce, Own, RuntimeConfig, Transport, Trust},
    drain::{Kept, Open, Phase},
    heading::{Heading, Purpose},
    http::pace::CallerTimeouts,
    ledger::Everywhere,
    surroundings::Surroundings,
    telemetry::{Telemetry, TelemetrySettings, open_audit_log},
    worker::{Shared, spread},
    xds::Heard,
};

mod connections;
mod content;

/// Longer than anything here takes.
const BOUND: Duration = Duration::from_secs(30);

/// Does what the path of the request asks for.
struct Double {
    /// How long the service is waited for.
    patience: Duration,
    /// Told of each pause that begins.
    pauses: mpsc::UnboundedSender<()>,
}

fn named(name: &'static str, value: &str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
}

impl Double {
    fn ask(&self, path: &str) -> Verdict {
        let _ = self.pauses.send(()); // few tests listen
        let mut headers = http::HeaderMap::new();
        headers.extend([named("x-asks", "double")]);
        Verdict::Ask(Box::new(Question {
            to: "shop/oracle:80".parse().unwrap(),
            method: Method::POST,
            path: path.to_owned(),
            headers,
            body: b"may it?".to_vec(),
            within: self.patience,
            at_most: 64,
        }))
    }
}

impl RequestPolicy for Double {
    fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        let refuse = |reason| Verdict::Answer(Answer::refuse(reason, "shop/double".into()));
        if request.method == "CONNECT" {
            return Verdict::Answer(Answer::reply(StatusCode::OK, "shop/double".into()));
        }
        match (request.path, context.resumed()) {
            ("/redirect", _) => {
                let mut answer = Answer::reply(StatusCode::FOUND, "shop/double".into());
                answer.headers.extend([named("location", "/there"), named("selvedge-reason", "internal")]);
                answer.headers.extend([named("content-length", "7"), named("transfer-encoding", "chunked")]);
                answer.body = b"elsewhere".to_vec();
                Verdict::Answer(answer)
            }
            ("/teapot", _) => {
                let mut answer = Answer::refuse(Reason::PolicyDenied, "shop/double".into());
                (answer.status, answer.body) = (StatusCode::IM_A_TEAPOT, b"short and stout".to_vec());
                answer.headers.extend([named("content-length", "7"), named("transfer-encoding", "chunked")]);
                Verdict::Answer(answer)
            }
            ("/wait", None) => Verdict::Wait(Duration::from_millis(100)),
            ("/wait/long", None) => {
                let _ = self.pauses.send(()); // few tests listen
                Verdict::Wait(2 * BOUND)
            }
            ("/for-ever", _) => Verdict::Wait(Duration::ZERO),
            (path, None) if path.starts_with("/ask") => self.ask(path),
            (_, Some(Resumed::Told(Ok(reply)))) if reply.status == StatusCode::OK => {
                context.claims.insert("tenant", String::from_utf8_lossy(&reply.body).as_ref().into());
                Verdict::Continue
            }
            (_, Some(Resumed::Told(Ok(_)))) => refuse(Reason::PolicyDenied),
            (_, Some(Resumed::Told(Err(Unanswered::Late)))) => refuse(Reason::RequestTimeout),
            (_, Some(Resumed::Told(Err(Unanswered::TooLong(_))))) => refuse(Reason::HeadersTooLarge),
            (_, Some(Resumed::Told(Err(Unanswered::Failed(_))))) => refuse(Reason::Overloaded),
            (_, Some(Resumed::Waited | Resumed::Replaced) | None) => Verdict::Continue,
        }
    }

    fn on_connection(&self, _: &ConnectionFacts<'_>, context: &mut Context) -> Verdict {
        match context.resumed() {
            None => self.ask("/ask/connection"),
            Some(Resumed::Told(Ok(reply))) if reply.status == StatusCode::OK => Verdict::Continue,
            _ => Verdict::Answer(Answer::refuse(Reason::PolicyDenied, "shop/double".into())),
        }
    }

    fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn on_attempt(&self, _: &RequestFacts<'_>, attempt: &AttemptFacts<'_>, context: &mut Context) -> Verdict {
        let (name, value) = named("x-try", &attempt.number.to_string());
        context.changes().request.set(name, value);
        Verdict::Continue
    }

    fn on_response(&self, response: &ResponseFacts<'_>, context: &mut Context) -> Verdict {
        if response.headers.contains_key("x-secret") {
            return Verdict::Answer(Answer::refuse(Reason::PolicyDenied, "shop/double".into()));
        }
        let (name, value) = named("x-status", response.status.as_str());
        context.changes().response.set(name, value);
        Verdict::Continue
    }

    fn needs(&self) -> Needs {
        Needs { attempts: true, responses: true, ..Needs::default() }
    }
}

/// Comes after the double, and decides by what that has proven.
struct ByClaim;

impl RequestPolicy for ByClaim {
    fn on_request(&self, _: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        if let Some(tenant) = context.claims.get("tenant").and_then(|claim| claim.as_str().map(str::to_owned)) {
            let ((name, value), (back, echo)) = (named("x-tenant", &tenant), named("x-tenant-was", &tenant));
            context.changes().request.set(name, value);
            context.changes().response.set(back, echo);
        }
        Verdict::Continue
    }

    fn on_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Verdict {
        Verdict::Continue
    }

    fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }
}

/// An HTTP/1 server that answers each request with what `answer` makes of its head; nothing makes it wait for ever.
async fn serve(answer: fn(&str) -> Option<String>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                loop {
                    let Some(head) = read_until(&mut socket, "\r\n\r\n").await else { return };
                    let Some(response) = answer(&head) else { return std::future::pending().await };
                    socket.write_all(response.as_bytes()).await.unwrap();
                    if head.contains("connection: close") {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// What comes up to and with `end`, and what was read with it.
async fn read_until(socket: &mut TcpStream, end: &str) -> Option<String> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(end) {
        match socket.read(&mut buffer).await {
            Ok(read @ 1..) => text += &String::from_utf8_lossy(&buffer[..read]),
            _ => return None,
        }
    }
    Some(text)
}

fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// Shows the policies' header changes, or has something to hide.
fn application(head: &str) -> Option<String> {
    let lines: Vec<&str> = head.lines().filter(|line| line.starts_with("x-t")).collect();
    Some(ok(if head.contains("/secret") { "x-secret: 1\r\n" } else { "" }, &lines.join(" ")))
}

fn oracle(head: &str) -> Option<String> {
    assert!(head.contains("x-asks: double") && head.contains("host: oracle.shop:80"), "{head}");
    match head.split_whitespace().nth(1)? {
        "/ask" | "/ask/connection" => Some(ok("", "acme")),
        "/ask/no" => Some("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned()),
        "/ask/long" => Some(ok("", &"x".repeat(65))),
        _ => None,
    }
}

fn endpoint(cluster: &str, address: SocketAddr) -> Arc<EndpointConfig> {
    Arc::new(EndpointConfig {
        cluster: cluster.parse().ok(),
        address,
        transport: Transport::Plain,
        workload: None,
        identity: String::new(),
        weight: 1,
        http2: false,
        traffic: Arc::default(),
    })
}

/// The port of the application.
const PORT: u16 = 8080;

/// What a worker is started with.
struct Plan {
    /// The time that calls made have, where it is for those.
    calls: Option<Duration>,
    protocol: AppProtocol,
    policies: PolicySet,
    /// Who answers questions.
    endpoints: Vec<Arc<EndpointConfig>>,
    /// The application.
    forward: SocketAddr,
    trust: Arc<Trust>,
}

/// A worker in front of an application, with the double in force. It lives as long as what is returned beside its address.
struct Sidecar {
    address: SocketAddr,
    configs: watch::Sender<InForce>,
    phases: watch::Sender<Phase>,
    pausing: mpsc::UnboundedReceiver<()>,
    open: Arc<Open>,
    _demand: mpsc::UnboundedReceiver<crate::xds::Demand>,
    _resources: watch::Sender<Arc<Resources>>,
}

impl Sidecar {
    async fn start(protocol: AppProtocol, oracle: SocketAddr, patience: Duration) -> Self {
        Self::start_for(None, protocol, oracle, patience).await
    }

    /// One for calls made, which have so much time, instead of calls received.
    async fn start_for(calls: Option<Duration>, protocol: AppProtocol, oracle: SocketAddr, patience: Duration) -> Self {
        let (pauses, pausing) = mpsc::unbounded_channel();
        let policies =
            PolicySet::of([Arc::new(Double { patience, pauses }) as Arc<dyn RequestPolicy>, Arc::new(ByClaim)]);
        let endpoints = vec![endpoint("shop/oracle:80", oracle)];
        let forward = serve(application).await;
        Self { pausing, ..Self::of(Plan { calls, protocol, policies, endpoints, forward, trust: Arc::default() }) }
    }

    fn of(plan: Plan) -> Self {
        let Plan { calls, protocol, policies, endpoints, forward, trust } = plan;
        let policies = Arc::new(policies);
        let cluster = ClusterConfig {
            name: "shop/oracle:80".parse().unwrap(),
            endpoints,
            traffic: Arc::default(),
            nowhere: None,
        };
        let mut config = RuntimeConfig { clusters: vec![Arc::new(cluster)], ..RuntimeConfig::default() };
        let cluster = config.link(&"shop/oracle:80".parse().unwrap());
        let destination = Destination {
            external: false,
            service: "shop/oracle".into(),
            name: "shop/api".parse().unwrap(),
            policies: policies.clone(),
            traffic: Arc::new(Traffic { request_timeout: calls, ..Traffic::default() }),
            routes: HashMap::new(),
            ports: HashMap::from([(PORT, DestinationPort { protocol, cluster })]),
            backends: HashMap::new(),
            traffic_from: BTreeMap::new(),
        };
        config = RuntimeConfig {
            destinations: HashMap::from([(destination.name.clone(), Arc::new(destination))]),
            own: Own { workload: "shop/api-1".parse().ok(), ..Own::default() },
            permissive: true,
            access_log: AccessLogMode::Off,
            ports: HashMap::from([(PORT, Arc::new(InboundPort { protocol, policies, ..InboundPort::default() }))]),
            ..config
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (configs, receiver) = watch::channel(InForce { config: Arc::new(config), trust });
        let (phases, phase) = watch::channel(Phase::Serving);
        let (demand, demanded) = mpsc::unbounded_channel();
        let open = Arc::new(Open::default());
        let (resources, said) = watch::channel(Arc::default());
        let shared = Shared {
            configs: receiver,
            resources: said,
            demand,
            heard: Heard::default(),
            telemetry: Telemetry::new(&TelemetrySettings {
                audit_log: open_audit_log(Some("/dev/null".as_ref())).ok(),
                ..TelemetrySettings::default()
            })
            .unwrap(),
            phases: phase,
            open: open.clone(),
            max_connections: 100,
            by_host: false,
            caller_timeouts: CallerTimeouts::default(),
            probes: Arc::default(),
            surroundings: watch::channel(Surroundings::default()).1,
            everywhere: Everywhere::default(),
            resolver: None,
            kept: Kept::default(),
        };
        let place = spread::places(1).remove(0);
        let heading = match calls {
            Some(_) => Heading::Outbound { destination: "shop/api".into(), port: PORT, original: None },
            None => Heading::Inbound { forward, port: PORT },
        };
        let listeners = vec![(Arc::new(listener), Purpose::Declared(heading))];
        let (_, asked) = mpsc::channel(1);
        thread::spawn(move || run(Setup { listeners, place, asked, shared }));
        let (_, pausing) = mpsc::unbounded_channel();
        Self { address, configs, phases, pausing, open, _demand: demanded, _resources: resources }
    }

    /// Puts a configuration with these clusters in force.
    fn knows(&self, clusters: Vec<Arc<ClusterConfig>>) {
        self.configs.send_modify(|in_force| {
            let RuntimeConfig { own, ports, .. } = &*in_force.config;
            let (own, ports) = (own.clone(), ports.clone());
            let config = RuntimeConfig { own, ports, clusters, ..RuntimeConfig::default() };
            let config = RuntimeConfig { permissive: true, access_log: AccessLogMode::Off, ..config };
            *in_force = InForce { config: Arc::new(config), ..InForce::default() };
        });
    }

    /// Status, head and content of the answer to a GET.
    async fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path).await
    }

    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let exchange = async {
            let mut socket = TcpStream::connect(self.address).await.unwrap();
            let request = format!("{method} {path} HTTP/1.1\r\nhost: api.shop:80\r\nconnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            socket.read_to_string(&mut text).await.unwrap();
            text
        };
        let text = timeout(BOUND, exchange).await.expect("an answer in time");
        (text.split_whitespace().nth(1).unwrap_or_default().parse().unwrap(), text)
    }
}

#[tokio::test]
async fn a_policy_answers_waits_and_changes_tries_and_responses() {
    let oracle = serve(oracle).await;
    let sidecar = Sidecar::start(AppProtocol::Http, oracle, Duration::from_secs(5)).await;
    let (status, plain) = sidecar.get("/").await;
    assert!(status == 200 && plain.contains("x-status: 200") && plain.ends_with("x-try: 0"), "{plain}");

    let (status, redirect) = sidecar.get("/redirect").await;
    assert!(status == 302 && redirect.contains("location: /there") && redirect.ends_with("elsewhere"), "{redirect}");
    assert!(!redirect.contains("selvedge-"), "it is no error, and a policy cannot say that it is one: {redirect}");
    let (status, teapot) = sidecar.get("/teapot").await;
    assert!(status == 418 && teapot.ends_with("short and stout"), "{teapot}");

    let (status, connect) = sidecar.ask("CONNECT", "api.shop:80").await;
    assert!(status == 403 && connect.contains("policy_denied"), "an answer is no tunnel: {connect}");

    let began = Instant::now();
    assert_eq!(sidecar.get("/wait").await.0, 200);
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(sidecar.get("/for-ever").await.0, 500, "a policy that comes to no end refuses");
    assert_eq!(sidecar.get("/secret").await.0, 403, "what the service said does not go out");
}

#[tokio::test]
async fn a_policy_asks_a_service_and_its_claims_reach_the_next_policy_and_the_response() {
    // The other answers come sooner, on a busy machine too.
    let patience = Duration::from_secs(3);
    let sidecar = Sidecar::start(AppProtocol::Http, serve(oracle).await, patience).await;
    let (status, text) = sidecar.get("/ask").await;
    assert!(status == 200 && text.ends_with("x-tenant: acme x-try: 0"), "{text}");
    assert!(text.contains("x-tenant-was: acme"), "{text}");
    assert_eq!(sidecar.get("/ask/no").await.0, 403);
    assert_eq!(sidecar.get("/ask/long").await.0, 431, "the reply is longer than the policy wants");
    let began = Instant::now();
    assert_eq!(sidecar.get("/ask/late").await.0, 504);
    assert!(began.elapsed() >= patience);
    assert_eq!(sidecar.get("/").await.0, 200, "who does not ask does not wait");
}

#[tokio::test]
async fn no_pause_outlasts_the_timeout_of_the_request() {
    let (time, oracle) = (Duration::from_millis(300), serve(oracle).await);
    let sidecar = Sidecar::start_for(Some(time), AppProtocol::Http, oracle, 2 * BOUND).await;
    for path in ["/wait/long", "/ask/late"] {
        let began = Instant::now();
        let (status, text) = sidecar.get(path).await;
        assert!(status == 504 && text.contains("request_timeout"), "{path}: {text}");
        assert!(began.elapsed() >= time, "{path}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn no_pause_outlasts_a_drain() {
    let mut sidecar = Sidecar::start(AppProtocol::Http, serve(oracle).await, 2 * BOUND).await;
    let (_none, none) = mpsc::unbounded_channel();
    let mut pausing = std::mem::replace(&mut sidecar.pausing, none);
    let ends = async {
        for _ in 0..2 {
            timeout(BOUND, pausing.recv()).await.expect("both pause in time");
        }
        sidecar.phases.send_replace(Phase::Closing);
    };
    let (waited, asked, ()) = tokio::join!(sidecar.get("/wait/long"), sidecar.get("/ask/late"), ends);
    assert_eq!((waited.0, asked.0), (200, 504), "it goes on, and has no reply: {waited:?} {asked:?}");
}

/// Who says nothing is known for it as who breaks off is.
#[tokio::test]
async fn a_service_that_stays_silent_is_asked_no_more_where_another_answers() {
    let silent = serve(|_| None).await;
    let sidecar = Sidecar::start(AppProtocol::Http, silent, Duration::from_millis(100)).await;
    let name = "shop/oracle:80";
    let endpoints = vec![endpoint(name, silent), endpoint(name, serve(oracle).await)];
    let cluster = ClusterConfig { name: name.parse().unwrap(), endpoints, traffic: Arc::default(), nowhere: None };
    sidecar.knows(vec![Arc::new(cluster)]);
    let mut failed = 0;
    for _ in 0..40 {
        failed += u32::from(sidecar.get("/ask").await.0 != 200);
    }
    assert!(failed < 10, "{failed} of 40");
}

/// Nobody is there, then the control plane names who is.
#[tokio::test]
async fn a_service_that_cannot_be_asked_is_told_to_the_policy_and_one_that_is_unknown_is_waited_for() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let sidecar = Sidecar::start(AppProtocol::Http, nobody, Duration::from_secs(10)).await;
    assert_eq!(sidecar.get("/ask").await.0, 503);

    sidecar.knows(Vec::new());
    let name = "shop/oracle:80".to_owned();
    let endpoints = vec![endpoint(&name, serve(oracle).await)];
    let told = async {
        tokio::time::sleep(Duration::from_millis(50)).await; // it may be asked before or after; both must do
        let cluster = ClusterConfig { name: name.parse().unwrap(), endpoints, traffic: Arc::default(), nowhere: None };
        sidecar.knows(vec![Arc::new(cluster)]);
    };
    assert_eq!(tokio::join!(sidecar.get("/ask"), told).0.0, 200);
}

#[tokio::test]
async fn a_policy_asks_before_an_opaque_connection_passes() {
    let answers = Sidecar::start(AppProtocol::Opaque, serve(oracle).await, Duration::from_secs(5)).await;
    assert_eq!(answers.get("/opaque").await.0, 200, "the application sees the bytes");
    let silent = Sidecar::start(AppProtocol::Opaque, serve(|_| None).await, Duration::from_millis(200)).await;
    let mut socket = TcpStream::connect(silent.address).await.unwrap();
    let mut byte = [0];
    let read = timeout(BOUND, socket.read(&mut byte)).await.expect("it is closed in time");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}
