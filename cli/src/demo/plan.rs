//! What the demo consists of: every instance of every service, what it calls, and what is wrong with it on purpose.

/// One process with one sidecar.
#[derive(Debug)]
pub(super) struct Instance {
    /// Name of the workload.
    pub(super) name: &'static str,
    /// Name of the service, the service account, and the `app` label.
    pub(super) service: &'static str,
    /// The `version` label.
    pub(super) version: Option<&'static str>,
    /// The port that services and policies name; `None` when nobody calls it.
    pub(super) port: Option<u16>,
    /// What it calls.
    pub(super) calls: &'static [Call],
    /// Further arguments.
    pub(super) flags: &'static [&'static str],
}

/// A service that is called.
#[derive(Debug)]
pub(super) struct Call {
    /// The argument that takes the address.
    pub(super) flag: &'static str,
    /// `namespace/service:port`.
    pub(super) to: &'static str,
    /// The service's cluster address, for transparent capture.
    pub(super) cluster: [u8; 4],
}

const fn call(flag: &'static str, to: &'static str, last: u8) -> Call {
    Call { flag, to, cluster: [10, 96, 7, last] }
}

const LOG: Call = call("--metrics-log", "saas/metrics-log:7000", 70);
const DATA: Call = call("--data", "saas/data:9090", 60);
const AUTH: Call = call("--auth", "saas/auth:9090", 50);
/// The call out of the mesh; its address is that of the third party.
pub(super) const THIRD_PARTY: Call = Call { flag: "--third-party", to: "saas/third-party:80", cluster: [0, 0, 0, 0] };
const UI_CALLS: &[Call] = &[
    AUTH,
    call("--content", "saas/content:80", 20),
    call("--reports", "saas/reports:80", 30),
    call("--integrations", "saas/integrations:80", 40),
    LOG,
];

const fn instance(name: &'static str, service: &'static str, port: u16, calls: &'static [Call]) -> Instance {
    Instance { name, service, version: None, port: Some(port), calls, flags: &[] }
}

/// Where the load comes from: a sidecar without a service of its own.
pub(super) const INGRESS: &str = "ingress";

const DATA_NAME: &str = "data";

static INSTANCES: [Instance; 11] = [
    instance("metrics-log", "metrics-log", 7000, &[]),
    Instance { flags: &["--seed"], ..instance(DATA_NAME, DATA_NAME, 9090, &[LOG]) },
    instance("auth", "auth", 9090, &[DATA, LOG]),
    instance("content-1", "content", 8080, &[DATA, LOG]),
    Instance { flags: &["--fail-percent", "30"], ..instance("content-2", "content", 8080, &[DATA, LOG]) },
    Instance { flags: &["--delay-ms", "150"], ..instance("content-3", "content", 8080, &[DATA, LOG]) },
    instance("reports", "reports", 8080, &[DATA, AUTH, LOG]),
    instance("integrations", "integrations", 8080, &[THIRD_PARTY, LOG]),
    Instance { version: Some("v1"), flags: &["--ui-version", "v1"], ..instance("ui-v1", "ui", 8080, UI_CALLS) },
    Instance { version: Some("v2"), flags: &["--ui-version", "v2"], ..instance("ui-v2", "ui", 8080, UI_CALLS) },
    Instance {
        name: INGRESS,
        service: INGRESS,
        version: None,
        port: None,
        calls: &[call("", "saas/ui:80", 10)],
        flags: &[],
    },
];

/// The server behind `data`, if it is asked for.
pub(super) const POSTGRES: &str = "postgres";
/// What `data` calls then.
pub(super) const DATABASE: &str = "saas/postgres:5432";

static WITH_POSTGRES: [Instance; 2] = [
    instance("postgres-1", POSTGRES, 5432, &[]),
    Instance { flags: &["--seed"], ..instance(DATA_NAME, DATA_NAME, 9090, &[call("--database", DATABASE, 80), LOG]) },
];

/// Every instance, `data` with SQLite or with PostgreSQL.
pub(super) fn instances(postgres: bool) -> Vec<&'static Instance> {
    let common = INSTANCES.iter().filter(|instance| !(postgres && instance.name == DATA_NAME));
    common.chain(WITH_POSTGRES.iter().filter(|_| postgres)).collect()
}

/// The seven services, in the order of the table.
pub(super) const SERVICES: [&str; 7] = ["ui", "content", "auth", "data", "reports", "metrics-log", "integrations"];
