//! The mesh's decisions in one process: no sockets, no threads, a clock that tests move.
//!
//! YAML goes through the real validation, store and compiler of the control plane, over the two real halves of the
//! discovery protocol, into the real configuration of a sidecar; only the bytes in between are handed over by
//! function calls. What a sidecar would decide can then be asked directly.

use std::{sync::Arc, time::Duration};

use selvedge_control_plane::{
    snapshot::Snapshot,
    source::{Change, Document},
    store::{Report, Store},
};
use selvedge_decide::{
    assemble,
    compile::{Compiler, check},
    config::RuntimeConfig,
    mesh::Mesh,
    resources::Resources,
};
use selvedge_policies::{
    reason::Reason,
    testing::{Clock, Request},
    verdict::Verdict,
};
use selvedge_xds::{
    client::{Client, Judge},
    kinds::{DESTINATION, ENDPOINTS, INBOUND, SELVEDGE, TRUST_BUNDLE, describe},
    proto::discovery::Node,
    resource::TypeUrl,
    server::{Reply, Stream},
};

/// A control plane and its clock.
pub(crate) struct LogicMesh {
    store: Store,
    snapshot: Arc<Snapshot>,
    /// Time for every decision.
    pub(crate) clock: Clock,
}

/// One sidecar's half of the protocol, and the configuration it came to.
pub(crate) struct LogicSidecar {
    client: Client,
    stream: Stream,
    resources: Arc<Resources>,
    compiler: Compiler,
    /// What it decides by.
    pub(crate) config: RuntimeConfig,
    /// What it refused.
    pub(crate) replies: Vec<Reply>,
}

impl LogicMesh {
    /// A mesh without any object.
    pub(crate) fn new() -> Self {
        Self { store: Store::new("mesh.local"), snapshot: Arc::default(), clock: Clock::default() }
    }

    /// Puts `yaml` in force as the content of the file `name`, and gives the control plane's report.
    pub(crate) fn write(&mut self, name: &str, yaml: &str) -> Report {
        self.store.take("files", Document { origin: name.into(), text: Ok(yaml.into()) }.put());
        self.store.take("files", Change::Complete);
        let (snapshot, report) = self.store.commit();
        self.snapshot = snapshot;
        report
    }

    /// All sidecars of the mesh at once.
    pub(crate) fn in_memory(&self) -> Mesh {
        self.store.mesh()
    }

    /// A sidecar beside `workload` that calls `services`, in sync.
    pub(crate) fn sidecar(&self, workload: &str, services: &[&str]) -> LogicSidecar {
        let node = Node { id: workload.to_owned(), ..Node::default() };
        let mut client = Client::new(&SELVEDGE, Duration::from_secs(60), Judge { check, describe });
        client.pin(INBOUND, workload);
        client.pin(TRUST_BUNDLE, "mesh.local");
        for service in services {
            client.pin(DESTINATION, service);
        }
        client.connected(node);
        let mut sidecar = LogicSidecar {
            client,
            stream: Stream::new(&SELVEDGE),
            resources: Arc::default(),
            compiler: Compiler::default(),
            config: RuntimeConfig::default(),
            replies: Vec::new(),
        };
        self.sync(&mut sidecar);
        sidecar
    }

    /// Hands messages over in both directions until neither side has anything to say.
    pub(crate) fn sync(&self, sidecar: &mut LogicSidecar) {
        sidecar.stream.changed();
        for _ in 0..100 {
            let requests = sidecar.client.requests();
            for request in requests {
                let reply = sidecar.stream.request(request).expect("the client speaks the protocol");
                sidecar.replies.extend(reply.filter(|reply| reply.complaint.is_some()));
            }
            let find = |kind: TypeUrl, name: &str| self.snapshot.get(kind, name);
            let responses = sidecar.stream.responses(&find, &"test".into());
            let quiet = responses.is_empty();
            for response in responses {
                sidecar.client.response(response.to_message()).expect("the server speaks the protocol");
            }
            let needed = assemble::endpoints_needed(&sidecar.client, &sidecar.resources);
            sidecar.client.pin_exactly(ENDPOINTS, &needed);
            if quiet && sidecar.client.requests().is_empty() {
                break;
            }
        }
        sidecar.resources = Arc::new(assemble::resources(&sidecar.client, &sidecar.resources));
        sidecar.config = sidecar.compiler.compile(&sidecar.resources);
    }
}

impl Default for LogicMesh {
    fn default() -> Self {
        Self::new()
    }
}

impl LogicSidecar {
    /// What this sidecar says to a call of its application's `port`: `None` lets it pass.
    pub(crate) fn receive(&self, clock: &Clock, request: &Request, port: u16) -> Option<Reason> {
        let mut facts = request.facts();
        facts.port = port;
        match self.config.inbound(port).policies.on_request(&facts, &mut clock.context()) {
            Verdict::Continue => None,
            Verdict::Answer(answer) => answer.reason,
            pause => panic!("no policy of today waits: {pause:?}"),
        }
    }

    /// The rule a call of `service` takes, by name; `None` when no rule matches.
    pub(crate) fn route(&self, service: &str, request: &Request) -> Option<Arc<str>> {
        let destination = self.config.destination(service).flatten()?;
        let facts = request.facts();
        let rule =
            destination.routes.get(&80)?.select(facts.host, facts.method, facts.path, facts.query, facts.headers)?;
        Some(rule.name.clone())
    }
}
