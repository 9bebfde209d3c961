//! What sidecars that know the same are told: each resource is translated once for all of them ([`crate::skew`]).
//!
//! A fleet has as many dialects as it has releases, and thousands of sidecars, so translations are shared by whoever
//! has listed the same capabilities. Anybody with a certificate may list what they like, so only words that make a
//! difference count, and the dialects are bounded: of each identity, and of all together. Whoever is over a limit is told
//! what sidecars are told that list nothing. The last forms that each dialect could enforce are kept on disk, because what
//! `keep` promises has to hold over a restart of the control plane too.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Deref,
    path::Path,
    sync::Arc,
};

use selvedge_policies::facts::Identity;
use selvedge_xds::{
    capability::{Capabilities, TooMany},
    proto::discovery::Node,
    resource::{Encoded, TypeUrl},
};

mod kept;

use self::kept::Kept;
use super::quiet::Quiet;
use crate::{
    guarded::Guarded,
    skew::{self, Forms},
    snapshot::Snapshot,
};

/// What is kept of it in the state directory.
const FILE: &str = "last-forms.json";
/// Dialects that sidecars of one identity may speak at once, besides that of this release and that of those that list
/// nothing: an upgrade goes through one or two.
const MOST_OF_ONE: usize = 3;
/// Dialects there may be, besides those two.
const MOST: usize = 32;

/// The dialects that are spoken now.
#[derive(Debug)]
pub(crate) struct Dialects {
    /// Of sidecars that can be told everything.
    whole: Arc<Dialect>,
    /// Of sidecars that list nothing.
    silent: Arc<Dialect>,
    others: Guarded<HashMap<Capabilities, Arc<Dialect>>>,
    kept: Arc<Kept>,
    complaints: Arc<Quiet>,
}

/// What is told to sidecars that know the same.
#[derive(Debug)]
pub(crate) struct Dialect {
    knows: Capabilities,
    /// Whether everything is told as it is.
    whole: bool,
    told: Guarded<HashMap<(TypeUrl, String), Told>>,
    /// Number of the snapshot that `told` was compared with last.
    swept: Guarded<u64>,
    /// How many streams of each identity are told it.
    speakers: Guarded<HashMap<Identity, usize>>,
    /// What holds instead of what is not known, over a restart.
    kept: Arc<Kept>,
    /// Lines about what cannot be enforced.
    complaints: Arc<Quiet>,
}

/// A stream that is told a dialect, for as long as the value lives.
#[derive(Debug)]
pub(super) struct Speaker {
    dialect: Arc<Dialect>,
    identity: Identity,
}

/// A resource as it was told last.
#[derive(Debug)]
struct Told {
    /// The version it was made of.
    version: String,
    resource: Arc<Encoded>,
    forms: Forms,
}

impl Default for Dialects {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Dialects {
    fn new(kept: Arc<Kept>) -> Self {
        let complaints = Arc::new(Quiet::default());
        let dialect = |knows| Arc::new(Dialect::new(knows, &kept, &complaints));
        let (whole, silent) = (dialect(skew::everything()), dialect(skew::silent()));
        Self { whole, silent, others: Guarded::default(), kept, complaints }
    }

    /// Those that go on with what is kept in `state_dir`.
    pub(super) fn remembering(state_dir: &Path) -> Self {
        Self::new(Arc::new(Kept::load(state_dir.join(FILE))))
    }

    /// Keeps what a restart has to know, for as long as it is polled.
    pub(super) async fn keep(&self) {
        self.kept.save().await;
    }

    /// The dialect of a sidecar of `identity` that has not said what it knows.
    pub(super) fn silent(&self, identity: &Identity) -> Speaker {
        Speaker::of(&self.silent, identity)
    }

    /// The dialect of a sidecar of `identity` that says this of itself.
    pub(super) fn of(&self, node: &Node, identity: &Identity) -> Result<Speaker, TooMany> {
        let Some(claimed) = Capabilities::of(node)? else { return Ok(self.silent(identity)) };
        let knows = skew::understood(&claimed);
        if skew::is_everything(&knows) {
            return Ok(Speaker::of(&self.whole, identity));
        }
        if knows == self.silent.knows {
            return Ok(self.silent(identity));
        }
        let speaker = self.others.with(|others| self.other(others, knows, identity));
        Ok(speaker.unwrap_or_else(|| {
            if let Some(left_out) = self.complaints.may_say() {
                tracing::warn!(%identity, left_out, "a sidecar is told what those are told that list nothing: its \
                    identity has {MOST_OF_ONE} sets of capabilities already, or all together have {MOST}");
            }
            self.silent(identity)
        }))
    }

