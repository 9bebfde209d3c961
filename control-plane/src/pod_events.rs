//! What there is to tell whoever runs pods, as Events of the pods: that one should have a sidecar and has none, because it was
//! there before its namespace was enabled or came while nobody injected; and annotations that nobody reads, with the name
//! that is meant, which an admission policy cannot find out. Each is told once; pods without a sidecar are counted all the time.

use std::{collections::HashSet, sync::Arc, time::Duration};

use kube::Client;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    source::kubernetes::{self, Named, Pods},
    telemetry::Telemetry,
};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(10);
/// How many Events of a sort one look makes at most; the others follow.
const EVENTS: usize = 20;
const NO_SIDECAR: &str = "this pod should have a sidecar of Selvedge and has none, so it is called and calls in plaintext: \
    create it anew (kubectl rollout restart), or label it selvedge.dev/inject: disabled";

/// Counts and tells of them for ever.
pub(crate) async fn watch(client: Client, pods: Pods, telemetry: Telemetry) {
    let (mut lacking, mut misspelt) = (Once::new("NoSidecar"), Once::new("UnknownAnnotation"));
    loop {
        sleep(LOOK).await;
        let found = pods.without_sidecar();
        telemetry.pods_without_sidecar.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
        lacking.tell(&client, &found.iter().map(|pod| (&pod.pod, "", NO_SIDECAR)).collect::<Vec<_>>()).await;
        let found = pods.misspelt();
        let said = found.iter().flat_map(|pod| pod.said.iter().map(|said| (&pod.pod, &*said.key, &*said.text)));
        misspelt.tell(&client, &said.collect::<Vec<_>>()).await;
    }
}

/// What is told of one pod, and what of it that is about.
type Said<'a> = (&'a Named, &'a str, &'a str);

/// Events with one reason, each made once while there is cause for it.
struct Once {
    reason: &'static str,
    /// By uid of the pod and what it is about.
    told: HashSet<(Arc<str>, String)>,
}

impl Once {
    fn new(reason: &'static str) -> Self {
        Self { reason, told: HashSet::new() }
    }

    async fn tell(&mut self, client: &Client, all: &[Said<'_>]) {
        let key = |(pod, about, _): &Said<'_>| (Arc::clone(&pod.uid), (*about).to_owned());
        let present: HashSet<_> = all.iter().map(key).collect();
        self.told.retain(|told| present.contains(told));
        for said in all.iter().filter(|said| !self.told.contains(&key(said))).take(EVENTS).collect::<Vec<_>>() {
            let (Named { namespace, name, uid }, _, message) = said;
            let about =
                json!({ "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": **uid });
            kubernetes::tell(client, &about, "Warning", self.reason, message).await;
            self.told.insert(key(said));
        }
    }
}
