//! TLS of the hop between sidecars, and TLS originated to services outside the mesh.
//!
//! Guarantees for the mesh hop, on both sides: TLS 1.3 only, X25519MLKEM768 first, AES-GCM first; the peer proves an
//! X.509-SVID of our trust domain, signed by one of the given authorities and valid now; the protocol is one of
//! [`selvedge_xds::alpn`]. *Which* identity a server must prove is for the caller to compare, with
//! [`peer_identity`], because it belongs to the endpoint and not to the connection pool's TLS settings.
//!
//! A [`TlsContext`] is immutable. New credentials make a new one, with new ticket keys and empty session stores, so
//! nothing that was resumed can outlive a change of trust.

mod client;
mod server;
mod verify;

use std::{io, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, CommonState, OtherError, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, UnixTime},
};
use selvedge_identity::svid::Leaf;
use selvedge_policies::facts::Identity;
use selvedge_xds::alpn;
use tokio::time::Instant;

pub use self::client::to_control_plane;
pub(crate) use self::client::{
    ExternalTls, SYSTEM_ROOTS, originate, to_injected_control_plane, to_pinned_control_plane,
};
use crate::credentials::Svid;

/// How much the clocks of two machines may differ; less for certificates that live for less than ten times as long.
const SKEW: Duration = Duration::from_secs(60);

/// Why no TLS settings could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate authority is no certificate.
    #[error("certificate authority {index} of the trust bundle cannot be used")]
    Root {
        /// Position in the bundle.
        index: usize,
        /// What the TLS library says of it.
        #[source]
        source: rustls::Error,
    },
    /// There is nothing to trust.
    #[error("the trust bundle is empty, so no peer could be verified")]
    NoRoots,
    /// Certificate and key are not usable together.
    #[error("the workload's certificate and key cannot be used")]
    Credentials(#[source] rustls::Error),
    /// The file with public certificate authorities is not there or not PEM.
    #[error("no certificate authorities could be read from {path}")]
    RootsFile {
        /// The file with the authorities, PEM.
        path: std::path::PathBuf,
        /// What of its content is not PEM.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Client certificates cannot be verified with these authorities.
    #[error("the verifier of client certificates cannot be built")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// Everything needed to take and make mesh connections with one set of credentials.
#[derive(Clone, Debug)]
pub struct TlsContext {
    /// For calls received: requires a client certificate, takes every mesh protocol.
    pub server: Arc<ServerConfig>,
    /// For calls made over `selvedge-frames`, or over `selvedge-h2` where the peer does not know it.
    pub frames: Arc<ClientConfig>,
    /// For calls made over `selvedge-h1`.
    pub http1: Arc<ClientConfig>,
    /// For calls made over `selvedge-tcp`.
    pub tcp: Arc<ClientConfig>,
    /// SHA-256 of the certificates of the authorities trusted, in hex.
    pub authorities: Vec<String>,
}

impl TlsContext {
    /// Settings that prove `svid` and trust `roots` to vouch for workloads of `trust_domain`.
    pub fn new(svid: &Svid, roots: &[CertificateDer<'static>], trust_domain: &str) -> Result<Self, TlsError> {
        let authorities = roots.iter().map(|root| fingerprint(root)).collect();
        let roots = Arc::new(root_store(roots)?);
        let client = |protocols: &[&[u8]]| client::mesh(svid, &roots, trust_domain, protocols).map(Arc::new);
        Ok(Self {
            server: Arc::new(server::mesh(svid, &roots, trust_domain)?),
            frames: client(&[alpn::FRAMES, alpn::HTTP2])?,
            http1: client(&[alpn::HTTP1])?,
            tcp: client(&[alpn::TCP])?,
            authorities,
        })
    }
}

/// The identity the peer of an established mesh connection proved; `None` when it proved none or its certificate has
/// run out since, which a resumed session does not notice by itself.
pub(crate) fn peer_identity(connection: &CommonState) -> Option<Identity> {
    let leaf = Leaf::from_der(connection.peer_certificates()?.first()?).ok()?;
    let now = i64::try_from(UnixTime::now().as_secs()).ok()?;
    (now <= leaf.not_after).then_some(leaf.identity)
}

/// When the peer of an established mesh connection should have a newer certificate than the one it proved itself with: a
/// little after that one runs out, for clocks that differ. `None` when it proved none.
pub(crate) fn peer_until(connection: &CommonState) -> Option<Instant> {
    let leaf = Leaf::from_der(connection.peer_certificates()?.first()?).ok()?;
    let seconds = |span: i64| Duration::from_secs(u64::try_from(span).unwrap_or_default());
    let now = i64::try_from(UnixTime::now().as_secs()).ok()?;
    let skew = SKEW.min(seconds(leaf.not_after - leaf.not_before) / 10);
    Some(Instant::now() + seconds(leaf.not_after - now) + skew)
}

/// SHA-256 of the certificate (DER) that the peer of an established mesh connection showed, in lower-case hex.
pub(crate) fn peer_fingerprint(connection: &CommonState) -> Option<Arc<str>> {
    Some(fingerprint(connection.peer_certificates()?.first()?).into())
}

/// A handshake error in our own words where the refusal was ours; rustls prints those as a debug dump.
pub(crate) fn readable(error: io::Error) -> io::Error {
    let refusal = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal)))) => Arc::clone(refusal),
        _ => return error,
    };
    io::Error::new(error.kind(), refusal)
}

