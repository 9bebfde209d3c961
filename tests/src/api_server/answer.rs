//! Answers of the server.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};

use super::{Shared, Watching, objects::kind_at};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a client asks of a collection.
struct Asked {
    path: String,
    query: Vec<(String, String)>,
}

impl Asked {
    fn new(uri: &http::Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let query = pairs.map(|(name, value)| (name.to_owned(), value.replace("%2F", "/"))).collect();
        Self { path: uri.path().to_owned(), query }
    }

    fn value(&self, name: &str) -> &str {
        self.query.iter().find(|(asked, _)| asked == name).map_or("", |(_, value)| value)
    }
}

pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let asked = Asked::new(request.uri());
    let authorized = request.headers().get("authorization").is_some_and(|token| token == "Bearer double");
    let behaviour = shared.behaviour.borrow().clone();
    let is_watch = asked.value("watch") == "true";
    if is_watch {
        shared.behaviour.send_modify(|behaviour| behaviour.watches.push(asked.path.clone()));
    } else if behaviour.hanging.contains(&asked.path) {
        std::future::pending::<()>().await;
    }
    let refused = match behaviour.failing {
        Some(status) => Some(status),
        None if !authorized => Some(401),
        None if behaviour.unknown.contains(&asked.path) => Some(404),
        None if behaviour.forbidden.contains(&asked.path) => Some(403),
        None if is_watch && behaviour.watching == Watching::Forbidden => Some(403),
        None => None,
    };
    Ok(match refused {
        Some(status) => failure(status),
        None if is_watch && behaviour.watching == Watching::AtOnce => events(Full::default().boxed_unsync()),
        None if is_watch && behaviour.watching == Watching::Expired => {
            events(StreamBody::new(expired()).boxed_unsync())
        }
        None if is_watch => watch(shared, asked),
        None => list(&shared, &asked),
    })
}

fn list(shared: &Shared, asked: &Asked) -> Response<Body> {
    if asked.value("continue").is_empty() {
        shared.behaviour.send_modify(|behaviour| behaviour.lists.push(asked.path.clone()));
    }
    let limit = asked.value("limit").parse().unwrap_or(usize::MAX);
    let objects = shared.objects.borrow();
    let (items, next) = objects.list(&asked.path, limit, asked.value("continue"));
    let metadata = json!({ "resourceVersion": objects.revision().to_string(), "continue": next.unwrap_or_default() });
    let (api, kind) = kind_at(&asked.path);
    json_answer(
        StatusCode::OK,
        &json!({ "apiVersion": api, "kind": format!("{kind}List"), "metadata": metadata, "items": items }),
    )
}

/// Sends events from the version asked for on, until the time asked for is over.
fn watch(shared: Arc<Shared>, asked: Asked) -> Response<Body> {
    let (lines, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(16);
    tokio::spawn(async move {
        let mut changes = shared.objects.subscribe();
        let mut seen: u64 = asked.value("resourceVersion").parse().unwrap_or(0);
        let seconds = asked.value("timeoutSeconds").parse().unwrap_or(300);
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let (events, newest) = {
                let objects = changes.borrow_and_update();
                (objects.since(&asked.path, seen), objects.revision())
            };
            let Some(events) = events else {
                let _ = lines.send(Ok(line("ERROR", &status(410)))).await;
                return;
            };
            for event in events {
                if lines.send(Ok(line(event.what, &event.object))).await.is_err() {
                    return;
                }
            }
            if newest > seen && asked.value("allowWatchBookmarks") == "true" {
                let (api, kind) = kind_at(&asked.path);
                let mark =
                    json!({ "apiVersion": api, "kind": kind, "metadata": { "resourceVersion": newest.to_string() } });
                if lines.send(Ok(line("BOOKMARK", &mark))).await.is_err() {
                    return;
                }
            }
            seen = seen.max(newest);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(end) => return,
                () = lines.closed() => return,
            }
        }
    });
    events(StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync())
}

/// The one event of a watch that cannot begin.
fn expired() -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    tokio_stream::once(Ok(line("ERROR", &status(410))))
}

fn events(body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

fn line(what: &str, object: &Value) -> Frame<Bytes> {
    Frame::data(format!("{}\n", json!({ "type": what, "object": object })).into())
}

fn status(code: u16) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        410 => "Expired",
        _ => "InternalError",
    };
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": format!("the double says {reason}"), "reason": reason, "code": code,
    })
}

fn failure(code: u16) -> Response<Body> {
    json_answer(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &status(code))
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}
