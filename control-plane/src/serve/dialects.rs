//! What sidecars that know the same are told: each resource is translated once for all of them ([`crate::skew`]).
//!
//! A fleet has as many dialects as it has releases, and thousands of sidecars, so translations are shared by whoever
//! has listed the same capabilities. Anybody with a certificate may list what they like, so only words that make a
//! difference count, and the dialects are bounded: of each identity, and of all together. Whoever is over a limit is told
//! what sidecars are told that list nothing. The last forms that each dialect could enforce are kept on disk, because what routes and settings
//! keep, and what `onUnsupported: keep` promises, has to hold over a restart of the control plane too.

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
use crate::{guarded::Guarded, skew, snapshot::Snapshot};

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
    told: Guarded<HashMap<(TypeUrl, String), Sent>>,
    /// How many streams of each identity are told it.
    speakers: Guarded<HashMap<Identity, usize>>,
    /// The last forms that were known, over a restart.
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

/// A resource as it was sent last to those who speak the dialect.
#[derive(Debug)]
struct Sent {
    /// The version it was made of.
    version: String,
    resource: Arc<Encoded>,
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

    /// Keeps what a restart has to know and is not kept yet.
    pub(super) async fn keep_rest(&self) {
        if let Err(error) = self.kept.save_rest().await {
            tracing::warn!(%error, "what older sidecars knew last is not saved; they may get errors for it");
        }
    }

    /// Forgets what `snapshot`, which is told next, does not have. What was gone begins anew when it comes back.
    pub(super) fn sweep(&self, snapshot: &Snapshot) {
        // Before everything is told, what is absent may only be late.
        if !snapshot.is_complete() {
            return;
        }
        let others: Vec<_> = self.others.with(|others| others.values().cloned().collect());
        for dialect in others.iter().chain([&self.silent]) {
            dialect.told.with(|told| told.retain(|(kind, name), _| snapshot.get(*kind, name).is_some()));
        }
        self.kept.sweep(snapshot);
    }

    /// The dialect of a sidecar of `identity` that has not said what it knows.
    pub(super) fn silent(&self, identity: &Identity) -> Speaker {
        Speaker::of(&self.silent, identity)
    }

    /// The dialect of a sidecar of `identity` that says this of itself.
    pub(super) fn of(&self, node: &Node, identity: &Identity) -> Result<Speaker, TooMany> {
        if skew::says_everything(node) {
            return Ok(Speaker::of(&self.whole, identity));
        }
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
            unspoken.for_each(|(knows, _)| self.kept.close(&knows));
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
        let whole = skew::is_everything(&knows);
        if !whole {
            kept.open(&knows);
        }
        Self {
            whole,
            knows,
            told: Guarded::default(),
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
            if let Some(same) = all.get(&key).filter(|told| told.version == resource.version) {
                return Arc::clone(&same.resource);
            }
            let told = skew::tell(&resource, &self.knows, &self.kept.get(&self.knows, &resource));
            self.kept.put(&self.knows, &resource, told.forms);
            for complaint in &told.complaints {
                let Some(left_out) = self.complaints.may_say() else { continue };
                let resource = &resource.name;
                tracing::warn!(resource, left_out, "a sidecar of an older release cannot enforce {complaint}");
            }
            let version = resource.version.clone();
            let told = Sent { version, resource: told.resource.map_or(resource, Arc::new) };
            let newest = Arc::clone(&told.resource);
            all.insert(key, told);
            newest
        })
    }
}

#[cfg(test)]
mod tests {
    use selvedge_decide::capabilities::capabilities;
    use selvedge_xds::{
        kinds::INBOUND,
        proto::mesh::{Attachment, Inbound, Origin},
    };

    use super::*;

    /// The view of a workload that is covered by this policy.
    fn view(generation: u64, document: &str) -> Encoded {
        let origin = Origin { kind: "AuthorizationPolicy".into(), generation, ..Origin::default() };
        let policy = Attachment { origin: Some(origin), document: document.into(), stands_for: None };
        Encoded::new(INBOUND, "shop/web-1", Vec::new(), &Inbound { policies: vec![policy], ..Inbound::default() })
    }

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
        let metadata = Some(capabilities().to_metadata());
        let dialect = Dialects::default().of(&Node { metadata, ..Node::default() }, &identity("web")).unwrap();
        let resource = Arc::new(view(1, NEWER));
        assert!(Arc::ptr_eq(&dialect.tell(Arc::clone(&resource)), &resource));
    }
}
