//! Who called in plaintext lately, as sidecars say it: bounded, and never less than what was said without a word of it.

use std::{collections::BTreeMap, net::IpAddr};

use selvedge_xds::plaintext::{self, Seen};

/// How long, in seconds, a caller is told of that did not call again.
pub(super) const LATELY: u64 = plaintext::LATELY.as_secs();
/// After how many seconds without a word of a caller its place may be another's: of one that goes on calling there is one
/// each minute.
const QUIET: u64 = 120;

/// The callers in plaintext of one workload, or of all workloads of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Callers {
    /// Each with the second of Unix time in which it was said last.
    named: BTreeMap<IpAddr, u64>,
    /// How many more there were, and when that was said last.
    more: Option<(usize, u64)>,
}

impl Callers {
    /// Notes what a sidecar says `now`, in seconds since the Unix epoch.
    pub(super) fn add(&mut self, seen: Seen, now: u64) {
        self.forget(now);
        let mut more = usize::try_from(seen.more).unwrap_or(usize::MAX);
        for caller in seen.callers {
            more = more.saturating_add(self.name(caller, now));
        }
        self.leave_out(more, now);
    }

    /// Notes what is known of others, too.
    pub(super) fn merge(&mut self, other: &Self, now: u64) {
        let mut more = other.lately_more(now);
        for (caller, said) in &other.named {
            more = more.saturating_add(self.name(*caller, *said));
        }
        self.leave_out(more, now);
        self.forget(now);
    }

    /// Those told of `now`, by address.
    pub(crate) fn lately(&self, now: u64) -> impl Iterator<Item = IpAddr> {
        self.named.iter().filter(move |(_, said)| is_lately(**said, now)).map(|(caller, _)| *caller)
    }

    /// How many more there were lately, at least; 0 says that none is left out.
    pub(crate) fn lately_more(&self, now: u64) -> usize {
        self.more.filter(|(_, said)| is_lately(*said, now)).map_or(0, |(more, _)| more)
    }

    /// True when nobody called lately.
    pub(super) fn is_empty(&self, now: u64) -> bool {
        self.lately(now).next().is_none() && self.lately_more(now) == 0
    }

    /// Gives `caller` a name. Returns how many are left out for it: one, where there is no room.
    fn name(&mut self, caller: IpAddr, said: u64) -> usize {
        if let Some(known) = self.named.get_mut(&caller) {
            *known = (*known).max(said);
            return 0;
        }
        let mut left_out = 0;
        if self.named.len() >= plaintext::MOST {
            left_out = 1;
            let quiet = self.named.iter().min_by_key(|(_, said)| **said).map(|(caller, said)| (*caller, *said));
            let Some((quiet, _)) = quiet.filter(|(_, last)| last + QUIET < said) else { return left_out };
            self.named.remove(&quiet);
        }
        self.named.insert(caller, said);
        left_out
    }

    fn leave_out(&mut self, more: usize, now: u64) {
        if more > 0 {
            self.more = Some((more.max(self.lately_more(now)), now));
        }
    }

    fn forget(&mut self, now: u64) {
        self.named.retain(|_, said| is_lately(*said, now));
        self.more = self.more.filter(|(_, said)| is_lately(*said, now));
    }
}

fn is_lately(said: u64, now: u64) -> bool {
    now.saturating_sub(said) < LATELY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    fn said(numbers: impl IntoIterator<Item = u16>) -> Seen {
        Seen { callers: numbers.into_iter().map(address).collect(), more: 0 }
    }

    fn told(callers: &Callers, now: u64) -> (Vec<IpAddr>, usize) {
        (callers.lately(now).collect(), callers.lately_more(now))
    }

    #[test]
    fn who_called_is_told_of_until_it_has_not_for_long() {
        let mut callers = Callers::default();
        callers.add(said([1, 2]), 100);
        callers.add(said([2]), 400);
        assert_eq!(told(&callers, 699), (vec![address(1), address(2)], 0));
        assert_eq!(told(&callers, 700), (vec![address(2)], 0));
        assert!(!callers.is_empty(999) && callers.is_empty(1000));
    }

    #[test]
    fn those_that_go_on_calling_stay_named_and_what_has_no_room_is_counted() {
        let mut callers = Callers::default();
        let most = u16::try_from(plaintext::MOST).unwrap();
        for now in [0, 60, 120, 180, 660] {
            callers.add(said(0..most), now);
            callers.add(said(most..most + 3), now);
            assert_eq!(told(&callers, now), ((0..most).map(address).collect(), 3), "at {now}");
        }
        assert_eq!(told(&callers, 660 + LATELY), (Vec::new(), 0));
        callers.add(Seen { more: 7, ..Seen::default() }, 2000);
        assert!(!callers.is_empty(2000), "what has no name is somebody all the same");
    }

    #[test]
    fn who_has_not_called_for_a_while_gives_its_place_to_who_calls_now() {
        let mut callers = Callers::default();
        let most = u16::try_from(plaintext::MOST).unwrap();
        callers.add(said(0..most), 0);
        callers.add(said(1..most), 200);
        callers.add(said([most]), 200);
        let (named, more) = told(&callers, 200);
        assert!(named.contains(&address(most)) && !named.contains(&address(0)));
        assert_eq!((named.len(), more), (plaintext::MOST, 1), "that it called is not forgotten");
    }
}
