//! Resources of the mesh, compiled and read when somebody first asks about them. One that takes the place of another is
//! another value, so nothing has to be forgotten.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use selvedge_policies::{
    facts::{Moment, RequestFacts},
    kind::Attached,
    policy::{Explain, Looked},
    registry,
    route::{Conditions, Considered, HttpRouteSpec},
};
use selvedge_xds::proto::mesh::{Attachment, Destination, Endpoint, Inbound, InboundPort, Origin};
use serde_json::Value;

use crate::{
    compile::{self, Compiler},
    config::{self, RuntimeConfig, Transport},
    resources::{Resources, Versioned},
};

/// A workload's view of itself.
#[derive(Clone)]
pub(super) struct Workload {
    /// As it was told, each port once.
    pub(super) inbound: Arc<Inbound>,
    config: OnceLock<Arc<RuntimeConfig>>,
    policies: OnceLock<HashMap<u16, Vec<Document>>>,
}

/// A service that can be called.
#[derive(Clone)]
pub(super) struct Called {
    message: Arc<Versioned<Destination>>,
    compiled: OnceLock<Option<Arc<config::Destination>>>,
    routes: OnceLock<Vec<Route>>,
    policies: OnceLock<Vec<Document>>,
}

/// A route of a service.
#[derive(Clone)]
struct Route {
    origin: Origin,
    spec: HttpRouteSpec,
    conditions: Conditions,
}

/// A document of a kind that decides.
#[derive(Clone)]
pub(super) struct Document {
    pub(super) origin: Origin,
    document: Attached<Value>,
    explain: Explain,
}

/// The number under which the policies of all ports are that no service has.
const OTHER_PORTS: u16 = 0;

impl Workload {
    pub(super) fn new(inbound: Inbound) -> Self {
        let inbound = Inbound { ports: compile::by_number(&inbound.ports), ..inbound };
        Self { inbound: Arc::new(inbound), config: OnceLock::new(), policies: OnceLock::new() }
    }

    /// What its sidecar decides by, but for the services that it calls.
    pub(super) fn config(&self) -> &RuntimeConfig {
        self.config.get_or_init(|| {
            let inbound = Some(self.inbound.clone());
            Arc::new(Compiler::default().compile(&Arc::new(Resources { inbound, ..Resources::default() })))
        })
    }

    /// The policies that cover a port, in the order in which they decide.
    pub(super) fn policies(&self, port: u16) -> &[Document] {
        let policies = self.policies.get_or_init(|| {
            let ports = self.inbound.ports.iter().filter_map(|port| Some((u16::try_from(port.port).ok()?, port)));
            let other = InboundPort::default();
            let of_port = |(number, port)| (number, documents(compile::in_order(&self.inbound, port)));
            ports.chain([(OTHER_PORTS, &other)]).map(of_port).collect()
        });
        policies.get(&port).or_else(|| policies.get(&OTHER_PORTS)).map_or(&[], Vec::as_slice)
    }
}

impl Called {
    pub(super) fn new(message: Arc<Versioned<Destination>>) -> Self {
        Self { message, compiled: OnceLock::new(), routes: OnceLock::new(), policies: OnceLock::new() }
    }

    /// True when it is outside the mesh.
    pub(super) fn is_external(&self) -> bool {
        self.message.value.external
    }

    /// What its callers go by. Where its ports and backends lead is not in it.
    pub(super) fn compiled(&self) -> Option<&Arc<config::Destination>> {
        let compiled = self.compiled.get_or_init(|| {
            let destinations = HashMap::from([(self.message.name.clone(), self.message.clone())]);
            let config = Compiler::default().compile(&Arc::new(Resources { destinations, ..Resources::default() }));
            config.destinations.into_values().next()
        });
        compiled.as_ref()
    }

    /// What callers of an own address go by; `None` where it is none of the mesh's.
    pub(super) fn compiled_at(&self, called: SocketAddr) -> Option<config::Destination> {
        let compiled = compile::at_address(&self.message.value, called, &Transport::Plain);
        compiled.ok().flatten().map(|(destination, _)| destination)
    }

    /// What answers at a port of an own address.
    pub(super) fn endpoint_at(&self, port: u16) -> Option<&Endpoint> {
        compile::answering(&self.message.value, port)?.endpoint.as_ref()
    }

    /// Every match of its routes, each with the route, looked at for a request that takes the rule `taken`.
    pub(super) fn considered<'a>(
        &'a self,
        request: &'a RequestFacts<'_>,
        taken: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Origin, Considered)> {
        let routes = self.routes.get_or_init(|| {
            let attached = &self.message.value.routes;
            let read = compile::read_routes(attached).unwrap_or_default();
            attached.iter().zip(read).map(|(attached, route)| Route::new(attached, route)).collect()
        });
        let of_port = routes.iter().filter(|route| compile::is_for(&route.spec, &self.message.value, request.port));
        of_port.flat_map(move |route| {
            let considered = route.conditions.explain(request, taken);
            considered.into_iter().map(move |considered| (&route.origin, considered))
        })
    }

    /// The policies that its callers go by, in the order in which they decide.
    pub(super) fn policies(&self) -> &[Document] {
        let attached = || compile::sorted(self.message.value.policies.iter().collect());
        self.policies.get_or_init(|| documents(attached()))
    }
}

impl Route {
    fn new(attached: &Attachment, route: Attached<HttpRouteSpec>) -> Self {
        let origin = attached.origin.clone().unwrap_or_default();
        Self { origin, conditions: Conditions::of(&route), spec: route.spec }
    }
}

impl Document {
    /// What each of its rules comes to for a request.
    pub(super) fn looked(&self, request: &RequestFacts<'_>, now: Moment) -> Vec<Looked> {
        (self.explain)(&self.document, request, now)
    }
}

/// Those of `attachments` that decide.
fn documents(attachments: Vec<&Attachment>) -> Vec<Document> {
    let read = attachments.into_iter().filter_map(|attachment| {
        let (kind, document) = compile::read(attachment).ok()?;
        let kind = registry::find(&kind).filter(|kind| kind.phase().is_some())?;
        Some(Document { origin: attachment.origin.clone()?, document, explain: kind.explain })
    });
    read.collect()
}
