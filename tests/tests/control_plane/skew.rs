//! Sidecars of several releases at one control plane: each is told what it knows, and the status says what it does not.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use selvedge_xds::{
    capability::Capabilities,
    kinds::INBOUND,
    proto::{
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node},
        mesh::{Attachment, Inbound, SettingOrigin},
    },
    resource::Encoded,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::mpsc::UnboundedSender, time::timeout};
use tonic::{Code, Status, Streaming};

use super::{
    channel::{connected, discover},
    kit::{ControlPlane, PATIENCE, Sidecar, WORKLOAD, eventually, grant, origin},
};

/// A policy that says something no release knows yet.
const NEWER: &str = r#"{"action":"DENY","rules":[{"when":1}]}"#;

fn publish(control_plane: &ControlPlane, generation: u64, document: &str) {
    let attached = origin("AuthorizationPolicy", "hours", generation);
    let policy = Attachment { origin: attached, document: document.to_owned(), ..Attachment::default() };
    let identity = grant("web").identity.to_string();
    let (workload, policies) = (WORKLOAD.to_owned(), vec![policy]);
    let inbound = Inbound { workload, identity: identity.clone(), policies, ..Inbound::default() };
    publish_view(control_plane, identity, &inbound);
}

fn publish_view(control_plane: &ControlPlane, identity: String, inbound: &Inbound) {
    control_plane.publish(|draft| {
        draft.put(Encoded::new(INBOUND, WORKLOAD, Vec::new(), inbound), false);
        draft.set_identity(WORKLOAD, Some(identity));
    });
}

/// A sidecar's stream, opened with this node.
struct Stream {
    requests: UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Stream {
    async fn open(control_plane: &ControlPlane, knows: Option<Capabilities>) -> Self {
        let channel = connected(control_plane, &control_plane.join().await).await;
        let (requests, responses) = {
            let metadata = knows.map(|knows| knows.to_metadata());
            let node = Some(Node { id: WORKLOAD.to_owned(), metadata, ..Node::default() });
            let resource_names_subscribe = vec![WORKLOAD.to_owned()];
            let first = DeltaDiscoveryRequest {
                node,
                type_url: INBOUND.to_string(),
                resource_names_subscribe,
                ..Default::default()
            };
            let opening = discover(channel);
            let (requests, responses) = timeout(PATIENCE, opening).await.expect("a stream in time").unwrap();
            requests.send(first).unwrap();
            (requests, responses)
        };
        Self { requests, responses }
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let response = timeout(PATIENCE, self.responses.message()).await.expect("an answer in time")?;
        response.ok_or_else(|| Status::aborted("the stream ended"))
    }

    /// The next view of itself, acknowledged.
    async fn view(&mut self) -> Inbound {
        let response = self.next().await.unwrap();
        let (type_url, response_nonce) = (response.type_url, response.nonce);
        self.requests.send(DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() }).unwrap();
        Inbound::decode(&*response.resources[0].resource.as_ref().unwrap().value).unwrap()
    }
}

#[tokio::test]
async fn each_release_is_told_what_it_knows_and_the_status_says_what_it_cannot_enforce() {
    let control_plane = ControlPlane::start().await;
    publish(&control_plane, 1, NEWER);
    let mut old = Stream::open(&control_plane, None).await;
    let view = old.view().await;
    assert_eq!(view.policies[0].document, r#"{"action":"DENY","rules":[{}]}"#, "it stays closed");
    assert_eq!(view.policies[0].stands_for, origin("AuthorizationPolicy", "hours", 1));

    let state = TempDir::new().unwrap();
    let mut current = Sidecar::start(control_plane.address(), state.path(), Some(control_plane.join().await));
    let resources = current.until("its own view", |resources| resources.inbound.is_some()).await;
    assert_eq!(resources.inbound.as_ref().unwrap().policies[0].document, NEWER, "this release is told everything");

    let cannot = async || -> Option<Vec<Value>> {
        let status: Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
        let sidecars = status["sidecars"].as_array()?;
        let acknowledged = |sidecar: &&Value| sidecar["acknowledged"] != Value::Object(serde_json::Map::new());
        let told = |sidecar: &Value| sidecar["cannotEnforce"]["AuthorizationPolicy shop/hours"].clone();
        let sidecars: Vec<Value> = sidecars.iter().map(told).collect();
        let all = status["sidecars"].as_array()?.iter().filter(acknowledged).count() == 1;
        (all && sidecars.len() == 2 && sidecars[0] != Value::Null).then_some(sidecars)
    };
    let told = eventually("both have acknowledged", cannot).await;
    assert!(told[0].as_str().unwrap().starts_with("'rules[0].when' of generation 1 is not known to it"), "{told:?}");
    assert_eq!(told[1], Value::Null, "the sidecar of this release can");

    publish(&control_plane, 2, r#"{"action":"DENY","rules":[{"from":[{"namespaces":["x"]}]}]}"#);
    let view = old.view().await;
    assert!(view.policies[0].stands_for.is_none() && view.unenforceable.is_empty(), "what it knows it is told again");
}

#[tokio::test]
async fn a_setting_that_a_sidecar_does_not_know_is_left_out_there_and_stands_in_the_status() {
    let control_plane = ControlPlane::start().await;
    let identity = grant("web").identity.to_string();
    let from = |field: &str, name: &str| SettingOrigin { field: field.into(), origin: origin("MeshPolicy", name, 3) };
    let inbound = Inbound {
        workload: WORKLOAD.to_owned(),
        identity: identity.clone(),
        settings: r#"{"defaultPosture":"deny","sampling":{"rate":3}}"#.into(),
        settings_from: vec![from("defaultPosture", "strict"), from("sampling.rate", "newest")],
        ..Inbound::default()
    };
    publish_view(&control_plane, identity, &inbound);
    let mut old = Stream::open(&control_plane, None).await;
    assert_eq!(old.view().await.settings, r#"{"defaultPosture":"deny"}"#);
    let cannot = eventually("the status says so", async || {
        let status: Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
        let cannot = status["sidecars"][0]["cannotEnforce"].as_object()?.clone();
        (!cannot.is_empty()).then_some(cannot)
    });
    let told = "'sampling' of generation 3 is not known to it; it is left out";
    assert_eq!(Value::Object(cannot.await), serde_json::json!({ "MeshPolicy shop/newest": told }));
}

#[tokio::test]
async fn a_sidecar_that_lists_words_without_end_is_told_nothing() {
    let control_plane = ControlPlane::start().await;
    publish(&control_plane, 1, NEWER);
    let words: BTreeSet<String> = (0..20_000).map(|n| n.to_string()).collect();
    let knows = Capabilities(BTreeMap::from([("AuthorizationPolicy".to_owned(), words)]));
    let mut stream = Stream::open(&control_plane, Some(knows)).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
}
