//! The application of comparisons with ourselves: it gives every request the small answer.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream};

/// Bytes of the small answer.
pub const SMALL: usize = 1024;

/// Connections that may wait to be accepted, when thousands come at once.
const BACKLOG: u32 = 4096;

/// A message of gRPC with `bytes` bytes: in front come one that says it is not compressed, and four of the length
/// (gRPC over HTTP2, Length-Prefixed-Message).
pub fn message(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &vec![b'x'; bytes]].concat()
}

/// Serves HTTP/1, or HTTP/2 without TLS, at a port of its own until the runtime ends. Returns where.
///
/// # Errors
/// There is no port.
pub async fn start(over_http2: bool) -> std::io::Result<SocketAddr> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, over_http2));
        }
    });
    Ok(address)
}

async fn serve(socket: TcpStream, over_http2: bool) {
    let _ = socket.set_nodelay(true); // only latency is at stake
    let (io, service) = (TokioIo::new(socket), service_fn(answer));
    // Whoever calls is measured, and knows what it did not get.
    if over_http2 {
        drop(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
    } else {
        drop(http1::Builder::new().title_case_headers(true).serve_connection(io, service).await);
    }
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(&[b'x'; SMALL]))))
}
