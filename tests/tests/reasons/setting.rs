//! One mesh in which every reason can be brought about, each at a service of its own.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use selvedge_policies::reason::Reason;
use selvedge_tests::{
    mesh::{Mesh, Sidecar, Workload},
    ports::{Crowded, Reserved},
    upstream::{
        Scenario, Upstream,
        raw::{RawUpstream, Script},
    },
};

/// Longer than anything here waits for.
const LONG: Duration = Duration::from_secs(60);

/// A service that hangs, for what has to last.
pub(crate) const SLOW: &str = "shop/slow";
const SLOW_PORT: u16 = 8999;

/// The mesh, and what its applications are.
pub(crate) struct Setting {
    /// Calls every service.
    pub(crate) web: Sidecar,
    /// Stands behind nearly all of them, behind each with a port of its own.
    pub(crate) api: Sidecar,
    /// May hold one connection of its application.
    pub(crate) small: Sidecar,
    /// Has a second for its drain.
    pub(crate) leaving: Sidecar,
    /// Loses its `Workload`.
    pub(crate) early: Sidecar,
    /// Takes plaintext.
    pub(crate) open: Sidecar,
    /// Hangs.
    pub(crate) slow: Upstream,
    /// Will think for long.
    pub(crate) thinks: Upstream,
    applications: Applications,
    pub(crate) mesh: Mesh,
}

/// What answers behind the ports of `api`, or does not.
struct Applications {
    echo: Upstream,
    fails: Upstream,
    closes: Upstream,
    hangs: Upstream,
    nonsense: RawUpstream,
    repeats: RawUpstream,
    nobody: Reserved,
    full: Crowded,
}

impl Applications {
    async fn start() -> Self {
        let [echo, fails, closes, hangs] = [
            Upstream::start("echo").await,
            Upstream::start("fails").await,
            Upstream::start("closes").await,
            Upstream::start("hangs").await,
        ];
        fails.play(Scenario::Fail(u32::MAX, 503));
        closes.play(Scenario::Close);
        hangs.play(Scenario::Slow(LONG));
        let nonsense = RawUpstream::start(Script::replies(b"this is not HTTP\r\n\r\n")).await;
        let repeats = RawUpstream::start(Script::echo()).await;
        Self { echo, fails, closes, hangs, nonsense, repeats, nobody: Reserved::new(), full: Crowded::start().await }
    }

    /// What listens behind the service of this reason.
    fn of(&self, reason: Reason, thinks: &Upstream) -> SocketAddr {
        match reason {
            Reason::BreakerOpen => self.fails.address(),
            Reason::UpstreamReset => self.closes.address(),
            Reason::AttemptTimeout | Reason::RequestTimeout => self.hangs.address(),
            Reason::DownstreamClosed => thinks.address(),
            Reason::ApplicationUnreachable => self.nobody.address(),
            Reason::UpstreamProtocolError => self.nonsense.address(),
            Reason::Draining => self.repeats.address(),
            _ => self.echo.address(),
        }
    }
}

/// `namespace/name` of the service at which this reason is brought about.
pub(crate) fn service(reason: Reason) -> String {
    format!("shop/{}", name(reason))
}

/// The same as the called sidecar knows it, which has lost its view where it is not ready.
pub(crate) fn service_there(reason: Reason) -> String {
    if reason == Reason::NotReady { String::new() } else { service(reason) }
}

fn name(reason: Reason) -> String {
    reason.code().replace('_', "-")
}

/// As callers name it.
pub(crate) fn destination(service: &str) -> String {
    format!("{service}:80")
}

/// The port of `api` behind the service.
pub(crate) fn port(reason: Reason) -> u16 {
    let place = Reason::ALL.iter().position(|other| *other == reason).expect("one of all");
    9000 + u16::try_from(place).expect("there are few")
}

impl Setting {
    /// Starts everything, without waiting for the configuration to be everywhere.
    pub(crate) async fn start() -> Self {
        let (mesh, applications) = (Mesh::start().await, Applications::start().await);
        let (slow, thinks) = (Upstream::start("slow").await, Upstream::start("thinks").await);
        slow.play(Scenario::Slow(LONG));
        mesh.write("policies.yaml", POLICIES);
        let (mut web, mut api) = (Workload::new("shop/web"), Workload::new("shop/api"));
        for reason in Reason::ALL.iter().copied() {
            web = web.calls(&destination(&service(reason)));
            api = api.serves(port(reason), applications.of(reason, &thinks));
            if reason != Reason::UnknownDestination {
                mesh.write(&format!("service-{}.yaml", name(reason)), &document(reason));
            }
        }
        mesh.write("service-slow.yaml", &backed(SLOW, "api", SLOW_PORT, "http"));
        let api = mesh.start_sidecar(api.serves(SLOW_PORT, slow.address()));
        let web = mesh.start_sidecar(web.with("callerTimeouts: {body: 1s}\n"));
        let small = Workload::new("shop/small").calls(&destination(&service(Reason::Overloaded)));
        let small = mesh.start_sidecar(small.with("maxConnections: 1\n"));
        let leaving = Workload::new("shop/leaving").calls(&destination(&service(Reason::Draining)));
        let leaving = leaving.calls(&destination(SLOW)).with("drainDeadline: 1s\n");
        let leaving = mesh.start_sidecar(leaving);
        let early = Workload::new("shop/early").serves(8080, applications.echo.address());
        let early = mesh.start_sidecar(early.backs("nobody"));
        let silent = Reason::DetectTimeout;
        let open = Workload::new("shop/open").backs(&name(silent)).serves(port(silent), applications.echo.address());
        let open = mesh.start_sidecar(open);
        let setting = Self { web, api, small, leaving, early, open, slow, thinks, applications, mesh };
        setting.write_endpoints();
        let Self { web, api, small, leaving, early, open, .. } = &setting;
        for sidecar in [web, api, small, leaving, early, open] {
            sidecar.ready().await;
        }
        setting
    }

