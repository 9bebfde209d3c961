//! What was accepted, refused, or is still stale, and by whom.
//!
//! Sidecars are recorded as their streams say so; the user's objects are found in what the sidecars acknowledged, because
//! every resource names the objects it came from.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use selvedge_policies::{facts::Identity, names};
use selvedge_xds::{
    kinds::{self, Parts, parts},
    plaintext::Seen,
    ports::{NOT_ENFORCED, Port},
    proto::mesh::{Origin, Unenforceable},
    resource::{Encoded, TypeUrl},
    server::Reply,
};
use serde::Serialize;

use crate::{
    guarded::Guarded,
    model::pods::Pods,
    snapshot::Snapshot,
    store::{ObjectReport, Report},
};

mod in_force;
mod namespaces;
mod observation;
mod plaintext;

use in_force::InForce;
pub(crate) use namespaces::NamespaceReport;
use namespaces::{Beside, Seeing};
use observation::Observation;
use plaintext::Callers;

/// Number of one discovery stream.
pub(crate) type StreamId = u64;

/// The sidecars connected now.
#[derive(Debug, Default)]
pub(crate) struct Sidecars {
    open: Guarded<Open>,
}

#[derive(Debug, Default)]
struct Open {
    last: StreamId,
    streams: BTreeMap<StreamId, Sidecar>,
    /// Who called lately where the stream that said so has ended, by namespace.
    left: BTreeMap<String, Callers>,
    observation: Observation,
}

#[derive(Debug)]
struct Sidecar {
    workload: String,
    identity: Identity,
    address: SocketAddr,
    connected: u64,
    in_force: InForce,
    refused: BTreeMap<(TypeUrl, String), Refused>,
    /// Who called in plaintext; `None` of a sidecar that does not say it.
    plaintext: Option<Callers>,
    /// Whether policies are enforced at its declared ports, as it says.
    ports: Vec<Port>,
}

#[derive(Debug)]
struct Refused {
    resource: Arc<Encoded>,
    message: Arc<str>,
    at: u64,
}

/// A sidecar as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarReport {
    /// `namespace/name` the sidecar says it stands beside.
    pub workload: String,
    /// The SPIFFE ID of the certificate it has proven.
    pub identity: String,
    /// Where it connected from.
    pub address: SocketAddr,
    /// Seconds since the Unix epoch.
    pub connected_since: u64,
    /// Generation in force of every object it was told of, by `Kind namespace/name`.
    pub acknowledged: BTreeMap<String, u64>,
    /// The resources it refused (NACK) and has not taken since.
    pub refused: Vec<RefusalReport>,
    /// What it cannot enforce because it is too old, by `Kind namespace/name`, and what holds there instead.
    pub cannot_enforce: BTreeMap<String, String>,
    /// Who called its workload in plaintext lately, as it says; `None` where it is of a release that does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext_callers: Option<Vec<IpAddr>>,
    /// How many more there were at least, for whose names there is no room.
    pub plaintext_callers_more: usize,
    /// Its declared ports, and whether policies are enforced there, as it says; none where its traffic is captured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortReport>,
    /// Why it is not told its own view, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A declared port of a sidecar: whoever calls the application's own port goes past the sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortReport {
    /// The application's port as policies name it.
    pub port: u16,
    /// `enforced`, `not enforced`, or `unknown`.
    pub policies: String,
    /// How that is known, in the words of the sidecar.
    pub why: String,
}

impl From<&Port> for PortReport {
    fn from(Port { port, policies, why }: &Port) -> Self {
        Self { port: *port, policies: policies.clone(), why: why.clone() }
    }
}

/// A resource a sidecar refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalReport {
    /// `Kind name` of the resource.
    pub resource: String,
    /// The objects it came from, as `Kind namespace/name`, with their generations.
    pub objects: BTreeMap<String, u64>,
    /// Why, in the words of the sidecar's NACK.
    pub message: String,
    /// Seconds since the Unix epoch.
    pub at: u64,
}

