//! Which addresses the hosts of services outside the mesh have, by look-ups of the sidecar's own: what says whether somebody
//! who calls an address calls the host that they name.
//!
//! Guarantees: nobody waits longer than [`PATIENCE`] for a look-up, and for one that gives no answer only those wait who asked
//! within that time. An address is believed for [`BELIEVED`] after the last look-up that gave it, so that a host that answers
//! with some of its addresses at a time has them all. A host is looked up while its service is in use, and so many hosts at
//! once; of those beyond that no address is believed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};

/// How long an address is believed to be a host's that no look-up gives any more.
const BELIEVED: Duration = Duration::from_secs(300);
/// How often a host in use is looked up.
const FRESH: Duration = Duration::from_secs(30);
/// How soon a host is looked up again for an address that the last look-up has not given.
const AGAIN: Duration = Duration::from_secs(1);
/// The same after a look-up that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a call waits for a look-up.
const PATIENCE: Duration = Duration::from_secs(1);
/// Hosts that are looked up.
const HOSTS: usize = 1024;
/// Look-ups at once; each has a thread.
const AT_ONCE: usize = 32;
/// Addresses of a host that are believed.
const ADDRESSES: usize = 64;

/// Whether an address is one of a host's.
#[derive(Debug)]
pub(crate) struct Question {
    /// The host, in lower case.
    pub host: String,
    /// The address that was called.
    pub address: IpAddr,
    /// Takes true where a look-up has given the address for the host.
    pub answer: oneshot::Sender<bool>,
}

/// Asks whether `address` is one of those of `host`. Not being able to say is a no.
pub(crate) async fn is_address_of(questions: &mpsc::Sender<Question>, host: &str, address: IpAddr) -> bool {
    let (answer, answered) = oneshot::channel();
    if questions.try_send(Question { host: host.to_owned(), address, answer }).is_err() {
        return false;
    }
    timeout(2 * PATIENCE, answered).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// What is known of the hosts.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    hosts: BTreeMap<String, Host>,
}

#[derive(Debug, Default)]
struct Host {
    /// When a look-up gave it last, by address.
    given: HashMap<IpAddr, Instant>,
    /// When the look-up began that is under way.
    begun: Option<Instant>,
    /// From when on it is looked up again for an address that is not known.
    not_before: Option<Instant>,
    /// When it is looked up again in any case.
    due: Option<Instant>,
    waiting: Vec<Question>,
}

impl Host {
    fn is_at(&self, address: IpAddr, now: Instant) -> bool {
        self.given.get(&address).is_some_and(|given| now < *given + BELIEVED)
    }

    fn is_late(&self, now: Instant) -> bool {
        self.begun.is_some_and(|begun| now >= begun + PATIENCE)
    }

    fn answer(&mut self, now: Instant) {
        for Question { address, answer, .. } in std::mem::take(&mut self.waiting) {
            let _gone = answer.send(self.is_at(address, now));
        }
    }
}

impl Resolver {
    /// Answers a question, or keeps it until a look-up ends. True when one of its host has to begin.
    pub(crate) fn ask(&mut self, question: Question, now: Instant) -> bool {
        let is_full = self.hosts.len() >= HOSTS && !self.hosts.contains_key(&question.host);
        let may_begin = self.under_way() < AT_ONCE;
        if is_full {
            return false; // who asks takes the end of the question for a no
        }
        let host = self.hosts.entry(question.host.clone()).or_default();
        let is_settled = host.is_at(question.address, now)
            || host.is_late(now)
            || host.begun.is_none() && (!may_begin || host.not_before.is_some_and(|again| now < again));
        host.waiting.push(question);
        if is_settled {
            host.answer(now);
            return false;
        }
        let begins = host.begun.is_none();
        host.begun.get_or_insert(now);
        begins
    }

    /// Takes what a look-up has given; true when other addresses are believed than before.
    pub(crate) fn ended(&mut self, name: &str, found: Option<Vec<IpAddr>>, now: Instant) -> bool {
        let Some(host) = self.hosts.get_mut(name) else { return false };
        let before: BTreeSet<IpAddr> = host.given.keys().copied().collect();
        let pause = if found.is_some() { AGAIN } else { AFTER_FAILURE };
        (host.begun, host.not_before, host.due) = (None, Some(now + pause), Some(now + FRESH));
        host.given.retain(|_, given| now < *given + BELIEVED);
        for address in found.into_iter().flatten().take(ADDRESSES) {
            host.given.insert(address, now);
        }
        while host.given.len() > ADDRESSES {
            let Some(oldest) = host.given.iter().min_by_key(|(_, given)| **given).map(|(address, _)| *address) else {
                break;
            };
            host.given.remove(&oldest);
        }
        host.answer(now);
        host.given.keys().copied().collect::<BTreeSet<_>>() != before
    }

