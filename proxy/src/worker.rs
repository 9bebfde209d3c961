//! The state of one worker: connection pools, balancer state, counters, and the configuration in force on its thread.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use selvedge_decide::{assemble, resources::Resources};
use selvedge_policies::facts::Moment;
use selvedge_xds::plaintext::Seen;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    clock::{self, TimeOfDay},
    cluster::{Cluster, Snapshot, carry, endpoint::Endpoint},
    config::{EndpointConfig, InForce, Transport},
    drain::{Drain, Kept, Open, Phase},
    heading::Heading,
    http::pace::CallerTimeouts,
    ledger::{Everywhere, Ledgers},
    probes::{Peer, Probes},
    resolver::Question,
    surroundings::Surroundings,
    telemetry::{Direction, Telemetry, WorkerSeen, WorkerTelemetry},
    xds::{Demand, Heard},
};

pub(crate) mod lookups;
pub(crate) mod patience;
pub(crate) mod spread;

use lookups::Lookups;
use patience::Patience;
use spread::Place;

/// Addresses outside any cluster that are remembered.
const LOCALS: usize = 1024;

/// What all workers of a sidecar share.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The newest configuration, each as soon as it is published.
    pub configs: watch::Receiver<InForce>,
    /// What the control plane has said by now. Of names that stand for nothing it knows more than the configuration.
    pub resources: watch::Receiver<Arc<Resources>>,
    /// Where destinations are asked for.
    pub demand: mpsc::UnboundedSender<Demand>,
    /// How often the control plane was heard.
    pub heard: Heard,
    /// What all workers count in, and the access log.
    pub telemetry: Telemetry,
    /// How far the drain has come.
    pub phases: watch::Receiver<Phase>,
    /// Connections open on all workers.
    pub open: Arc<Open>,
    /// Connections one worker holds at most in each direction.
    pub max_connections: usize,
    /// How slow callers may be.
    pub caller_timeouts: CallerTimeouts,
    /// Whether services are found by the host of requests that the workload makes.
    pub by_host: bool,
    /// What may be asked of the application without mTLS.
    pub probes: Arc<Probes>,
    /// Whether the application listens, where that has to be known.
    pub surroundings: watch::Receiver<Surroundings>,
    /// Bytes that the heads of open requests take, by caller; the one bound that all workers share.
    pub everywhere: Everywhere,
    /// Where it is asked whether an address is one of a host's; `None` where no address is known that was called.
    pub resolver: Option<mpsc::Sender<Question>>,
    /// The listeners that stay with this process when another takes its place.
    pub kept: Kept,
}

/// The state of one worker. It never leaves its thread.
pub(crate) struct Worker {
    /// Counters and log of this worker.
    pub telemetry: WorkerTelemetry,
    /// How slow callers may be.
    pub caller_timeouts: CallerTimeouts,
    /// Whether services are found by the host of requests that the workload makes.
    pub by_host: bool,
    /// What may be asked of the application without mTLS.
    pub probes: Arc<Probes>,
    /// Where it is asked whether an address is one of a host's; `None` where no address is known that was called.
    pub resolver: Option<mpsc::Sender<Question>>,
    snapshot: RefCell<Rc<Snapshot>>,
    /// Endpoints that are configured no more, as long as tries at them may end yet.
    left: RefCell<Vec<Rc<Endpoint>>>,
    /// Endpoints that belong to no cluster: the application, and addresses outside the mesh.
    locals: RefCell<HashMap<(Direction, SocketAddr), Rc<Endpoint>>>,
    chance: RefCell<fastrand::Rng>,
    started: Instant,
    time_of_day: TimeOfDay,
    configs: watch::Receiver<InForce>,
    resources: watch::Receiver<Arc<Resources>>,
    demand: mpsc::UnboundedSender<Demand>,
    /// Whether waiting for an answer is any use.
    pub patience: Patience,
    /// How many new hosts it asks for.
    pub lookups: Lookups,
    /// What those cost who call.
    pub ledgers: Ledgers,
    used: RefCell<HashSet<Arc<str>>>,
    /// Who called in plaintext since the control plane was told last.
    plaintext: RefCell<Seen>,
    phases: watch::Receiver<Phase>,
    kept: Kept,
    open: Arc<Open>,
    /// Its place among the workers.
    pub place: Place,
    /// Calls received, calls made.
    connections: [Cell<usize>; 2],
    max_connections: usize,
}

