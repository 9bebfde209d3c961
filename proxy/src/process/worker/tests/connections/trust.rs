//! Connections of HTTP, whose callers were proven by an authority that is trusted no longer.

use std::pin::Pin;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Bytes, Incoming},
    client::conn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_xds::alpn;
use tokio::task::JoinHandle;

use super::*;
use crate::http::hop;

/// A connection, and how the next request on it is answered.
struct Caller {
    ask: Box<dyn FnMut() -> Pin<Box<dyn Future<Output = u16>>>>,
    open: JoinHandle<()>,
}

impl Caller {
    async fn over_http1(sidecar: &Sidecar, context: &tls::TlsContext) -> Self {
        let stream = over_tls(sidecar.connect().await, &context.http1).await;
        let (mut requests, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        Self {
            ask: Box::new(move || Box::pin(status(requests.send_request(get())))),
            open: tokio::spawn(async { drop(connection.await) }),
        }
    }

    async fn over_http2(sidecar: &Sidecar, context: &tls::TlsContext) -> Self {
        let mut older = ClientConfig::clone(&context.frames);
        older.alpn_protocols = vec![alpn::HTTP2.to_vec()];
        let stream = over_tls(sidecar.connect().await, &Arc::new(older)).await;
        let (mut requests, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Self {
            ask: Box::new(move || Box::pin(status(requests.send_request(get())))),
            open: tokio::spawn(async { drop(connection.await) }),
        }
    }

    /// Waits until the sidecar has ended it.
    async fn over(self) {
        timeout(BOUND, self.open).await.expect("the connection ends in time").unwrap();
    }
}

/// As the sidecar of an application that speaks HTTP/1 sends it.
fn get() -> Request<Empty<Bytes>> {
    let request = Request::get("http://api.shop:80/").header("host", "api.shop:80");
    request.header(hop::ORIGINAL_VERSION, "1.1").body(Empty::new()).unwrap()
}

async fn status(answer: impl Future<Output = hyper::Result<http::Response<Incoming>>>) -> u16 {
    let answered = async {
        let (head, body) = answer.await.unwrap().into_parts();
        body.collect().await.unwrap();
        head.status.as_u16()
    };
    timeout(BOUND, answered).await.expect("an answer in time")
}

impl Sidecar {
    /// Publishes the same configuration as a new one, with what this trusts.
    fn trust(&self, context: &tls::TlsContext) {
        self.configs.send_modify(|in_force| {
            let RuntimeConfig { own, ports, .. } = &*in_force.config;
            let config = RuntimeConfig { own: own.clone(), ports: ports.clone(), ..RuntimeConfig::default() };
            *in_force = InForce { config: Arc::new(config), trust: trust(context) };
        });
    }
}

fn trust(context: &tls::TlsContext) -> Arc<Trust> {
    Arc::new(Trust { mesh: Some(Arc::new(context.clone())), external: None })
}

/// Long before their certificates run out. One that is new to it takes no connection away.
#[tokio::test]
async fn callers_whose_authority_is_trusted_no_longer_connect_anew_and_lose_no_request() {
    let [before, both, after] = tls::tests::of_a_takeover();
    for over_http2 in [false, true] {
        let proves = Arc::new(Proves { takes: Duration::from_millis(300), ..Proves::default() });
        let policies = PolicySet::of([proves.clone() as Arc<dyn RequestPolicy>]);
        let sidecar = Sidecar::of(plan(AppProtocol::Http, serve(application).await, policies, &trust(&before)));
        let connect = async |context| match over_http2 {
            false => Caller::over_http1(&sidecar, context).await,
            true => Caller::over_http2(&sidecar, context).await,
        };
        let (mut idle, mut busy) = (connect(&before).await, connect(&before).await);
        assert_eq!(((idle.ask)().await, (busy.ask)().await), (200, 200));
        sidecar.trust(&both);
        assert_eq!(((idle.ask)().await, (busy.ask)().await), (200, 200));
        assert!(!idle.open.is_finished() && !busy.open.is_finished(), "both authorities are trusted");

        let taken_away = async {
            while proves.asked.load(Relaxed) < 5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            sidecar.trust(&after);
            idle.over().await;
        };
        let (answered, ()) = tokio::join!((busy.ask)(), taken_away);
        assert_eq!(answered, 200, "what was under way is answered");
        busy.over().await;
        assert_eq!((connect(&after).await.ask)().await, 200);
    }
}
