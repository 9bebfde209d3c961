//! What is fixed when a sidecar starts: one YAML file. Everything else comes from the control plane.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use selvedge_policies::{
    duration::Span,
    names::{PortName, WorkloadName},
};
use serde::Deserialize;

use crate::http::pace::CallerTimeouts;

mod probes;
mod source;
mod tracing;
mod trust;

pub(crate) use probes::{Ask, Networks, Probe};
pub use source::Source;
pub(crate) use tracing::{Collector, Tracing};
pub(crate) use trust::TrustBundle;

/// The bootstrap file of a sidecar.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bootstrap {
    /// `namespace/name` of the `Workload` this sidecar stands beside.
    pub workload: String,
    /// `host:port` of the control plane.
    pub control_plane: String,
    /// File with a join token; needed until `stateDir` holds a certificate.
    #[serde(default)]
    pub join_token_file: Option<PathBuf>,
    /// In a pod: file with the token of its service account, projected for the audience `selvedge`; in place of a join
    /// token.
    #[serde(default)]
    pub service_account_token_file: Option<PathBuf>,
    /// The authorities under which the control plane must prove itself before it gets the token of the service account.
    #[serde(default)]
    pub trust_bundle: Option<TrustBundle>,
    /// Key, certificate and last good configuration live here (created with mode 0700).
    pub state_dir: PathBuf,
    /// Worker threads, each with its own listeners and connection pools; 1 when absent.
    #[serde(default = "one")]
    pub workers: usize,
    /// Admin listener: configuration and drain.
    #[serde(default = "admin_default")]
    pub admin: SocketAddr,
    /// Metrics and health listener.
    #[serde(default = "metrics_default")]
    pub metrics: SocketAddr,
    /// Metrics of the application, to be shown behind the sidecar's own.
    #[serde(default)]
    pub application_metrics: Option<ApplicationMetrics>,
    /// Whether OpenMetrics says when each counter began.
    #[serde(default)]
    pub created_timestamps: bool,
    /// Where to write the addresses really bound, as JSON; for ports given as 0.
    #[serde(default)]
    pub ports_file: Option<PathBuf>,
    /// How connections reach the sidecar.
    #[serde(default)]
    pub capture: Capture,
    /// Transparent capture: the sidecar is not ready until connections really come to it.
    #[serde(default)]
    pub capture_required: bool,
    /// Explicit capture: listeners for calls to the application.
    #[serde(default)]
    pub inbound: Vec<InboundListener>,
    /// Explicit capture: listeners for calls the application makes.
    #[serde(default)]
    pub outbound: Vec<OutboundListener>,
    /// Transparent capture: the two listeners the redirect rules point to.
    #[serde(default)]
    pub transparent: Transparent,
    /// How long a drain lasts at most.
    #[serde(default = "drain_default")]
    pub drain_deadline: Span,
    /// What SIGTERM says of the application.
    #[serde(default)]
    pub sigterm: Sigterm,
    /// What may be asked of the application without mTLS, to see how it is.
    #[serde(default)]
    pub probes: Vec<Probe>,
    /// Where probes come from, beside the default gateways.
    #[serde(default)]
    pub probers: Networks,
    /// Access log file; standard output when absent.
    #[serde(default)]
    pub access_log_file: Option<PathBuf>,
    /// Audit log file; standard output when absent.
    #[serde(default)]
    pub audit_log_file: Option<PathBuf>,
    /// Where spans go; none are made when absent.
    #[serde(default)]
    pub tracing: Option<Tracing>,
    /// PEM file with the authorities that external TLS services are verified against.
    #[serde(default)]
    pub external_roots_file: Option<PathBuf>,
    /// Connections a worker holds at most in each direction.
    #[serde(default = "connections_default")]
    pub max_connections: usize,
    /// How slow callers may be.
    #[serde(default)]
    pub caller_timeouts: CallerTimeouts,
    /// Where the workload is; what is not said here the control plane may know.
    #[serde(default)]
    pub locality: Locality,
    /// Said of a gateway, which calls addresses that it has found itself: how the services are told that it means.
    #[serde(default)]
    pub ingress: Option<Ingress>,
}

/// How the service is told that a gateway means, under transparent capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ingress {
    /// By the host of each request, whatever address it is sent to. One that is no service's goes to that address.
    Host,
}

/// Where the workload is. An empty text, as a pod has it that is told of a label its node lacks, says nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Locality {
    /// The zone of its node, as the label `topology.kubernetes.io/zone` names it.
    pub zone: String,
    /// The name of its node.
    pub node: String,
}

impl From<Locality> for selvedge_decide::config::Locality {
    fn from(Locality { zone, node }: Locality) -> Self {
        Self { zone, node }
    }
}

/// How connections reach the sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    /// Declared local ports; needs no privileges.
    #[default]
    Explicit,
    /// Redirect rules (`selvedge-proxy capture apply`); the original destination is asked of the kernel.
    Transparent,
}