impl Worker {
    /// The state of a worker that has seen nothing yet. Call it on the worker's thread.
    pub(crate) fn new(place: Place, shared: Shared) -> Self {
        let Shared { configs, resources, demand, heard, telemetry, phases, open, .. } = shared;
        let Shared { max_connections, caller_timeouts, by_host, probes, everywhere, resolver, kept, .. } = shared;
        let InForce { config, trust } = configs.borrow().clone();
        Self {
            telemetry: telemetry.worker(),
            caller_timeouts,
            by_host,
            probes,
            resolver,
            snapshot: RefCell::new(Rc::new(Snapshot { config, trust, ..Snapshot::default() })),
            left: RefCell::default(),
            locals: RefCell::default(),
            chance: RefCell::new(fastrand::Rng::new()),
            started: Instant::now(),
            time_of_day: TimeOfDay::new(clock::since_epoch()),
            configs,
            resources,
            demand,
            patience: Patience::new(heard),
            lookups: Lookups::default(),
            ledgers: Ledgers::new(everywhere),
            used: RefCell::default(),
            plaintext: RefCell::default(),
            phases,
            kept,
            open,
            place,
            connections: Default::default(),
            max_connections,
        }
    }

    /// The configuration in force on this worker.
    pub(crate) fn snapshot(&self) -> Rc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Tells of each configuration that is published from now on.
    pub(crate) fn configs(&self) -> watch::Receiver<InForce> {
        self.configs.clone()
    }

    /// Tells of everything that the control plane says from now on, also of what changes no configuration.
    pub(crate) fn resources(&self) -> watch::Receiver<Arc<Resources>> {
        self.resources.clone()
    }

    /// Whether the control plane knows no destination of this name.
    pub(crate) fn is_absent(&self, name: &str) -> bool {
        self.resources.borrow().absent.contains(name)
    }

    /// Whether so much is known of the address in `name` that what is at it can be said without the control plane.
    pub(crate) fn is_address_known(&self, name: &str) -> bool {
        let resources = self.resources.borrow();
        assemble::asked(name).skip(1).any(|address| resources.destinations.contains_key(&address))
    }

    /// Whether the control plane can be asked now.
    pub(crate) fn is_connected(&self) -> bool {
        self.resources.borrow().connected
    }

    /// Puts the newest configuration in force, unless another task of this worker has done so already.
    pub(crate) fn refresh(&self, configs: &mut watch::Receiver<InForce>) -> Rc<Snapshot> {
        let in_force = configs.borrow_and_update().clone();
        let current = self.snapshot();
        let is_same = Arc::ptr_eq(&in_force.config, &current.config) && Arc::ptr_eq(&in_force.trust, &current.trust);
        if is_same && !current.clusters.is_empty() {
            return current;
        }
        self.telemetry.set_access_log(in_force.config.access_log);
        let next = Rc::new(carry::carry(in_force, &current));
        self.left.borrow_mut().extend(carry::left(&current, &next));
        *self.snapshot.borrow_mut() = next.clone();
        self.settle();
        next
    }

    /// Counts what was tried at endpoints that are configured no more, and forgets those where no try can end any more. When
    /// somebody looks next they are not there to be asked.
    fn settle(&self) {
        let now = self.now();
        self.left.borrow_mut().retain(|endpoint| {
            self.telemetry.endpoint_left(&endpoint.look(now));
            endpoint.is_in_use()
        });
    }

    /// The moment that decisions of this worker are handed: monotonic nanoseconds, and seconds of the Unix epoch.
    pub(crate) fn now(&self) -> Moment {
        let now = Instant::now();
        let nanos = u64::try_from((now - self.started).as_nanos()).unwrap_or(u64::MAX);
        Moment { nanos, unix: self.time_of_day.unix(now) }
    }

    /// Hands the source of chance of this worker to `decide`, which must not ask for it again meanwhile.
    pub(crate) fn chance<T>(&self, decide: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        decide(&mut self.chance.borrow_mut())
    }

    /// Asks the control plane for a destination.
    pub(crate) fn want(&self, name: &str) {
        let _ = self.demand.send(Demand::Want(name.to_owned())); // without a control thread the process is ending
    }

    /// Notes that a name is in use, so that it stays subscribed, whatever it stands for.
    pub(crate) fn used(&self, name: &str) {
        if !self.used.borrow().contains(name) {
            self.used.borrow_mut().insert(name.into());
        }
    }

    /// Notes who was let in without an identity: the control plane tells those who would close the workload to plaintext.
    pub(crate) fn called_in_plaintext(&self, caller: IpAddr) {
        self.plaintext.borrow_mut().add(caller.to_canonical());
    }