    /// The dialect of those that know this, unless there is no room for one more.
    fn other(
        &self,
        others: &mut HashMap<Capabilities, Arc<Dialect>>,
        knows: Capabilities,
        identity: &Identity,
    ) -> Option<Speaker> {
        let is_one_more = others.get(&knows).is_none_or(|dialect| !dialect.is_spoken_by(identity));
        if is_one_more && others.values().filter(|dialect| dialect.is_spoken_by(identity)).count() >= MOST_OF_ONE {
            return None;
        }
        if !others.contains_key(&knows) && others.len() >= MOST {
            let unspoken = others.extract_if(|_, dialect| !dialect.is_spoken());
            unspoken.for_each(|(knows, _)| self.kept.forget(&knows));
            if others.len() >= MOST {
                return None;
            }
        }
        let new = || Arc::new(Dialect::new(knows.clone(), &self.kept, &self.complaints));
        Some(Speaker::of(others.entry(knows.clone()).or_insert_with(new), identity))
    }
}

impl Speaker {
    fn of(dialect: &Arc<Dialect>, identity: &Identity) -> Self {
        dialect.speakers.with(|speakers| *speakers.entry(identity.clone()).or_default() += 1);
        Self { dialect: Arc::clone(dialect), identity: identity.clone() }
    }
}

impl Deref for Speaker {
    type Target = Dialect;

    fn deref(&self) -> &Dialect {
        &self.dialect
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.dialect.speakers.with(|speakers| {
            if let Entry::Occupied(mut streams) = speakers.entry(self.identity.clone()) {
                *streams.get_mut() -= 1;
                if *streams.get() == 0 {
                    streams.remove();
                }
            }
        });
    }
}

impl Dialect {
    fn new(knows: Capabilities, kept: &Arc<Kept>, complaints: &Arc<Quiet>) -> Self {
        Self {
            whole: skew::is_everything(&knows),
            knows,
            told: Guarded::default(),
            swept: Guarded::default(),
            speakers: Guarded::default(),
            kept: Arc::clone(kept),
            complaints: Arc::clone(complaints),
        }
    }

    fn is_spoken(&self) -> bool {
        self.speakers.with(|speakers| !speakers.is_empty())
    }

    fn is_spoken_by(&self, identity: &Identity) -> bool {
        self.speakers.with(|speakers| speakers.contains_key(identity))
    }

    /// `resource` as it is told.
    pub(super) fn tell(&self, resource: Arc<Encoded>) -> Arc<Encoded> {
        if self.whole {
            return resource;
        }
        self.told.with(|all| {
            let key = (resource.kind, resource.name.clone());
            let before = all.get(&key);
            if let Some(same) = before.filter(|told| told.version == resource.version) {
                return Arc::clone(&same.resource);
            }
            let before = before.map_or_else(|| self.kept.get(&self.knows, &resource), |told| told.forms.clone());
            let told = skew::tell(&resource, &self.knows, &before);
            self.kept.put(&self.knows, &resource, told.kept);
            for complaint in &told.complaints {
                let Some(left_out) = self.complaints.may_say() else { continue };
                let resource = &resource.name;
                tracing::warn!(resource, left_out, "a sidecar of an older release cannot enforce {complaint}");
            }
            let version = resource.version.clone();
            let told = Told { version, resource: told.resource.map_or(resource, Arc::new), forms: told.forms };
            let newest = Arc::clone(&told.resource);
            all.insert(key, told);
            newest
        })
    }