/// A user's object as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus<'a> {
    /// What the control plane made of it.
    #[serde(flatten)]
    pub object: &'a ObjectReport,
    /// What the connected sidecars made of it.
    pub sidecars: Reach,
    /// What is to be said of sidecars that are too old for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How far an object got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// Sidecars with the accepted generation in force.
    pub current: usize,
    /// Sidecars that still have an earlier one.
    pub behind: usize,
    /// Sidecars that refused a resource with it.
    pub refused: usize,
    /// Sidecars that are too old to enforce it as it is.
    pub cannot_enforce: usize,
}

/// Every object with its reach.
pub(crate) fn objects<'a>(report: &'a Report, sidecars: &[SidecarReport]) -> Vec<ObjectStatus<'a>> {
    let status = |object: &'a ObjectReport| {
        let name = format!("{} {}/{}", object.kind, object.namespace, object.name);
        let mut reach = Reach::default();
        for sidecar in sidecars {
            if sidecar.refused.iter().any(|refused| refused.objects.contains_key(&name)) {
                reach.refused += 1;
            } else if sidecar.cannot_enforce.contains_key(&name) {
                reach.cannot_enforce += 1;
            } else if let Some(generation) = sidecar.acknowledged.get(&name) {
                *if *generation == object.accepted_generation { &mut reach.current } else { &mut reach.behind } += 1;
            }
        }
        let note = match reach.cannot_enforce {
            0 => None,
            1 => Some("1 sidecar cannot enforce this yet".to_owned()),
            n => Some(format!("{n} sidecars cannot enforce this yet")),
        };
        ObjectStatus { object, sidecars: reach, note }
    };
    report.objects.iter().map(status).collect()
}

impl Sidecars {
    /// Records a stream; `now` is in seconds since the Unix epoch.
    pub(crate) fn open(&self, identity: Identity, address: SocketAddr, now: u64) -> StreamId {
        let sidecar = Sidecar {
            workload: String::new(),
            identity,
            address,
            connected: now,
            in_force: InForce::default(),
            refused: BTreeMap::new(),
            plaintext: None,
            ports: Vec::new(),
        };
        self.open.with(|open| {
            open.last += 1;
            open.streams.insert(open.last, sidecar);
            open.last
        })
    }

    /// Notes which workload the client says it stands beside.
    pub(crate) fn name(&self, id: StreamId, workload: &str) {
        self.change(id, |sidecar| workload.clone_into(&mut sidecar.workload));
    }

    /// Notes who called in plaintext, as the client says; `now` is in seconds since the Unix epoch.
    pub(crate) fn plaintext(&self, id: StreamId, seen: Seen, now: u64) {
        self.change(id, |sidecar| sidecar.plaintext.get_or_insert_default().add(seen, now));
    }

    /// Notes what the client says of its declared ports, all of them.
    pub(crate) fn ports(&self, id: StreamId, ports: Vec<Port>) {
        self.change(id, |sidecar| sidecar.ports = ports);
    }

    /// Records an ACK or NACK.
    pub(crate) fn reply(&self, id: StreamId, reply: Reply, now: u64) {
        let Reply { taken, refused, complaint, .. } = reply;
        let message = complaint.unwrap_or_default();
        self.change(id, |sidecar| {
            for resource in taken {
                if !sidecar.refused.is_empty() {
                    sidecar.refused.remove(&(resource.kind, resource.name.clone()));
                }
                sidecar.in_force.put(resource);
            }
            for resource in refused {
                let key = (resource.kind, resource.name.clone());
                sidecar.refused.insert(key, Refused { resource, message: Arc::clone(&message), at: now });
            }
        });
    }

    /// Records what a resumed client holds already.
    pub(crate) fn confirmed(&self, id: StreamId, resources: Vec<Arc<Encoded>>) {
        if !resources.is_empty() {
            self.change(id, |sidecar| resources.into_iter().for_each(|resource| sidecar.in_force.put(resource)));
        }
    }

    /// Forgets resources a sidecar holds no more.
    pub(crate) fn dropped(&self, id: StreamId, resources: &[(TypeUrl, String)]) {
        if !resources.is_empty() {
            self.change(id, |sidecar| {
                for key in resources {
                    sidecar.in_force.remove(key.0, &key.1);
                    sidecar.refused.remove(key);
                }
            });
        }
    }

