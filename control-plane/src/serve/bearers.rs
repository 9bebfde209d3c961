//! Who bears which identity, as far as certificates are renewed for it.
//!
//! An identity that nobody bears any more must end with its last certificate, and nobody who has one may lose it because the
//! control plane does not know everything. So a renewal is refused only when all that users wrote has been known for
//! [`ABSENCE`], and no workload, of a file or of a pod, has had the identity in that time. After a start that is not known before
//! then, nor while a source is away, an object is broken or a file is held.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{guarded::Guarded, snapshot::Snapshot};

/// How long nobody may have borne an identity of which no certificate is renewed.
pub(crate) const ABSENCE: Duration = Duration::from_secs(600);

/// Who is known to bear an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Borne {
    /// A workload, at the last look.
    Now,
    /// Perhaps nobody.
    Unknown,
    /// Nobody, for long enough.
    Nobody,
}

/// What is known of the bearers of identities.
#[derive(Debug, Default)]
pub(crate) struct Bearers {
    seen: Guarded<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// When an identity was borne last, of those that were in the last [`ABSENCE`].
    last: HashMap<Arc<str>, Instant>,
    /// When it was looked last.
    looked: Option<Instant>,
    /// Since when all that users wrote is known, at each look.
    whole_since: Option<Instant>,
}

impl Bearers {
    /// Notes who bears which identity at `now`, and whether all that users wrote is known.
    pub(crate) fn look(&self, snapshot: &Snapshot, is_whole: bool, now: Instant) {
        self.seen.with(|seen| {
            seen.looked = Some(now);
            seen.whole_since = if is_whole { seen.whole_since.or(Some(now)) } else { None };
            for identity in snapshot.identities() {
                match seen.last.get_mut(identity) {
                    Some(last) => *last = now,
                    None => _ = seen.last.insert(identity.clone(), now),
                }
            }
            seen.last.retain(|_, last| now.duration_since(*last) < ABSENCE);
        });
    }

    /// Whether somebody bears `identity` at `now`.
    pub(crate) fn borne(&self, identity: &str, now: Instant) -> Borne {
        let is_long = |since: &Instant| now.duration_since(*since) >= ABSENCE;
        self.seen.with(|seen| match seen.last.get(identity) {
            last @ Some(_) if last == seen.looked.as_ref() => Borne::Now,
            Some(last) if !is_long(last) => Borne::Unknown,
            _ if seen.whole_since.as_ref().is_some_and(is_long) => Borne::Nobody,
            _ => Borne::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Draft;

    const WEB: &str = "spiffe://mesh.local/ns/shop/sa/web";

    fn with(identities: &[&str]) -> Snapshot {
        let mut draft = Draft::after(&Snapshot::default());
        for (number, identity) in identities.iter().enumerate() {
            draft.set_identity(&format!("shop/web-{number}"), Some((*identity).to_owned()));
        }
        draft.finish().unwrap()
    }

    #[test]
    fn an_identity_that_nobody_has_ends_after_ten_minutes_of_knowing_that() {
        let (bearers, start) = (Bearers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        bearers.look(&with(&[WEB]), true, at(0));
        assert_eq!(bearers.borne(WEB, at(1)), Borne::Now);
        bearers.look(&with(&[]), true, at(5));
        assert_eq!(bearers.borne(WEB, at(599)), Borne::Unknown, "it may come back, as one that is replaced does");
        bearers.look(&with(&[]), true, at(600));
        assert_eq!(bearers.borne(WEB, at(600)), Borne::Nobody);
        bearers.look(&with(&[WEB]), true, at(700));
        assert_eq!(bearers.borne(WEB, at(701)), Borne::Now);
    }

    /// A control plane that starts while its source is away, for longer than certificates last.
    #[test]
    fn nobody_loses_an_identity_because_the_control_plane_does_not_know_everything() {
        let (bearers, start) = (Bearers::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(bearers.borne(WEB, at(0)), Borne::Unknown, "nobody has looked");
        for seconds in (0..100_000).step_by(500) {
            bearers.look(&with(&[]), false, at(seconds));
            assert_eq!(bearers.borne(WEB, at(seconds)), Borne::Unknown, "after {seconds} s");
        }
        bearers.look(&with(&[]), true, at(100_000));
        assert_eq!(bearers.borne(WEB, at(100_599)), Borne::Unknown, "all is known for less than ten minutes");
        bearers.look(&with(&[]), false, at(100_590));
        bearers.look(&with(&[]), true, at(100_600));
        assert_eq!(bearers.borne(WEB, at(101_000)), Borne::Unknown, "it was not known in between");
    }
}
