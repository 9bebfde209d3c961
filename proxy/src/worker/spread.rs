//! Connections are spread evenly over workers.
//!
//! The kernel gives a connection to a listener by a hash of its addresses, so of the few long-lived ones that a sidecar
//! has several may land on one worker and stay there. A worker that holds clearly more than another hands a new one
//! over before it has read a byte of it (what Envoy calls exact connection balance).

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::mpsc;

use crate::heading::Purpose;

/// How many more connections than another a worker holds before it hands new ones to it.
const SLACK: usize = 1;

/// A connection on its way to another worker.
#[derive(Debug)]
pub(crate) struct Handed {
    /// The socket, in nobody's hands.
    pub socket: TcpStream,
    /// Address and port of the other end (downstream).
    pub peer: SocketAddr,
    /// The listener it came on.
    pub purpose: Purpose,
}

/// One worker among all.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    seats: Arc<[Seat]>,
    own: usize,
}

#[derive(Debug)]
struct Seat {
    open: AtomicUsize,
    inbox: mpsc::UnboundedSender<Handed>,
}

/// A place for each of so many workers, with what others hand to it.
pub(crate) fn places(workers: usize) -> Vec<(Place, mpsc::UnboundedReceiver<Handed>)> {
    let (seats, inboxes): (Vec<Seat>, Vec<_>) = (0..workers)
        .map(|_| {
            let (inbox, handed) = mpsc::unbounded_channel();
            (Seat { open: AtomicUsize::new(0), inbox }, handed)
        })
        .unzip();
    let seats: Arc<[Seat]> = seats.into();
    inboxes.into_iter().enumerate().map(|(own, handed)| (Place { seats: seats.clone(), own }, handed)).collect()
}

impl Place {
    /// One more connection here.
    pub(crate) fn opened(&self) {
        self.seats[self.own].open.fetch_add(1, Relaxed);
    }

    /// Counts one connection less on this worker.
    pub(crate) fn closed(&self) {
        self.seats[self.own].open.fetch_sub(1, Relaxed);
    }

    /// Whether a new connection had better be another worker's.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lightest().is_some()
    }

    /// Hands a connection to the worker that holds the fewest. It comes back when that is this one, or is gone.
    pub(crate) fn hand_over(&self, handed: Handed) -> Result<(), Handed> {
        match self.lightest() {
            Some(seat) => seat.inbox.send(handed).map_err(|back| back.0),
            None => Err(handed),
        }
    }

    fn lightest(&self) -> Option<&Seat> {
        let own = self.seats[self.own].open.load(Relaxed);
        let (seat, open) =
            self.seats.iter().map(|seat| (seat, seat.open.load(Relaxed))).min_by_key(|(_, open)| *open)?;
        (own > open + SLACK).then_some(seat)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::heading::Heading;

    fn handed(listener: &TcpListener) -> Handed {
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = socket.peer_addr().unwrap();
        Handed { socket, peer, purpose: Purpose::Declared(Heading::Inbound { forward: peer, port: 80 }) }
    }

    #[test]
    fn the_worker_with_the_fewest_gets_what_another_has_too_many_of() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut places = places(3);
        let counts = |places: &[(Place, _)]| places[0].0.seats.iter().map(|s| s.open.load(Relaxed)).collect::<Vec<_>>();
        // All connections come in at the first worker, as they may where few peers keep one each.
        for _ in 0..30 {
            match places[0].0.hand_over(handed(&listener)) {
                Err(_stays) => places[0].0.opened(),
                Ok(()) => {
                    let taken = places.iter_mut().find_map(|(place, inbox)| inbox.try_recv().is_ok().then_some(place));
                    taken.expect("somebody has it").opened();
                }
            }
        }
        let spread = counts(&places);
        assert_eq!(spread.iter().sum::<usize>(), 30);
        assert!(spread.iter().all(|open| (9..=11).contains(open)), "{spread:?}");
        (0..spread[0]).for_each(|_| places[0].0.closed());
        assert!(!places[0].0.is_crowded() && places[1].0.is_crowded());
    }

    #[test]
    fn a_connection_for_a_worker_that_is_gone_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut places = places(2);
        drop(places.pop());
        (0..5).for_each(|_| places[0].0.opened());
        assert!(places[0].0.hand_over(handed(&listener)).is_err());
    }

    #[test]
    fn one_worker_keeps_all() {
        let places = places(1);
        (0..5).for_each(|_| places[0].0.opened());
        assert!(!places[0].0.is_crowded());
    }
}
