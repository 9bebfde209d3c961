//! Every reason there is: how it comes about, what the caller is told, and how it shows at both sidecars. The pages under
//! `docs/codes` quote the table.

use std::collections::BTreeMap;

use selvedge_policies::reason::Reason;
use selvedge_tests::{
    complaints::{Complaints, read_page},
    mesh::Sidecar,
};

#[path = "reasons/provoke.rs"]
mod provoke;
#[path = "reasons/setting.rs"]
mod setting;

use setting::Setting;

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    /// The status of the reason, with its code in `selvedge-reason` and in the body.
    Everything,
    /// The status of the reason, with its code in the body alone.
    Code,
    /// The connection is closed without an answer.
    Nothing,
    /// Nobody is there any more.
    Nobody,
}

/// How a sidecar shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// As a request: in `selvedge_requests_total` and the access log.
    Request,
    /// As a connection: in `selvedge_tcp_connections_closed_total` and the access log.
    Connection,
    /// Not at all.
    Nothing,
}

/// One reason.
struct Row {
    reason: Reason,
    /// An example, in one sentence.
    when: &'static str,
    told: Told,
    /// At the sidecar of the caller; a stranger has none.
    caller: Seen,
    /// At the sidecar of the called workload.
    called: Seen,
}

const fn row(reason: Reason, told: Told, (caller, called): (Seen, Seen), when: &'static str) -> Row {
    Row { reason, when, told, caller, called }
}

const BOTH: (Seen, Seen) = (Seen::Request, Seen::Request);
const CALLER: (Seen, Seen) = (Seen::Request, Seen::Nothing);

/// Every reason but `internal`, which is a defect and has no other cause, and `policy_unenforceable`, which takes a sidecar
/// that is older than its control plane (`unenforceable.rs`).
const TABLE: [Row; 33] = [
    row(Reason::PolicyDenied, Told::Everything, BOTH, "a DENY policy covers every call of the service"),
    row(Reason::PolicyDefaultDeny, Told::Everything, BOTH, "the service's only ALLOW policy names another caller"),
    row(
        Reason::PlaintextRefused,
        Told::Code,
        (Seen::Nothing, Seen::Request),
        "a process outside the mesh sends a request to a STRICT workload",
    ),
    row(Reason::RateLimited, Told::Everything, BOTH, "a limit of one request an hour meets the second"),
    row(Reason::FaultInjected, Told::Everything, CALLER, "a `FaultInjection` aborts every call of the service"),
    row(Reason::NoRoute, Told::Everything, CALLER, "the service's only route is for another path"),
    row(Reason::InvalidRoute, Told::Everything, CALLER, "the service's route names a backend that there is not"),
    row(Reason::UnknownDestination, Told::Everything, CALLER, "a service is called that nobody has declared"),
    row(Reason::NoEndpoints, Told::Everything, CALLER, "no workload has the labels of the service's selector"),
    row(Reason::BreakerOpen, Told::Everything, CALLER, "the only endpoint has failed as often as its breaker allows"),
    row(Reason::UpstreamConnectFailed, Told::Everything, CALLER, "nothing listens where the endpoint's sidecar should"),
    row(Reason::ApplicationUnreachable, Told::Everything, BOTH, "nothing listens where the application should"),
    row(Reason::UpstreamConnectTimeout, Told::Everything, CALLER, "an endpoint's queue of new connections is full"),
    row(Reason::UpstreamTlsFailed, Told::Everything, CALLER, "something without a sidecar listens at the endpoint"),
    row(
        Reason::UpstreamIdentityMismatch,
        Told::Everything,
        CALLER,
        "the sidecar of another service account listens at the endpoint",
    ),
    row(Reason::UpstreamReset, Told::Everything, BOTH, "the application closes the connection without an answer"),
    row(Reason::UpstreamProtocolError, Told::Everything, BOTH, "the application answers what is not HTTP"),
    row(Reason::AttemptTimeout, Told::Everything, CALLER, "the service thinks for longer than `backendRequest`"),
    row(Reason::RequestTimeout, Told::Everything, CALLER, "the service thinks for longer than `request`"),
    row(Reason::DownstreamClosed, Told::Nobody, BOTH, "the caller hangs up while the service thinks"),
    row(Reason::CallerTimeout, Told::Everything, CALLER, "the caller stops in the middle of a body"),
    row(Reason::MalformedFraming, Told::Everything, CALLER, "a CONNECT request comes with content"),
    row(Reason::UnsupportedTransferCoding, Told::Everything, CALLER, "a body comes as `gzip, chunked`"),
    row(Reason::MalformedHost, Told::Everything, CALLER, "the Host field holds a space"),
    row(Reason::MalformedPath, Told::Everything, CALLER, "the target of a GET is `*`"),
    row(Reason::MalformedHeader, Told::Everything, CALLER, "the Connection field names `host`"),
    row(Reason::HeadersTooLarge, Told::Everything, CALLER, "an HTTP/2 request has 101 fields"),
    row(
        Reason::FrameFlood,
        Told::Nothing,
        (Seen::Connection, Seen::Nothing),
        "the caller sends twenty thousand PING frames at once",
    ),
    row(
        Reason::Overloaded,
        Told::Nothing,
        (Seen::Connection, Seen::Nothing),
        "an application with `maxConnections: 1` opens a second connection",
    ),
    row(
        Reason::Draining,
        Told::Nothing,
        (Seen::Connection, Seen::Nothing),
        "an opaque connection is still open at the deadline of the drain",
    ),
    row(Reason::NotReady, Told::Everything, BOTH, "the `Workload` of the called sidecar has been removed"),
    row(
        Reason::DetectTimeout,
        Told::Nothing,
        (Seen::Nothing, Seen::Connection),
        "a connection to a PERMISSIVE workload stays silent for ten seconds, as its application does",
    ),
    row(
        Reason::TlsHandshakeFailed,
        Told::Nothing,
        (Seen::Nothing, Seen::Connection),
        "a stranger begins the handshake of the mesh and goes on with what is none",
    ),
];