    /// The endpoint at an address that is in no cluster: the application's, for calls received, or one outside the mesh.
    pub(crate) fn local(&self, direction: Direction, address: SocketAddr) -> Rc<Endpoint> {
        let mut locals = self.locals.borrow_mut();
        if let Some(endpoint) = locals.get(&(direction, address)) {
            return endpoint.clone();
        }
        if locals.len() >= LOCALS {
            locals.retain(|_, endpoint| Rc::strong_count(endpoint) > 1);
        }
        let config = EndpointConfig {
            cluster: None,
            address,
            transport: Transport::Plain,
            workload: None,
            identity: String::new(),
            weight: 1,
            http2: false,
            traffic: Arc::default(),
        };
        let endpoint = Rc::new(Endpoint::new(Arc::new(config)));
        locals.insert((direction, address), endpoint.clone());
        endpoint
    }

    /// The drain, as a connection sees it.
    pub(crate) fn drain(&self) -> Drain {
        Drain::new(self.phases.clone())
    }

    /// Whether another process takes the place of this one, so that who calls anew gets there.
    pub(crate) fn gives_way(&self) -> bool {
        self.phases.borrow().gives_way()
    }

    /// Whether the listener at this address stays with this process when another takes its place.
    pub(crate) fn keeps(&self, address: Option<SocketAddr>) -> bool {
        address.is_some_and(|address| self.kept.contains(address))
    }

    /// Whether whoever has this address may probe the port in the way that `may` asks for.
    pub(crate) fn may_probe(&self, may: fn(&Probes, u16, Peer<'_>) -> bool, port: u16, address: IpAddr) -> bool {
        may(&self.probes, port, Peer::new(address, &self.snapshot.borrow().config.own.probers))
    }

    /// Notes that somebody calls the application.
    pub(crate) fn note_call(&self) {
        self.open.note_call();
    }

    /// True when it holds more connections of this direction than it may. Callers must not cost the application its
    /// own calls.
    pub(crate) fn is_overloaded(&self, heading: &Heading) -> bool {
        self.connections(heading).get() > self.max_connections
    }

    const fn connections(&self, heading: &Heading) -> &Cell<usize> {
        match heading {
            Heading::Inbound { .. } => &self.connections[0],
            Heading::Outbound { .. } => &self.connections[1],
        }
    }

    /// What metrics say of it now.
    pub(crate) fn look(&self) -> WorkerSeen {
        self.settle();
        let (snapshot, now) = (self.snapshot(), self.now());
        let endpoints = snapshot.clusters.iter().flat_map(|cluster| &cluster.endpoints);
        let budget =
            |cluster: &Rc<Cluster>| (Box::from(&**cluster.config.name.service.text()), cluster.budget.left(now));
        let mut elsewhere = [0; 2];
        for ((direction, _), endpoint) in self.locals.borrow().iter() {
            elsewhere[*direction as usize] += endpoint.in_flight();
        }
        WorkerSeen {
            endpoints: endpoints.map(|endpoint| endpoint.look(now)).collect(),
            budgets: snapshot.clusters.iter().map(budget).collect(),
            elsewhere,
            max_connections: self.max_connections as u64,
        }
    }

    /// Looks at the clock, tells which destinations were used and who called in plaintext, and lets go of what is done with or
    /// has been idle for long.
    pub(crate) fn keep_house(&self) {
        self.time_of_day.look(clock::since_epoch());
        self.settle();
        let used: Vec<String> = self.used.borrow_mut().drain().map(|name| name.to_string()).collect();
        if !used.is_empty() {
            let _ = self.demand.send(Demand::Used(used)); // as in `want`
        }
        let seen = std::mem::take(&mut *self.plaintext.borrow_mut());
        if !seen.is_empty() {
            let _ = self.demand.send(Demand::Plaintext(seen)); // as in `want`
        }
        let (snapshot, now) = (self.snapshot(), Instant::now());
        self.ledgers.sweep(now);
        let clustered = snapshot.clusters.iter().flat_map(|cluster| &cluster.endpoints);
        for endpoint in clustered.chain(self.locals.borrow().values()) {
            endpoint.pool.shared.sweep(now);
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
pub(crate) struct Permit {
    worker: Rc<Worker>,
    heading: Heading,
    /// Whether it was taken when a drain had begun.
    is_late: bool,
}

impl Permit {
    /// Counts one more connection.
    pub(crate) fn take(worker: &Rc<Worker>, heading: &Heading) -> Self {
        worker.connections(heading).update(|open| open + 1);
        let is_late = worker.open.opened(heading);
        worker.place.opened();
        Self { worker: worker.clone(), heading: heading.clone(), is_late }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.worker.connections(&self.heading).update(|open| open.saturating_sub(1));
        self.worker.open.closed(&self.heading, self.is_late);
        self.worker.place.closed();
    }
}
