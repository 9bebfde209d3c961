//! The last forms that older sidecars could enforce, over a restart of the control plane.
//!
//! Guarantees: for every set of capabilities that is spoken it has the last form of every document that was told in full,
//! for a sidecar may come back with it after the newest form has become one it does not know; what the mesh does not have
//! any more is forgotten, also where nobody speaks that set now. The file is there whole or not at all, and a second later
//! at most; nobody waits for it; one that cannot be read or written costs no more than what it is for, and the log says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    time::Duration,
};

use selvedge_identity::file;
use selvedge_xds::{
    capability::Capabilities,
    kinds::SELVEDGE,
    resource::{Encoded, TypeUrl},
};
use tokio::sync::Notify;

use crate::{guarded::Guarded, skew::Forms, snapshot::Snapshot};

/// Sets of capabilities that are remembered; a mesh has a few releases at a time.
const MOST_SETS: usize = 64;
/// How long it rests after a save: of many changes the newest counts.
const PAUSE: Duration = Duration::from_secs(1);
/// After how long a save that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// As it stands in the file: sets of capabilities, each with the last forms of those that know these.
type Stored = Vec<StoredSet>;
/// Words by kind of document, and forms by `Kind name` of the resource.
type StoredSet = (BTreeMap<String, BTreeSet<String>>, BTreeMap<String, Forms>);

/// The last forms that sidecars of each set of capabilities knew, in memory and on disk.
#[derive(Debug, Default)]
pub(super) struct Kept {
    path: Option<PathBuf>,
    sets: Guarded<BTreeMap<Capabilities, Set>>,
    changed: Notify,
}

/// The last forms of those that know the same.
#[derive(Debug, Default)]
struct Set {
    /// True when somebody speaks it, so that it gives way to no other.
    is_open: bool,
    resources: BTreeMap<(TypeUrl, String), Last>,
}

#[derive(Debug, Default)]
struct Last {
    forms: Forms,
    /// The version of the resource that these are the forms of; of what was read from the file it is not known.
    version: String,
}

impl Kept {
    /// What the file at `path` has, to be kept there.
    pub(super) fn load(path: PathBuf) -> Self {
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stored::new()),
            read => read.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other)),
        };
        let stored = read.unwrap_or_else(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "what older sidecars knew last cannot be read; they may get errors for it");
            Stored::new()
        });
        let sets = stored.into_iter().map(|(knows, resources)| (Capabilities(knows), Set::of(resources)));
        Self { path: Some(path), sets: Guarded::new(sets.collect()), changed: Notify::new() }
    }

    /// Makes room for what is kept where this is known: until it is closed again, for certain.
    pub(super) fn open(&self, knows: &Capabilities) {
        let gave_way = self.sets.with(|sets| {
            let silent = sets.iter().find(|(_, set)| !set.is_open).map(|(knows, _)| knows.clone());
            let silent = silent.filter(|_| sets.len() >= MOST_SETS && !sets.contains_key(knows));
            sets.entry(knows.clone()).or_default().is_open = true;
            silent.and_then(|silent| sets.remove(&silent)).is_some()
        });
        self.changed_if(gave_way);
    }

    /// What holds of `resource` where this is known.
    pub(super) fn get(&self, knows: &Capabilities, resource: &Encoded) -> Forms {
        let last = |sets: &mut BTreeMap<Capabilities, Set>| {
            Some(sets.get(knows)?.resources.get(&key(resource))?.forms.clone())
        };
        self.sets.with(last).unwrap_or_default()
    }

    /// Keeps what holds of `resource` where this is known.
    pub(super) fn put(&self, knows: &Capabilities, resource: &Encoded, forms: Forms) {
        let key = key(resource);
        let is_news = self.sets.with(|sets| {
            let Some(set) = sets.get_mut(knows) else { return false };
            if forms.is_empty() {
                return set.resources.remove(&key).is_some();
            }
            let last = set.resources.entry(key).or_default();
            last.version.clone_from(&resource.version);
            let is_news = last.forms != forms;
            last.forms = forms;
            is_news
        });
        self.changed_if(is_news);
    }

    /// Keeps what there is where this is known for as long as others leave room.
    pub(super) fn close(&self, knows: &Capabilities) {
        self.sets.with(|sets| sets.get_mut(knows).map(|set| set.is_open = false));
    }

    /// Forgets resources that `snapshot` does not have, and objects that are attached to none of them any more.
    pub(super) fn sweep(&self, snapshot: &Snapshot) {
        let has_forgotten = self.sets.with(|sets| {
            let forgotten: usize = sets.values_mut().map(|set| set.sweep(snapshot)).sum();
            sets.retain(|_, set| set.is_open || !set.resources.is_empty());
            forgotten > 0
        });
        self.changed_if(has_forgotten);
    }

    fn changed_if(&self, is_news: bool) {
        if is_news {
            self.changed.notify_one();
        }
    }

    /// Writes every change to the file.
    pub(super) async fn save(&self) {
        let mut told = String::new();
        loop {
            self.changed.notified().await;
            let problem = self.write().await.err().map(|error| error.to_string());
            self.changed_if(problem.is_some());
            tokio::time::sleep(if problem.is_some() { RETRY } else { PAUSE }).await;
            let problem = problem.unwrap_or_default();
            if problem != told && !problem.is_empty() {
                tracing::warn!(
                    error = problem,
                    "what older sidecars knew last is not saved; after a restart they may get errors for it"
                );
            }
            told = problem;
        }
    }

    /// Writes what is not written yet.
    pub(super) async fn save_rest(&self) -> io::Result<()> {
        tokio::select! {
            biased;
            () = self.changed.notified() => self.write().await,
            () = std::future::ready(()) => Ok(()),
        }
    }

    async fn write(&self) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let stored: Stored = self.sets.with(|sets| sets.iter().filter_map(|(knows, set)| set.stored(knows)).collect());
        let write = move || file::replace(&path, &serde_json::to_vec(&stored)?);
        tokio::task::spawn_blocking(write).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }
}

