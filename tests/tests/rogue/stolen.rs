//! The credentials of a workload in hands that keep to no rule.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use selvedge_proxy::{Svid, TlsContext};
use selvedge_tests::{client, wait::within};
use selvedge_xds::alpn;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// TLS with the credentials that the sidecar with this `home` has stored.
pub(crate) fn stolen(home: &Path) -> TlsContext {
    let text = fs::read(home.join("state/credentials.json")).unwrap();
    let stored: Value = serde_json::from_slice(&text).unwrap();
    let pem = |label: &str, der: &Value| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", der.as_str().unwrap()).into_bytes()
    };
    let certificates = |name: &str| -> Vec<CertificateDer<'static>> {
        let all = stored[name].as_array().unwrap().iter();
        all.map(|der| CertificateDer::from_pem_slice(&pem("CERTIFICATE", der)).unwrap()).collect()
    };
    let key = PrivateKeyDer::from_pem_slice(&pem("PRIVATE KEY", &stored["key"])).unwrap();
    let identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
    let svid = Svid { identity, chain: certificates("chain"), key, not_before: 0, not_after: 0 };
    TlsContext::new(&svid, &certificates("roots"), "mesh.local").unwrap()
}

/// What a sidecar calls with that knows no frames.
pub(crate) fn older(tls: &TlsContext) -> Arc<ClientConfig> {
    let mut older = ClientConfig::clone(&tls.frames);
    older.alpn_protocols = vec![alpn::HTTP2.to_vec()];
    Arc::new(older)
}

#[allow(dead_code, reason = "not all who include this connect so")]
/// A connection to the sidecar at `peer` with one of the protocols of the mesh.
pub(crate) async fn connect(config: &Arc<ClientConfig>, peer: SocketAddr) -> TlsStream<TcpStream> {
    let (connector, name) = (TlsConnector::from(config.clone()), "api.shop".try_into().unwrap());
    let socket = client::connect(peer).await.unwrap();
    within("the handshake", connector.connect(name, socket)).await.unwrap()
}
