//! A webhook of somebody else, which adds a container to each pod.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use selvedge_tests::api_server::ApiServer;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// The container that it adds.
pub(super) const ADDED: &str = "added";

/// Installs it in `server`, called after the mesh's, and answers until the tasks are dropped.
pub(super) async fn install(server: &ApiServer) -> JoinSet<()> {
    let host = "other.shop.svc";
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([host.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, TlsAcceptor::from(Arc::new(config))));
    server.route("shop/other", address);
    server
        .put(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": { "name": "z-other" },
            "webhooks": [{
                "name": "other.example.com",
                "clientConfig": {
                    "service": { "namespace": "shop", "name": "other", "port": 443, "path": "/" },
                    "caBundle": BASE64_STANDARD.encode(cert.pem()),
                },
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                    "scope": "Namespaced",
                }],
                "failurePolicy": "Fail", "timeoutSeconds": 3, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            }],
        }))
        .await;
    tasks
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let http = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            let _ended = http.await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let content = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&content).unwrap();
    let request = &review["request"];
    let containers = request["object"]["spec"]["containers"].as_array().cloned().unwrap_or_default();
    let mut response = json!({ "uid": request["uid"], "allowed": true });
    if !containers.iter().any(|container| container["name"] == ADDED) {
        let container = json!({ "name": ADDED, "image": "registry.example/added" });
        let patch = json!([{ "op": "add", "path": "/spec/containers/-", "value": container }]);
        response["patchType"] = "JSONPatch".into();
        response["patch"] = BASE64_STANDARD.encode(patch.to_string()).into();
    }
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
    Ok(Response::builder()
        .header("content-type", "application/json")
        .body(Full::new(review.to_string().into()))
        .unwrap())
}