impl Set {
    /// Those that stood in the file. A kind of resource that there is no more is of no use.
    fn of(resources: BTreeMap<String, Forms>) -> Self {
        let read = |(key, forms): (String, Forms)| {
            let named = |kind: &TypeUrl| Some((*kind, key.strip_prefix(kind.name())?.strip_prefix(' ')?.to_owned()));
            Some((SELVEDGE.order().iter().find_map(named)?, Last { forms, version: String::new() }))
        };
        Self { is_open: false, resources: resources.into_iter().filter_map(read).collect() }
    }

    /// As they stand in the file, when there are some.
    fn stored(&self, knows: &Capabilities) -> Option<StoredSet> {
        let written =
            |((kind, name), last): (&(TypeUrl, String), &Last)| (format!("{kind:?} {name}"), last.forms.clone());
        (!self.resources.is_empty()).then(|| (knows.0.clone(), self.resources.iter().map(written).collect()))
    }

    /// Forgets what `snapshot` does not have, and returns of how many resources it did.
    fn sweep(&mut self, snapshot: &Snapshot) -> usize {
        let mut forgotten = 0;
        self.resources.retain(|(kind, name), last| {
            let Some(resource) = snapshot.get(*kind, name) else {
                forgotten += 1;
                return false;
            };
            if last.version != resource.version {
                forgotten += usize::from(last.forms.forget_detached(&resource));
                last.version.clone_from(&resource.version);
            }
            !last.forms.is_empty()
        });
        forgotten
    }
}

