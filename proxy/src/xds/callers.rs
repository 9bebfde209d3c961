//! Who calls in plaintext, as it is told to the control plane: somebody new at once, and again now and then for as long as
//! they call. What was seen lately is told again to whoever listens next, so nothing is lost with a connection.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use selvedge_xds::plaintext::{LATELY, MOST, Seen};

/// How long a caller that was told of is not told of again, and one that does not call keeps its place.
const AGAIN: Duration = Duration::from_secs(60);

/// The callers of the last [`LATELY`]. Times count from the start of the task.
#[derive(Debug, Default)]
pub(super) struct Callers {
    named: BTreeMap<IpAddr, Known>,
    /// How many more there were at once.
    more: Option<(u32, Known)>,
}

/// When somebody called last, and was told of last.
#[derive(Clone, Copy, Debug)]
struct Known {
    seen: Duration,
    told: Option<Duration>,
}

impl Known {
    const fn new(now: Duration) -> Self {
        Self { seen: now, told: None }
    }

    fn is_due(&self, now: Duration) -> bool {
        self.told.is_none_or(|told| self.seen > told && now.saturating_sub(told) >= AGAIN)
    }

    fn is_lately(&self, now: Duration) -> bool {
        now.saturating_sub(self.seen) < LATELY
    }
}

impl Callers {
    /// Notes that these called.
    pub(super) fn saw(&mut self, seen: Seen, now: Duration) {
        self.named.retain(|_, known| known.is_lately(now));
        self.more = self.more.filter(|(_, known)| known.is_lately(now));
        let mut more = seen.more;
        for caller in seen.callers {
            if let Some(known) = self.named.get_mut(&caller) {
                known.seen = now;
            } else if self.has_room(now) {
                self.named.insert(caller, Known::new(now));
            } else {
                more = more.saturating_add(1);
            }
        }
        if more == 0 {
            return;
        }
        let known = self.more.get_or_insert((more, Known::new(now)));
        known.1.seen = now;
        if known.0 < more {
            *known = (more, Known::new(now));
        }
    }

    /// Whether one more may be named, once somebody who has not called for a while has made way. The control plane was told of
    /// that one.
    fn has_room(&mut self, now: Duration) -> bool {
        if self.named.len() < MOST {
            return true;
        }
        let quiet = self.named.iter().filter(|(_, known)| known.told.is_some()).min_by_key(|(_, known)| known.seen);
        let quiet = quiet.filter(|(_, known)| now.saturating_sub(known.seen) >= AGAIN).map(|(caller, _)| *caller);
        quiet.is_some_and(|caller| self.named.remove(&caller).is_some())
    }

    /// Whom the control plane is to be told of now, as if it had been.
    pub(super) fn tell(&mut self, now: Duration) -> Seen {
        let mut news = Seen::default();
        for (caller, known) in self.named.iter_mut().filter(|(_, known)| known.is_lately(now) && known.is_due(now)) {
            known.told = Some(now);
            news.callers.insert(*caller);
        }
        if let Some((more, known)) = self.more.as_mut().filter(|(_, known)| known.is_lately(now) && known.is_due(now)) {
            known.told = Some(now);
            news.more = *more;
        }
        news
    }

    /// Begins anew with a control plane that knows nothing.
    pub(super) fn forget(&mut self) {
        self.named.values_mut().for_each(|known| known.told = None);
        self.more.iter_mut().for_each(|(_, known)| known.told = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    fn of(numbers: impl IntoIterator<Item = u16>) -> Seen {
        Seen { callers: numbers.into_iter().map(address).collect(), more: 0 }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_caller_is_told_of_at_once_and_then_once_a_minute_while_it_calls() {
        let mut callers = Callers::default();
        callers.saw(of([1]), at(0));
        assert_eq!((callers.tell(at(1)), callers.tell(at(1))), (of([1]), of([])));
        callers.saw(of([1, 2]), at(30));
        assert_eq!(callers.tell(at(30)), of([2]));
        callers.saw(of([1, 2]), at(61));
        assert_eq!(callers.tell(at(61)), of([1]));
        assert_eq!(callers.tell(at(200)), of([2]), "it called after it was told of");
        assert_eq!(callers.tell(at(300)), of([]), "nobody has called since");
    }

    #[test]
    fn another_control_plane_is_told_of_all_that_called_lately() {
        let mut callers = Callers::default();
        callers.saw(of([1]), at(0));
        callers.saw(of([2]), at(300));
        callers.tell(at(300));
        callers.forget();
        assert_eq!(callers.tell(at(500)), of([1, 2]));
        callers.forget();
        assert_eq!(callers.tell(at(700)), of([2]), "the other did not call for long");
    }

    #[test]
    fn whom_there_is_no_room_for_is_counted_and_named_when_others_are_gone() {
        let mut callers = Callers::default();
        let most = u16::try_from(MOST).unwrap();
        callers.saw(of(0..most), at(0));
        callers.saw(of(most..most + 5), at(1));
        let told = callers.tell(at(1));
        assert_eq!((told.callers.len(), told.more), (MOST, 5));
        callers.saw(of(1..most), at(100));
        callers.saw(of([most]), at(100));
        let told = callers.tell(at(100));
        assert!(told.callers.contains(&address(most)) && !told.callers.contains(&address(0)));
        callers.forget();
        assert_eq!(callers.tell(at(101)).more, 5, "that there were more is not forgotten");
    }
}
