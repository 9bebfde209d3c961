//! Who calls in plaintext, as it is told to the control plane: somebody new at once, and again now and then for as long as
//! they call.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use selvedge_xds::plaintext;

/// How long a caller that was told of is not told of again.
const AGAIN: Duration = Duration::from_secs(60);

/// The callers that the control plane knows, and those that it is still to be told of.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// When each was told of last, since the start of the task.
    told: BTreeMap<IpAddr, Duration>,
    untold: BTreeSet<IpAddr>,
}

impl Callers {
    /// Notes that these called.
    pub(super) fn saw(&mut self, callers: BTreeSet<IpAddr>, now: Duration) {
        self.told.retain(|_, told| now.saturating_sub(*told) < AGAIN);
        let news = callers.into_iter().filter(|caller| !self.told.contains_key(caller));
        let room = plaintext::MOST.saturating_sub(self.told.len() + self.untold.len());
        self.untold.extend(news.take(room));
    }

    /// Whom the control plane is to be told of now, as if it had been.
    pub(super) fn tell(&mut self, now: Duration) -> BTreeSet<IpAddr> {
        let news = std::mem::take(&mut self.untold);
        self.told.extend(news.iter().map(|caller| (*caller, now)));
        news
    }

    /// Begins anew with a control plane that knows nothing.
    pub(super) fn forget(&mut self) {
        self.untold.extend(std::mem::take(&mut self.told).into_keys());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_told_of_at_once_and_then_once_a_minute_while_it_calls() {
        let of = |numbers: &[u8]| numbers.iter().map(|n| IpAddr::from([10, 0, 0, *n])).collect::<BTreeSet<_>>();
        let at = Duration::from_secs;
        let mut callers = Callers::default();
        callers.saw(of(&[1]), at(0));
        assert_eq!((callers.tell(at(1)), callers.tell(at(1))), (of(&[1]), of(&[])));
        callers.saw(of(&[1, 2]), at(30));
        assert_eq!(callers.tell(at(30)), of(&[2]));
        callers.saw(of(&[1, 2]), at(61));
        assert_eq!(callers.tell(at(61)), of(&[1]));
        callers.forget();
        assert_eq!(callers.tell(at(62)), of(&[1, 2]), "another control plane");
        callers.saw((0..=255).flat_map(|n| [[10, 0, 0, n], [10, 0, 1, n]]).map(IpAddr::from).collect(), at(63));
        assert_eq!(callers.tell(at(63)).len(), plaintext::MOST - 2);
    }
}