fn key(resource: &Encoded) -> (TypeUrl, String) {
    (resource.kind, resource.name.clone())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use prost::Message;
    use selvedge_xds::{
        kinds::{DESTINATION, INBOUND},
        proto::mesh::{Attachment, Destination, Inbound, Origin},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        serve::dialects::{Dialects, FILE, Speaker},
        skew,
        snapshot::Draft,
    };

    fn attachment(kind: &str, name: &str, generation: u64, document: &Value) -> Attachment {
        let origin = Origin { kind: kind.into(), namespace: "shop".into(), name: name.into(), generation };
        Attachment { origin: Some(origin), document: document.to_string(), stands_for: None }
    }

    /// `Service shop/web` with a route and settings, and the view of a workload with a policy that is to be kept; in words
    /// that the oldest release knows, or not.
    fn resources(generation: u64, is_known: bool) -> [Encoded; 2] {
        let mut route =
            json!({"parentRefs": [{"kind": "Service", "name": "web"}], "rules": [{"backendRefs": [{"name": "v1"}]}]});
        let mut settings = json!({"targetRef": {"name": "web"}, "timeouts": {"request": "1s"}});
        let mut policy = json!({"action": "AUDIT", "rules": [{}], "onUnsupported": "keep"});
        if !is_known {
            route["rules"][0]["mirror"] = json!("v2");
            settings["hedging"] = json!({});
            policy["rules"][0]["when"] = json!(1);
        }
        let routes = vec![attachment("HTTPRoute", "route", generation, &route)];
        let policies = vec![attachment("TrafficPolicy", "settings", generation, &settings)];
        let destination =
            Destination { namespace: "shop".into(), name: "web".into(), routes, policies, ..Default::default() };
        let policies = vec![attachment("AuthorizationPolicy", "policy", generation, &policy)];
        let inbound = Inbound { policies, ..Inbound::default() };
        [
            Encoded::new(DESTINATION, "shop/web", Vec::new(), &destination),
            Encoded::new(INBOUND, "shop/web-1", Vec::new(), &inbound),
        ]
    }

    /// A complete snapshot of these.
    fn snapshot(resources: impl IntoIterator<Item = Encoded>) -> Snapshot {
        let mut draft = Draft::after(&Snapshot::default());
        resources.into_iter().for_each(|resource| draft.put(resource, false));
        draft.set_complete(true);
        draft.finish().unwrap()
    }

    /// The generations that somebody is told of a route, of settings and of a policy; 0 for what stands in their place.
    fn told(speaker: &Speaker, resources: [Encoded; 2]) -> [u64; 3] {
        let [destination, inbound] = resources.map(|resource| speaker.tell(Arc::new(resource)).body.clone());
        let (destination, inbound) = (Destination::decode(destination).unwrap(), Inbound::decode(inbound).unwrap());
        let generation = |attached: &[Attachment]| {
            let written = attached.iter().filter(|attachment| attachment.stands_for.is_none());
            written.map(|attachment| attachment.origin.as_ref().unwrap().generation).sum()
        };
        [&destination.routes, &destination.policies, &inbound.policies].map(|attached| generation(attached))
    }

    fn old(dialects: &Dialects) -> Speaker {
        dialects.silent(&"spiffe://mesh.local/ns/shop/sa/web".parse().unwrap())
    }

    /// Until the file says what it is to say, which is soon.
    async fn saved(dialects: &Dialects, state: &Path, such: impl Fn(&str) -> bool) {
        let waiting = async {
            while !std::fs::read_to_string(state.join(FILE)).is_ok_and(|text| such(&text)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = dialects.keep() => panic!("it keeps"),
            done = tokio::time::timeout(Duration::from_secs(10), waiting) => done.expect("it is saved"),
        }
    }

    #[tokio::test]
    async fn what_was_told_in_full_is_the_last_form_after_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let before = Dialects::remembering(state.path());
        assert_eq!(told(&old(&before), resources(1, true)), [1, 1, 1]);
        saved(&before, state.path(), |text| text.contains("shop/route") && text.contains("shop/policy")).await;
        for restart in 1..=2 {
            let after = Dialects::remembering(state.path());
            after.sweep(&snapshot(resources(1 + restart, false)));
            let speaker = old(&after);
            assert_eq!(told(&speaker, resources(1 + restart, false)), [1, 1, 1], "as it was, restart {restart}");
        }
        std::fs::write(state.path().join(FILE), "{").unwrap();
        let damaged = Dialects::remembering(state.path());
        assert_eq!(told(&old(&damaged), resources(4, false)), [0, 4, 0], "of the settings stands what is known");
    }

    #[tokio::test]
    async fn what_is_not_saved_yet_is_saved_at_the_end() {
        let state = tempfile::tempdir().unwrap();
        let before = Dialects::remembering(state.path());
        told(&old(&before), resources(1, true));
        before.keep_rest().await;
        assert_eq!(told(&old(&Dialects::remembering(state.path())), resources(2, false)), [1, 1, 1]);
        std::fs::remove_file(state.path().join(FILE)).unwrap();
        before.keep_rest().await;
        assert!(!state.path().join(FILE).exists(), "there is nothing to be saved");
    }

    #[tokio::test]
    async fn what_the_mesh_does_not_have_any_more_is_forgotten_also_where_nobody_speaks() {
        let state = tempfile::tempdir().unwrap();
        let before = Dialects::remembering(state.path());
        told(&old(&before), resources(1, true));
        saved(&before, state.path(), |text| text.contains("shop/policy")).await;
        let [destination, inbound] = resources(1, true);
        let mut message = Destination::decode(destination.body).unwrap();
        message.routes.clear();
        let without_route = Encoded::new(DESTINATION, "shop/web", Vec::new(), &message);

        let after = Dialects::remembering(state.path());
        after.sweep(&Snapshot::default());
        after.sweep(&snapshot([without_route.clone(), inbound]));
        let forgotten = |text: &str| !text.contains("shop/route") && text.contains("shop/settings");
        saved(&after, state.path(), |text| forgotten(text) && text.contains("shop/policy")).await;
        after.sweep(&snapshot([without_route]));
        saved(&after, state.path(), |text| forgotten(text) && !text.contains("shop/policy")).await;
        assert_eq!(told(&old(&after), resources(2, false)), [0, 1, 0], "what comes back begins anew");
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_comes_back_begins_anew() {
        let dialects = Dialects::default();
        let speaker = old(&dialects);
        told(&speaker, resources(1, true));
        dialects.sweep(&snapshot(resources(1, true)));
        assert_eq!(told(&speaker, resources(2, false)), [1, 1, 1], "the last form is kept");
        dialects.sweep(&snapshot([]));
        assert_eq!(told(&speaker, resources(2, false)), [0, 2, 0], "there is none any more");
    }

    #[test]
    fn a_set_that_nobody_speaks_gives_way_when_there_are_too_many() {
        let kept = Kept::default();
        let [resource, _] = resources(1, true);
        let forms = skew::tell(&resource, &skew::silent(), &Forms::default()).forms;
        let sets: Vec<_> = (0..=MOST_SETS).map(|n| Capabilities([(n.to_string(), BTreeSet::new())].into())).collect();
        for knows in &sets[..MOST_SETS] {
            kept.open(knows);
            kept.put(knows, &resource, forms.clone());
        }
        kept.close(&sets[7]);
        assert_eq!(kept.get(&sets[7], &resource), forms, "while there is room");
        kept.open(&sets[MOST_SETS]);
        let lost = sets[..MOST_SETS].iter().filter(|knows| kept.get(knows, &resource).is_empty());
        assert_eq!(lost.collect::<Vec<_>>(), [&sets[7]]);
    }
}
