//! Probes: what may be asked of the application without mTLS and without a policy, and by whom.
//!
//! The kubelet asks from its node how a container is, and can prove nothing. What it was declared to ask passes from where
//! it asks, and nothing else does: a request is compared as a whole, each by itself, whatever else came on its connection.

use std::net::IpAddr;

use http::{Method, Request, Version, header::UPGRADE};
use hyper::body::Body;

use crate::{
    bootstrap::{Ask, Networks, Probe},
    http::reply,
};

pub(crate) mod gateway;

/// The method of gRPC's health check.
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// The annotation of a pod that names further probers.
const ANNOTATION: &str = "config.selvedge.dev/probers";

/// What is declared, and from where it may be asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probes {
    declared: Vec<Probe>,
    probers: Networks,
}

/// Who asks, and where the control plane says that the kubelet of the node may ask from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    address: IpAddr,
    of_node: &'a [IpAddr],
}

impl<'a> Peer<'a> {
    /// Whoever has this address, where `of_node` are addresses that the node may have before its pods.
    pub(crate) fn new(address: IpAddr, of_node: &'a [IpAddr]) -> Self {
        Self { address, of_node }
    }
}

/// A request that is exactly what a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// By somebody who may.
    ByProber,
    /// By anybody else.
    ByStranger,
}

impl Probes {
    /// These, from `probers` and the `gateways` of the pod, behind which its node is.
    pub(crate) fn new(declared: Vec<Probe>, mut probers: Networks, gateways: impl IntoIterator<Item = IpAddr>) -> Self {
        probers.extend(gateways);
        Self { declared, probers }
    }

    fn on(&self, port: u16) -> impl Iterator<Item = &Probe> {
        self.declared.iter().filter(move |probe| probe.port == port)
    }

    fn from(&self, probe: &Probe, peer: Peer<'_>) -> bool {
        match &probe.from {
            Some(named) => named.contain(peer.address),
            None => self.probers.contain(peer.address) || peer.of_node.contains(&peer.address),
        }
    }

    /// Whether `peer` may probe `port` in any way.
    pub(crate) fn is_prober(&self, port: u16, peer: Peer<'_>) -> bool {
        self.on(port).any(|probe| self.from(probe, peer))
    }

    /// Whether `peer` may see whether `port` takes connections.
    pub(crate) fn may_connect(&self, port: u16, peer: Peer<'_>) -> bool {
        self.on(port).any(|probe| probe.ask == Ask::Connect && self.from(probe, peer))
    }

    /// Whether `peer` may ask something in HTTP at `port`.
    pub(crate) fn may_request(&self, port: u16, peer: Peer<'_>) -> bool {
        self.on(port).any(|probe| probe.ask != Ask::Connect && self.from(probe, peer))
    }

    /// Whether a request from `peer` to `port` is exactly what a probe asks. `None` when it is anything else.
    pub(crate) fn asked<B: Body>(&self, port: u16, peer: Peer<'_>, request: &Request<B>) -> Option<Asked> {
        let mut same = self.on(port).filter(|probe| is(&probe.ask, request)).peekable();
        same.peek()?;
        Some(if same.any(|probe| self.from(probe, peer)) { Asked::ByProber } else { Asked::ByStranger })
    }

    /// Why what `peer` does at `port` passes as no probe; `None` where there is nothing to probe.
    pub(crate) fn why_not(&self, port: u16, peer: Peer<'_>) -> Option<String> {
        self.on(port).next()?;
        let mut asks: Vec<String> = self.on(port).map(|probe| said(&probe.ask)).collect();
        asks.dedup();
        let address = peer.address;
        if self.is_prober(port, peer) {
            let asks = asks.join(", ");
            return Some(format!(
                "{address} may ask port {port} without mTLS for its probes only ({asks}) and asked another thing"
            ));
        }
        let mut probers = self.probers.clone();
        probers.extend(peer.of_node.iter().copied());
        let mut from: Vec<&Networks> = self.on(port).map(|probe| probe.from.as_ref().unwrap_or(&probers)).collect();
        from.dedup();
        let from: Vec<String> = from.into_iter().map(Networks::to_string).collect();
        let from = from.join(", ");
        Some(format!(
            "{address} came to port {port} without mTLS; its probes are taken from {from}, and the annotation {ANNOTATION} of \
             the pod names others"
        ))
    }
}

/// What a stranger is told that asked what a probe asks, in the body of its answer: the kubelet shows it to people.
pub(crate) fn refusal(port: u16, peer: IpAddr) -> String {
    let detail = format!(
        "{peer} is not among the addresses that probes of port {port} are taken from; the annotation {ANNOTATION} of the \
         pod names others"
    );
    format!(
        "{}\n",
        serde_json::json!({ "error": selvedge_policies::reason::Reason::PlaintextRefused.code(), "detail": detail })
    )
}

fn said(ask: &Ask) -> String {
    match ask {
        Ask::Get(target) => format!("GET {target}"),
        Ask::Connect => "a connection without a word".into(),
        Ask::Health => format!("gRPC {HEALTH}"),
    }
}

