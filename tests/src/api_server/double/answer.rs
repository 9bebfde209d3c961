//! Answers of the double.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    Shared, admission,
    asked::Asked,
    objects::{Refused, kind_at},
    tokens::{ACCOUNTS, REVIEWS},
    watching,
};
use crate::api_server::{ADMIN, status};

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let asked = Asked::new(request.uri());
    let method = request.method().clone();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (token, media) = (header("authorization").to_owned(), header("content-type").to_owned());
    let path = request.uri().path().to_owned();
    let content = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if path == "/version" {
        return Ok(json_answer(StatusCode::OK, &version()));
    }
    let token = token.strip_prefix("Bearer ").unwrap_or_default();
    let known = token == ADMIN || shared.tokens.borrow().authenticates(&shared.objects.borrow(), token);
    if !known {
        return Ok(refused(&Refused::new(401, "Unauthorized")));
    }
    if asked.is_watch() {
        return Ok(watching::watch(shared, asked));
    }
    let done = act(&shared, &asked, &method, &media, &content).await;
    Ok(match done {
        Ok((code, object)) => json_answer(code, &object),
        Err(refusal) => refused(&refusal),
    })
}

/// Does what is asked, once.
async fn act(
    shared: &Shared,
    asked: &Asked,
    method: &Method,
    media: &str,
    content: &[u8],
) -> Result<(StatusCode, Value), Refused> {
    if *method == Method::GET {
        let objects = shared.objects.borrow();
        let read = if asked.name.is_empty() { objects_of(shared, asked) } else { objects.get(asked)? };
        return Ok((StatusCode::OK, read));
    }
    let no_content = || Refused::new(400, "the content is no JSON");
    let object = || serde_json::from_slice::<Value>(content).map_err(|_| no_content());
    let mut done = Err(Refused::new(405, "the server does not allow this method on the requested resource"));
    if *method == Method::DELETE {
        let grace = asked.value("gracePeriodSeconds").to_owned();
        let at_once = grace == "0" || object().is_ok_and(|options| options["gracePeriodSeconds"] == 0);
        shared.objects.send_modify(|objects| done = objects.delete(asked, at_once));
        return done.map(|object| (StatusCode::OK, object));
    }
    let object = object()?;
    match (method, media) {
        (&Method::POST, _) if asked.collection == REVIEWS => {
            let review = shared.tokens.borrow().review(&shared.objects.borrow(), &object);
            return Ok((StatusCode::CREATED, review));
        }
        (&Method::POST, _) if asked.collection == ACCOUNTS && asked.part == "token" => {
            shared.tokens.send_modify(|tokens| done = tokens.issue(&shared.objects.borrow(), asked, &object));
            return done.map(|object| (StatusCode::CREATED, object));
        }
        (&Method::POST, _) if asked.name.is_empty() => {
            let object = admission::admit(shared, asked, object).await?;
            shared.objects.send_modify(|objects| done = objects.create(asked, object));
            return done.map(|object| (StatusCode::CREATED, object));
        }
        (&Method::PUT, _) => shared.objects.send_modify(|objects| done = objects.replace(asked, object)),
        (&Method::PATCH, "application/apply-patch+yaml" | "application/apply-patch+json") => {
            shared.objects.send_modify(|objects| done = objects.apply(asked, object));
        }
        (&Method::PATCH, "application/merge-patch+json") => {
            shared.objects.send_modify(|objects| done = objects.merge(asked, &object));
        }
        (&Method::PATCH, media) => return Err(Refused::new(415, &format!("the double takes no patch {media}"))),
        _ => {}
    }
    done.map(|object| (StatusCode::OK, object))
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "", "platform": "",
    })
}

fn objects_of(shared: &Shared, asked: &Asked) -> Value {
    let limit = asked.value("limit").parse().ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let objects = shared.objects.borrow();
    let (items, next) = objects.list(asked, limit, asked.value("continue"));
    let metadata = json!({ "resourceVersion": objects.revision().to_string(), "continue": next.unwrap_or_default() });
    let (api, kind) = kind_at(&asked.collection);
    json!({ "apiVersion": api, "kind": format!("{kind}List"), "metadata": metadata, "items": items })
}

fn refused(refusal: &Refused) -> Response<Body> {
    let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_answer(code, &status::failure(refusal.code, &refusal.message))
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut answer = events(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// An answer of JSON, whole or line by line.
pub(super) fn events(body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}
