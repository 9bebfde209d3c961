//! One worker: a thread with its own runtime, listeners, connection pools, balancer state and counters.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    fmt, io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use selvedge_policies::facts::Moment;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, interval},
};

use super::{
    drain::{Drain, Open, Phase},
    spread::{Handed, Place},
};
use crate::{
    accept::{Accepted, Purpose},
    balance::{self, cluster::Snapshot, endpoint::Endpoint},
    clock::{self, TimeOfDay},
    config::{CONNECT_TIMEOUT, EndpointConfig, InForce, Transport, carry},
    exchange::Heading,
    http::{case, pace::CallerTimeouts},
    pipeline,
    telemetry::{Telemetry, WorkerTelemetry},
    xds::Demand,
};

/// How often a worker tells which destinations it has used, closes what is idle for long, and looks at the clock.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// Addresses outside any cluster that are remembered.
const LOCALS: usize = 1024;

/// What a worker is started with.
pub struct Setup {
    /// Bound listeners, with what each is for.
    pub listeners: Vec<(std::net::TcpListener, Purpose)>,
    /// Configurations.
    pub configs: watch::Receiver<InForce>,
    /// Where destinations are asked for.
    pub demand: mpsc::UnboundedSender<Demand>,
    /// Counters.
    pub telemetry: Telemetry,
    /// The drain.
    pub phases: watch::Receiver<Phase>,
    /// Connections open on all workers.
    pub open: Arc<Open>,
    /// Its place among the workers, and what others hand to it.
    pub place: (Place, mpsc::UnboundedReceiver<Handed>),
    /// Connections this worker holds at most in each direction.
    pub max_connections: usize,
    /// How slow callers may be.
    pub caller_timeouts: CallerTimeouts,
}

/// The state of one worker. It never leaves its thread.
pub struct Worker {
    /// Counters and log of this worker.
    pub telemetry: WorkerTelemetry,
    /// How peers' messages are spelled.
    pub spellings: case::Memory,
    /// How slow callers may be.
    pub caller_timeouts: CallerTimeouts,
    snapshot: RefCell<Rc<Snapshot>>,
    /// Endpoints that belong to no cluster: the application, and addresses outside the mesh.
    locals: RefCell<HashMap<SocketAddr, Rc<Endpoint>>>,
    chance: RefCell<fastrand::Rng>,
    started: Instant,
    time_of_day: TimeOfDay,
    configs: watch::Receiver<InForce>,
    demand: mpsc::UnboundedSender<Demand>,
    used: RefCell<HashSet<Arc<str>>>,
    phases: watch::Receiver<Phase>,
    open: Arc<Open>,
    place: Place,
    /// Calls received, calls made.
    connections: [Cell<usize>; 2],
    max_connections: usize,
}