    /// The hosts that have to be looked up now. Who has waited for long is answered.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<String> {
        let mut left = AT_ONCE.saturating_sub(self.under_way());
        let mut due = Vec::new();
        for (name, host) in &mut self.hosts {
            if host.is_late(now) {
                host.answer(now);
            }
            if left > 0 && host.begun.is_none() && host.due.is_none_or(|due| now >= due) {
                host.begun = Some(now);
                due.push(name.clone());
                left -= 1;
            }
        }
        due
    }

    /// Forgets hosts that are not in use, and addresses that are not believed any more; true when there were any.
    pub(crate) fn forget(&mut self, is_used: impl Fn(&str) -> bool, now: Instant) -> bool {
        let addresses = |hosts: &BTreeMap<String, Host>| hosts.values().map(|host| host.given.len()).sum::<usize>();
        let before = addresses(&self.hosts);
        self.hosts.retain(|name, host| host.begun.is_some() || is_used(name));
        self.hosts.values_mut().for_each(|host| host.given.retain(|_, given| now < *given + BELIEVED));
        addresses(&self.hosts) != before
    }

    /// When there is something to do by itself.
    pub(crate) fn next(&self) -> Option<Instant> {
        let is_full = self.under_way() >= AT_ONCE;
        let next = |host: &Host| match host.begun {
            Some(begun) if !host.waiting.is_empty() => Some(begun + PATIENCE),
            None if !is_full => host.due,
            Some(_) | None => host.given.values().min().map(|given| *given + BELIEVED),
        };
        self.hosts.values().filter_map(next).min()
    }

    /// The addresses that are believed, by host.
    pub(crate) fn believed(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let known = self.hosts.iter().filter(|(_, host)| !host.given.is_empty());
        known.map(|(name, host)| (name.clone(), host.given.keys().copied().collect())).collect()
    }

    fn under_way(&self) -> usize {
        self.hosts.values().filter(|host| host.begun.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "api.example";

    fn ip(last: u8) -> IpAddr {
        [203, 0, 113, last].into()
    }

    /// Asks whether HOST is at 203.0.113.`last`: whether a look-up begins, and where the answer comes.
    fn ask(resolver: &mut Resolver, host: &str, last: u8, now: Instant) -> (bool, oneshot::Receiver<bool>) {
        let (answer, answered) = oneshot::channel();
        (resolver.ask(Question { host: host.into(), address: ip(last), answer }, now), answered)
    }

    fn found(resolver: &mut Resolver, last: &[u8], now: Instant) -> bool {
        resolver.ended(HOST, Some(last.iter().map(|last| ip(*last)).collect()), now)
    }

    #[test]
    fn who_asks_together_waits_for_one_look_up_and_an_address_it_does_not_give_is_not_believed() {
        let (mut resolver, now) = (Resolver::default(), Instant::now());
        let (begins, mut first) = ask(&mut resolver, HOST, 1, now);
        let (again, mut forged) = ask(&mut resolver, HOST, 9, now);
        assert_eq!((begins, again), (true, false));
        assert!(first.try_recv().is_err(), "it waits");
        assert!(found(&mut resolver, &[1, 2], now));
        assert_eq!((first.try_recv(), forged.try_recv()), (Ok(true), Ok(false)));
        assert_eq!(resolver.believed()[HOST], [ip(1), ip(2)].into());
        assert_eq!(ask(&mut resolver, HOST, 2, now).1.try_recv(), Ok(true));
        let (begins, mut forged) = ask(&mut resolver, HOST, 9, now);
        assert_eq!((begins, forged.try_recv()), (false, Ok(false)), "it was looked up just now");
    }

    #[test]
    fn an_address_that_is_new_is_looked_up_soon_and_one_that_is_gone_is_believed_for_a_while() {
        let (mut resolver, start) = (Resolver::default(), Instant::now());
        assert!(ask(&mut resolver, HOST, 1, start).0);
        assert!(found(&mut resolver, &[1], start));
        let later = start + AGAIN;
        let (begins, mut moved) = ask(&mut resolver, HOST, 2, later);
        assert!(begins);
        assert!(found(&mut resolver, &[2], later));
        assert_eq!(moved.try_recv(), Ok(true));
        assert_eq!(resolver.believed()[HOST], [ip(1), ip(2)].into());

        let mut now = later;
        while now < start + BELIEVED {
            assert_eq!(resolver.believed()[HOST].contains(&ip(1)), now < start + BELIEVED);
            now += FRESH;
            assert_eq!((resolver.next(), resolver.due(now)), (Some(now), vec![HOST.to_owned()]));
            found(&mut resolver, &[2], now);
        }
        assert_eq!(resolver.believed()[HOST], [ip(2)].into());
    }

    #[test]
    fn look_ups_that_fail_are_not_made_again_at_once_and_take_nothing_away_for_a_while() {
        let (mut resolver, start) = (Resolver::default(), Instant::now());
        ask(&mut resolver, HOST, 1, start);
        found(&mut resolver, &[1], start);
        let mut now = start + AGAIN;
        let (begins, mut answer) = ask(&mut resolver, HOST, 2, now);
        assert!(begins && !resolver.ended(HOST, None, now));
        assert_eq!(answer.try_recv(), Ok(false));
        assert!(!ask(&mut resolver, HOST, 2, now + AGAIN).0, "it failed just now");
        assert_eq!(ask(&mut resolver, HOST, 1, now).1.try_recv(), Ok(true));
        now += AFTER_FAILURE;
        assert!(ask(&mut resolver, HOST, 2, now).0);
        assert!(resolver.ended(HOST, None, start + BELIEVED), "now it takes the address away");
        assert!(resolver.believed().is_empty());
    }

    #[test]
    fn a_host_that_gives_no_answer_costs_one_wait_and_nobody_elses() {
        let (mut resolver, start) = (Resolver::default(), Instant::now());
        let (_, mut first) = ask(&mut resolver, HOST, 1, start);
        assert_eq!(resolver.next(), Some(start + PATIENCE));
        let now = start + PATIENCE;
        assert!(resolver.due(now).is_empty());
        assert_eq!(first.try_recv(), Ok(false));
        assert_eq!(resolver.next(), None, "nothing is left to do");
        let (begins, mut second) = ask(&mut resolver, HOST, 1, now);
        assert_eq!((begins, second.try_recv()), (false, Ok(false)), "it does not wait");
        assert!(ask(&mut resolver, "other.example", 1, now).0);
        for n in 2..AT_ONCE {
            assert!(ask(&mut resolver, &format!("h{n}.example"), 1, now).0);
        }
        let (begins, mut beyond) = ask(&mut resolver, "beyond.example", 1, now);
        assert_eq!((begins, beyond.try_recv()), (false, Ok(false)), "so many at once");
        found(&mut resolver, &[1], now);
        assert!(ask(&mut resolver, "beyond.example", 1, now).0);
    }

    #[test]
    fn hosts_that_are_not_in_use_are_forgotten_and_so_many_are_known() {
        let (mut resolver, now) = (Resolver::default(), Instant::now());
        ask(&mut resolver, HOST, 1, now);
        assert!(!resolver.forget(|_| false, now), "it is being looked up");
        found(&mut resolver, &[1], now);
        assert!(!resolver.forget(|name| name == HOST, now));
        for n in 0..HOSTS {
            let host = format!("h{n}.example");
            let (begins, mut answer) = ask(&mut resolver, &host, 1, now);
            assert_eq!(begins, n + 1 < HOSTS, "{n}");
            assert!(begins || answer.try_recv().is_err(), "nobody answers");
            resolver.ended(&host, None, now);
        }
        assert!(resolver.forget(|_| false, now));
        assert_eq!((resolver.believed().len(), resolver.next()), (0, None));
    }

    #[test]
    fn no_address_is_believed_for_longer_because_a_look_up_does_not_end() {
        let (mut resolver, start) = (Resolver::default(), Instant::now());
        ask(&mut resolver, HOST, 1, start);
        found(&mut resolver, &[1], start);
        assert_eq!(resolver.due(start + FRESH), [HOST]);
        assert_eq!(resolver.next(), Some(start + BELIEVED));
        assert!(resolver.forget(|_| true, start + BELIEVED));
        assert!(resolver.believed().is_empty());
    }

    #[test]
    fn a_host_that_gives_ever_new_addresses_has_as_many_as_are_kept() {
        let (mut resolver, mut now) = (Resolver::default(), Instant::now());
        ask(&mut resolver, HOST, 0, now);
        for last in 0..=u8::MAX {
            found(&mut resolver, &[last], now);
            now += Duration::from_millis(1);
        }
        let newest: BTreeSet<IpAddr> = (192..=u8::MAX).map(ip).collect();
        assert_eq!(resolver.believed()[HOST], newest);
    }
}
