//! Looks hosts up for the [`Resolver`], each on a thread of its own: the system's resolver may stand still for long.

use std::{
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
    thread,
};

use selvedge_decide::resources::Resources;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    resolver::{Question, Resolver},
    xds::Demand,
};

/// A host, and its addresses where the look-up did not fail.
type Found = (String, Option<Vec<IpAddr>>);

/// Answers workers for as long as there are any, and tells of the addresses that are believed.
pub(super) async fn run(
    mut questions: mpsc::Receiver<Question>,
    resources: watch::Receiver<Arc<Resources>>,
    demand: mpsc::UnboundedSender<Demand>,
) {
    let mut resolver = Resolver::default();
    let (sender, mut found) = mpsc::unbounded_channel();
    loop {
        let next = resolver.next();
        let wake = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            question = questions.recv() => {
                let Some(question) = question else { return };
                let host = question.host.clone();
                if resolver.ask(question, Instant::now()) {
                    look_up(host, sender.clone());
                }
                false
            }
            Some((host, addresses)) = found.recv() => resolver.ended(&host, addresses, Instant::now()),
            () = wake => {
                let known = resources.borrow().clone();
                let now = Instant::now();
                let changed = resolver.forget(|host| known.aliases.contains_key(host), now);
                resolver.due(now).into_iter().for_each(|host| look_up(host, sender.clone()));
                changed
            }
        };
        if changed {
            let _ = demand.send(Demand::LookedUp(Arc::new(resolver.believed()))); // the task lives as long as the process
        }
    }
}

/// Looks a host up as the application does, by the hosts file and the name servers of the machine. A thread that is still
/// waiting when the process ends does not keep it.
fn look_up(host: String, sender: mpsc::UnboundedSender<Found>) {
    let failed = (host.clone(), sender.clone());
    let look = move || {
        let found = (host.as_str(), 0).to_socket_addrs();
        let addresses = found.map(|found| found.map(|address| address.ip().to_canonical()).collect());
        let _ = sender.send((host, addresses.ok())); // the process may be ending
    };
    if thread::Builder::new().name("look-up".to_owned()).spawn(look).is_err() {
        let (host, sender) = failed;
        let _ = sender.send((host, None)); // as above
    }
}