    /// Forgets a stream that ended `now`: its sidecar is no longer reported as connected by it. Whom it has seen has called
    /// all the same.
    pub(crate) fn close(&self, id: StreamId, now: u64) {
        self.open.with(|open| {
            open.left.retain(|_, callers| !callers.is_empty(now));
            let Some(Sidecar { identity, plaintext: Some(callers), .. }) = open.streams.remove(&id) else { return };
            if !callers.is_empty(now) {
                open.left.entry(identity.namespace.to_string()).or_default().merge(&callers, now);
            }
        });
    }

    /// Looks which of these pods have their sidecars connected; to be called every few seconds. `now` counts from any fixed
    /// start.
    pub(crate) fn look(&self, pods: &Pods, snapshot: &Snapshot, now: Duration) {
        self.open.with(|open| {
            let whole = namespaces::whole(pods, &open.beside(snapshot));
            open.observation.note(whole, now);
        });
    }

    /// Every namespace that has pods, by name, as it is at the second `unix` of Unix time, which is `now` for [`Self::look`].
    pub(crate) fn namespaces(
        &self,
        pods: &Pods,
        snapshot: &Snapshot,
        unix: u64,
        now: Duration,
    ) -> Vec<NamespaceReport> {
        self.open.with(|open| {
            let mut callers = open.left.clone();
            for sidecar in open.streams.values() {
                let Some(seen) = &sidecar.plaintext else { continue };
                callers.entry(sidecar.identity.namespace.to_string()).or_default().merge(seen, unix);
            }
            let (beside, past) = (open.beside(snapshot), open.past());
            let seeing = Seeing { beside, callers, past, observation: &open.observation };
            namespaces::namespaces(pods, &seeing, unix, now)
        })
    }

    /// Every sidecar connected `now`, in seconds since the Unix epoch, as seen by the newest snapshot.
    pub(crate) fn report(&self, snapshot: &Snapshot, now: u64) -> Vec<SidecarReport> {
        self.open.with(|open| open.streams.values().map(|sidecar| sidecar.report(snapshot, now)).collect())
    }

    fn change(&self, id: StreamId, change: impl FnOnce(&mut Sidecar)) {
        self.open.with(|open| open.streams.get_mut(&id).map(change));
    }
}

impl Open {
    /// The workloads whose sidecar is connected, by their names.
    fn beside(&self, snapshot: &Snapshot) -> BTreeMap<String, Beside> {
        let mut all: BTreeMap<String, Beside> = BTreeMap::new();
        for sidecar in self.streams.values().filter(|sidecar| sidecar.problem(snapshot).is_none()) {
            let beside = Beside { connected: sidecar.connected, tells: sidecar.plaintext.is_some() };
            let newest = all.entry(sidecar.workload.clone()).or_insert(beside);
            if newest.connected < beside.connected {
                *newest = beside;
            }
        }
        all
    }

    /// Where sidecars are called past, by namespace, as `name port`.
    fn past(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for sidecar in self.streams.values() {
            let Some((namespace, name)) = names::parts(&sidecar.workload) else { continue };
            let open = sidecar.ports.iter().filter(|port| port.policies == NOT_ENFORCED);
            all.entry(namespace.to_owned()).or_default().extend(open.map(|port| format!("{name} {}", port.port)));
        }
        all
    }
}

impl Sidecar {
    fn report(&self, snapshot: &Snapshot, now: u64) -> SidecarReport {
        let refused = self.refused.values().map(|refused| RefusalReport {
            resource: place(&refused.resource),
            objects: generations(&refused.resource).collect(),
            message: refused.message.to_string(),
            at: refused.at,
        });
        SidecarReport {
            workload: self.workload.clone(),
            identity: self.identity.to_string(),
            address: self.address,
            connected_since: self.connected,
            acknowledged: self.in_force.iter().flat_map(|resource| generations(resource)).collect(),
            refused: refused.collect(),
            cannot_enforce: self.in_force.iter().flat_map(|resource| unenforceable(resource)).collect(),
            plaintext_callers: self.plaintext.as_ref().map(|callers| callers.lately(now).collect()),
            plaintext_callers_more: self.plaintext.as_ref().map_or(0, |callers| callers.lately_more(now)),
            ports: self.ports.iter().map(PortReport::from).collect(),
            problem: self.problem(snapshot),
        }
    }

