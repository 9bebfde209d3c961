//! The thread of one worker: its runtime, its listeners, and what it does from time to time.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::interval,
};

use super::door::Door;
use crate::{
    arrival::Accepted,
    heading::Purpose,
    pipeline,
    worker::{
        Shared, Worker,
        spread::{Handed, Place},
    },
};

/// How often a worker tells which destinations it has used, closes what is idle for long, and looks at the clock.
const HOUSEKEEPING: Duration = Duration::from_secs(15);

/// What a worker is started with.
pub(crate) struct Setup {
    /// Bound listeners, with what each is for.
    pub listeners: Vec<(Arc<std::net::TcpListener>, Purpose)>,
    /// Its place among the workers, and what others hand to it.
    pub place: (Place, mpsc::UnboundedReceiver<Handed>),
    /// Asks whether it lives.
    pub asked: mpsc::Receiver<oneshot::Sender<()>>,
    /// What it shares with the rest of the sidecar.
    pub shared: Shared,
}

/// Runs a worker on the calling thread until the process ends.
pub(crate) fn run(setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let Setup { listeners, place: (place, handed), asked, shared } = setup;
        let mut ended = shared.phases.clone();
        let found = shared.surroundings.clone();
        let worker = Rc::new(Worker::new(place, shared));
        let seen = worker.clone();
        tokio::task::spawn_local(worker.telemetry.clone().serve_flushes(move || seen.look()));
        for (listener, purpose) in listeners {
            let door = Door::new(listener, &purpose, found.clone());
            tokio::task::spawn_local(accept(worker.clone(), door, purpose));
        }
        tokio::task::spawn_local(receive(worker.clone(), handed));
        let mut configs = worker.configs();
        worker.refresh(&mut configs);
        tokio::task::spawn_local(keep_house(worker.clone()));
        tokio::task::spawn_local(answer(asked));
        loop {
            tokio::select! {
                changed = configs.changed() => match changed {
                    Ok(()) => drop(worker.refresh(&mut configs)),
                    Err(_) => return Ok(()),
                },
                gone = ended.wait_for(|_| false) => if gone.is_err() { return Ok(()) },
            }
        }
    })
}

/// In a task of its own: a thread writes to itself to wake what it blocks on.
async fn keep_house(worker: Rc<Worker>) {
    let mut housekeeping = interval(HOUSEKEEPING);
    loop {
        housekeeping.tick().await;
        worker.keep_house();
    }
}

/// Says that the worker lives, when asked.
pub(super) async fn answer(mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
    while let Some(answer) = asked.recv().await {
        let _ = answer.send(()); // nobody may wait for it any more
    }
}

async fn accept(worker: Rc<Worker>, mut door: Door, purpose: Purpose) {
    let mut drain = worker.drain();
    let inbound = purpose.is_inbound();
    let address = door.address();
    loop {
        let accepted = tokio::select! {
            accepted = door.accept() => accepted,
            () = drain.shut(inbound, || worker.keeps(address)) => return,
        };
        match accepted {
            Ok((socket, peer)) if worker.place.is_crowded() => hand_over(&worker, socket, peer, purpose.clone()),
            Ok((socket, peer)) => take(&worker, socket, peer, purpose.clone()),
            // Out of descriptors or memory: accepting again at once would only spin.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn take(worker: &Rc<Worker>, socket: TcpStream, peer: SocketAddr, purpose: Purpose) {
    let accepted = Accepted { worker: worker.clone(), socket, peer, purpose };
    tokio::task::spawn_local(pipeline::connection(accepted));
}

/// Lets a worker with fewer connections have it.
fn hand_over(worker: &Rc<Worker>, socket: TcpStream, peer: SocketAddr, purpose: Purpose) {
    let Ok(socket) = socket.into_std() else { return };
    if let Err(back) = worker.place.hand_over(Handed { socket, peer, purpose }) {
        take_handed(worker, back);
    }
}

async fn receive(worker: Rc<Worker>, mut handed: mpsc::UnboundedReceiver<Handed>) {
    while let Some(handed) = handed.recv().await {
        take_handed(&worker, handed);
    }
}

fn take_handed(worker: &Rc<Worker>, Handed { socket, peer, purpose }: Handed) {
    match TcpStream::from_std(socket) {
        Ok(socket) => take(worker, socket, peer, purpose),
        Err(error) => {
            tracing::warn!(%error, %peer, "a connection could not be handed to another worker and was closed")
        }
    }
}

#[cfg(test)]
mod tests;