/// What SIGTERM says of the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Sigterm {
    /// Nothing: it may call until it is seen to be gone, or until the deadline.
    #[default]
    Drain,
    /// It is gone, as for a native sidecar of Kubernetes, which is told only after all containers have ended.
    ApplicationGone,
}

/// Where the application tells its metrics, in the Prometheus text format over HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationMetrics {
    /// Its port, on loopback or at the pod's address.
    pub port: u16,
    /// The path, and the query where there is one.
    #[serde(default = "metrics_path")]
    pub path: String,
}

impl ApplicationMetrics {
    fn check(&self, own: u16) -> Result<(), (&'static str, String)> {
        if self.port == 0 || self.port == own {
            return Err(("port", format!("is {}; expected the application's own port", self.port)));
        }
        if !self.path.starts_with('/') || self.path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(("path", format!("is '{}'; expected a path such as /metrics", self.path)));
        }
        Ok(())
    }
}

fn metrics_path() -> String {
    "/metrics".into()
}

/// One declared inbound listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InboundListener {
    /// Where other sidecars, and callers without one, connect.
    pub listen: SocketAddr,
    /// Where the application listens.
    pub forward: SocketAddr,
    /// The application's port as policies name it; the port of `forward` when absent.
    #[serde(default)]
    pub port: Option<u16>,
}

/// One declared outbound listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutboundListener {
    /// Where the application connects.
    pub listen: SocketAddr,
    /// `namespace/service:port` that is meant.
    pub to: String,
}

/// Listeners of transparent capture. `[::]` takes IPv4 too, and falls back to IPv4 on a machine without IPv6.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Transparent {
    /// Where the capture rules redirect calls to the application.
    pub inbound_listen: SocketAddr,
    /// Where the capture rules redirect calls from the application.
    pub outbound_listen: SocketAddr,
}

impl Default for Transparent {
    fn default() -> Self {
        let any = std::net::Ipv6Addr::UNSPECIFIED;
        Self { inbound_listen: (any, 15006).into(), outbound_listen: (any, 15001).into() }
    }
}

const fn one() -> usize {
    1
}

const fn connections_default() -> usize {
    10_000
}

fn admin_default() -> SocketAddr {
    ([127, 0, 0, 1], 15000).into()
}

fn metrics_default() -> SocketAddr {
    (std::net::Ipv6Addr::UNSPECIFIED, 15020).into()
}

const fn drain_default() -> Span {
    Span(Duration::from_secs(30))
}

/// Why a bootstrap file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It cannot be read.
    #[error("the bootstrap file {path} cannot be read")]
    Read {
        /// The bootstrap file, as it was given.
        path: PathBuf,
        /// What the system says of it.
        source: std::io::Error,
    },
    /// It is not what is expected; the message points at line and column.
    #[error("the bootstrap file {path} is not valid:\n{message}")]
    Parse {
        /// The bootstrap file, as it was given.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// A value is out of range.
    #[error("the bootstrap file {path} is not valid: {field} {problem}")]
    Value {
        /// The bootstrap file, as it was given.
        path: PathBuf,
        /// The field, as a path such as `admin.listen`.
        field: String,
        /// What is wrong and what is expected.
        problem: String,
    },
}

impl Bootstrap {
    /// Reads and checks a bootstrap file.
    pub fn load(path: &Path) -> Result<Self, BootstrapError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| BootstrapError::Read { path: path.to_path_buf(), source })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a bootstrap file; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, BootstrapError> {
        let bootstrap: Self = serde_saphyr::from_str(text)
            .map_err(|e| BootstrapError::Parse { path: path.to_path_buf(), message: e.to_string() })?;
        bootstrap.check().map_err(|(field, problem)| BootstrapError::Value {
            path: path.to_path_buf(),
            field,
            problem,
        })?;
        Ok(bootstrap)
    }

    /// Where one of the sidecar's own ports (`admin`, `metrics`) is on this host, `configured` so; not known yet while the
    /// kernel chooses it.
    pub fn own_port(&self, port: &str, configured: SocketAddr) -> Option<SocketAddr> {
        let mut address = match (&self.ports_file, configured.port()) {
            (Some(path), 0) => {
                let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
                ports[port].as_str()?.parse().ok()?
            }
            _ => configured,
        };
        if address.ip().is_unspecified() {
            // `[::]` takes IPv4 too, and is IPv4 alone on a machine without IPv6.
            address.set_ip([127, 0, 0, 1].into());
        }
        Some(address)
    }

    /// What a kubelet asks, each by the port that policies name: it may come to a declared port of the sidecar instead.
    pub(crate) fn probed(&self) -> Vec<Probe> {
        let listener = |port| self.inbound.iter().find(|declared| declared.listen.port() == port);
        let named = |port| listener(port).map_or(port, InboundListener::port);
        self.probes.iter().map(|probe| Probe { port: named(probe.port), ..probe.clone() }).collect()
    }

    fn check(&self) -> Result<(), (String, String)> {
        if self.workload.parse::<WorkloadName>().is_err() {
            return Err(("workload".into(), format!("is '{}'; expected NAMESPACE/NAME", self.workload)));
        }
        if !host_and_port(&self.control_plane) {
            return Err(("controlPlane".into(), format!("is '{}'; expected HOST:PORT", self.control_plane)));
        }
        self.check_token()?;
        if !(1..=256).contains(&self.workers) {
            return Err(("workers".into(), format!("is {}; expected 1 to 256", self.workers)));
        }
        if !self.admin.ip().is_loopback() {
            return Err(("admin".into(), format!("is {}; the admin port must be on loopback", self.admin)));
        }
        if self.capture_required && self.capture == Capture::Explicit {
            return Err(("captureRequired".into(), "is true; only 'capture: transparent' captures anything".into()));
        }
        if let Some(application) = &self.application_metrics {
            application
                .check(self.metrics.port())
                .map_err(|(field, problem)| (format!("applicationMetrics.{field}"), problem))?;
        }
        if let Some(field) = self.caller_timeouts.zero() {
            return Err((format!("callerTimeouts.{field}"), "is 0s; expected some time, such as 30s".into()));
        }
        for (index, outbound) in self.outbound.iter().enumerate() {
            if outbound.target().is_none() {
                let field = format!("outbound[{index}].to");
                return Err((field, format!("is '{}'; expected NAMESPACE/SERVICE:PORT", outbound.to)));
            }
        }
        Ok(())
    }
}

