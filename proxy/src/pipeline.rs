//! The story of a connection and of a request: one line per stage. Each stage is a module; this file only
//! calls them (`docs/life-of-a-request.md` has them as headings).

use std::{convert::Infallible, rc::Rc};

use http::{Request, Response};

use crate::{
    accept,
    arrival::Accepted,
    attempt,
    connection::Connection,
    detect,
    exchange::Exchange,
    filter,
    http::{Body, Content, told::Told},
    identify,
    message::{Answered, Halt},
    opaque, receive, record, respond, route, serve, terminate,
};

/// A connection, from its acceptance to its end.
pub(crate) async fn connection(accepted: Accepted) {
    let Some(admitted) = accept::admit(accepted).await else { return };
    let Some(detected) = detect::protocol(admitted).await else { return };
    let Some(secured) = terminate::tls(detected).await else { return };
    let identified = identify::peer(secured);
    if identified.is_http() {
        serve::http(identified, request).await;
    } else {
        // Boxed: connections of HTTP, of which there are many, are smaller.
        Box::pin(opaque::relay(identified)).await;
    }
}

/// A request, from its head to its response; the record is written when the response body is over, or nobody waits.
pub(crate) async fn request(
    connection: Rc<Connection>,
    told: Told,
    request: Request<Content>,
) -> Result<Response<Body>, Infallible> {
    let mut open = record::Open::new(Exchange::begin(&connection, told, &request));
    let outcome = answer(&mut open.exchange, request).await;
    Ok(respond::finish(open, outcome))
}

async fn answer(exchange: &mut Exchange, request: Request<Content>) -> Result<Answered, Halt> {
    let mut incoming = receive::request(exchange, request)?;
    let scope = route::scope(exchange).await?;
    route::path(exchange, &scope, &mut incoming.request)?;
    let rule = route::rule(exchange, &scope, &incoming.request)?;
    filter::on_request(exchange, &scope, rule, &mut incoming).await?;
    let upstream = route::upstream(exchange, &scope, rule)?;
    let mut answered = attempt::run(exchange, &upstream, incoming).await?;
    filter::on_response(exchange, &scope, rule, &upstream, &mut answered).await?;
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
        let request = size(|connection, incoming| request(connection, Told::default(), incoming));
        let connection = size(|accepted, ()| connection(accepted));
        assert!(request <= 4 * 1024, "the request future has {request} bytes");
        assert!(connection <= 2400, "the connection future has {connection} bytes");
    }
}