    fn problem(&self, snapshot: &Snapshot) -> Option<String> {
        let Self { workload, identity, .. } = self;
        match snapshot.identity_of_workload(workload) {
            None => Some(format!("there is no Workload {workload}")),
            Some(expected) if expected != identity.to_string() => {
                Some(format!("Workload {workload} runs as {expected}, but this sidecar proved {identity}"))
            }
            Some(_) => None,
        }
    }
}

fn place(resource: &Encoded) -> String {
    format!("{:?} {}", resource.kind, resource.name)
}

fn generations(resource: &Encoded) -> impl Iterator<Item = (String, u64)> + use<> {
    origins(resource).into_iter().map(|o| (kinds::object(&o), o.generation))
}

/// Every user's object a resource came from. What stands for an object that cannot be enforced came from none.
fn origins(resource: &Encoded) -> Vec<Origin> {
    let Parts { origin, attached, settings, .. } = parts(resource);
    let written = attached.into_iter().filter(|attachment| attachment.stands_for.is_none());
    origin.into_iter().chain(written.filter_map(|attachment| attachment.origin)).chain(settings).collect()
}

/// The objects that whoever holds the resource cannot enforce, and what holds there instead.
fn unenforceable(resource: &Encoded) -> impl Iterator<Item = (String, String)> + use<> {
    parts(resource).unenforceable.into_iter().filter_map(|Unenforceable { origin, unknown, instead }| {
        let origin = origin?;
        let words = format!("'{unknown}' of generation {} is not known to it; {instead}", origin.generation);
        Some((kinds::object(&origin), words))
    })
}

#[cfg(test)]
mod tests {
    use selvedge_xds::{
        kinds::{DESTINATION, INBOUND},
        proto::mesh::{Attachment, Destination, Inbound, SettingOrigin},
    };

    use super::*;

    fn destination(name: &str, generation: u64) -> Arc<Encoded> {
        let origin = Origin { kind: "Service".into(), namespace: "shop".into(), name: name.into(), generation };
        let message = Destination { origin: Some(origin), ..Destination::default() };
        Arc::new(Encoded::new(DESTINATION, format!("shop/{name}"), Vec::new(), &message))
    }

    fn accepted(name: &str) -> ObjectReport {
        ObjectReport {
            kind: "Service".into(),
            namespace: "shop".into(),
            name: name.into(),
            file: "shop.yaml".into(),
            accepted_generation: 2,
            current: true,
            problems: Vec::new(),
        }
    }

    /// Of `web`, `web-2` and `api`: current, behind and refused.
    fn reach(sidecars: &Sidecars) -> [(usize, usize, usize); 3] {
        let report = Report { objects: ["web", "web-2", "api"].map(accepted).into(), ..Report::default() };
        let sidecars = sidecars.report(&Snapshot::default(), 0);
        let reached: Vec<_> = objects(&report, &sidecars).iter().map(|object| object.sidecars).collect();
        [0, 1, 2].map(|n| (reached[n].current, reached[n].behind, reached[n].refused))
    }

    #[test]
    fn an_object_that_a_sidecar_is_too_old_for_is_not_current_there_and_a_stand_in_is_no_object() {
        let sidecars = Sidecars::default();
        let object = |kind: &str, name: &str| {
            Some(Origin { kind: kind.into(), namespace: "shop".into(), name: name.into(), generation: 2 })
        };
        let stands_for = object("Service", "web");
        let stand_in = Attachment { origin: object("AuthorizationPolicy", "web"), stands_for, ..Attachment::default() };
        let note = Unenforceable {
            origin: object("Service", "web"),
            unknown: "rules[0].when".into(),
            instead: "it is left out".into(),
        };
        let message = Destination { policies: vec![stand_in], unenforceable: vec![note], ..Destination::default() };
        let resource = Arc::new(Encoded::new(DESTINATION, "shop/web", Vec::new(), &message));
        let report = Report { objects: vec![accepted("web")], ..Report::default() };
        for (count, words) in [(1, "1 sidecar cannot enforce this yet"), (2, "2 sidecars cannot enforce this yet")] {
            let identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
            let id = sidecars.open(identity, ([127, 0, 0, 1], 1).into(), 0);
            let taken = vec![Arc::clone(&resource)];
            sidecars.reply(id, Reply { kind: DESTINATION, taken, refused: Vec::new(), complaint: None }, 0);
            let seen = sidecars.report(&Snapshot::default(), 0);
            let told = "'rules[0].when' of generation 2 is not known to it; it is left out";
            assert_eq!(seen[0].cannot_enforce, BTreeMap::from([("Service shop/web".to_owned(), told.to_owned())]));
            assert!(seen[0].acknowledged.is_empty(), "nobody wrote what stands for it");
            let objects = objects(&report, &seen);
            let reach = Reach { cannot_enforce: count, ..Reach::default() };
            assert_eq!((objects[0].sidecars, objects[0].note.as_deref()), (reach, Some(words)));
        }
    }

