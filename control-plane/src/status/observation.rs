//! Since when every pod with a sidecar of a namespace has been looked at, without a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a pod's sidecar may be away. One that begins or ends serves nobody without it, and what a sidecar sees while it has
/// no connection it tells afterwards.
const GAP: Duration = Duration::from_secs(60);

/// The namespaces that are looked at, since times of a clock that only goes ahead.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    namespaces: BTreeMap<String, Looking>,
}

#[derive(Clone, Copy, Debug)]
struct Looking {
    since: Duration,
    /// When every sidecar was there last.
    whole: Duration,
}

impl Observation {
    /// Notes the namespaces in which every pod with a sidecar is looked at `now`.
    pub(super) fn note(&mut self, whole: BTreeSet<String>, now: Duration) {
        self.namespaces.retain(|_, looking| now.saturating_sub(looking.whole) < GAP);
        for namespace in whole {
            self.namespaces.entry(namespace).or_insert(Looking { since: now, whole: now }).whole = now;
        }
    }

    /// How long the namespace has been looked at by `now`.
    pub(super) fn of(&self, namespace: &str, now: Duration) -> Duration {
        let looking = self.namespaces.get(namespace).filter(|looking| now.saturating_sub(looking.whole) < GAP);
        looking.map_or(Duration::ZERO, |looking| now.saturating_sub(looking.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_gap_is_none_and_after_a_long_one_it_begins_anew() {
        let mut observation = Observation::default();
        let at = Duration::from_secs;
        let whole = || BTreeSet::from(["shop".to_owned()]);
        for second in [100, 110, 120, 170] {
            observation.note(whole(), at(second));
        }
        assert_eq!((observation.of("shop", at(175)), observation.of("batch", at(175))), (at(75), Duration::ZERO));
        observation.note(BTreeSet::new(), at(229));
        assert_eq!(observation.of("shop", at(229)), at(129), "a rollout");
        observation.note(whole(), at(231));
        assert_eq!(observation.of("shop", at(240)), at(9), "nobody knows of what was between");
        assert_eq!(observation.of("shop", at(300)), Duration::ZERO, "nobody has looked whether they are there");
    }
}
