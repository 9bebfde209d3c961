//! All that is known of one connection.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use selvedge_policies::{
    context::{Audited, Claims},
    facts::{ConnectionFacts, Identity, Peer},
    request::PolicySet,
};
use tokio::time::Instant;

use crate::{
    budget::Budget,
    config::{AppProtocol, Destination, RuntimeConfig},
    heading::Heading,
    http::{
        authority,
        case::Spellings,
        pace::{Pace, Polled},
    },
    ledger::Ledger,
    sniff::RECORD_HANDSHAKE,
    telemetry::{Direction, Protocol},
    tls::TlsContext,
    worker::{Permit, Worker},
};

/// What is known of a connection besides its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// The worker it lives on.
    pub worker: Rc<Worker>,
    /// Address and port of the other end (downstream).
    pub peer: SocketAddr,
    /// Where it leads, and thereby its direction: inbound or outbound.
    pub heading: Heading,
    /// Counts against the worker's limit.
    pub permit: Rc<Permit>,
    /// Where it stands with its policies: whichever stage has asked them, it holds for those after it.
    pub standing: Rc<Standing>,
}

/// Where a connection stands with its policies.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// What they have let it pass with as opaque bytes.
    pub passed: RefCell<Option<Rc<Passed>>>,
    /// True while one of them makes it wait.
    pub waits: Cell<bool>,
}

/// What policies have let opaque bytes pass with, and as what.
#[derive(Debug)]
pub(crate) struct Passed {
    /// Who called, as was known.
    pub peer: Peer,
    /// Server name of application TLS, as was known.
    pub server_name: Option<String>,
    /// What was proven of the caller beside the identity.
    pub claims: Claims,
    /// The policy that only looks on and would have refused.
    pub audited: Option<Audited>,
}

impl Passed {
    /// True when `connection` is still what was let pass, as far as policies can tell.
    pub(crate) fn is_still(&self, connection: &Connection, policies: &PolicySet) -> bool {
        let is_named_so = !policies.needs().server_name || self.server_name == connection.server_name;
        is_named_so && self.peer.identity == connection.caller().identity
    }

    /// What policies looked at, of a connection to `port`.
    pub(crate) fn facts(&self, port: u16) -> ConnectionFacts<'_> {
        ConnectionFacts { peer: &self.peer, port, server_name: self.server_name.as_deref(), earlier: None }
    }
}

impl Origin {
    /// Whether the server name of application TLS makes a difference to the policies in force for it.
    pub(crate) fn needs_server_name(&self) -> bool {
        let snapshot = self.worker.snapshot();
        policies(&snapshot.config, &self.heading).is_some_and(|policies| policies.needs().server_name)
    }

    /// Whether bytes that do not tell what they are may be carried as opaque ones: nothing in force looks into requests, or at
    /// the name that the rest of a ClientHello may say.
    pub(crate) fn may_be_opaque(&self, declared: AppProtocol, first: &[u8]) -> bool {
        let is_looked_into = declared != AppProtocol::Opaque && self.looks_into_requests();
        let may_have_name = first.first() == Some(&RECORD_HANDSHAKE) && self.needs_server_name();
        first.is_empty() || !(is_looked_into || may_have_name)
    }

    /// What is carried as opaque bytes passes by what looks into requests.
    fn looks_into_requests(&self) -> bool {
        let snapshot = self.worker.snapshot();
        let decides = policies(&snapshot.config, &self.heading).is_some_and(|policies| policies.needs().requests);
        decides || self.worker.by_host || self.is_routed(&snapshot.config)
    }

    fn is_routed(&self, config: &RuntimeConfig) -> bool {
        let Heading::Outbound { destination, port, .. } = &self.heading else { return false };
        let routes = config.destination(destination).flatten();
        let routes = routes.and_then(|destination| Destination::of_port(&destination.routes, *port));
        routes.is_some_and(|routes| !routes.is_empty())
    }

    /// Whether it was told what is where this leads.
    pub(crate) fn is_known(&self) -> bool {
        match &self.heading {
            Heading::Inbound { .. } => true,
            Heading::Outbound { destination, .. } => {
                self.worker.snapshot().config.destination(destination).is_some() || self.worker.is_absent(destination)
            }
        }
    }

    /// What the port is declared to speak.
    pub(crate) fn declared(&self) -> AppProtocol {
        let snapshot = self.worker.snapshot();
        match &self.heading {
            Heading::Inbound { port, .. } => snapshot.config.inbound(*port).protocol,
            Heading::Outbound { destination, port, .. } => {
                let known = snapshot.config.destination(destination).flatten();
                known.and_then(|destination| destination.ports.get(port)).map(|port| port.protocol).unwrap_or_default()
            }
        }
    }
}