    /// The services that `api` does not stand behind have endpoints of their own.
    fn write_endpoints(&self) {
        let nonsense = self.applications.nonsense.address();
        let mismatched = self.api.inbound(port(Reason::UpstreamIdentityMismatch));
        let endpoints = HashMap::from([
            (Reason::UpstreamConnectFailed, ("api", self.applications.nobody.address())),
            (Reason::UpstreamConnectTimeout, ("api", self.applications.full.address())),
            (Reason::UpstreamTlsFailed, ("api", nonsense)),
            (Reason::UpstreamIdentityMismatch, ("somebody-else", mismatched)),
            (Reason::NotReady, ("early", self.early.inbound(8080))),
        ]);
        for (reason, (account, address)) in endpoints {
            let yaml = format!(
                "apiVersion: selvedge.dev/v1alpha1\nkind: Workload\nmetadata: {{name: of-{0}, namespace: shop, labels: \
                 {{app: {0}}}}}\nspec: {{serviceAccount: {account}, address: 127.0.0.1, ports: [{{port: {1}, dial: \
                 {2}}}]}}\n",
                name(reason),
                port(reason),
                address.port()
            );
            self.mesh.write(&format!("endpoint-{}.yaml", name(reason)), &yaml);
        }
    }

    /// The sidecar of who calls.
    pub(crate) fn caller(&self, reason: Reason) -> &Sidecar {
        match reason {
            Reason::Overloaded => &self.small,
            Reason::Draining => &self.leaving,
            _ => &self.web,
        }
    }

    /// The sidecar of who is called.
    pub(crate) fn called(&self, reason: Reason) -> &Sidecar {
        match reason {
            Reason::NotReady => &self.early,
            Reason::DetectTimeout => &self.open,
            _ => &self.api,
        }
    }
}

fn document(reason: Reason) -> String {
    let name = name(reason);
    let app = match reason {
        Reason::NoEndpoints => "nobody-has-this",
        Reason::UpstreamConnectFailed
        | Reason::UpstreamConnectTimeout
        | Reason::UpstreamTlsFailed
        | Reason::UpstreamIdentityMismatch
        | Reason::DetectTimeout
        | Reason::NotReady => &name,
        _ => "api",
    };
    let protocol = match reason {
        Reason::Draining => "tcp",
        Reason::FrameFlood | Reason::HeadersTooLarge | Reason::DetectTimeout | Reason::TlsHandshakeFailed => "",
        _ => "http",
    };
    backed(&service(reason), app, port(reason), protocol)
}

/// A service whose port 80 leads to `port` of the workloads with this label.
fn backed(service: &str, app: &str, port: u16, protocol: &str) -> String {
    let name = service.trim_start_matches("shop/");
    let protocol = if protocol.is_empty() { String::new() } else { format!(", appProtocol: {protocol}") };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  selector: {{app: {app}}}\n  \
         ports:\n  - {{name: main, port: 80, targetPort: {port}{protocol}}}\n"
    )
}

const POLICIES: &str = "
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: deny, namespace: shop }
spec: { targetRef: { kind: Service, name: policy-denied }, action: DENY, rules: [{}] }
---
apiVersion: selvedge.dev/v1alpha1
kind: AuthorizationPolicy
metadata: { name: allow, namespace: shop }
spec:
  targetRef: { kind: Service, name: policy-default-deny }
  action: ALLOW
  rules: [{ from: [{ serviceAccounts: [billing] }] }]
---
apiVersion: selvedge.dev/v1alpha1
kind: RateLimit
metadata: { name: one, namespace: shop }
spec: { targetRef: { kind: Service, name: rate-limited }, limits: [{ requests: 1, per: 1h }] }
---
apiVersion: selvedge.dev/v1alpha1
kind: FaultInjection
metadata: { name: every, namespace: shop }
spec:
  targetRef: { kind: Service, name: fault-injected }
  expires: '2999-01-01T00:00:00Z'
  faults: [{ abort: { percentage: 100, httpStatus: 503 } }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: elsewhere, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: no-route }]
  rules: [{ matches: [{ path: { type: Exact, value: /elsewhere } }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: nobody, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: invalid-route }]
  rules: [{ backendRefs: [{ name: nobody, port: 80 }] }]
---
apiVersion: selvedge.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: breaker, namespace: shop }
spec: { targetRef: { kind: Service, name: breaker-open }, breaker: { consecutiveFailures: 1, openFor: 1m } }
---
apiVersion: selvedge.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: attempt, namespace: shop }
spec: { targetRef: { kind: Service, name: attempt-timeout }, timeouts: { backendRequest: 300ms } }
---
apiVersion: selvedge.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: request, namespace: shop }
spec: { targetRef: { kind: Service, name: request-timeout }, timeouts: { request: 300ms } }
---
apiVersion: selvedge.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: connect, namespace: shop }
spec: { targetRef: { kind: Service, name: upstream-connect-timeout }, timeouts: { connect: 300ms } }
---
apiVersion: selvedge.dev/v1alpha1
kind: MeshPolicy
metadata: { name: open, namespace: shop }
spec: { targetRef: { kind: Workload, name: open }, mtls: { inbound: PERMISSIVE } }
";
