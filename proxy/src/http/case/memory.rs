//! What the HTTP library needs to write names as they once were written.
//!
//! It keeps the spelling of the names it has parsed in a private extension of the message, which nothing but its own
//! parser can make. So a head with the wanted names is parsed once, in memory, and its extensions are kept: peers send
//! the same few lists of names again and again.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    convert::Infallible,
    future::pending,
    io::Cursor,
    pin::pin,
    task::{Context, Waker},
};

use http::{Extensions, HeaderName, HeaderValue, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use crate::http::Body;

/// Lists of names that are kept. A peer that invents more only costs itself some microseconds a request.
const MAX_LISTS: usize = 512;

/// A worker's memory of lists of names.
#[derive(Debug, Default)]
pub(crate) struct Memory(RefCell<HashMap<HeaderValue, Extensions>>);

impl Memory {
    /// The extensions that make the library write `names`, joined by commas; `None` when they are no names.
    pub(crate) fn recall(&self, names: &HeaderValue) -> Option<Extensions> {
        if let Some(known) = self.0.borrow().get(names) {
            return Some(known.clone());
        }
        let learnt = parse(head(names.as_bytes())?)?;
        let mut lists = self.0.borrow_mut();
        if lists.len() >= MAX_LISTS {
            lists.clear();
        }
        lists.insert(names.clone(), learnt.clone());
        Some(learnt)
    }
}

/// A request head with `names`. What would frame it otherwise is left out; that is written by the library alone.
fn head(names: &[u8]) -> Option<Vec<u8>> {
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    for written in names.split(|byte| *byte == b',') {
        let name = HeaderName::from_bytes(written).ok()?;
        if name == header::TRANSFER_ENCODING {
            continue;
        }
        head.extend_from_slice(written);
        head.extend_from_slice(b": 0\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

fn parse(head: Vec<u8>) -> Option<Extensions> {
    let seen = Cell::new(None);
    let io = tokio::io::join(Cursor::new(head), tokio::io::sink());
    let service = service_fn(|mut request: Request<Incoming>| {
        seen.set(Some(std::mem::take(request.extensions_mut())));
        pending::<Result<Response<Body>, Infallible>>()
    });
    let connection = http1::Builder::new().preserve_header_case(true).serve_connection(TokioIo::new(io), service);
    // The whole head is there, so one poll parses it; there is nobody to wake for more.
    let _ = pin!(connection).poll(&mut Context::from_waker(Waker::noop()));
    let mut learnt: Extensions = seen.take()?;
    learnt.remove::<OnUpgrade>(); // that of the head in memory, which may have asked for one
    Some(learnt)
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// What the library writes for a request with `fields` and `extensions`.
    async fn written(fields: &[&str], extensions: Extensions) -> String {
        let (near, mut far) = tokio::io::duplex(4096);
        let (mut sender, connection) =
            hyper::client::conn::http1::Builder::new().handshake(TokioIo::new(near)).await.unwrap();
        let mut request = Request::new(Empty::<bytes::Bytes>::new());
        for field in fields {
            request.headers_mut().append(HeaderName::from_bytes(field.as_bytes()).unwrap(), "1".parse().unwrap());
        }
        *request.extensions_mut() = extensions;
        let sending = async { tokio::join!(sender.send_request(request), connection) };
        let mut bytes = [0; 4096];
        tokio::select! {
            _ = sending => unreachable!("nobody answers"),
            count = far.read(&mut bytes) => String::from_utf8_lossy(&bytes[..count.unwrap()]).into_owned(),
        }
    }

    #[tokio::test]
    async fn names_are_written_as_they_were() {
        let memory = Memory::default();
        let names = HeaderValue::from_static("Host,X-Weird-CASE,x-low,X-WEIRD-case,Content-Length,UPGRADE,Expect");
        for _ in 0..2 {
            let known = memory.recall(&names).unwrap();
            let text = written(&["x-weird-case", "x-weird-case", "x-low", "x-new", "host", "upgrade"], known).await;
            for line in ["X-Weird-CASE: 1\r\nX-WEIRD-case: 1\r\n", "x-low: 1", "x-new: 1", "Host: 1", "UPGRADE: 1"] {
                assert!(text.contains(line), "{line} is not in {text}");
            }
        }
        assert_eq!(memory.0.borrow().len(), 1);
    }

    #[test]
    fn what_is_no_list_of_names_is_not_believed() {
        for odd in ["", ",", "a b", "Host:", "Host,,X", "GET / HTTP/1.1"] {
            assert!(Memory::default().recall(&HeaderValue::from_static(odd)).is_none(), "{odd:?}");
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let memory = Memory::default();
        for number in 0..2 * MAX_LISTS {
            memory.recall(&HeaderValue::from_str(&format!("X-{number}")).unwrap()).unwrap();
        }
        assert!(memory.0.borrow().len() <= MAX_LISTS);
    }
}