/// Whether a request asks this and nothing more.
fn is<B: Body>(ask: &Ask, request: &Request<B>) -> bool {
    let uri = request.uri();
    let is_target = |target: &str| uri.path_and_query().is_some_and(|asked| asked == target);
    match ask {
        Ask::Get(target) => {
            request.method() == Method::GET
                && request.version() != Version::HTTP_2
                && uri.authority().is_none()
                && is_target(target)
                && !request.headers().contains_key(UPGRADE)
                && request.body().is_end_stream()
        }
        Ask::Health => {
            request.method() == Method::POST
                && request.version() == Version::HTTP_2
                && is_target(HEALTH)
                && reply::is_grpc(request.headers())
        }
        Ask::Connect => false,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    fn probes() -> Probes {
        let declared = serde_saphyr::from_str(
            "[{port: 80, path: '/health?full=1'}, {port: 90, grpc: true}, {port: 90, tcp: true}, {port: 70, path: \
             /metrics, from: 10.3.0.0/16}]",
        );
        let probers = Networks::try_from("10.0.0.1".to_owned()).unwrap();
        Probes::new(declared.unwrap(), probers, [IpAddr::from([10, 1, 0, 1])])
    }

    /// Whoever has this address, by a control plane that knows the node.
    fn peer(address: [u8; 4]) -> Peer<'static> {
        const OF_NODE: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 3, 1))];
        Peer::new(address.into(), &OF_NODE)
    }

    fn get(uri: &str) -> Request<Empty<&'static [u8]>> {
        Request::get(uri).header("host", "10.9.0.2:80").body(Empty::new()).unwrap()
    }

    #[test]
    fn exactly_what_is_declared_passes_and_from_probers_only() {
        let probes = probes();
        let asked = |port, address, uri: &str| probes.asked(port, peer(address), &get(uri));
        for prober in [[10, 0, 0, 1], [10, 1, 0, 1], [10, 244, 3, 1]] {
            assert_eq!(asked(80, prober, "/health?full=1"), Some(Asked::ByProber));
        }
        assert_eq!(asked(80, [10, 0, 0, 2], "/health?full=1"), Some(Asked::ByStranger));
        for prober in [[10, 0, 0, 1], [10, 244, 3, 1]] {
            assert_eq!(asked(70, prober, "/metrics"), Some(Asked::ByStranger), "it has addresses of its own");
        }
        assert_eq!(asked(70, [10, 3, 0, 9], "/metrics"), Some(Asked::ByProber));
        for uri in [
            "/health",
            "/health?full=2",
            "/health?full=1&x",
            "/Health?full=1",
            "/health/?full=1",
            "/%68ealth?full=1",
            "/admin/../health?full=1",
            "//health?full=1",
            "/health;x?full=1",
            "http://10.9.0.2/health?full=1",
        ] {
            assert_eq!(asked(80, [10, 0, 0, 1], uri), None, "{uri}");
        }
        assert_eq!(asked(81, [10, 0, 0, 1], "/health?full=1"), None, "another port");
    }

    #[test]
    fn no_other_method_content_protocol_or_version_passes() {
        let (probes, prober) = (probes(), peer([10, 0, 0, 1]));
        let mut head = get("/health?full=1");
        *head.method_mut() = Method::HEAD;
        assert_eq!(probes.asked(80, prober, &head), None);
        let mut http2 = get("/health?full=1");
        *http2.version_mut() = Version::HTTP_2;
        assert_eq!(probes.asked(80, prober, &http2), None);
        let mut upgrade = get("/health?full=1");
        upgrade.headers_mut().insert(UPGRADE, http::HeaderValue::from_static("websocket"));
        assert_eq!(probes.asked(80, prober, &upgrade), None);
        let content = get("/health?full=1").map(|_| Full::new(&b"x"[..]));
        assert_eq!(probes.asked(80, prober, &content), None);
    }

    #[test]
    fn a_grpc_probe_calls_the_health_check_only() {
        let (probes, prober) = (probes(), peer([10, 0, 0, 1]));
        let call = |path: &str, kind: &str| {
            let call = Request::post(format!("http://10.9.0.2:90{path}")).version(Version::HTTP_2);
            let call = call.header("content-type", kind).body(Full::new(&b"\0\0\0\0\0"[..])).unwrap();
            probes.asked(90, prober, &call)
        };
        assert_eq!(call(HEALTH, "application/grpc"), Some(Asked::ByProber));
        for path in ["/grpc.health.v1.Health/Watch", "/shop.Api/Delete", "/grpc.health.v1.Health/Check?x"] {
            assert_eq!(call(path, "application/grpc"), None, "{path}");
        }
        assert_eq!(call(HEALTH, "text/plain"), None);
        assert!(probes.may_connect(90, prober) && !probes.may_connect(80, prober));
        assert!(probes.may_request(90, prober) && !probes.may_request(90, peer([10, 0, 0, 2])));
    }

    #[test]
    fn a_refusal_says_the_address_why_and_what_to_do() {
        let probes = probes();
        let stranger = probes.why_not(80, peer([10, 9, 9, 9])).unwrap();
        for said in ["10.9.9.9", "port 80", "10.0.0.1", "10.1.0.1", "10.244.3.1", ANNOTATION] {
            assert!(stranger.contains(said), "{said}: {stranger}");
        }
        let prober = probes.why_not(90, peer([10, 1, 0, 1])).unwrap();
        assert!(prober.contains("10.1.0.1 may ask") && prober.contains(HEALTH), "{prober}");
        assert_eq!(probes.why_not(81, peer([10, 1, 0, 1])), None, "nothing is probed there");
        let told = refusal(80, [10, 9, 9, 9].into());
        assert!(told.contains("10.9.9.9") && told.contains(ANNOTATION) && !told.contains("10.0.0.1"), "{told}");
    }
}
