//! Connections of opaque bytes and tunnels, as their policies meet them: asked once, judged again with what was proven.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustls::{ClientConfig, pki_types::ServerName};
use selvedge_policies::{
    kind::Attached,
    policy::{Place, Posture},
    registry,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::tls;

mod trust;

/// Proves a claim after a moment, and counts how often it is asked.
#[derive(Default)]
struct Proves {
    takes: Duration,
    asked: AtomicU32,
    judged: AtomicU32,
}

impl Proves {
    fn decide(&self, context: &mut Context) -> Verdict {
        if context.resumed().is_none() {
            self.asked.fetch_add(1, Relaxed);
            return Verdict::Wait(self.takes);
        }
        context.claims.insert("tenant", "acme".into());
        Verdict::Continue
    }
}

impl RequestPolicy for Proves {
    fn on_request(&self, _: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        self.decide(context)
    }

    fn on_connection(&self, _: &ConnectionFacts<'_>, context: &mut Context) -> Verdict {
        self.decide(context)
    }

    fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
        self.judged.fetch_add(1, Relaxed);
        None
    }

    fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
        self.judged.fetch_add(1, Relaxed);
        None
    }
}

/// Lets nothing be without the claim.
struct OfTenant;

impl OfTenant {
    fn refuses(context: &Context) -> Option<Answer> {
        let is_known = context.claims.get("tenant").is_some_and(|tenant| tenant == "acme");
        (!is_known).then(|| Answer::refuse(Reason::PolicyDenied, "shop/of-tenant".into()))
    }
}

impl RequestPolicy for OfTenant {
    fn on_request(&self, _: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        Self::refuses(context).map_or(Verdict::Continue, Verdict::Answer)
    }

    fn on_connection(&self, _: &ConnectionFacts<'_>, context: &mut Context) -> Verdict {
        Self::refuses(context).map_or(Verdict::Continue, Verdict::Answer)
    }

    fn on_open_request(&self, _: &RequestFacts<'_>, context: &mut Context) -> Option<Answer> {
        Self::refuses(context)
    }

    fn on_open_connection(&self, _: &ConnectionFacts<'_>, context: &mut Context) -> Option<Answer> {
        Self::refuses(context)
    }
}

/// Takes what is asked for the first time for a fault.
#[derive(Default)]
struct RefusesFirst(AtomicU32);

impl RequestPolicy for RefusesFirst {
    fn on_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Verdict {
        Verdict::Continue
    }

    fn on_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Verdict {
        let is_first = self.0.fetch_add(1, Relaxed) == 0;
        let refusal = Answer::refuse(Reason::FaultInjected, "shop/first".into());
        if is_first { Verdict::Answer(refusal) } else { Verdict::Continue }
    }

    fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }

    fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
        None
    }
}

const GREETING: &str = "220 ready\r\n";

