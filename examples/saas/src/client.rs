//! Calls to other services: pooled HTTP/1 with JSON, and gRPC channels that connect on first use.
//! Both propagate the [`Context`] and never wait longer than [`TIMEOUT`].

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header, uri::Authority};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Serialize, de::DeserializeOwned};
use tonic::transport::{Channel, Endpoint};

use crate::{context::Context, error::Error};

/// The longest a call may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer read into memory.
const MAX_ANSWER: usize = 1 << 20;

/// A client of one HTTP service.
#[derive(Clone)]
pub(crate) struct JsonClient {
    service: &'static str,
    authority: Authority,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl JsonClient {
    /// A client of `service` at `authority`; `service` names it in errors.
    pub(crate) fn new(service: &'static str, authority: &Authority) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { service, authority: authority.clone(), client }
    }

    /// `GET path`; the body of a successful answer, decoded from JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, context: &Context, path: &str) -> Result<T, Error> {
        self.send(context, Method::GET, path, Bytes::new()).await
    }

    /// `POST path` with `body` as JSON; the body of a successful answer, decoded from JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        context: &Context,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|e| self.unreachable(e))?;
        self.send(context, Method::POST, path, body.into()).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        context: &Context,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, Error> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|e| Error::Invalid(format!("{path:?} is not a path: {e}")))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        context.apply(request.headers_mut());
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(request)).await;
        let body = answer.map_err(|elapsed| self.unreachable(elapsed))??;
        serde_json::from_slice(&body).map_err(|e| self.unreachable(e))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Error> {
        let response = self.client.request(request).await.map_err(|e| self.unreachable(e))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| self.unreachable(e))?.to_bytes();
        if head.status.is_success() { Ok(body) } else { Err(self.refused(head.status, &head.headers)) }
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Unreachable { service: self.service, source: source.into() }
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> Error {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Error::Refused {
            service: self.service,
            status,
            reason: text("selvedge-reason").map(str::to_owned),
            retry_after: text("retry-after").and_then(|seconds| seconds.parse().ok()),
        }
    }
}

/// A gRPC channel to `authority` that connects when first used and again whenever the connection is lost.
pub(crate) fn channel(authority: &Authority) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|e| Error::Invalid(format!("{authority} is not an address to call: {e}")))?;
    Ok(endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT).tcp_nodelay(true).connect_lazy())
}
