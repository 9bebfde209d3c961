//! Calls of a server, as kubectl makes them.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use hyper::{body::Body, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
};

use super::kinds::{self, kind};
use crate::client::{Answer, Failure};

/// Server-side apply (JSON is YAML).
const APPLY: &str = "application/apply-patch+yaml";

/// Where a server listens, and how to know it.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// How it is spoken to in TLS, as `localhost`.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Upstream {
    /// Opens an HTTP/1 connection.
    pub(super) async fn open<B>(&self) -> Result<http1::SendRequest<B>, Failure>
    where
        B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
    {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return speak(stream).await };
        over_tls(tls, "localhost", stream).await
    }
}

/// Speaks HTTP/1 to who proves to be `host`.
pub(super) async fn over_tls<B>(
    tls: &Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<http1::SendRequest<B>, Failure>
where
    B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
{
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(tls));
    speak(connector.connect(ServerName::try_from(host.to_owned())?, stream).await?).await
}

/// TLS settings that trust these certificates and no others.
pub(super) fn trusting(
    certificates: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn speak<S, B>(stream: S) -> Result<http1::SendRequest<B>, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// What a server has against a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the response.
    pub code: u16,
    /// What it says to people.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the API server answers {}: {}", self.code, self.message)
    }
}

/// Calls as one user, on one connection.
pub struct Calls {
    upstream: Upstream,
    token: String,
    connection: Mutex<Option<http1::SendRequest<Full<Bytes>>>>,
}

impl Calls {
    pub(super) fn new(upstream: Upstream, token: &str) -> Self {
        Self { upstream, token: token.to_owned(), connection: Mutex::default() }
    }

    /// Calls of the same server by whoever has the bearer token `token`, on a connection of its own.
    #[must_use]
    pub fn of(&self, token: &str) -> Self {
        Self::new(self.upstream.clone(), token)
    }

    /// Puts what `manager` says of an object in place by server-side apply, whoever says otherwise; its status excepted.
    pub async fn apply(&self, object: &Value, manager: &str) -> Result<Value, Refusal> {
        let path = format!("{}?fieldManager={manager}&force=true", path_of(object));
        self.ask(Method::PATCH, &path, APPLY, object).await
    }

    /// Puts what `manager` says of the status of an object in place by server-side apply, whoever says otherwise.
    pub async fn apply_status(&self, object: &Value, manager: &str) -> Result<Value, Refusal> {
        let mut status = json!({ "metadata": { "name": object["metadata"]["name"] } });
        for field in ["apiVersion", "kind", "status"] {
            status[field] = object[field].clone();
        }
        let path = format!("{}/status?fieldManager={manager}&force=true", path_of(object));
        self.ask(Method::PATCH, &path, APPLY, &status).await
    }

    /// Creates an object that is not there yet, and tells what became of it.
    pub async fn create(&self, object: &Value) -> Result<Value, Refusal> {
        self.post(&kinds::of(object).path_in(namespace(object)), object).await
    }

    /// What would become of an object if it were created.
    pub async fn try_out(&self, object: &Value) -> Result<Value, Refusal> {
        let path = format!("{}?dryRun=All", kinds::of(object).path_in(namespace(object)));
        self.post(&path, object).await
    }

    /// What is said to whoever would create an object, without creating it: the warnings, as kubectl shows them.
    pub async fn warnings(&self, object: &Value) -> Vec<String> {
        let path = format!("{}?dryRun=All", kinds::of(object).path_in(namespace(object)));
        let request = self.request(Method::POST, &path, "application/json", object);
        let answer = self.send(request).await.unwrap_or_else(|failure| panic!("{path}: {failure}"));
        let said =
            answer.headers.get_all(header::WARNING).iter().filter_map(|said| std::str::from_utf8(said.as_bytes()).ok());
        let said = said.filter_map(|said| said.strip_prefix("299 - \"")?.strip_suffix('"'));
        said.map(|said| said.replace("\\\"", "\"").replace("\\\\", "\\")).collect()
    }

    /// Deletes an object, without waiting for what it might have to end.
    pub async fn delete(&self, kind_name: &str, namespace: &str, name: &str) -> Result<(), Refusal> {
        let path = format!("{}/{name}?gracePeriodSeconds=0", kind(kind_name).path_in(namespace));
        self.ask(Method::DELETE, &path, "application/json", &Value::Null).await?;
        Ok(())
    }

    /// An object; `None` when there is none.
    pub async fn get(&self, kind_name: &str, namespace: &str, name: &str) -> Option<Value> {
        let path = format!("{}/{name}", kind(kind_name).path_in(namespace));
        match self.read(&path).await {
            Ok(object) => Some(object),
            Err(Refusal { code: 404, .. }) => None,
            Err(refusal) => panic!("{path}: {refusal}"),
        }
    }

    /// Every object of a kind.
    ///
    /// # Panics
    /// When the server does not list them.
    pub async fn list(&self, kind_name: &str) -> Vec<Value> {
        let mut list = self.read(&kind(kind_name).path()).await.unwrap_or_else(|refusal| panic!("{refusal}"));
        match list["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        }
    }

    /// What is at `path`.
    pub async fn read(&self, path: &str) -> Result<Value, Refusal> {
        self.ask(Method::GET, path, "application/json", &Value::Null).await
    }

    /// What comes of posting `content` to `path`.
    pub async fn post(&self, path: &str, content: &Value) -> Result<Value, Refusal> {
        self.ask(Method::POST, path, "application/json", content).await
    }

    /// Whatever else there is to ask.
    pub async fn ask(&self, method: Method, path: &str, media: &str, content: &Value) -> Result<Value, Refusal> {
        let request = self.request(method, path, media, content);
        let answer = self.send(request).await.unwrap_or_else(|failure| panic!("{path}: {failure}"));
        let said = answer.json();
        if answer.status.is_success() {
            return Ok(said);
        }
        let message = said["message"].as_str().map_or_else(|| answer.text(), str::to_owned);
        Err(Refusal { code: answer.status.as_u16(), message })
    }

    /// Whether what is at `path` can be read, also where nobody may be listening.
    pub(super) async fn reads(&self, path: &str) -> bool {
        let request = self.request(Method::GET, path, "application/json", &Value::Null);
        self.send(request).await.is_ok_and(|answer| answer.status.is_success())
    }

    fn request(&self, method: Method, path: &str, media: &str, content: &Value) -> Request<Full<Bytes>> {
        let body = if content.is_null() { Bytes::new() } else { content.to_string().into() };
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, media)
            .body(Full::new(body))
            .expect("a valid request")
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_mut().filter(|open| !open.is_closed()) {
            open.ready().await?;
            return Ok(Answer::read(open.send_request(request).await?).await?);
        }
        let open = connection.insert(self.upstream.open().await?);
        Ok(Answer::read(open.send_request(request).await?).await?)
    }
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

fn path_of(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().expect("an object that says its name");
    format!("{}/{name}", kinds::of(object).path_in(namespace(object)))
}