/// One connection, after it was accepted and its TLS, if any, was verified.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The worker it lives on.
    pub worker: Rc<Worker>,
    /// Whether it calls the application or comes from it.
    pub heading: Heading,
    /// Who is at the other end.
    pub peer: Peer,
    /// Who calls, where it is the application and this sidecar proves who that is.
    caller: OnceCell<Peer>,
    /// When it should come back with a newer certificate.
    pub until: Option<Instant>,
    /// What its identity was proven against.
    pub proven: Option<Arc<TlsContext>>,
    /// Its SPIFFE ID as text, empty without mTLS; made once for all records.
    pub peer_identity: String,
    /// The other end's address and port.
    pub peer_address: SocketAddr,
    /// What is spoken on it, inside TLS of the mesh.
    pub protocol: Protocol,
    /// Server name of application TLS that passes through.
    pub server_name: Option<String>,
    /// What the caller's sidecar asks for in the mesh's TLS (SNI): the service that it means, as `service.namespace`.
    pub asked_for: Option<Box<str>>,
    /// Where it stands with its policies.
    pub standing: Rc<Standing>,
    /// Reads the authorities of its requests.
    pub authorities: authority::Reader,
    /// Counts against the worker's limit while the connection lives.
    #[expect(dead_code, reason = "it counts for as long as it lives")]
    pub permit: Rc<Permit>,
    /// What its caller owes.
    pub pace: Pace,
    /// What its caller costs.
    pub ledger: Rc<Ledger>,
    /// What the stream that is being polled does, on HTTP/2.
    pub polled: Cell<Polled>,
    /// How names are written on it, on HTTP/1.
    pub spellings: OnceCell<Spellings>,
}

impl Connection {
    /// A connection whose other end proved nothing (`identity` is `None`) or proved `identity` by mTLS.
    pub(crate) fn new(origin: Origin, identity: Option<Identity>, protocol: Protocol) -> Self {
        let Origin { worker, peer, heading, permit, standing } = origin;
        let peer_identity = identity.as_ref().map(ToString::to_string).unwrap_or_default();
        let facts = Peer { identity: identity.map(Arc::new), fingerprint: None, address: peer.ip() };
        let ledger = match heading {
            Heading::Outbound { .. } => worker.ledgers.of("", &Budget::OWN),
            Heading::Inbound { .. } if peer_identity.is_empty() => Rc::new(Ledger::of_stranger()),
            Heading::Inbound { .. } => worker.ledgers.of(&peer_identity, &Budget::PARTY),
        };
        Self {
            worker,
            heading,
            peer: facts,
            caller: OnceCell::new(),
            until: None,
            proven: None,
            peer_identity,
            peer_address: peer,
            protocol,
            server_name: None,
            asked_for: None,
            standing,
            authorities: authority::Reader::default(),
            permit,
            pace: Pace::default(),
            ledger,
            polled: Cell::default(),
            spellings: OnceCell::new(),
        }
    }

    /// Its direction as logs and metrics name it.
    pub(crate) const fn direction(&self) -> Direction {
        match self.heading {
            Heading::Inbound { .. } => Direction::Inbound,
            Heading::Outbound { .. } => Direction::Outbound,
        }
    }

    /// The port that policies are about.
    pub(crate) const fn port(&self) -> u16 {
        match self.heading {
            Heading::Inbound { port, .. } | Heading::Outbound { port, .. } => port,
        }
    }

    /// True when the caller may learn reasons: a verified peer, or our own application.
    pub(crate) const fn meshed(&self) -> bool {
        self.peer.identity.is_some() || matches!(self.heading, Heading::Outbound { .. })
    }

    /// What its caller may send beside messages.
    pub(crate) const fn budget(&self) -> &'static Budget {
        match self.heading {
            Heading::Outbound { .. } => &Budget::OWN,
            Heading::Inbound { .. } if self.peer.identity.is_some() => &Budget::KNOWN,
            Heading::Inbound { .. } => &Budget::STRICT,
        }
    }

    /// Who calls, as policies see it: the other end, or for a call that the application makes what this sidecar proves for
    /// it.
    pub(crate) fn caller(&self) -> &Peer {
        if let (Heading::Outbound { .. }, None) = (&self.heading, self.caller.get())
            && let Some(identity) = &self.worker.snapshot().config.own.caller
        {
            let caller = Peer { identity: Some(Arc::clone(identity)), fingerprint: None, address: self.peer.address };
            return self.caller.get_or_init(|| caller);
        }
        self.caller.get().unwrap_or(&self.peer)
    }

    /// What was proven of its caller beside the identity, when it was let pass as opaque bytes of the same caller.
    pub(crate) fn claims(&self) -> Claims {
        let passed = self.standing.passed.borrow();
        let own = passed.as_ref().filter(|passed| passed.peer.identity == self.caller().identity);
        own.map(|passed| passed.claims.clone()).unwrap_or_default()
    }

    /// What policies for connections look at.
    pub(crate) fn facts(&self) -> ConnectionFacts<'_> {
        let server_name = self.server_name.as_deref();
        ConnectionFacts { peer: self.caller(), port: self.port(), server_name, earlier: None }
    }
}

/// The policies in force for what has this heading; none for what is not known or outside the mesh.
pub(crate) fn policies<'a>(config: &'a RuntimeConfig, heading: &Heading) -> Option<&'a PolicySet> {
    match heading {
        Heading::Inbound { port, .. } => Some(&config.inbound(*port).policies),
        Heading::Outbound { destination, .. } => {
            config.destination(destination).flatten().map(|destination| &*destination.policies)
        }
    }
}
