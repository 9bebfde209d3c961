//! What is kept up to date object by object is what it would be if everything were looked at anew: snapshot, findings and
//! reports, after any edits of two sources, with documents that are invalid, that vanish and that stand twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use proptest::prelude::*;
use selvedge_control_plane::{
    diagnostic::{Diagnostic, Place},
    snapshot::Snapshot,
    source::{Change, ClusterObject, Document, Reading, Unread, files},
    store::{Memory, ObjectReport, Report, Store},
};
use selvedge_xds::kinds::SELVEDGE;
use serde_json::Value;

const SOURCES: [&str; 2] = ["files", "east"];

/// One document: what it is, of which name, in which variant.
type Doc = (usize, usize, usize);

/// What happens to one origin: of which source, which one, what, with which documents, so many lines further down.
type Edit = (usize, usize, What, Vec<Doc>, usize);

#[derive(Clone, Copy, Debug)]
enum What {
    Says,
    IsGone,
    IsSilent,
    IsConfirmed,
    /// The whole source cannot be read, until it tells again.
    IsUnavailable,
}

fn document((kind, name, variant): Doc) -> String {
    let (own, name) = ("apiVersion: selvedge.dev/v1alpha1", ["a", "b", "c"][name % 3]);
    let other = ["a", "b", "bb"][variant % 3];
    match kind {
        0 => format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {other}}}, clusterIP: 10.96.0.{variant}, ports: [{{port: {}, targetPort: web}}]}}\n",
            80 + variant
        ),
        1 => format!(
            "{own}\nkind: Workload\nmetadata: {{name: {name}, labels: {{app: {other}}}}}\nspec: {{serviceAccount: s, address: 10.0.0.{variant}, ports: [{{name: {}, port: 8080}}]{}}}\n",
            ["web", "api"][variant % 2],
            ["", ", node: a, pod: true", ", node: b, pod: true", ", node: b, zone: own"][variant % 4]
        ),
        2 => format!(
            "{own}\nkind: ExternalService\nmetadata: {{name: {name}}}\nspec: {{hosts: [{other}.default.svc], ports: [{{port: 8080}}], endpoints: [{{address: 10.{}.0.{variant}}}]}}\n",
            [0, 96][variant % 2]
        ),
        3 => format!(
            "{own}\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec: {{targetRef: {{kind: {}, name: {other}}}, action: ALLOW, rules: [{{to: [{{ports: [{}]}}]}}]}}\n",
            ["Service", "Workload", "Service"][variant % 3],
            ["1", "", "2", "3"][variant % 4]
        ),
        4 => format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec: {{parentRefs: [{{kind: Service, name: {other}}}], rules: [{{backendRefs: [{{name: {name}, port: {}}}]}}]}}\n",
            80 + variant
        ),
        5 => format!(
            "{own}\nkind: MeshPolicy\nmetadata: {{name: {name}, namespace: default}}\nspec: {{targetRef: {{kind: Workload, name: {other}}}, defaultPosture: deny}}\n"
        ),
        6 => format!(
            "{own}\nkind: RateLimit\nmetadata: {{name: {name}}}\nspec: {{limits: [{{requests: {}, per: 1s}}]}}\n",
            variant + 1
        ),
        7 => format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 0}}]}}\n"),
        8 => format!("apiVersion: v1\nkind: Sevrice\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n"),
        9 => format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: {other}}}}}\nspec: {{podCIDRs: [10.{variant}.0.0/24]}}\n"
        ),
        10 => format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: {other}}}}}\naddressType: IPv4\nendpoints: [{{addresses: [10.0.0.{variant}]{}}}]\nports: [{{port: 8080}}]\n",
            ["", ", nodeName: a", ", targetRef: {kind: Pod, name: a}", ", nodeName: b"][variant % 4]
        ),
        _ => ["kind: [\n", "kind: Service\n", "# nothing\n", "a: 1\na: 2\n"][variant % 4].to_owned(),
    }
}

fn edits() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let what = prop_oneof![
        10 => Just(What::Says),
        2 => Just(What::IsGone),
        1 => Just(What::IsSilent),
        1 => Just(What::IsConfirmed),
        1 => Just(What::IsUnavailable),
    ];
    let documents = prop::collection::vec((0usize..12, 0usize..3, 0usize..4), 0..5);
    let edit = (0usize..2, 0usize..4, what, documents, 0usize..3);
    prop::collection::vec(prop::collection::vec(edit, 1..4), 1..12)
}

/// What the sources say at a time: readings by source and origin, and which sources cannot be read.
#[derive(Default)]
struct Told {
    units: BTreeMap<(usize, Arc<str>), Reading>,
    unavailable: BTreeSet<usize>,
}

