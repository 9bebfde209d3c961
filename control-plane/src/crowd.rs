//! Room for callers that may be anybody: so much at once, and the address that has most gives way (max-min fairness).
//!
//! Guarantees: whoever comes gets a place at once; where that is too much in all, callers that wait are sent away: of the
//! address with most such callers the one that was silent longest. So neither many connections nor idle ones keep others
//! out. A caller that is being answered stays. One may take more room than another, as of bytes; that is counted then in
//! the place of callers.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::guarded::Guarded;

/// What counts as one address: that of IPv4, the network of a host of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

/// The callers that there are, and how many there may be.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    limit: usize,
    callers: Arc<Guarded<Callers>>,
}

#[derive(Debug, Default)]
struct Callers {
    /// Counts how often anybody was heard.
    moment: u64,
    /// What all take that were not sent away.
    all: usize,
    /// Those that may be sent away, of each address by when they were heard last.
    waiting: HashMap<IpAddr, BTreeMap<u64, Stay>>,
}

/// The place of a caller.
#[derive(Debug)]
struct Stay {
    takes: usize,
    /// Dropped when its caller is sent away.
    _told: oneshot::Sender<Infallible>,
}

/// Ends when the place is needed for somebody else, whatever it ends with.
pub(crate) type SentAway = oneshot::Receiver<Infallible>;

impl Crowd {
    /// A crowd of at most `limit` callers, or what they take instead; those excepted that are being answered.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, callers: Arc::default() }
    }

    /// Gives a caller from `address` a place until the value is dropped, and says when it is needed for somebody else.
    pub(crate) fn enter(&self, address: IpAddr) -> (Caller, SentAway) {
        let (told, sent_away) = oneshot::channel();
        let address = network(address);
        let heard = self.callers.with(|callers| {
            callers.all += 1;
            let heard = callers.put(address, Stay { takes: 1, _told: told });
            callers.make_room(self.limit);
            heard
        });
        (Caller { address, crowd: self.clone(), heard: AtomicU64::new(heard) }, sent_away)
    }
}

impl Callers {
    fn put(&mut self, address: IpAddr, stay: Stay) -> u64 {
        self.moment += 1;
        self.waiting.entry(address).or_default().insert(self.moment, stay);
        self.moment
    }

    fn take(&mut self, address: IpAddr, heard: u64) -> Option<Stay> {
        let of_address = self.waiting.get_mut(&address)?;
        let stay = of_address.remove(&heard);
        if of_address.is_empty() {
            self.waiting.remove(&address);
        }
        stay
    }

    fn make_room(&mut self, limit: usize) {
        while self.all > limit {
            let taken = |all: &BTreeMap<u64, Stay>| all.values().map(|stay| stay.takes).sum::<usize>();
            let silent =
                self.waiting.iter().filter_map(|(address, all)| Some((taken(all), *all.keys().next()?, *address)));
            let most = silent.max_by_key(|(taken, heard, _)| (*taken, Reverse(*heard)));
            let Some(stay) = most.and_then(|(_, heard, address)| self.take(address, heard)) else { return };
            self.all -= stay.takes;
        }
    }
}

/// One caller that has a place.
#[derive(Debug)]
pub(crate) struct Caller {
    address: IpAddr,
    crowd: Crowd,
    heard: AtomicU64,
}

impl Caller {
    /// It takes so much from now on, and was heard.
    pub(crate) fn takes(&self, much: usize) {
        let mut answered = self.answered();
        let Some(stay) = &mut answered.stay else { return };
        let before = std::mem::replace(&mut stay.takes, much);
        self.crowd.callers.with(|callers| callers.all = callers.all - before + much);
        drop(answered);
        self.crowd.callers.with(|callers| callers.make_room(self.crowd.limit));
    }

    /// It was heard now, so others have been silent longer.
    pub(crate) fn heard(&self) {
        drop(self.answered());
    }

    /// It is being answered until the value is dropped, and not sent away meanwhile.
    pub(crate) fn answered(&self) -> Answered<'_> {
        let heard = self.heard.load(Ordering::Relaxed);
        Answered { caller: self, stay: self.crowd.callers.with(|callers| callers.take(self.address, heard)) }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let heard = self.heard.load(Ordering::Relaxed);
        self.crowd.callers.with(|callers| {
            let stay = callers.take(self.address, heard);
            callers.all -= stay.map_or(0, |stay| stay.takes);
        });
    }
}

