//! A sidecar that is too old for an object: what a real pair answers, logs and counts, and what the status says of the
//! object.
//!
//! There is no older release here. So the control plane that the sidecars know is followed by one of this test, on the
//! same port and with the same authority, that tells them what it would tell a sidecar that knows less.

use std::sync::Arc;

use prost::Message;
use selvedge_control_plane::{
    run::{self, Configuration},
    settings::Settings,
    skew::{self, Forms},
    snapshot::{Draft, Snapshot},
    source::{Change, Document, Unread, files},
    store::Store,
};
use selvedge_policies::reason::Reason;
use selvedge_tests::{client, pair::Pair, wait};
use selvedge_xds::{
    kinds::INBOUND,
    proto::mesh::{Attachment, Inbound},
    resource::Encoded,
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

/// A policy that stops nobody who calls here.
const HOURS: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: hours, namespace: shop}\n\
                     spec: {targetRef: {name: api}, action: DENY, rules: [{from: [{serviceAccounts: [nobody]}]}]}\n";

/// The view that `shop/api` has of itself, in which `hours` is this document of this kind, as it is told to a sidecar
/// that knows neither.
fn newer(snapshot: &Snapshot, kind: &str, document: &str) -> Encoded {
    let view = snapshot.get(INBOUND, "shop/api").expect("the workload is there");
    let mut message = Inbound::decode(view.body.clone()).unwrap();
    let say = |attachment: &mut Attachment| {
        document.clone_into(&mut attachment.document);
        kind.clone_into(&mut attachment.origin.as_mut().unwrap().kind);
    };
    message.ports.iter_mut().flat_map(|port| &mut port.policies).for_each(say);
    let newer = Encoded::new(INBOUND, "shop/api", Vec::new(), &message);
    skew::tell(&newer, &skew::silent(), &Forms::default()).resource.expect("it is translated")
}

/// A control plane in place of the pair's own; it ends with the value.
struct Newer {
    folder: tempfile::TempDir,
    mesh: Arc<Snapshot>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    _serving: JoinSet<()>,
}

impl Newer {
    fn start(pair: &mut Pair) -> Self {
        pair.mesh.kill_control_plane();
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            listen: pair.mesh.control_plane_address(),
            admin: ([127, 0, 0, 1], 0).into(),
            ports_file: Some(folder.path().join("ports.json")),
            audit_log: Some("/dev/null".into()),
            ..Settings::new(pair.mesh.state_dir())
        };
        let authority = run::open(&settings).unwrap();
        let mut store = Store::new(&settings.trust_domain);
        store.set_roots(authority.roots().iter().map(|root| root.to_vec().into()).collect());
        for (origin, text) in files::read(&pair.mesh.config_dir()).unwrap() {
            let text = text.map_err(|why| Unread::from(&*why));
            store.take(files::NAME, Document { origin, text }.put());
        }
        store.take(files::NAME, Document { origin: "hours.yaml".into(), text: Ok(HOURS.into()) }.put());
        store.take(files::NAME, Change::Complete);
        let mesh = store.publish();
        let (snapshots, newest) = watch::channel(Arc::clone(&mesh));
        let (confirms, _) = mpsc::channel(1);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let (_reports, reports) = watch::channel(Arc::new(store.account()));
            let configuration = Configuration { snapshots: newest, reports, confirms };
            run::serve(&settings, authority, configuration, std::future::pending()).await.unwrap();
        });
        Self { folder, mesh, snapshots, _serving: serving }
    }

    fn tell(&self, kind: &str, document: &str) {
        let mut draft = Draft::after(&self.snapshots.borrow());
        draft.put(newer(&self.mesh, kind, document), false);
        self.snapshots.send_replace(Arc::new(draft.finish().unwrap()));
    }

    /// What the status says of the policy once it is this at one sidecar.
    async fn until(&self, state: &str) -> Value {
        let is_so = |object: &Value| object["sidecars"][state] == 1;
        wait::until(&format!("the status says {state}"), || async { self.status().await.filter(is_so) }).await
    }

    /// What the status says of the policy.
    async fn status(&self) -> Option<Value> {
        let ports = std::fs::read_to_string(self.folder.path().join("ports.json")).ok()?;
        let ports: Value = serde_json::from_str(&ports).ok()?;
        let status = client::get(ports["admin"].as_str()?.parse().ok()?, "/status").await.ok()?.json();
        status["objects"].as_array()?.iter().find(|object| object["name"] == "hours").cloned()
    }
}

#[tokio::test]
async fn what_a_sidecar_is_too_old_for_is_refused_with_its_reason_and_the_status_of_the_object_says_so() {
    let reason = Reason::PolicyUnenforceable;
    let mut pair = Pair::start().await;
    let newer = Newer::start(&mut pair);
    let cases = [
        ("AuthorizationPolicy", r#"{"action":"DENY","rules":[{"when":"later"}]}"#),
        ("TokenAuthentication", r#"{"issuer":"https://issuer.example"}"#),
    ];
    for (kind, document) in cases {
        newer.tell(kind, document);
        let answer = pair.until_reason("/", reason.code()).await;
        assert_eq!(answer.status, reason.status(), "{kind}");
        let told = answer.json();
        assert_eq!((&told["error"], &told["policy"]), (&reason.code().into(), &"shop/hours".into()), "{kind}: {told}");
        let labels = ["reason=\"policy_unenforceable\"", "destination_service=\"shop/api\"", "response_code=\"500\""];
        for (whose, sidecar) in [("called", &pair.api), ("caller's", &pair.web)] {
            let what = format!("a line in the log of the {whose} sidecar");
            let of_it = |line: &Value| line["selvedge.reason"] == reason.code();
            let line = wait::until(&what, || async { sidecar.access_log().into_iter().find(of_it) }).await;
            assert_eq!(line["http.response.status_code"], reason.status(), "{kind}, {whose}");
            let counted = sidecar.metrics().value("selvedge_requests_total", &labels).await;
            assert!(counted >= 1.0, "{kind}, {whose}");
        }
        if kind != "AuthorizationPolicy" {
            continue;
        }
        let status = newer.until("cannotEnforce").await;
        assert_eq!(status["note"], "1 sidecar cannot enforce this yet");
    }
    newer.tell(
        "AuthorizationPolicy",
        r#"{"action":"DENY","rules":[{"from":[{"namespaces":["nobody"]}]}],"onUnsupported":"keep"}"#,
    );
    pair.until_status("/", 200).await;
    assert_eq!(newer.until("current").await["note"], Value::Null);
}