impl Told {
    /// The step of an edit.
    fn step(&mut self, (source, unit, what, documents, shift): &Edit) -> Change {
        let name: Arc<str> = match source {
            0 => format!("mesh/{unit}.yaml").into(),
            _ => format!("cluster east: {unit}").into(),
        };
        let key = (*source, name.clone());
        let mut put = |reading: Reading| {
            self.units.insert(key.clone(), reading.clone());
            Change::Put(name.clone(), reading)
        };
        match what {
            What::Says if *source == 0 => {
                let text = "# a line\n".repeat(*shift)
                    + &documents.iter().map(|doc| document(*doc)).collect::<Vec<_>>().join("---\n");
                put(files::parse(&Document { origin: name.clone(), text: Ok(text.into()) }))
            }
            What::Says => put(of_cluster(&name, documents.first().copied().unwrap_or((0, *unit, 0)), *shift)),
            What::IsSilent => put(Reading::unread(&name, &Unread::from("nobody knows"))),
            What::IsUnavailable => {
                self.unavailable.insert(*source);
                Change::Unavailable { origin: SOURCES[*source].into(), reason: "no answer".into() }
            }
            What::IsGone | What::IsConfirmed => {
                self.units.remove(&key);
                if matches!(what, What::IsGone) { Change::Remove(name) } else { Change::Confirmed(name) }
            }
        }
    }

    /// Tells a store everything at once.
    fn tell(&self, store: &mut Store) -> (Arc<Snapshot>, Report) {
        for (n, source) in SOURCES.into_iter().enumerate() {
            for ((_, name), reading) in self.units.iter().filter(|((of, _), _)| *of == n) {
                store.take(source, Change::Put(name.clone(), reading.clone()));
            }
            store.take(source, Change::Complete);
            if self.unavailable.contains(&n) {
                store.take(source, Change::Unavailable { origin: source.into(), reason: "no answer".into() });
                store.take(source, Change::Complete);
            }
        }
        store.commit()
    }
}

/// An object of a cluster is one document, whatever else it is.
fn of_cluster(name: &Arc<str>, doc: Doc, version: usize) -> Reading {
    let kind = if doc.0 > 10 { 8 } else { doc.0 };
    let text = document((kind, doc.1, doc.2));
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let (uid, resource_version) = (text.into(), version.to_string().into());
    let (name, manager) = (name.clone(), Arc::default());
    Reading::of_cluster(&document, ClusterObject { name, uid, resource_version, manager, generation: 1 })
}

fn resources(snapshot: &Snapshot) -> BTreeMap<String, (String, Vec<String>)> {
    let all = SELVEDGE.order().iter().flat_map(|kind| snapshot.resources(*kind));
    all.map(|found| {
        (format!("{:?} {}", found.kind, found.name), (format!("{:?}", found.version), found.aliases.clone()))
    })
    .collect()
}

/// The findings. What went with its origin is history; and of an object that is not current the lines are those of a text
/// that is not there any more.
fn findings(report: &Report) -> Vec<String> {
    let is_current = |object: &str| {
        let is_it = |of: &&ObjectReport| format!("{} {}/{}", of.kind, of.namespace, of.name) == object;
        report.objects.iter().find(is_it).is_some_and(|object| object.current)
    };
    let all_current = report.objects.iter().all(|object| object.current);
    let place = |place: &Place, exact: bool| {
        if exact { format!("{}:{}:{}", place.file, place.line, place.column) } else { place.file.clone() }
    };
    let text = |finding: &Diagnostic| {
        let exact = finding.object.is_empty() || is_current(&finding.object);
        let related = finding.related.as_ref().map(|related| place(&related.place, all_current) + &related.message);
        let what =
            format!("{:?} {} {} {} {}", finding.severity, finding.message, finding.hint, finding.field, finding.object);
        format!("{} {what} {related:?}", place(&finding.place, exact))
    };
    let mut texts: Vec<String> = report
        .findings
        .iter()
        .filter(|finding| !finding.message.contains("is removed with its file"))
        .map(text)
        .collect();
    texts.sort();
    texts
}

fn objects(report: &Report) -> Vec<String> {
    let text = |o: &ObjectReport| {
        format!(
            "{} {}/{} {} {} {} {}",
            o.kind,
            o.namespace,
            o.name,
            o.file,
            o.accepted_generation,
            o.current,
            o.problems.len()
        )
    };
    report.objects.iter().map(text).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn step_by_step_is_the_same_as_from_nothing(steps in edits()) {
        let state = tempfile::tempdir().unwrap();
        let memory = || Memory::new(state.path(), Path::new("mesh"));
        let (mut keeping, mut store, mut told) = (memory(), Store::new("mesh.local"), Told::default());
        told.tell(&mut store);
        for edits in steps {
            told.unavailable.clear();
            for edit in &edits {
                let step = told.step(edit);
                store.take(SOURCES[edit.0], step);
            }
            for source in SOURCES {
                store.take(source, Change::Complete);
            }
            let (snapshot, report) = store.commit();
            store.unsaved().into_iter().for_each(|in_force| keeping.save(&in_force).unwrap());

            let mut again = Store::new("mesh.local").remember(&memory());
            let (expected, wanted) = told.tell(&mut again);
            prop_assert_eq!(resources(&snapshot), resources(&expected));
            prop_assert_eq!(objects(&report), objects(&wanted));
            prop_assert_eq!(findings(&report), findings(&wanted));
            prop_assert_eq!(report.complete, wanted.complete);
        }
    }
}
