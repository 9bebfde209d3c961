//! The story of a connection and of a request: one line per stage. Stages live in the modules of their names; this
//! file only calls them (`docs/life-of-a-request.md` has the same headings).

use std::{convert::Infallible, rc::Rc};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::{
    accept::{self, Accepted},
    attempt, detect,
    error::Error,
    exchange::{Connection, Exchange},
    filter,
    http::{Body, case::Spelling, serve},
    identity, opaque, record, route, tls,
};

/// A connection, from its acceptance to its end.
pub async fn connection(accepted: Accepted) {
    let Some(admitted) = accept::admit(accepted).await else { return };
    let Some(detected) = detect::protocol::detect(admitted).await else { return };
    let Some(secured) = tls::terminate::terminate(detected).await else { return };
    let identified = identity::peer::establish(secured);
    if identified.is_http() {
        serve::http(identified).await;
    } else {
        opaque::relay(identified).await;
    }
}

/// A request, from its head to its response; the record is written when the response body is over, or nobody waits.
pub async fn request(
    connection: Rc<Connection>,
    spelling: Option<Spelling>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut open = record::Open::new(Exchange::begin(&connection, spelling, &request));
    let outcome = answer(&mut open.exchange, request).await;
    Ok(record::finish(open, outcome))
}

async fn answer(exchange: &mut Exchange, request: Request<Incoming>) -> Result<attempt::Answered, Error> {
    let mut incoming = serve::receive(exchange, request)?;
    let scope = route::scope(exchange).await?;
    let rule = route::rule(exchange, &scope, &incoming.request)?;
    filter::on_request(exchange, &scope, rule, &mut incoming.request)?;
    let upstream = route::upstream(exchange, &scope, rule)?;
    let mut answered = attempt::run(exchange, &upstream, incoming).await?;
    filter::on_response(exchange, rule, &upstream, answered.head());
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future an async function makes.
    fn size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Futures grow silently, and every connection and request pays for it in memory and copies.
    #[test]
    fn futures_of_the_hot_path_stay_small() {
        let request = size(|connection, incoming| request(connection, None, incoming));
        let connection = size(|accepted, ()| connection(accepted));
        assert!(request <= 6 * 1024, "the request future has {request} bytes");
        assert!(connection <= 4 * 1024, "the connection future has {connection} bytes");
    }
}