    #[test]
    fn an_object_that_a_setting_is_from_is_in_force_where_the_setting_is() {
        let sidecars = Sidecars::default();
        let from = |field: &str| {
            let (kind, namespace, name) = ("Service".into(), "shop".into(), "web".into());
            SettingOrigin { field: field.into(), origin: Some(Origin { kind, namespace, name, generation: 2 }) }
        };
        let message = Inbound { settings_from: vec![from("one"), from("another")], ..Inbound::default() };
        let taken = vec![Arc::new(Encoded::new(INBOUND, "shop/web-1", Vec::new(), &message))];
        let id = sidecars.open("spiffe://mesh.local/ns/shop/sa/web".parse().unwrap(), ([127, 0, 0, 1], 1).into(), 0);
        sidecars.reply(id, Reply { kind: INBOUND, taken, refused: Vec::new(), complaint: None }, 0);
        assert_eq!(reach(&sidecars), [(1, 0, 0), (0, 0, 0), (0, 0, 0)]);
    }

    #[test]
    fn whom_a_sidecar_has_seen_is_told_of_and_one_that_does_not_look_has_not_seen_nobody() {
        let sidecars = Sidecars::default();
        let id = sidecars.open("spiffe://mesh.local/ns/shop/sa/web".parse().unwrap(), ([127, 0, 0, 1], 1).into(), 0);
        let callers = || sidecars.report(&Snapshot::default(), 100)[0].plaintext_callers.clone();
        assert_eq!(callers(), None);
        sidecars.plaintext(id, Seen::default(), 100);
        assert_eq!(callers(), Some(Vec::new()));
        let caller: IpAddr = [10, 0, 0, 1].into();
        sidecars.plaintext(id, Seen { callers: [caller].into(), more: 0 }, 100);
        assert_eq!(callers(), Some(vec![caller]));
    }

    #[test]
    fn of_several_resources_the_refused_ones_are_refused_and_what_is_given_up_is_forgotten() {
        let sidecars = Sidecars::default();
        let id = sidecars.open("spiffe://mesh.local/ns/shop/sa/web".parse().unwrap(), ([127, 0, 0, 1], 1).into(), 0);
        let reply = |taken: &[(&str, u64)], refused: &[(&str, u64)]| {
            let resources = |of: &[(&str, u64)]| of.iter().map(|(name, n)| destination(name, *n)).collect();
            let complaint = (!refused.is_empty()).then(|| "Service shop/web-2 generation 2 (...): bad".into());
            let reply = Reply { kind: DESTINATION, taken: resources(taken), refused: resources(refused), complaint };
            sidecars.reply(id, reply, 0);
        };
        reply(&[("web", 1), ("api", 1)], &[]);
        assert_eq!(reach(&sidecars), [(0, 1, 0), (0, 0, 0), (0, 1, 0)]);
        reply(&[("web", 2)], &[("web-2", 2)]);
        assert_eq!(reach(&sidecars), [(1, 0, 0), (0, 0, 1), (0, 1, 0)], "web is not web-2");
        let gone = ["shop/web-2", "shop/api"].map(|name| (DESTINATION, name.to_owned()));
        sidecars.dropped(id, &gone);
        assert_eq!(reach(&sidecars), [(1, 0, 0), (0, 0, 0), (0, 0, 0)]);
    }
}