/// An application that says first what it `greets` with, takes every CONNECT, and repeats all else; and how often it was
/// connected to.
async fn talks(greets: &'static str) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, connected) = (listener.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
    let count = connected.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            tokio::spawn(async move {
                socket.write_all(greets.as_bytes()).await.unwrap();
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                    let said =
                        if buffer.starts_with(b"CONNECT ") { b"HTTP/1.1 200 OK\r\n\r\n" } else { &buffer[..read] };
                    if socket.write_all(said).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, connected)
}

fn plan(protocol: AppProtocol, forward: SocketAddr, policies: PolicySet, trust: &Arc<Trust>) -> Plan {
    Plan { calls: None, protocol, policies, endpoints: Vec::new(), forward, trust: trust.clone() }
}

impl Sidecar {
    /// Publishes the same configuration as a new one, in which the port has these policies, if any are given.
    fn publish(&self, policies: Option<PolicySet>) {
        self.configs.send_modify(|in_force| {
            let RuntimeConfig { own, ports, generation, .. } = &*in_force.config;
            let before = &ports[&PORT];
            let policies = policies.map_or_else(|| before.policies.clone(), Arc::new);
            let port = InboundPort { protocol: before.protocol, policies, ..InboundPort::default() };
            let (own, ports) = (own.clone(), HashMap::from([(PORT, Arc::new(port))]));
            let config = RuntimeConfig { own, ports, generation: generation + 1, ..RuntimeConfig::default() };
            in_force.config = Arc::new(RuntimeConfig { permissive: true, access_log: AccessLogMode::Off, ..config });
        });
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// True when what is said comes back, false when the connection is over.
async fn repeats(stream: &mut dyn Stream, said: &str) -> bool {
    stream.write_all(said.as_bytes()).await.unwrap();
    hears(stream, said).await
}

async fn hears(stream: &mut dyn Stream, wanted: &str) -> bool {
    let mut heard = vec![0; wanted.len()];
    match timeout(BOUND, stream.read_exact(&mut heard)).await.expect("an answer or an end in time") {
        Ok(_) => String::from_utf8(heard).unwrap() == wanted,
        Err(_) => false,
    }
}

async fn over_tls(stream: TcpStream, proof: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let name = ServerName::try_from("web.shop").unwrap();
    TlsConnector::from(proof.clone()).connect(name, stream).await.unwrap()
}

/// However it came to be a connection of opaque bytes: declared, by the service's greeting, in a tunnel, inside mTLS.
#[tokio::test]
async fn what_was_proven_of_a_connection_holds_when_it_is_judged_again() {
    let context = tls::tests::of_a_workload();
    let trust = Arc::new(Trust { mesh: Some(Arc::new(context.clone())), external: None });
    for (way, protocol, greets) in [
        ("declared", AppProtocol::Opaque, ""),
        ("greeting", AppProtocol::Detect, GREETING),
        ("tunnel", AppProtocol::Http, ""),
        ("inside", AppProtocol::Opaque, ""),
        ("inside, with a greeting", AppProtocol::Detect, GREETING),
    ] {
        let proves = Arc::new(Proves { takes: Duration::from_millis(50), ..Proves::default() });
        let policies = PolicySet::of([proves.clone() as Arc<dyn RequestPolicy>, Arc::new(OfTenant)]);
        let (forward, _) = talks(greets).await;
        let sidecar = Sidecar::of(plan(protocol, forward, policies, &trust));
        let stream = sidecar.connect().await;
        let mut stream: Box<dyn Stream> =
            if way.starts_with("inside") { Box::new(over_tls(stream, &context.tcp).await) } else { Box::new(stream) };
        if way == "tunnel" {
            stream.write_all(b"CONNECT api.shop:80 HTTP/1.1\r\nhost: api.shop:80\r\n\r\n").await.unwrap();
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                head.push(char::from(timeout(BOUND, stream.read_u8()).await.unwrap().unwrap()));
            }
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
        assert!(greets.is_empty() || hears(&mut *stream, greets).await, "{way}");
        assert!(repeats(&mut *stream, "\0before").await, "{way}");
        let judged = proves.judged.load(Relaxed);
        sidecar.publish(None);
        let again = async {
            while proves.judged.load(Relaxed) == judged {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(BOUND, again).await.expect("it is judged again in time");
        assert!(repeats(&mut *stream, "\0after").await, "{way}: it was let pass by a claim");
        assert_eq!(proves.asked.load(Relaxed), 1, "{way}");
    }
}

/// The service is dialled to see whether it speaks first; then the caller does, perhaps while policies still wait.
#[tokio::test]
async fn a_caller_that_is_silent_at_first_is_one_question_and_one_connection() {
    for (takes, silent) in [(1, 100), (300, 50)].map(|(a, b)| (Duration::from_millis(a), Duration::from_millis(b))) {
        let proves = Arc::new(Proves { takes, ..Proves::default() });
        let policies = PolicySet::of([proves.clone() as Arc<dyn RequestPolicy>, Arc::new(OfTenant)]);
        let (forward, connected) = talks("").await;
        let sidecar = Sidecar::of(plan(AppProtocol::Detect, forward, policies, &Arc::default()));
        let mut stream = sidecar.connect().await;
        tokio::time::sleep(silent).await; // longer than callers may be silent before the service is dialled
        assert!(repeats(&mut stream, "\0hello").await);
        assert_eq!((proves.asked.load(Relaxed), connected.load(Relaxed)), (1, 1), "asked and connected, {takes:?}");
    }
}

#[tokio::test]
async fn a_caller_that_was_refused_while_silent_is_not_let_pass_when_it_speaks() {
    let (forward, connected) = talks("").await;
    let policies = PolicySet::of([Arc::new(RefusesFirst::default()) as Arc<dyn RequestPolicy>]);
    let sidecar = Sidecar::of(plan(AppProtocol::Detect, forward, policies, &Arc::default()));
    let mut stream = sidecar.connect().await;
    tokio::time::sleep(Duration::from_millis(100)).await; // as above
    assert!(!repeats(&mut stream, "\0hello").await);
    assert_eq!(connected.load(Relaxed), 0);
    assert!(repeats(&mut sidecar.connect().await, "\0hello").await, "the second connection is another one");
}

/// Who a sidecar is whose handshake is late becomes known after the first question.
#[tokio::test]
async fn a_caller_that_proves_itself_late_takes_one_token() {
    let context = tls::tests::of_a_workload();
    let trust = Arc::new(Trust { mesh: Some(Arc::new(context.clone())), external: None });
    let spec = serde_json::json!({ "limits": [{ "requests": 1, "per": "1h" }] });
    let limit = [("RateLimit".to_owned(), Attached { name: "shop/limit".into(), spec })];
    let policies = registry::compile(Place::Called, &limit, Posture::Allow, &PolicySet::new()).unwrap();
    let (forward, _) = talks("").await;
    let sidecar = Sidecar::of(plan(AppProtocol::Detect, forward, policies, &trust));
    let stream = sidecar.connect().await;
    tokio::time::sleep(Duration::from_millis(100)).await; // as above
    let mut stream = over_tls(stream, &context.tcp).await;
    assert!(repeats(&mut stream, "\0hello").await);
    let mut second = over_tls(sidecar.connect().await, &context.tcp).await;
    second.write_all(b"\0hello").await.unwrap();
    assert!(!hears(&mut second, "\0hello").await, "the limit is one");
}

/// Faults of all calls, as one object of this name says.
fn faults(spec: &serde_json::Value, before: &PolicySet) -> PolicySet {
    let fault = [("FaultInjection".to_owned(), Attached { name: "shop/chaos".into(), spec: spec.clone() })];
    registry::compile(Place::Caller, &fault, Posture::Allow, before).unwrap()
}

fn delay(expires: &str) -> serde_json::Value {
    let faults = serde_json::json!([{ "delay": { "percentage": 100, "duration": "5m" } }]);
    serde_json::json!({ "targetRef": { "name": "api" }, "expires": expires, "faults": faults })
}

#[tokio::test]
async fn a_delay_that_goes_on_ends_when_its_fault_is_taken_back_or_expires() {
    let delayed = faults(&delay("2999-01-01T00:00:00Z"), &PolicySet::new());
    let over = faults(&delay("2001-01-01T00:00:00Z"), &delayed);
    for (what, instead) in [("taken back", PolicySet::new()), ("has expired", over)] {
        let (forward, connected) = talks("").await;
        let plan = |protocol, forward| Sidecar::of(plan(protocol, forward, delayed.clone(), &Arc::default()));
        let opaque = plan(AppProtocol::Opaque, forward);
        let http = plan(AppProtocol::Http, serve(application).await);
        let mut stream = opaque.connect().await;
        stream.write_all(b"\0hello").await.unwrap();
        let waits = async {
            let answered = http.get("/").await;
            (answered, hears(&mut stream, "\0hello").await)
        };
        let ends = async {
            tokio::time::sleep(Duration::from_millis(300)).await; // both wait by then; if not, less is shown
            assert_eq!(connected.load(Relaxed), 0, "it is delayed before it is connected");
            http.publish(None);
            opaque.publish(None);
            tokio::time::sleep(Duration::from_millis(300)).await; // what has not changed goes on
            assert_eq!(connected.load(Relaxed), 0);
            http.publish(Some(instead.clone()));
            opaque.publish(Some(instead.clone()));
        };
        let (((status, _), is_through), ()) = tokio::join!(waits, ends);
        assert_eq!((status, is_through), (200, true), "{what}");
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_is_delayed_is_not_held() {
    let context = tls::tests::of_a_workload();
    let trust = Arc::new(Trust { mesh: Some(Arc::new(context.clone())), external: None });
    let delayed = faults(&delay("2999-01-01T00:00:00Z"), &PolicySet::new());
    for (way, said) in [("plain", ""), ("plain", "\0hello"), ("inside", ""), ("inside", "\0hello")] {
        let (forward, connected) = talks("").await;
        let sidecar = Sidecar::of(plan(AppProtocol::Opaque, forward, delayed.clone(), &trust));
        let stream = sidecar.connect().await;
        let mut stream: Box<dyn Stream> =
            if way == "inside" { Box::new(over_tls(stream, &context.tcp).await) } else { Box::new(stream) };
        stream.write_all(said.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await; // nobody who has said all takes so long to say so
        assert_eq!(sidecar.open.all(), 1, "{way} {said:?}");
        drop(stream);
        let over = async {
            while sidecar.open.all() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(BOUND, over).await.expect("it is given up in time");
        assert_eq!(connected.load(Relaxed), 0, "{way} {said:?}");
    }
}

#[tokio::test]
async fn a_caller_that_has_said_all_is_heard_after_its_delay() {
    let short = serde_json::json!([{ "delay": { "percentage": 100, "duration": "500ms" } }]);
    let mut spec = delay("2999-01-01T00:00:00Z");
    spec["faults"] = short;
    let (forward, _) = talks("").await;
    let policies = faults(&spec, &PolicySet::new());
    let sidecar = Sidecar::of(plan(AppProtocol::Opaque, forward, policies, &Arc::default()));
    let (mut stream, began) = (sidecar.connect().await, Instant::now());
    stream.write_all(b"\0all").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(hears(&mut stream, "\0all").await);
    assert!(began.elapsed() >= Duration::from_millis(500));
}