/// Held while a caller is being answered.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    caller: &'a Caller,
    /// Absent when it is sent away already.
    stay: Option<Stay>,
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        let Some(stay) = self.stay.take() else { return };
        let heard = self.caller.crowd.callers.with(|callers| callers.put(self.caller.address, stay));
        self.caller.heard.store(heard, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn stays(sent_away: &mut SentAway) -> bool {
        sent_away.try_recv() == Err(TryRecvError::Empty)
    }

    #[test]
    fn of_the_address_that_has_most_the_longest_silent_goes() {
        let crowd = Crowd::new(4);
        let mut few = crowd.enter(ip("10.0.0.1"));
        let mut many: Vec<_> = (0..100).map(|_| crowd.enter(ip("10.0.0.2"))).collect();
        let staying: Vec<bool> = many.iter_mut().map(|(_, sent_away)| stays(sent_away)).collect();
        assert!(stays(&mut few.1), "it was silent longest, and is alone at its address");
        assert_eq!((staying.iter().filter(|stays| **stays).count(), &staying[97..]), (3, &[true; 3][..]));
    }

    #[test]
    fn who_was_heard_last_stays_longest() {
        let crowd = Crowd::new(2);
        let (mut first, mut second) = (crowd.enter(ip("10.0.0.1")), crowd.enter(ip("10.0.0.1")));
        first.0.heard();
        let _third = crowd.enter(ip("10.0.0.1"));
        assert!(stays(&mut first.1) && !stays(&mut second.1));
    }

    #[test]
    fn who_is_being_answered_is_not_sent_away_and_waits_again_afterwards() {
        let crowd = Crowd::new(1);
        let mut caller = crowd.enter(ip("10.0.0.1"));
        let answered = caller.0.answered();
        let mut other = crowd.enter(ip("10.0.0.1"));
        assert!(stays(&mut caller.1) && !stays(&mut other.1));
        drop((answered, other));
        assert!(stays(&mut caller.1));
        let mut next = crowd.enter(ip("10.0.0.2"));
        assert!(!stays(&mut caller.1) && stays(&mut next.1));
    }

    #[test]
    fn who_takes_more_room_gives_way_and_who_goes_on_before_who_stalls_does() {
        let crowd = Crowd::new(100);
        let mut whole = crowd.enter(ip("10.0.0.1"));
        let mut stalled: Vec<_> = (0..20).map(|_| crowd.enter(ip("10.0.0.1"))).collect();
        stalled.iter().for_each(|(caller, _)| caller.takes(4));
        whole.0.takes(20);
        assert!(
            stays(&mut whole.1) && stalled.iter_mut().all(|(_, sent_away)| stays(sent_away)),
            "there is room for all"
        );
        whole.0.takes(26);
        let staying: Vec<bool> = stalled.iter_mut().map(|(_, sent_away)| stays(sent_away)).collect();
        assert_eq!((stays(&mut whole.1), &staying[..3]), (true, &[false, false, true][..]), "the longest silent go");
        let mut other = crowd.enter(ip("10.0.0.2"));
        other.0.takes(40);
        assert!(stays(&mut other.1) && !stays(&mut stalled[9].1), "the address with most gives way");
        stalled[0].0.takes(50);
        drop((whole, other, stalled));
        crowd.callers.with(|callers| assert!(callers.all == 0 && callers.waiting.is_empty(), "{callers:?}"));
    }

    #[test]
    fn hosts_of_ipv6_have_many_addresses_and_count_as_one() {
        let crowd = Crowd::new(10);
        let mut other = crowd.enter(ip("fd00:0:0:1::1"));
        let many: Vec<_> = (0..100).map(|host| crowd.enter(ip(&format!("fd00::{host:x}")))).collect();
        assert!(stays(&mut other.1));
        drop((many, other));
        crowd.callers.with(|callers| assert!(callers.all == 0 && callers.waiting.is_empty(), "{callers:?}"));
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"), "the same in another form");
    }
}
