//! What goes when a mesh is taken out of a cluster, in an order in which pods can start whenever it is interrupted:
//! whatever keeps a pod from starting goes before what it needs to let one start.

use std::{collections::BTreeMap, time::Duration};

use selvedge_control_plane::{
    removal::{Step, Target},
    source::kubernetes,
};
use selvedge_policies::kind::SELVEDGE;
use serde_json::{Value, json};

use crate::{cni, control_plane, crd, injection, object::namespaced, rights, version::Injector};

/// The steps, each to be done before the next one begins. What users have written and the key of the authority go only where
/// `purge` says so.
pub fn steps(purge: bool) -> Vec<Step> {
    let mut steps = vec![
        Step { pause: NOTICED, ..step("refusal of pods without a sidecar", injection::refusing().iter()) },
        Step { pause: NOTICED, ..step("injection", injection::injecting().iter()) },
        Step { farewell: Some("--remove-on-exit"), ..step("plugin of the nodes", [cni::named()].iter()) },
        step("control plane", control_plane::named().iter()),
        // Without them a control plane that is still ending cannot write the settings again.
        step("rights", rights::objects(Injector::Webhook).iter().rev()),
        step("settings of sidecars", [injection::named()].iter()),
    ];
    if purge {
        steps.extend(purged());
    }
    steps
}

/// The last steps, which nothing brings back: to be listed before anything is deleted.
pub fn purged() -> Vec<Step> {
    let definitions: Vec<Value> = crd::all().into_iter().chain([crd::injection_config()]).collect();
    vec![
        step("definitions, and with them what users have written", definitions.iter()),
        step("key of the authority", [namespaced("v1", "Secret", AUTHORITY, json!({}))].iter()),
        step("namespace", [control_plane::namespace("restricted")].iter()),
    ]
}

/// How long every API server has to notice that it refuses or injects no more, before what is needed for that goes.
const NOTICED: Duration = Duration::from_secs(3);

/// The Secret with the key of the authority, which the control plane makes.
const AUTHORITY: &str = "selvedge-ca";

/// Where what users have written is listed, by its kind.
pub fn written() -> BTreeMap<String, String> {
    let ours = kubernetes::watched().into_iter().filter(|watched| watched.api.api_version == SELVEDGE);
    ours.map(|watched| (watched.api.kind.to_owned(), watched.api.path)).collect()
}

fn step<'a>(what: &'static str, objects: impl Iterator<Item = &'a Value>) -> Step {
    Step { what, targets: objects.map(target).collect(), pause: Duration::ZERO, farewell: None }
}

fn target(object: &Value) -> Target {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Target {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
        namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
        name: text(&object["metadata"]["name"]),
    }
}