#[test]
fn the_table_has_every_reason_once() {
    let mut listed: Vec<Reason> = TABLE.iter().map(|row| row.reason).collect();
    listed.extend([Reason::Internal, Reason::PolicyUnenforceable]);
    listed.sort();
    let mut all = Reason::ALL.to_vec();
    all.sort();
    assert_eq!(listed, all);
}

#[tokio::test]
async fn every_reason_is_told_counted_and_logged_as_the_table_says() {
    let setting = Setting::start().await;
    let rows = TABLE.iter().map(|row| look(&setting, row));
    let wrong: Vec<String> = futures_util::future::join_all(rows).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Brings a reason about; what of it is not as the table says.
async fn look(setting: &Setting, row: &Row) -> Vec<String> {
    let told = provoke::provoke(setting, row.reason).await;
    let mut wrong = Vec::new();
    if told != row.told {
        wrong.push(format!("{}: the caller was told {told:?}, not {:?}", row.reason, row.told));
    }
    for (whose, sidecar, wanted, service) in [
        ("caller's", setting.caller(row.reason), row.caller, setting::service(row.reason)),
        ("called", setting.called(row.reason), row.called, setting::service_there(row.reason)),
    ] {
        let seen = seen(sidecar, row.reason, wanted, &service).await;
        if seen != wanted {
            wrong.push(format!("{}: the {whose} sidecar shows {seen:?}, not {wanted:?}", row.reason));
        }
    }
    wrong
}

/// How the sidecar shows that a call of `service` ended for `reason`, once, after some time when it should.
async fn seen(sidecar: &Sidecar, reason: Reason, wanted: Seen, service: &str) -> Seen {
    let labels = [format!("reason=\"{reason}\""), format!("destination_service=\"{service}\"")];
    let [reason_label, service_label] = labels.each_ref().map(String::as_str);
    let labels = [reason_label, service_label];
    if reason == Reason::Draining && wanted == Seen::Connection {
        // Its numbers have been looked at while there was somebody to ask.
        log_line(sidecar, reason, wanted, service).await;
        return Seen::Connection;
    }
    let metrics = sidecar.metrics();
    match wanted {
        Seen::Request => {
            let status = format!("response_code=\"{}\"", reason.status());
            metrics.until("selvedge_requests_total", &[reason_label, service_label, &status], 1.0).await;
        }
        Seen::Connection => metrics.until("selvedge_tcp_connections_closed_total", &labels, 1.0).await,
        Seen::Nothing => {}
    }
    if wanted != Seen::Nothing {
        log_line(sidecar, reason, wanted, service).await;
    }
    let counted = async |metric: &str| metrics.so_far(metric, &labels).await > 0.0;
    match (counted("selvedge_requests_total").await, counted("selvedge_tcp_connections_closed_total").await) {
        (true, false) => Seen::Request,
        (false, true) => Seen::Connection,
        (false, false) => Seen::Nothing,
        (true, true) => panic!("{reason} is counted as a request and as a connection"),
    }
}

/// Waits for the line of the access log, and looks at it.
async fn log_line(sidecar: &Sidecar, reason: Reason, seen: Seen, service: &str) {
    let of_it = |line: &serde_json::Value| {
        line["selvedge.reason"] == reason.code() && line["selvedge.service"].as_str().unwrap_or_default() == service
    };
    let what = format!("{reason} is logged");
    let line = selvedge_tests::wait::until(&what, || async { sidecar.access_log().into_iter().find(of_it) }).await;
    let status = if seen == Seen::Request { reason.status().into() } else { serde_json::Value::Null };
    assert_eq!(line["http.response.status_code"], status, "{line}");
    assert_eq!(line["selvedge.response_flag"], reason.flag(), "{line}");
}

/// What the page of a reason says of its example.
fn example(row: &Row) -> String {
    let status = row.reason.status();
    let told = match row.told {
        Told::Everything => {
            format!("The caller gets {status} with the code in the field `selvedge-reason` and in the body.")
        }
        Told::Code => format!("The caller gets {status} with the code in the body."),
        Told::Nothing => "The connection is closed without an answer.".to_owned(),
        Told::Nobody => "Nobody is there to be told.".to_owned(),
    };
    let shows = |who: &str, seen: Seen| match seen {
        Seen::Request => format!("{who} as a request (`selvedge_requests_total` and the access log)"),
        Seen::Connection => {
            format!("{who} as a connection (`selvedge_tcp_connections_closed_total` and the access log)")
        }
        Seen::Nothing => String::new(),
    };
    let shown = match (row.caller, row.called) {
        (caller, called) if caller == called => shows("Both sidecars show it", caller),
        (caller, Seen::Nothing) => shows("The caller's sidecar shows it", caller),
        (_, called) => shows("The called sidecar shows it", called),
    };
    format!("For example, {}. {told} {shown}.", row.when)
}

#[test]
fn the_page_of_each_reason_has_its_example() {
    let mut complaints =
        Complaints::new("the page of a reason quotes the example that is tested, under `## What happened`");
    let examples: BTreeMap<Reason, String> = TABLE.iter().map(|row| (row.reason, example(row))).collect();
    for (reason, example) in &examples {
        let page = read_page("docs/codes", reason.code()).split_whitespace().collect::<Vec<_>>().join(" ");
        let happened = page.split("## ").find(|part| part.starts_with("What happened")).unwrap_or_default();
        if !happened.contains(example.as_str()) {
            complaints.file(&format!("docs/codes/{reason}.md"), example.clone());
        }
    }
    complaints.report();
}
