//! Open loop: requests are due at random moments at a fixed mean rate, whatever the answers do, and latency counts
//! from the moment a request was due. A slow peer therefore cannot slow the load that measures it.

use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use tokio::{
    sync::{
        Mutex,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    task::JoinSet,
    time::Instant,
};

use super::Outcome;
use selvedge_benches::client::{Ask, Connection};

/// Requests that can be in flight.
const CALLERS: usize = 32;
/// Connections they share over HTTP/2.
const HTTP2_CONNECTIONS: usize = 4;

type Arrivals = Arc<Mutex<UnboundedReceiver<Instant>>>;

pub(super) async fn run(target: SocketAddr, ask: Ask, rate: u32, duration: Duration) -> anyhow::Result<Outcome> {
    let (mut connections, mut drivers) = (Vec::new(), JoinSet::new());
    for _ in 0..if ask == Ask::Http1 { CALLERS } else { HTTP2_CONNECTIONS } {
        let (connection, driver) = Connection::open(target, ask).await?;
        drivers.spawn(driver);
        connections.push(connection);
    }
    while connections.len() < CALLERS {
        let Some(shared) = connections[connections.len() % HTTP2_CONNECTIONS].share() else { break };
        connections.push(shared);
    }
    let (due, arrivals) = unbounded_channel();
    let arrivals = Arc::new(Mutex::new(arrivals));
    let mut callers: JoinSet<Outcome> =
        connections.into_iter().map(|connection| call(connection, Arc::clone(&arrivals))).collect();
    let start = Instant::now();
    // A thread of its own: the timers of the runtime tick in milliseconds, which would turn arrivals into bursts.
    thread::spawn(move || pace(&due, f64::from(rate), start + duration));
    let mut whole = Outcome::default();
    while let Some(part) = callers.join_next().await {
        let part = part?;
        whole.done += part.done;
        whole.failed += part.failed;
        whole.latencies.extend(part.latencies);
    }
    whole.seconds = start.elapsed().as_secs_f64();
    whole.latencies.sort_unstable();
    Ok(whole)
}

/// Says when each request is due, until `end` or until nobody listens.
fn pace(due: &UnboundedSender<Instant>, rate: f64, end: Instant) {
    let mut chance = fastrand::Rng::with_seed(7);
    let mut next = Instant::now();
    while next < end {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        if due.send(next).is_err() {
            return;
        }
        next += Duration::from_secs_f64(-(1.0 - chance.f64()).ln() / rate);
    }
}

/// Takes the arrivals that are its turn, one after the other.
async fn call(mut connection: Connection, arrivals: Arrivals) -> Outcome {
    let mut outcome = Outcome::default();
    loop {
        let Some(due) = arrivals.lock().await.recv().await else { return outcome };
        match connection.get().await {
            Ok(()) => {
                outcome.done += 1;
                outcome.latencies.push(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            Err(_) => outcome.failed += 1,
        }
    }
}