impl Bootstrap {
    fn check_token(&self) -> Result<(), (String, String)> {
        let field = || "serviceAccountTokenFile".to_owned();
        if self.service_account_token_file.is_none() {
            return Ok(());
        }
        if self.join_token_file.is_some() {
            return Err((field(), "is given beside joinTokenFile; expected one of them".to_owned()));
        }
        if self.trust_bundle.is_none() {
            let problem = "needs trustBundle: the token is sent to nobody who does not prove to be the control plane";
            return Err((field(), problem.to_owned()));
        }
        Ok(())
    }
}

fn host_and_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

impl InboundListener {
    /// The application's port as policies name it.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or_else(|| self.forward.port())
    }
}

impl OutboundListener {
    /// The port of a service that is called here; `None` when `to` names none.
    pub fn target(&self) -> Option<PortName> {
        self.to.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Bootstrap, String> {
        Bootstrap::parse(text, Path::new("sidecar.yaml")).map_err(|e| e.to_string())
    }

    const GOOD: &str = "workload: shop/web-1\ncontrolPlane: 127.0.0.1:15010\nstateDir: /tmp/x\n";

    #[test]
    fn a_short_file_gets_the_documented_defaults() {
        let bootstrap = parse(GOOD).unwrap();
        assert_eq!(bootstrap.workers, 1);
        assert_eq!(bootstrap.admin, "127.0.0.1:15000".parse().unwrap());
        assert_eq!(bootstrap.capture, Capture::Explicit);
        assert_eq!(bootstrap.drain_deadline.0, Duration::from_secs(30));
    }

    #[test]
    fn a_probe_of_a_declared_port_is_one_of_the_port_behind_it() {
        let bootstrap = parse(&format!(
            "{GOOD}inbound: [{{listen: '[::]:8443', forward: '127.0.0.1:8080'}}]\nprobes: [{{port: 8443, tcp: true}}, \
             {{port: 8080, tcp: true}}, {{port: 9090, tcp: true}}]\n"
        ));
        let ports: Vec<u16> = bootstrap.unwrap().probed().iter().map(|probe| probe.port).collect();
        assert_eq!(ports, [8080, 8080, 9090]);
    }

    #[test]
    fn mistakes_are_named() {
        for (extra, expected) in [
            ("wrokers: 2\n", "wrokers"),
            ("workers: 0\n", "workers is 0"),
            ("admin: 0.0.0.0:1\n", "loopback"),
            ("captureRequired: true\n", "captureRequired is true; only 'capture: transparent'"),
            ("callerTimeouts: {head: 0s}\n", "callerTimeouts.head is 0s"),
            ("callerTimeouts: {haed: 1s}\n", "haed"),
            ("probes: [{port: 80}]\n", "one of path"),
            ("probers: $(HOST_IPS)\n", "'$(HOST_IPS)' is neither an address nor a network"),
            ("applicationMetrics: {port: 15020}\n", "applicationMetrics.port is 15020"),
            ("applicationMetrics: {port: 80, path: metrics}\n", "applicationMetrics.path is 'metrics'"),
            ("outbound: [{listen: '127.0.0.1:0', to: shop/web}]\n", "outbound[0].to is 'shop/web'"),
        ] {
            let message = parse(&format!("{GOOD}{extra}")).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        for address in ["10.0.0.5", "10.0.0.5:", ":15010", "10.0.0.5:http", "10.0.0.5:0"] {
            let message = parse(&GOOD.replace("127.0.0.1:15010", &format!("'{address}'"))).unwrap_err();
            assert!(message.contains(&format!("controlPlane is '{address}'; expected HOST:PORT")), "{message}");
        }
    }
}