/// Runs a worker on the calling thread until the process ends.
pub fn run(setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let Setup { listeners, configs, demand, telemetry, phases, open, place, max_connections, caller_timeouts } =
            setup;
        let (place, handed) = place;
        let mut ended = phases.clone();
        let InForce { config, trust } = configs.borrow().clone();
        let worker = Rc::new(Worker {
            telemetry: telemetry.worker(),
            spellings: case::Memory::default(),
            caller_timeouts,
            snapshot: RefCell::new(Rc::new(Snapshot { config, trust, ..Snapshot::default() })),
            locals: RefCell::default(),
            chance: RefCell::new(fastrand::Rng::new()),
            started: Instant::now(),
            time_of_day: TimeOfDay::new(clock::since_epoch()),
            configs,
            demand,
            used: RefCell::default(),
            phases,
            open,
            place,
            connections: Default::default(),
            max_connections,
        });
        let seen = worker.clone();
        let breakers = move || balance::breakers(&seen.snapshot(), seen.now());
        tokio::task::spawn_local(worker.telemetry.clone().serve_flushes(breakers));
        for (listener, purpose) in listeners {
            tokio::task::spawn_local(accept(worker.clone(), TcpListener::from_std(listener)?, purpose));
        }
        tokio::task::spawn_local(receive(worker.clone(), handed));
        let mut configs = worker.configs();
        worker.refresh(&mut configs);
        let mut housekeeping = interval(HOUSEKEEPING);
        loop {
            tokio::select! {
                changed = configs.changed() => match changed {
                    Ok(()) => drop(worker.refresh(&mut configs)),
                    Err(_) => return Ok(()),
                },
                _ = housekeeping.tick() => worker.keep_house(),
                gone = ended.wait_for(|_| false) => if gone.is_err() { return Ok(()) },
            }
        }
    })
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, purpose: Purpose) {
    let mut drain = worker.drain();
    let inbound = purpose.is_inbound();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.shut(inbound) => return,
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

impl Worker {
    /// The configuration in force on this worker.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Configurations to come.
    pub fn configs(&self) -> watch::Receiver<InForce> {
        self.configs.clone()
    }

    /// Puts the newest configuration in force, unless another task of this worker has done so already.
    pub fn refresh(&self, configs: &mut watch::Receiver<InForce>) -> Rc<Snapshot> {
        let in_force = configs.borrow_and_update().clone();
        let current = self.snapshot();
        if Arc::ptr_eq(&in_force.config, &current.config) && !current.clusters.is_empty() {
            return current;
        }
        self.telemetry.set_access_log(in_force.config.access_log);
        let next = Rc::new(carry::carry(in_force, &current));
        *self.snapshot.borrow_mut() = next.clone();
        next
    }

    /// Time for decisions.
    pub fn now(&self) -> Moment {
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Moment { nanos, unix: self.time_of_day.unix() }
    }

    /// Chance for decisions.
    pub fn chance<T>(&self, decide: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        decide(&mut self.chance.borrow_mut())
    }

    /// Asks the control plane for a destination.
    pub fn want(&self, name: &str) {
        let _ = self.demand.send(Demand::Want(name.to_owned())); // without a control thread the process is ending
    }

    /// Notes that a destination is in use, so that it stays subscribed.
    pub fn used(&self, name: &Arc<str>) {
        if !self.used.borrow().contains(name) {
            self.used.borrow_mut().insert(name.clone());
        }
    }

    /// The endpoint at an address that is in no cluster.
    pub fn local(&self, address: SocketAddr) -> Rc<Endpoint> {
        let mut locals = self.locals.borrow_mut();
        if let Some(endpoint) = locals.get(&address) {
            return endpoint.clone();
        }
        if locals.len() >= LOCALS {
            locals.retain(|_, endpoint| Rc::strong_count(endpoint) > 1);
        }
        let config = EndpointConfig {
            cluster: String::new(),
            address,
            transport: Transport::Plain,
            workload: String::new(),
            namespace: String::new(),
            identity: String::new(),
            weight: 1,
            http2: false,
            breaker: None,
            connect_timeout: CONNECT_TIMEOUT,
        };
        let endpoint = Rc::new(Endpoint::new(Arc::new(config)));
        locals.insert(address, endpoint.clone());
        endpoint
    }

    /// The drain, as a connection sees it.
    pub fn drain(&self) -> Drain {
        Drain::new(self.phases.clone())
    }

    /// True when it holds more connections of this direction than it may. Callers must not cost the application its
    /// own calls.
    pub fn is_overloaded(&self, heading: &Heading) -> bool {
        self.connections(heading).get() > self.max_connections
    }

    const fn connections(&self, heading: &Heading) -> &Cell<usize> {
        match heading {
            Heading::Inbound { .. } => &self.connections[0],
            Heading::Outbound { .. } => &self.connections[1],
        }
    }

    fn keep_house(&self) {
        self.time_of_day.look(clock::since_epoch());
        let used: Vec<String> = self.used.borrow_mut().drain().map(|name| name.to_string()).collect();
        if !used.is_empty() {
            let _ = self.demand.send(Demand::Used(used)); // as in `want`
        }
        let snapshot = self.snapshot();
        let clustered = snapshot.clusters.values().flat_map(|cluster| &cluster.endpoints);
        for endpoint in clustered.chain(self.locals.borrow().values()) {
            endpoint.pool.sweep();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// Leave for one connection.
#[derive(Debug)]
pub struct Permit {
    worker: Rc<Worker>,
    heading: Heading,
}

impl Permit {
    /// Counts one more connection.
    pub fn take(worker: &Rc<Worker>, heading: &Heading) -> Self {
        worker.connections(heading).update(|open| open + 1);
        worker.open.opened(heading);
        worker.place.opened();
        Self { worker: worker.clone(), heading: heading.clone() }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.worker.connections(&self.heading).update(|open| open.saturating_sub(1));
        self.worker.open.closed(&self.heading);
        self.worker.place.closed();
    }
}