fn fingerprint(certificate: &[u8]) -> String {
    ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, certificate)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The authorities `roots` as rustls takes them.
///
/// # Errors
/// When one is no usable certificate, or there are none: nobody would be believed.
pub(crate) fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for (index, root) in roots.iter().enumerate() {
        store.add(root.clone()).map_err(|source| TlsError::Root { index, source })?;
    }
    if store.is_empty() { Err(TlsError::NoRoots) } else { Ok(store) }
}

/// aws-lc in its own order: X25519MLKEM768 before the classic groups, AES-GCM before ChaCha20.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        PKCS_ECDSA_P256_SHA256, SanType,
    };
    use rustls::{
        ClientConnection, HandshakeKind, NamedGroup, ServerConnection,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    };
    use time::OffsetDateTime;

    use super::*;
    use crate::credentials::Credentials;

    const DOMAIN: &str = "mesh.local";
    const GOOD: &str = "spiffe://mesh.local/ns/shop/sa/web";

    struct Ca {
        issuer: Issuer<'static, KeyPair>,
        certificate: CertificateDer<'static>,
    }

    fn key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(i64::try_from(UnixTime::now().as_secs()).unwrap()).unwrap()
    }

    fn ca() -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = key();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Ca { issuer: Issuer::new(params, key), certificate }
    }

    fn names(uris: &[&str]) -> Vec<SanType> {
        uris.iter().map(|uri| SanType::URI((*uri).to_owned().try_into().unwrap())).collect()
    }

    fn leaf(uri: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names(&[uri]);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_before = now() - Duration::from_secs(60);
        params.not_after = now() + Duration::from_secs(60);
        params
    }

    fn changed(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
        let mut params = leaf(GOOD);
        change(&mut params);
        params
    }

    /// An SVID as no CA of ours would sign it; identity and validity are not looked at by TLS settings.
    fn forged(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Svid {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Svid { identity: GOOD.parse().unwrap(), chain, key, not_before: 0, not_after: 0 }
    }

    fn signed(ca: &Ca, params: &CertificateParams) -> Svid {
        let key = key();
        let certificate = params.signed_by(&key, &ca.issuer).unwrap();
        forged(vec![certificate.der().clone()], &key)
    }

    /// What a workload of the mesh proves itself with.
    pub(crate) fn of_a_workload() -> TlsContext {
        let ca = ca();
        context(&ca, &signed(&ca, &leaf(GOOD)))
    }

    /// What a workload proves itself with and trusts before, while and after another authority takes over.
    pub(crate) fn of_a_takeover() -> [TlsContext; 3] {
        let (old, new) = (ca(), ca());
        let of = |signs: &Ca, trusted: &[&Ca]| {
            let roots: Vec<_> = trusted.iter().map(|ca| ca.certificate.clone()).collect();
            TlsContext::new(&signed(signs, &leaf(GOOD)), &roots, DOMAIN).unwrap()
        };
        [of(&old, &[&old]), of(&new, &[&old, &new]), of(&new, &[&new])]
    }

    fn context(ca: &Ca, svid: &Svid) -> TlsContext {
        TlsContext::new(svid, std::slice::from_ref(&ca.certificate), DOMAIN).unwrap()
    }

    /// Which side refused, and why.
    type Refusal = (&'static str, rustls::Error);

    fn handshake(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
    ) -> Result<(ClientConnection, ServerConnection), Refusal> {
        let name = ServerName::try_from("web.shop").unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        for _ in 0..10 {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                server.read_tls(&mut wire).unwrap();
            }
            server.process_new_packets().map_err(|e| ("server", e))?;
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut wire = &wire[..];
            while !wire.is_empty() {
                client.read_tls(&mut wire).unwrap();
            }
            client.process_new_packets().map_err(|e| ("client", e))?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok((client, server))
    }

    /// Both sides must refuse `bad`: shown by a client it is refused by the server, and the other way round.
    fn refused_on_both_sides(what: &str, ca: &Ca, bad: &Svid) {
        let (good, bad) = (context(ca, &signed(ca, &leaf(GOOD))), context(ca, bad));
        let by = |result: Result<_, Refusal>| result.map(|_| ()).map_err(|(side, _)| side);
        assert_eq!(by(handshake(&bad.frames, &good.server)), Err("server"), "{what}: shown by a client");
        assert_eq!(by(handshake(&good.frames, &bad.server)), Err("client"), "{what}: shown by a server");
    }

    #[test]
    fn two_workloads_prove_themselves_with_the_best_there_is() {
        let ca = ca();
        let web = context(&ca, &signed(&ca, &leaf(GOOD)));
        let cart = context(&ca, &signed(&ca, &leaf("spiffe://mesh.local/ns/shop/sa/cart")));
        for (config, protocol) in [(&web.frames, alpn::FRAMES), (&web.http1, alpn::HTTP1), (&web.tcp, alpn::TCP)] {
            let (client, server) = handshake(config, &cart.server).unwrap();
            assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
            assert_eq!(client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
            let suite = format!("{:?}", client.negotiated_cipher_suite().unwrap().suite());
            assert!(suite.contains("AES") && suite.contains("GCM"), "{suite}");
            assert_eq!((client.alpn_protocol(), server.alpn_protocol()), (Some(protocol), Some(protocol)));
            assert_eq!(peer_identity(&server).unwrap().to_string(), GOOD);
            assert_eq!(peer_identity(&client).unwrap().to_string(), "spiffe://mesh.local/ns/shop/sa/cart");
        }
    }

    #[test]
    fn a_sidecar_that_does_not_know_frames_is_called_by_http2() {
        let ca = ca();
        let (web, cart) = (context(&ca, &signed(&ca, &leaf(GOOD))), context(&ca, &signed(&ca, &leaf(GOOD))));
        let mut older = ServerConfig::clone(&cart.server);
        older.alpn_protocols.retain(|protocol| protocol != alpn::FRAMES);
        let (client, _) = handshake(&web.frames, &Arc::new(older)).unwrap();
        assert_eq!(client.alpn_protocol(), Some(alpn::HTTP2));
    }

    #[test]
    fn sessions_are_resumed_with_their_identity_until_credentials_change() {
        let ca = ca();
        let web = context(&ca, &signed(&ca, &leaf(GOOD)));
        let cart = context(&ca, &signed(&ca, &leaf(GOOD)));
        handshake(&web.frames, &cart.server).unwrap();
        let (_, server) = handshake(&web.frames, &cart.server).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(peer_identity(&server).unwrap().to_string(), GOOD);
        let renewed = context(&ca, &signed(&ca, &leaf(GOOD)));
        let (_, server) = handshake(&web.frames, &renewed.server).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    }

    #[test]
    fn a_client_without_a_certificate_is_refused() {
        let ca = ca();
        let server = context(&ca, &signed(&ca, &leaf(GOOD))).server;
        let roots = Arc::new(root_store(std::slice::from_ref(&ca.certificate)).unwrap());
        let servers = verify::MeshServers {
            trust: verify::Trust::Roots { roots, trust_domain: DOMAIN.into() },
            only: None,
            algorithms: provider().signature_verification_algorithms,
        };
        let mut anonymous = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(servers))
            .with_no_client_auth();
        anonymous.alpn_protocols = vec![alpn::HTTP2.to_vec()];
        let Err((side, error)) = handshake(&Arc::new(anonymous), &server) else { panic!("it was let in") };
        assert_eq!((side, error), ("server", rustls::Error::NoCertificatesPresented));
    }

    #[test]
    fn certificates_by_others_or_of_another_time_are_refused() {
        let ca = ca();
        let hour = Duration::from_secs(3600);
        refused_on_both_sides("another CA", &ca, &signed(&self::ca(), &leaf(GOOD)));
        let expired = changed(|p| (p.not_before, p.not_after) = (now() - 2 * hour, now() - hour));
        refused_on_both_sides("expired", &ca, &signed(&ca, &expired));
        let future = changed(|p| (p.not_before, p.not_after) = (now() + hour, now() + 2 * hour));
        refused_on_both_sides("not yet valid", &ca, &signed(&ca, &future));
        let key = key();
        let own = leaf(GOOD).self_signed(&key).unwrap();
        refused_on_both_sides("self-signed", &ca, &forged(vec![own.der().clone()], &key));
    }

    #[test]
    fn certificates_that_may_sign_others_are_refused() {
        let ca = ca();
        let signing = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        for usage in signing {
            let params = changed(|p| p.key_usages.push(usage));
            refused_on_both_sides(&format!("{usage:?}"), &ca, &signed(&ca, &params));
        }
        let authority = changed(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        refused_on_both_sides("CA:TRUE", &ca, &signed(&ca, &authority));

        let (middle_key, key) = (key(), key());
        let middle = leaf(GOOD).signed_by(&middle_key, &ca.issuer).unwrap();
        let below = leaf("spiffe://mesh.local/ns/shop/sa/admin");
        let below = below.signed_by(&key, &Issuer::new(leaf(GOOD), middle_key)).unwrap();
        let chain = vec![below.der().clone(), middle.der().clone()];
        refused_on_both_sides("signed by a workload", &ca, &forged(chain, &key));
    }

    #[test]
    fn certificates_without_exactly_one_identity_of_our_trust_domain_are_refused() {
        let ca = ca();
        let two = changed(|p| p.subject_alt_names = names(&[GOOD, "spiffe://mesh.local/ns/shop/sa/admin"]));
        refused_on_both_sides("two URI names", &ca, &signed(&ca, &two));
        let dns = changed(|p| p.subject_alt_names = vec![SanType::DnsName("web.shop".try_into().unwrap())]);
        refused_on_both_sides("only a DNS name", &ca, &signed(&ca, &dns));
        let common_name = changed(|p| {
            p.subject_alt_names.clear();
            p.distinguished_name.push(DnType::CommonName, GOOD);
        });
        refused_on_both_sides("only a common name", &ca, &signed(&ca, &common_name));
        let long = format!("spiffe://mesh.local/ns/shop/sa/{}", "a".repeat(2048));
        let long_domain = format!("spiffe://{}/ns/shop/sa/web", "a".repeat(256));
        let uris = [
            "spiffe://other.local/ns/shop/sa/web",
            "spiffe://mesh.local.evil/ns/shop/sa/web",
            "spiffe://mesh.local",
            "spiffe://mesh.local/",
            "spiffe://mesh.local/ns/shop/sa/web/",
            "spiffe://mesh.local//ns/shop/sa/web",
            "spiffe://mesh.local/ns//sa/web",
            "spiffe://mesh.local/ns/./sa/web",
            "spiffe://mesh.local/ns/../sa/web",
            "spiffe://Mesh.local/ns/shop/sa/web",
            "spiffe://mesh.local:443/ns/shop/sa/web",
            "spiffe://user@mesh.local/ns/shop/sa/web",
            "spiffe://mesh.local/ns/shop/sa/web?x",
            "spiffe://mesh.local/ns/shop/sa/web#x",
            "spiffe://mesh.local/ns/shop/sa/w%65b",
            "spiffe://mesh.local/ns/shop/sa/we b",
            "SPIFFE://mesh.local/ns/shop/sa/web",
            "spiffe:/mesh.local/ns/shop/sa/web",
            "https://mesh.local/ns/shop/sa/web",
            &long,
            &long_domain,
        ];
        for uri in uris {
            refused_on_both_sides(uri, &ca, &signed(&ca, &leaf(uri)));
        }
    }

    const CONTROL_PLANE: &str = "spiffe://mesh.local/ns/selvedge-system/sa/control-plane";

    /// Which side refused, when a sidecar of `mesh.local` with these settings takes one that shows `shown` and its authority
    /// for its control plane.
    fn as_control_plane(sidecar: &Arc<ClientConfig>, ca: &Ca, shown: &Svid) -> Result<(), &'static str> {
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert([&shown.chain[..], std::slice::from_ref(&ca.certificate)].concat(), shown.key.clone_key())
            .unwrap();
        server.alpn_protocols = vec![b"h2".to_vec()];
        handshake(sidecar, &Arc::new(server)).map(drop).map_err(|(side, _)| side)
    }

    #[test]
    fn a_workload_does_not_pass_for_the_control_plane() {
        let (ca, other) = (ca(), self::ca());
        let (svid, roots) = (Arc::new(signed(&ca, &leaf(GOOD))), [ca.certificate.clone()].into());
        let credentials = Credentials { svid, roots };
        let member = to_control_plane(&credentials).unwrap();
        let pin = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, &ca.certificate);
        let joining = to_pinned_control_plane(pin.as_ref().try_into().unwrap()).unwrap();
        let injected = to_injected_control_plane(std::slice::from_ref(&ca.certificate)).unwrap();
        let refused = Err("client");
        for (shown, to_member, to_joining) in [
            (CONTROL_PLANE, Ok(()), Ok(())),
            (GOOD, refused, refused),
            ("spiffe://mesh.local/ns/shop/sa/control-plane", refused, refused),
            ("spiffe://mesh.local/ns/selvedge-system/sa/web", refused, refused),
            // Who joins learns the trust domain from whoever has the authority that the token pins, or the pod was given.
            ("spiffe://other.local/ns/selvedge-system/sa/control-plane", refused, Ok(())),
        ] {
            let svid = signed(&ca, &leaf(shown));
            assert_eq!(as_control_plane(&member, &ca, &svid), to_member, "{shown}");
            assert_eq!(as_control_plane(&joining, &ca, &svid), to_joining, "{shown}, when it joins");
            assert_eq!(as_control_plane(&injected, &ca, &svid), to_joining, "{shown}, when a pod joins");
        }
        let svid = signed(&other, &leaf(CONTROL_PLANE));
        for sidecar in [&member, &joining, &injected] {
            assert_eq!(as_control_plane(sidecar, &other, &svid), refused, "of another authority");
            assert_eq!(as_control_plane(sidecar, &ca, &svid), refused, "of another authority, which it hides");
        }
    }

    #[test]
    fn unusable_trust_bundles_are_errors() {
        let ca = ca();
        let svid = signed(&ca, &leaf(GOOD));
        assert!(matches!(TlsContext::new(&svid, &[], DOMAIN), Err(TlsError::NoRoots)));
        let junk = [ca.certificate.clone(), CertificateDer::from(vec![1, 2, 3])];
        assert!(matches!(TlsContext::new(&svid, &junk, DOMAIN), Err(TlsError::Root { index: 1, .. })));
        let other = forged(svid.chain.clone(), &key());
        assert!(matches!(
            TlsContext::new(&other, std::slice::from_ref(&ca.certificate), DOMAIN),
            Err(TlsError::Credentials(_))
        ));
    }

    #[test]
    fn public_authorities_come_from_a_pem_file() {
        let ca = ca();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("roots.pem");
        std::fs::write(&file, "no certificate\n").unwrap();
        assert!(matches!(originate(&file), Err(TlsError::NoRoots)));
        assert!(matches!(originate(&directory.path().join("none")), Err(TlsError::RootsFile { .. })));
        let text = pem(&ca.certificate);
        std::fs::write(&file, text).unwrap();
        assert_eq!(originate(&file).unwrap().http2.alpn_protocols, [b"h2"]);
    }

    fn pem(certificate: &CertificateDer<'_>) -> String {
        use base64::{Engine, prelude::BASE64_STANDARD};
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(certificate))
    }
}