    /// Forgets what was told of resources that `snapshot` has no more, once for each snapshot. What was gone from one that
    /// was swept begins anew when it comes back; what came back before a sweep goes on with its last forms.
    pub(super) fn sweep(&self, snapshot: &Snapshot) {
        let number = snapshot.number();
        if !self.whole && self.swept.with(|swept| std::mem::replace(swept, number) != number) {
            let is_there = |(kind, name): &(TypeUrl, String)| snapshot.get(*kind, name).is_some();
            let gone: Vec<_> = self.told.with(|all| all.extract_if(|key, _| !is_there(key)).collect());
            gone.iter().for_each(|(_, told)| self.kept.put(&self.knows, &told.resource, Forms::default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_policies::registry;
    use selvedge_xds::{
        kinds::INBOUND,
        proto::mesh::{Attachment, Inbound, Origin},
    };

    use super::*;
    use crate::snapshot::Draft;

    /// The view of a workload that is covered by this policy.
    fn view(generation: u64, document: &str) -> Encoded {
        let origin = Origin { kind: "AuthorizationPolicy".into(), generation, ..Origin::default() };
        let policy = Attachment { origin: Some(origin), document: document.into(), stands_for: None };
        Encoded::new(INBOUND, "shop/web-1", Vec::new(), &Inbound { policies: vec![policy], ..Inbound::default() })
    }

    const KNOWN: &str = r#"{"action":"AUDIT","rules":[{}],"onUnsupported":"keep"}"#;
    const NEWER: &str = r#"{"action":"AUDIT","rules":[{"when":1}],"onUnsupported":"keep"}"#;

    fn identity(account: &str) -> Identity {
        Identity::new("mesh.local", "shop", account).unwrap()
    }

    impl Speaker {
        fn speaks_as(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.dialect, &other.dialect)
        }
    }

    /// A sidecar of a release that did not know these words yet, nor anything else that makes this set its own.
    fn node(missing: &[usize], junk: usize) -> Node {
        let mut knows = skew::silent();
        let words: Vec<String> = knows.0["HTTPRoute"].iter().cloned().collect();
        let known = knows.0.get_mut("HTTPRoute").unwrap();
        assert!(missing.iter().all(|n| known.remove(&words[*n])));
        known.insert(format!("junk{junk}"));
        knows.0.insert(format!("Junk{junk}"), [junk.to_string()].into());
        Node { metadata: Some(knows.to_metadata()), ..Node::default() }
    }

    #[test]
    fn words_that_nobody_says_make_no_dialect() {
        let dialects = Dialects::default();
        let speakers: Vec<_> = (0..100).map(|n| dialects.of(&node(&[1], n), &identity("web")).unwrap()).collect();
        assert!(speakers.iter().all(|speaker| speaker.speaks_as(&speakers[0])));
        assert_eq!(dialects.others.with(|others| others.len()), 1);
        let silent = dialects.of(&node(&[], 1), &identity("web")).unwrap();
        assert!(silent.speaks_as(&dialects.silent(&identity("web"))), "it knows what those know that list nothing");
    }

    #[test]
    fn an_identity_speaks_a_few_dialects_and_what_it_lists_beyond_them_is_as_if_it_listed_nothing() {
        let dialects = Dialects::default();
        let silent = dialects.silent(&identity("web"));
        let mut speakers: Vec<_> = (0..100).map(|n| dialects.of(&node(&[n], n), &identity("web")).unwrap()).collect();
        assert_eq!(dialects.others.with(|others| others.len()), MOST_OF_ONE);
        assert!(speakers[MOST_OF_ONE..].iter().all(|speaker| speaker.speaks_as(&silent)));
        assert!(dialects.of(&node(&[0], 0), &identity("web")).unwrap().speaks_as(&speakers[0]), "it has this one");
        let other = dialects.of(&node(&[50], 0), &identity("api")).unwrap();
        assert!(!other.speaks_as(&silent), "others have theirs");
        speakers.swap_remove(0);
        assert!(!dialects.of(&node(&[60], 0), &identity("web")).unwrap().speaks_as(&silent), "one was given up");
    }

    #[test]
    fn all_identities_together_speak_so_many_dialects_and_those_nobody_speaks_make_room() {
        let dialects = Dialects::default();
        let speakers: Vec<_> =
            (0..100).map(|n| dialects.of(&node(&[n], n), &identity(&format!("a{n}"))).unwrap()).collect();
        assert_eq!(dialects.others.with(|others| others.len()), MOST);
        let late = dialects.of(&node(&[101], 0), &identity("late")).unwrap();
        assert!(late.speaks_as(&dialects.silent(&identity("late"))));
        drop(speakers);
        let late = dialects.of(&node(&[101], 0), &identity("late")).unwrap();
        assert!(!late.speaks_as(&dialects.silent(&identity("late"))));
        assert_eq!(dialects.others.with(|others| others.len()), 1);
    }

    #[test]
    fn two_thousand_sidecars_that_know_the_same_cost_one_translation() {
        let dialects = Dialects::default();
        let resource = Arc::new(view(1, NEWER));
        let silent = dialects.silent(&identity("web"));
        let first = silent.tell(Arc::clone(&resource));
        assert_ne!(first.version, resource.version, "it is translated");
        let sidecars: Vec<_> = (0..2000).map(|_| dialects.of(&Node::default(), &identity("web")).unwrap()).collect();
        let told = sidecars.iter().map(|dialect| dialect.tell(Arc::clone(&resource)));
        assert!(told.into_iter().all(|told| Arc::ptr_eq(&told, &first)), "it is the very same for all");
    }

    #[test]
    fn a_sidecar_of_this_release_is_told_the_very_resource() {
        let metadata = Some(Capabilities(registry::vocabulary()).to_metadata());
        let dialect = Dialects::default().of(&Node { metadata, ..Node::default() }, &identity("web")).unwrap();
        let resource = Arc::new(view(1, NEWER));
        assert!(Arc::ptr_eq(&dialect.tell(Arc::clone(&resource)), &resource));
    }

    #[tokio::test]
    async fn the_last_form_holds_over_a_restart_until_it_is_known_again() {
        let state = tempfile::tempdir().unwrap();
        let policies = |told: &Encoded| <Inbound as prost::Message>::decode(told.body.clone()).unwrap().policies.len();
        let saved = async |dialects: &Dialects, wanted: bool| {
            let path = state.path().join(FILE);
            let is_there = || std::fs::read_to_string(&path).is_ok_and(|text| text.contains("AUDIT") == wanted);
            let waiting = async {
                while !is_there() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                () = dialects.keep() => panic!("it keeps"),
                done = tokio::time::timeout(std::time::Duration::from_secs(10), waiting) => done.expect("it is saved"),
            }
        };
        let before = Dialects::remembering(state.path());
        let silent = before.silent(&identity("web"));
        silent.tell(Arc::new(view(1, KNOWN)));
        assert_eq!(policies(&silent.tell(Arc::new(view(2, NEWER)))), 1);
        saved(&before, true).await;
        let after = Dialects::remembering(state.path());
        let silent = after.silent(&identity("web"));
        assert_eq!(policies(&silent.tell(Arc::new(view(2, NEWER)))), 1, "as it was");
        silent.tell(Arc::new(view(3, KNOWN)));
        saved(&after, false).await;
        std::fs::write(state.path().join(FILE), "{").unwrap();
        let damaged = Dialects::remembering(state.path());
        assert_eq!(
            policies(&damaged.silent(&identity("web")).tell(Arc::new(view(4, NEWER)))),
            0,
            "nothing is known any more"
        );
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_comes_back_begins_anew() {
        let dialect = Dialects::default().silent(&identity("web"));
        let snapshot = |before: &Snapshot, put: bool| {
            let mut draft = Draft::after(before);
            if put {
                draft.put(view(1, KNOWN), false)
            } else {
                draft.remove(INBOUND, "shop/web-1")
            }
            draft.finish().unwrap()
        };
        let policies = |told: &Encoded| <Inbound as prost::Message>::decode(told.body.clone()).unwrap().policies.len();
        let there = snapshot(&Snapshot::default(), true);
        dialect.tell(Arc::new(view(1, KNOWN)));
        dialect.sweep(&there);
        assert_eq!(policies(&dialect.tell(Arc::new(view(2, NEWER)))), 1, "the last form is kept");
        dialect.sweep(&snapshot(&there, false));
        assert_eq!(policies(&dialect.tell(Arc::new(view(3, NEWER)))), 0, "there is none any more");
    }
}
