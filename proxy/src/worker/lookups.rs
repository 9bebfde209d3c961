//! How many new hosts of requests a worker asks the control plane for. Hosts may be what callers from outside like, and each
//! new one costs a question, and its request the wait for the answer.
//!
//! Guarantees: requests for one host ask once, and whoever is refused has waited for nothing. What is known, also that there
//! is no such service, needs no leave.

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
};

use crate::allowance::Allowance;

/// New hosts in a second, and in a burst: a gateway that begins may have the hosts of hundreds of services before it.
const PER_SECOND: f64 = 100.0;
const BURST: f64 = 500.0;

/// The hosts that are asked for now, and leave to ask for more.
#[derive(Debug)]
pub(crate) struct Lookups {
    allowance: Allowance,
    /// How many requests wait for each.
    waiting: RefCell<HashMap<String, usize>>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self { allowance: Allowance::new(PER_SECOND, BURST), waiting: RefCell::default() }
    }
}

/// Leave to wait for one host, for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Lookup<'a> {
    lookups: &'a Lookups,
    host: &'a str,
}

impl Lookups {
    /// Leave to ask for a host that nothing is known of; `None` when too many new ones come.
    pub(crate) fn begin<'a>(&'a self, host: &'a str) -> Option<Lookup<'a>> {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.entry(host.to_owned()) {
            Entry::Occupied(mut together) => *together.get_mut() += 1,
            Entry::Vacant(first) => {
                self.allowance.take()?;
                first.insert(1);
            }
        }
        Some(Lookup { lookups: self, host })
    }
}

impl Drop for Lookup<'_> {
    fn drop(&mut self) {
        let mut waiting = self.lookups.waiting.borrow_mut();
        let Some(left) = waiting.get_mut(self.host) else { return };
        *left -= 1;
        if *left == 0 {
            waiting.remove(self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_new_hosts_and_so_many_a_second_are_asked_for_and_one_host_once() {
        let lookups = Lookups::default();
        let hosts: Vec<String> = (0..2000).map(|n| format!("h{n}.shop")).collect();
        let asked: Vec<_> = hosts.iter().filter_map(|host| lookups.begin(host)).collect();
        assert_eq!(asked.len(), 500);
        assert!(hosts[..500].iter().all(|host| lookups.begin(host).is_some()), "they wait together");
        assert!(lookups.begin("other.shop").is_none());
        drop(asked);
        assert!(lookups.waiting.borrow().is_empty());
        advance(Duration::from_secs(1)).await;
        assert_eq!(hosts.iter().filter(|host| lookups.begin(host).is_some()).count(), 100);
    }
}
