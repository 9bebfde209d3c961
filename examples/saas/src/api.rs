//! The frame of an HTTP service: reads the body (bounded), hands the request to the service, and turns its
//! errors into JSON answers.

use std::{convert::Infallible, future::Future, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};
use tonic::body::Body;

use crate::{context::Context, error::Error, server::App};

/// A request whose body is in memory.
pub(crate) type Request = http::Request<Bytes>;
/// An answer whose body is in memory.
pub(crate) type Response = http::Response<Bytes>;

/// The largest request body taken.
const MAX_BODY: usize = 64 << 10;

/// What an HTTP service does.
pub(crate) trait Api: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, context: Context, request: Request) -> impl Future<Output = Result<Response, Error>> + Send;
}

/// `api` as something [`crate::server::serve`] can serve.
pub(crate) fn app<A: Api>(api: A) -> impl App {
    let api = Arc::new(api);
    tower::service_fn(move |request| {
        let api = Arc::clone(&api);
        async move {
            let response = receive(&*api, request).await.unwrap_or_else(|error| failure(&error));
            Ok::<_, Infallible>(response.map(|bytes| Body::new(Full::new(bytes))))
        }
    })
}

async fn receive(api: &impl Api, request: http::Request<Incoming>) -> Result<Response, Error> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| Error::Invalid(format!("bad body: {e}")))?;
    let context = Context::from_headers(&head.headers);
    api.answer(context, http::Request::from_parts(head, body.to_bytes())).await
}

fn failure(error: &Error) -> Response {
    if error.status().is_server_error() {
        tracing::debug!(error = error as &dyn std::error::Error, "a request failed");
    }
    json(error.status(), &serde_json::json!({ "error": error.to_string() }))
}

/// An answer with `body` as JSON.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => with_type(status, "application/json", bytes),
        Err(error) => with_type(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    }
}

/// An answer with a body of a media type.
pub(crate) fn with_type(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// The request's JSON body.
pub(crate) fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Error> {
    serde_json::from_slice(request.body())
        .map_err(|e| Error::Invalid(format!("the body is not what was expected: {e}")))
}

/// The path's segments, without empty ones.
pub(crate) fn segments(request: &Request) -> Vec<&str> {
    request.uri().path().split('/').filter(|segment| !segment.is_empty()).collect()
}

/// The answer to a path or method that means nothing here.
pub(crate) fn unknown(request: &Request) -> Error {
    Error::NotFound(format!("{} {}", request.method(), request.uri().path()))
}
