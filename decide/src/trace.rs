//! Why a request ends as it does, as data: what [`Mesh::why`](crate::mesh::Mesh::why) answers with.
//!
//! A [`Trace`] follows the request: the caller's sidecar may stop it, else it has ways to go, one for each endpoint it
//! may get, each with what the called sidecar would decide there ([`Arrival`]) and how that ends. Chance is not played:
//! where load balancing or a weight decides, every outcome is there with its share. Policies are named with the version
//! of them that is in force, so that whoever reads it knows what to edit. It is data and no text: how it is shown is
//! the business of who asked.

use std::{fmt, net::SocketAddr, sync::Arc};

use selvedge_policies::{
    facts::Identity,
    policy::{Looked, Posture},
    reason::Reason,
    route::Considered,
};
use selvedge_xds::proto::mesh::Origin;

/// The story of one request, as far as configuration tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// What the caller's sidecar proves; `None` for a workload that the mesh does not know.
    pub identity: Option<Identity>,
    /// `namespace/name` of the service called; `None` where there is none of that name.
    pub destination: Option<Arc<str>>,
    /// The route rule it takes.
    pub route: Option<Arc<str>>,
    /// Every match of the service's routes, and what came of it.
    pub considered: Vec<Placed<Considered>>,
    /// The policies that decide at the caller's sidecar, in their order.
    pub policies: Vec<Judged>,
    /// How the caller's sidecar ends it, or that it lets it leave the mesh. `None` when it goes one of the [ways](Self::ways).
    pub stopped: Option<Ending>,
    /// Where it may go, one way for each endpoint it can get. Chance and load choose among them.
    pub ways: Vec<Way>,
}

/// One endpoint that a request can get.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// The cluster it is in, `namespace/name:port`: that of a backend of the route rule, or of the service called.
    pub cluster: String,
    /// The share of the requests of the rule that go to this cluster, above 0 and at most 1.
    pub share: f64,
    /// The address dialled; `None` when the cluster has no endpoint.
    pub address: Option<SocketAddr>,
    /// What the sidecar of the called workload goes by; `None` when there is none in the mesh.
    pub arrival: Option<Arrival>,
    /// How the requests that go this way end.
    pub ending: Ending,
}

/// A request at the sidecar of the workload that is called.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// The port of the workload, as its policies name it.
    pub port: u16,
    /// The policies that cover the port, in the order in which they decide.
    pub policies: Vec<Judged>,
    /// What happens to a request that no policy speaks of.
    pub default: DefaultPosture,
    /// What happens to a caller that proves no identity.
    pub mode: InboundMode,
}

/// Whether a caller that proves no identity is let in, and who wants it so.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundMode {
    /// True when such a caller is let in.
    pub permissive: bool,
    /// Who wants it so: somebody who wrote a setting, or nobody.
    pub said: Said,
}

/// Who says what holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A setting that a user wrote.
    Written(Written),
    /// Nobody, and this is what holds of pods then.
    OfPods,
    /// Nobody, or the control plane does not say who did.
    BuiltIn,
}

/// What happens to a request that no policy speaks of, and who wants it so.
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultPosture {
    /// Whether such a request passes.
    pub posture: Posture,
    /// The setting that says so; `None` when nobody set it, or when the control plane does not say who did.
    pub written: Option<Written>,
}

/// Something that a user wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// The object, and the version of it that is in force.
    pub object: Origin,
    /// The field of the object, such as `spec.defaultPosture`.
    pub field: String,
    /// Where the field is written; `None` where that is not known.
    pub place: Option<Place>,
}

/// What was found of something that a user wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed<T> {
    /// What was found, of a match or a rule.
    pub what: T,
    /// Where the condition that fails is written, or what applies; `None` where that is not known.
    pub place: Option<Place>,
}

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path of a file, or what another source calls the object.
    pub file: Arc<str>,
    /// The line in it, from 1; 0 when the object as a whole is meant.
    pub line: usize,
}

/// One policy, looked at for a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The user's object, and the version of it that is in force.
    pub origin: Origin,
    /// Each of its rules: that it applies, or the first condition that fails. What follows from a rule that applies is the
    /// policy's to say, in its place among the others. Empty for kinds without rules.
    pub rules: Vec<Placed<Looked>>,
}

/// How a request ends.
///
/// ```
/// use selvedge_decide::trace::Ending;
/// use selvedge_policies::reason::Reason;
///
/// let ending = Ending::of(Reason::NoRoute);
/// assert_eq!((ending.status, ending.passes()), (Some(404), false));
/// assert!(Ending::default().passes());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The status of the mesh's own answer; `None` when the request gets to the service.
    pub status: Option<u16>,
    /// Why it ends there.
    pub reason: Option<Reason>,
    /// `namespace/name` of the object that decided; empty when none did.
    pub policy: Arc<str>,
    /// The object that only looks on and would have refused it.
    pub audited: Option<Arc<str>>,
    /// The service outside the decision that a policy asks, and that has the last word.
    pub asks: Option<Arc<str>>,
}

impl Trace {
    /// Every ending it may have, each once.
    ///
    /// There is more than one where backends or workloads have policies of their own.
    ///
    /// ```
    /// use selvedge_decide::trace::{Ending, Trace};
    /// use selvedge_policies::reason::Reason;
    ///
    /// let trace = Trace { stopped: Some(Ending::of(Reason::NoRoute)), ..Trace::default() };
    /// assert_eq!(trace.endings(), [&Ending::of(Reason::NoRoute)]);
    /// ```
    pub fn endings(&self) -> Vec<&Ending> {
        let mut endings: Vec<&Ending> = Vec::new();
        for ending in self.stopped.iter().chain(self.ways.iter().map(|way| &way.ending)) {
            if !endings.contains(&ending) {
                endings.push(ending);
            }
        }
        endings
    }
}

impl Ending {
    /// True when the request goes on.
    pub const fn passes(&self) -> bool {
        self.status.is_none() && self.asks.is_none()
    }

    /// The mesh's own answer, with the status of its reason.
    pub fn of(reason: Reason) -> Self {
        Self { status: Some(reason.status()), reason: Some(reason), ..Self::default() }
    }
}

/// `deny, by spec.defaultPosture of MeshPolicy shop/closed (mesh.yaml:4)`.
impl fmt::Display for DefaultPosture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.posture.name())?;
        match &self.written {
            Some(written) => write!(f, ", by {written}"),
            None if self.posture == Posture::default() => f.write_str(", the built-in default"),
            None => f.write_str(", by a setting whose object is not known"),
        }
    }
}

/// `PERMISSIVE, the default of pods`.
impl fmt::Display for InboundMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.permissive { "PERMISSIVE" } else { "STRICT" })?;
        match &self.said {
            Said::Written(written) => write!(f, ", by {written}"),
            Said::OfPods => f.write_str(", the default of pods"),
            Said::BuiltIn if self.permissive => f.write_str(", by a setting whose object is not known"),
            Said::BuiltIn => f.write_str(", the built-in default"),
        }
    }
}

/// `spec.defaultPosture of MeshPolicy shop/closed (mesh.yaml:4)`.
impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { kind, namespace, name, .. } = &self.object;
        write!(f, "{} of {kind} {namespace}/{name}", self.field)?;
        self.place.as_ref().map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

/// `mesh.yaml:4`, or the file alone.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line == 0 { Ok(()) } else { write!(f, ":{}", self.line) }
    }
}
