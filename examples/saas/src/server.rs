//! Listening and serving, the same for every HTTP and gRPC service: `/healthz`, one journal line per request,
//! and a graceful end (no new connection, requests in flight finish).

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, time::Duration};

use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};
use tonic::body::Body;
use tower::Service;

use crate::journal::Journal;

/// How long requests in flight may take once the service stops.
const GRACE: Duration = Duration::from_secs(10);
/// Wait after a failed accept (out of descriptors, usually) so that the loop does not spin.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Tells every task of a service to finish.
#[derive(Clone)]
pub(crate) struct Stop(pub(crate) watch::Receiver<bool>);

impl Stop {
    /// Returns once the service is to stop.
    pub(crate) async fn wait(&mut self) {
        // A lost sender means that the owner is gone: stop as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// Binds `address`. With `reuse_port` whoever reserved the port may keep its own socket bound to it.
pub(crate) fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(reuse_port)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// What [`serve`] can serve: a service of HTTP that never fails, only answers, and is copied for each connection.
pub(crate) trait App:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<T> App for T where
    T: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// Serves `app` over HTTP/1 and HTTP/2 until `stop`.
pub(crate) async fn serve(listener: TcpListener, app: impl App, journal: Journal, mut stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, app.clone(), journal.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop.wait() => break,
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finished).await.is_err() {
        tracing::warn!("requests were still in flight after {GRACE:?}");
    }
}

async fn connection(stream: TcpStream, app: impl App, journal: Journal, mut stop: Stop) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| answer(app.clone(), journal.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(mut app: impl App, journal: Journal, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.method() == Method::GET && request.uri().path() == "/healthz" {
        return Ok(Response::new(Body::new(Full::from("ok\n"))));
    }
    let (method, path, start) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let response = app.call(request).await?;
    let micros = start.elapsed().as_micros();
    journal.record(format_args!("{method} {path} {} {micros}us", response.status().as_u16()));
    Ok(response)
}
