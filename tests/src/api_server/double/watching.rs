//! Watches of the double.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Shared,
    answer::{Body, events},
    asked::Asked,
    objects::{Event, Objects, kind_at},
};
use crate::api_server::status;

/// Sends events from the version asked for on, until the time asked for is over.
pub(super) fn watch(shared: Arc<Shared>, asked: Asked) -> Response<Body> {
    let (lines, receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(16);
    tokio::spawn(async move {
        let mut changes = shared.objects.subscribe();
        // Without a version, or from 0 on: what there is comes first.
        let mut seen = asked.value("resourceVersion").parse::<u64>().ok().filter(|version| *version > 0);
        let seconds = asked.value("timeoutSeconds").parse().unwrap_or(300);
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let (news, newest) = {
                let objects = changes.borrow_and_update();
                (news(&objects, &asked, seen), objects.revision())
            };
            let Some(mut news) = news else {
                let _ = lines.send(Ok(line("ERROR", &status::failure(410, "too old resource version")))).await;
                return;
            };
            if newest > seen.unwrap_or(0) && asked.value("allowWatchBookmarks") == "true" {
                let (api, kind) = kind_at(&asked.collection);
                let metadata = json!({ "resourceVersion": newest.to_string() });
                news.push(line("BOOKMARK", &json!({ "apiVersion": api, "kind": kind, "metadata": metadata })));
            }
            for line in news {
                if lines.send(Ok(line)).await.is_err() {
                    return;
                }
            }
            seen = seen.max(Some(newest));
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(end) => return,
                () = lines.closed() => return,
            }
        }
    });
    events(StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync())
}

/// The lines about what happened after version `seen`, or about what there is; `None` when that is forgotten.
fn news(objects: &Objects, asked: &Asked, seen: Option<u64>) -> Option<Vec<Frame<Bytes>>> {
    let Some(seen) = seen else {
        let (items, _) = objects.list(asked, usize::MAX, "");
        return Some(items.iter().map(|object| line("ADDED", object)).collect());
    };
    let wanted = |event: &&Event| asked.wants(&event.object);
    Some(
        objects
            .since(&asked.collection, seen)?
            .iter()
            .filter(wanted)
            .map(|event| line(event.what, &event.object))
            .collect(),
    )
}

fn line(what: &str, object: &Value) -> Frame<Bytes> {
    Frame::data(format!("{}\n", json!({ "type": what, "object": object })).into())
}
