//! Every complaint points at the right place, and no input does harm.

use proptest::prelude::*;
use selvedge_control_plane::{
    diagnostic::{Diagnostic, Severity},
    source::{Document, Reading, files},
};

fn read(text: &str) -> Reading {
    files::parse(&Document { origin: "mesh.yaml".into(), text: Ok(text.into()) })
}

fn at(finding: &Diagnostic) -> (usize, usize) {
    (finding.place.line, finding.place.column)
}

/// A sound document of each kind, by its `spec`.
fn object(kind: &str, spec: &str) -> String {
    let version = match kind {
        "Service" => "v1",
        "HTTPRoute" => "gateway.networking.k8s.io/v1",
        _ => "selvedge.dev/v1alpha1",
    };
    format!("apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: a\nspec:\n{spec}")
}

#[test]
fn bad_input_is_pointed_at() {
    let table: &[(&str, &str, (usize, usize), &str)] = &[
        // YAML
        ("unclosed list", "kind: [\n", (1, 7), "not YAML"),
        ("tab", "a:\n\tb: 1\n", (2, 2), "not YAML"),
        ("unknown alias", "a: *b\n", (1, 4), "not YAML"),
        ("field twice", "a: 1\nb: 2\na: 3\n", (3, 1), "field 'a' stands twice"),
        ("no --- between objects", "kind: A\nkind: B\n", (2, 1), "a line --- before each further object"),
        ("merge key", "a: &a {b: 1}\nc:\n  <<: *a\n", (3, 3), "merge keys are not supported"),
        ("list as field name", "? [1]\n: 2\n", (1, 3), "cannot be the name of a field"),
        ("alias of what holds it", "a: &a [*a]\n", (1, 8), "the alias stands inside"),
        // envelope
        ("no map", "just text\n", (1, 1), "expected a map of fields, found 'just text'"),
        ("list at the top", "- a\n", (1, 1), "expected a map of fields, found a list"),
        (
            "unknown kind",
            "apiVersion: v1\nkind: Sevrice\nmetadata: {name: a}\nspec: {}\n",
            (2, 7),
            "unknown kind 'Sevrice'",
        ),
        ("no kind", "apiVersion: v1\nmetadata: {name: a}\nspec: {}\n", (1, 1), "missing field 'kind'"),
        (
            "kind of wrong type",
            "apiVersion: v1\nkind: 7\nmetadata: {name: a}\nspec: {}\n",
            (2, 7),
            "expected a string, found 7",
        ),
        (
            "apiVersion of another kind",
            "apiVersion: v1\nkind: Workload\nmetadata: {name: a}\nspec: {serviceAccount: a, address: 10.0.0.1}\n",
            (1, 13),
            "apiVersion 'v1' is not that of Workload: expected selvedge.dev/v1alpha1",
        ),
        (
            "no name",
            "apiVersion: v1\nkind: Service\nmetadata: {}\nspec: {ports: [{port: 1}]}\n",
            (3, 1),
            "missing field 'name'",
        ),
        (
            "bad name",
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: My_Service\nspec: {ports: [{port: 1}]}\n",
            (4, 9),
            "'My_Service' is not a DNS label",
        ),
        (
            "bad namespace",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: a.b}\nspec: {ports: [{port: 1}]}\n",
            (3, 32),
            "'a.b' is not a DNS label",
        ),
        (
            "misspelt namespace",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, namepsace: b}\nspec: {ports: [{port: 1}]}\n",
            (3, 21),
            "unknown field 'namepsace': did you mean 'namespace'?",
        ),
        (
            "misspelt spec",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspce: {}\n",
            (4, 1),
            "unknown field 'spce': did you mean 'spec'?",
        ),
        (
            "label that is no text",
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {v: 1}}\nspec: {ports: [{port: 1}]}\n",
            (3, 33),
            "expected a string, found 1; put it in quotes",
        ),
    ];
    for (what, text, place, message) in table {
        assert_found(what, text, *place, message);
    }
}

#[test]
fn bad_specs_are_pointed_at() {
    let table: &[(&str, &str, (usize, usize), &str)] = &[
        (
            "Service",
            "  selectro: {app: a}\n  ports: [{port: 80}]\n",
            (6, 3),
            "unknown field 'selectro': did you mean 'selector'?",
        ),
        ("Service", "  ports:\n  - port: '80'\n", (7, 11), "expected a whole number, found '80'"),
        ("Service", "  ports:\n  - port: 70000\n", (7, 11), "70000 is out of range"),
        ("Service", "  ports:\n  - port: 0\n", (7, 11), "0 is out of range"),
        ("Service", "  ports: []\n", (6, 3), "a service without ports"),
        ("Service", "  ports:\n  - port: 80\n  - port: 80\n", (8, 11), "port 80 is already that of ports[0]"),
        (
            "Service",
            "  ports:\n  - port: 80\n    appProtocol: htpp\n",
            (8, 18),
            "does not know 'htpp', so what is spoken is found out: did you mean 'http'?",
        ),
        ("Service", "  ports:\n  - port: 80\n    protocol: TPC\n", (8, 15), "'TPC' is not known here"),
        ("Service", "  clusterIP: 10.0.0\n  ports: [{port: 80}]\n", (6, 14), "'10.0.0' is not an IP address"),
        ("Service", "  ports:\n  - prot: 80\n", (7, 5), "unknown field 'prot': did you mean 'port'?"),
        ("Service", "  ports:\n  - port: 80\n    targetPort: '8080'\n", (8, 17), "'8080' is not the name of a port"),
        ("Service", "  ports:\n  - port: 80\n    targetPort: 0\n", (8, 17), "0 is out of range"),
        ("Service", "  clusterIPs: [10.0.0.1, x]\n  ports: [{port: 80}]\n", (6, 26), "'x' is not an IP address"),
        (
            "Workload",
            "  serviceAccount: a\n  address: 10.0.0.1\n  ports: [{name: a, port: 1}, {name: a, port: 2}]\n",
            (8, 38),
            "the name is already that of ports[0]",
        ),
        ("Workload", "  address: 10.0.0.1\n", (5, 1), "missing field 'serviceAccount'"),
        ("Workload", "  serviceAccount: a\n  address: example.com\n", (7, 12), "'example.com' is not an IP address"),
        ("Workload", "  serviceAccount: a\n  address: 0.0.0.0\n", (7, 12), "0.0.0.0 cannot be dialled"),
        ("Workload", "  serviceAccount: A\n  address: 10.0.0.1\n", (6, 19), "'A' is not the name of an object"),
        ("Workload", "  serviceAccount: a\n  address: 10.0.0.1\n  weight: 99999\n", (8, 11), "99999 is out of range"),
        (
            "ExternalService",
            "  hosts: ['*.a.com']\n  ports: [{port: 80}]\n  endpoints: [{address: 1.2.3.4}]\n",
            (6, 11),
            "wildcard",
        ),
        (
            "ExternalService",
            "  hosts: [a.com]\n  ports: [{port: 80}]\n  endpoints: [{address: a.com}]\n",
            (8, 25),
            "host names are not resolved",
        ),
        ("MeshPolicy", "  mtls: {inbound: STRIKT}\n", (6, 19), "'STRIKT' is not known here: did you mean 'STRICT'?"),
        ("MeshPolicy", "  mtls: {inbuond: STRICT}\n", (6, 10), "unknown field 'inbuond': did you mean 'inbound'?"),
        ("MeshPolicy", "  targetRef: {kind: Workload}\n", (6, 3), "missing field 'name'"),
        ("MeshPolicy", "  targetRef: {kind: Mesh, name: a}\n", (6, 33), "the mesh has no name"),
        (
            "MeshPolicy",
            "  targetRef: {kind: Mesh}\n",
            (6, 21),
            "a policy of namespace 'default' cannot cover the whole mesh: expected namespace selvedge-system",
        ),
        ("MeshPolicy", "  defaultPosture: block\n", (6, 19), "'block' is not known here"),
        (
            "AuthorizationPolicy",
            "  action: ALLOW\n  rules:\n  - from:\n    - serviceAcounts: [a]\n",
            (9, 7),
            "unknown field 'serviceAcounts'",
        ),
        ("RateLimit", "  limits:\n  - requests: 5\n    per: 5\n", (8, 10), "expected a string"),
        ("RateLimit", "  limits:\n  - requests: 5\n    per: 5 seconds\n", (8, 10), "is not a duration"),
        (
            "HTTPRoute",
            "  parentRefs: [{kind: Service, name: a}]\n  rules:\n  - backendRefs:\n    - name: b\n      prot: 80\n",
            (10, 7),
            "unknown field 'prot'",
        ),
        ("TrafficPolicy", "  targetRef: {name: a}\n  balancer: fastest\n", (7, 13), "'fastest' is not known here"),
    ];
    for (kind, spec, place, message) in table {
        assert_found(kind, &object(kind, spec), *place, message);
    }
}

/// As templates write it whose values are missing. It is an error in any case; what is in force meanwhile is the store's.
#[test]
fn what_is_written_and_empty_is_pointed_at_with_the_way_out() {
    let table: &[(&str, &str, (usize, usize), &str)] = &[
        (
            "AuthorizationPolicy",
            "  action: ALLOW\n  rules:\n  - from: [{serviceAccounts: []}]\n",
            (8, 13),
            "leave the field out",
        ),
        (
            "AuthorizationPolicy",
            "  action: ALLOW\n  rules:\n  - from:\n    - serviceAccounts:\n",
            (9, 7),
            "no value is written",
        ),
        ("AuthorizationPolicy", "  action: ALLOW\n  expires:\n  rules: [{}]\n", (7, 3), "matches nobody"),
        ("AuthorizationPolicy", "  action: DENY\n  rules:\n  - from: [{}]\n", (8, 12), "{} asks nothing"),
        ("AuthorizationPolicy", "  action: AUDIT\n  rules:\n  - to: []\n", (8, 5), "matches everybody"),
        (
            "RateLimit",
            "  limits:\n  - {requests: 5, per: 1s, match: [{methods: []}]}\n",
            (7, 37),
            "counts every request",
        ),
        (
            "HTTPRoute",
            "  parentRefs: [{kind: Service, name: a}]\n  rules:\n  - matches: []\n",
            (8, 5),
            "leave the field out",
        ),
    ];
    for (kind, spec, place, message) in table {
        let text = object(kind, spec);
        assert_found(kind, &text, *place, message);
        let reading = read(&text);
        assert!(!reading.is_sound() && reading.refused.is_empty() && reading.objects.len() == 1, "{kind}");
        assert!(reading.findings.iter().all(|finding| finding.severity == Severity::Error), "{kind}");
    }
}

#[test]
fn a_mesh_policy_that_lost_a_value_is_refused() {
    for (spec, place, message) in [
        ("  defaultPosture:\n", (6, 3), "no value is written"),
        ("  mtls:\n", (6, 3), "no value is written"),
        ("  mtls:\n    inbound:\n", (7, 5), "no value is written"),
        ("  mtls: {}\n", (6, 3), "{} says nothing"),
        ("  targetRef:\n  defaultPosture: deny\n", (6, 3), "no value is written"),
    ] {
        let text = object("MeshPolicy", spec);
        assert_found("MeshPolicy", &text, place, message);
        let reading = read(&text);
        assert!(reading.objects.is_empty() && reading.refused.len() == 1, "{spec}");
    }
}

#[test]
fn a_field_that_cannot_say_who_calls_is_pointed_at() {
    for (setting, word, message) in [
        ("{headers: {authorization: SET}}", "SET", "'authorization' has another meaning already: expected a name of"),
        ("{headers: {x-caller: ON}}", "ON", "'ON' is not known here"),
        ("{trustedProxies: []}", "trustedProxies", "where none is trusted"),
    ] {
        let spec = format!("  callerIdentity: {setting}\n");
        let column = spec.find(word).unwrap() + 1;
        assert_found("MeshPolicy", &object("MeshPolicy", &spec), (6, column), message);
    }
}

#[test]
fn a_mesh_policy_that_does_not_say_where_it_is_is_no_policy_of_the_mesh() {
    let text = object("MeshPolicy", "  accessLog: off\n");
    let reading = read(&text);
    let [finding] = &reading.findings[..] else { panic!("{:#?}", reading.findings) };
    assert_eq!((finding.severity, &*finding.field, at(finding).0), (Severity::Warning, "metadata.namespace", 3));
    assert!(finding.message.contains("namespace 'default' alone") && finding.message.contains("selvedge-system"));
    assert_eq!(reading.objects.len(), 1, "it is in force where it is");
    for spec in [
        "  accessLog: off\n",
        "  targetRef: {kind: Workload, name: a}\n  mtls: {inbound: PERMISSIVE, outbound: PREFER}\n",
    ] {
        let said = object("MeshPolicy", spec).replace("name: a\nspec", "name: a\n  namespace: default\nspec");
        assert_eq!((read(&said).findings, read(&said).objects.len()), (Vec::new(), 1));
    }
}

fn assert_found(what: &str, text: &str, place: (usize, usize), message: &str) {
    let findings = read(text).findings;
    let told = |finding: &Diagnostic| finding.to_string().contains(message) && at(finding) == place;
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.iter().any(told), "{what}: expected {place:?} {message:?}, found {all:#?} in\n{text}");
    for finding in &findings {
        assert!(finding.render(false).contains(&finding.message), "{what}: rendering loses the message");
    }
}

#[test]
fn sound_objects_have_no_findings() {
    for (kind, spec) in [
        (
            "Service",
            "  type: ClusterIP\n  clusterIP: None\n  selector: {a: b}\n  ports: [{name: x, port: 80, protocol: TCP}]\n",
        ),
        ("Workload", "  serviceAccount: a\n  address: 'fd00::1'\n  ports: [{port: 80, dial: 8080}]\n  weight: 0\n"),
        ("ExternalService", "  hosts: [a.com]\n  ports: [{port: 443, tls: {}}]\n  endpoints: [{address: 1.2.3.4}]\n"),
        (
            "HTTPRoute",
            "  parentRefs: [{kind: Service, name: a, port: 80}]\n  rules: [{backendRefs: [{name: b, port: 80}]}]\n",
        ),
    ] {
        let reading = read(&object(kind, spec));
        let all: Vec<String> = reading.findings.iter().map(ToString::to_string).collect();
        assert!(all.is_empty(), "{kind}: {all:#?}");
        assert_eq!(reading.objects.len(), 1);
    }
}

#[test]
fn one_document_never_hides_another() {
    let sound = object("Workload", "  serviceAccount: a\n  address: 10.0.0.1\n");
    let text = format!("{sound}---\nkind: [\n---\n{sound}---\nkind: Sevrice\n---\n# only a comment\n---\n{sound}");
    let reading = read(&text);
    assert_eq!(reading.objects.len(), 3, "all sound documents are read");
    assert!(reading.incomplete, "nothing of this file may be taken for removed");
    let lines: Vec<usize> = reading.findings.iter().map(|finding| finding.place.line).collect();
    assert!(lines.contains(&9) && lines.contains(&19), "places count from the start of the file: {lines:?}");
}

#[test]
fn documents_end_at_three_dots_too() {
    let sound = object("Workload", "  serviceAccount: a\n  address: 10.0.0.1\n");
    let bad = "apiVersion: v1\nkind: Sevrice\nmetadata: {name: b}\n";
    for (between, lines) in [("...\n", 1), ("... # the end\n", 1), ("...\n---\n", 2), ("...\r\n# more\n--- \n", 3)] {
        let reading = read(&format!("{bad}{between}{sound}{between}{}", sound.replace("name: a", "name: c")));
        assert_eq!(reading.objects.len(), 2, "{between:?}: {:#?}", reading.findings);
        assert!(reading.findings.iter().any(|finding| at(finding) == (2, 7)), "{between:?}: {:#?}", reading.findings);
        let reading = read(&format!("{sound}{between}{bad}"));
        let line = sound.lines().count() + lines + 2;
        assert!(reading.findings.iter().any(|finding| at(finding) == (line, 7)), "{between:?} {:#?}", reading.findings);
    }
    assert_eq!(read(&format!("...\n{sound}...\n")).findings, [], "there is nothing before and after");
    let carriage_return = read(&format!("{sound}...\r{sound}"));
    assert!(!carriage_return.findings.is_empty(), "nothing is lost without a word");
}

#[test]
fn an_object_with_a_field_that_stands_twice_is_refused_by_name() {
    let twice = object("Service", "  ports: [{port: 80}]\n  ports: [{port: 81}]\n");
    let sound = object("Workload", "  serviceAccount: a\n  address: 10.0.0.1\n");
    let reading = read(&format!("{twice}---\n{sound}"));
    assert_eq!(reading.objects.len(), 1, "the other document is sound");
    assert_eq!(reading.refused.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Service default/a"]);
    assert!(!reading.incomplete, "it is clear which object that is");
    let finding = &reading.findings[0];
    assert_eq!((at(finding), finding.object.as_str()), ((7, 3), "Service default/a"));
    assert_eq!(finding.related.as_ref().unwrap().place.line, 6);
    assert!(read(&sound.replace("  name: a", "  name: a\n  name: b")).incomplete, "nobody knows which object that is");

    let item = |name: &str, more: &str| {
        format!(
            "- apiVersion: v1\n  kind: Service\n  metadata: {{name: {name}}}\n  spec:\n    ports: [{{port: 1}}]\n{more}"
        )
    };
    let list = format!("kind: List\nitems:\n{}{}", item("a", ""), item("b", "    ports: []\n"));
    let reading = read(&list);
    assert_eq!((reading.objects.len(), reading.refused.len(), reading.incomplete), (1, 1, false));
    assert!(read(&format!("{list}items: []\n")).incomplete, "what the second list was to say is not known");
}

#[test]
fn what_is_certainly_of_another_system_is_told_from_what_may_be_misspelt() {
    let of = |version: &str, kind: &str| {
        let reading = read(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\ndata: {{b: c}}\n"));
        assert!(!reading.incomplete, "{kind}");
        (!reading.findings.is_empty(), !reading.unclear.is_empty())
    };
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("batch/v1", "CronJob"),
        ("v1", "ConfigMap"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
    ] {
        assert_eq!(of(version, kind), (false, false), "a cluster has {kind} beside the mesh");
    }
    assert_eq!(of("example.com/v1", "Certificate"), (true, false), "nobody knows who reads it");
    let dotted = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a.example}\n";
    assert!(!read(dotted).incomplete, "its name need not be one of ours");
    for (version, kind) in [
        ("apps/v1", "Sevrice"),
        ("selvedge.dev/v1alpha1", "AuthPolicy"),
        ("v1", "Sevrice"),
        ("gateway.networking.k8s.io/v1", "GRPCRoute"),
    ] {
        assert_eq!(of(version, kind), (true, true), "{version} {kind} may be meant for the mesh");
    }
}

#[test]
fn a_service_that_nothing_of_the_mesh_is_behind_is_none_of_a_file_either() {
    for spec in ["  type: ExternalName\n  externalName: api.example.com\n", "  clusterIP: None\n  selector: {app: a}\n"]
    {
        let reading = read(&object("Service", spec));
        assert!(reading.is_empty() && reading.findings.is_empty(), "{spec}: {reading:#?}");
    }
    let mut misspelt = object("Service", "  type: ExternalName\n  externalName: api.example.com\n");
    misspelt = misspelt.replace("name: a", "nmae: a");
    assert!(!read(&misspelt).findings.is_empty(), "{misspelt}");
}

#[test]
fn every_complaint_of_an_object_is_told_at_once() {
    let text = object("Service", "  selectro: {a: b}\n  ports: [{port: x, targetPort: []}, {prot: 1}]\n");
    assert_eq!(read(&text).findings.len(), 5, "{:#?}", read(&text).findings);
}

#[test]
fn a_list_is_its_items() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n  spec: {ports: [{port: 1}]}\n- kind: Nothing\n";
    let reading = read(text);
    assert_eq!(reading.objects.len(), 1);
    assert!(reading.findings.iter().any(|finding| at(finding) == (8, 9)), "{:#?}", reading.findings);
}

#[test]
fn what_a_server_adds_is_read_over() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, uid: x, resourceVersion: '1', creationTimestamp: null}\nspec: {ports: [{port: 1}]}\nstatus: {loadBalancer: {}}\n";
    assert_eq!(read(text).findings, []);
}

/// `kubectl get service checkout -o yaml`, of a cluster of version 1.33.
const FROM_A_CLUSTER: &str = "
apiVersion: v1
kind: Service
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{}'
  creationTimestamp: '2026-01-12T09:30:00Z'
  finalizers: [service.kubernetes.io/load-balancer-cleanup]
  labels: {app: checkout}
  name: checkout
  namespace: shop
  resourceVersion: '4711'
  uid: 7d0c1a6e-8f2b-4a43-9a53-0a8f6f0f7a01
spec:
  allocateLoadBalancerNodePorts: true
  clusterIP: 10.96.14.2
  clusterIPs: [10.96.14.2, 'fd00:10:96::e02']
  externalIPs: [203.0.113.7]
  externalTrafficPolicy: Local
  healthCheckNodePort: 31234
  internalTrafficPolicy: Cluster
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: PreferDualStack
  loadBalancerClass: example.com/internal
  loadBalancerIP: 203.0.113.8
  loadBalancerSourceRanges: [203.0.113.0/24]
  publishNotReadyAddresses: true
  trafficDistribution: PreferClose
  ports:
  - {name: http, nodePort: 30080, port: 80, protocol: TCP, targetPort: http}
  - {name: grpc, nodePort: 30081, port: 81, protocol: TCP, targetPort: 9090, appProtocol: grpc}
  selector: {app: checkout}
  sessionAffinity: None
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}
  type: LoadBalancer
status:
  loadBalancer: {ingress: [{ip: 203.0.113.8}]}
";

#[test]
fn a_service_as_a_cluster_tells_it_is_sound_and_a_misspelt_field_is_still_found() {
    let reading = read(FROM_A_CLUSTER);
    assert_eq!(reading.findings, []);
    assert_eq!(reading.objects.len(), 1);
    let misspelt = read(&FROM_A_CLUSTER.replace("nodePort: 30081", "nodePrt: 30081")).findings;
    assert!(misspelt[0].to_string().contains("unknown field 'nodePrt'"), "{misspelt:#?}");
}

#[test]
fn a_finding_looks_like_a_compilers() {
    let text = object("Service", "  selectro: {app: a}\n  ports: [{port: 80}]\n");
    let rendered = read(&text).findings[0].render(false);
    let expected = "\
error[unknown_field]: unknown field 'selectro'
 --> mesh.yaml:6:3
  |
6 |   selectro: {app: a}
  |   ^^^^^^^^ did you mean 'selector'?
  |
  = field spec.selectro of Service default/a";
    assert_eq!(rendered, expected);
}

#[test]
fn places_are_right_after_wide_characters_and_windows_line_ends() {
    let text = "# größe 🧵\r\napiVersion: v1\r\nkind: Service\r\nmetadata: {name: a, annotations: {ö: ü}, labels: {v: 1}}\r\nspec: {ports: [{port: 1}]}\r\n";
    let findings = read(text).findings;
    assert_eq!(findings.iter().map(at).collect::<Vec<_>>(), [(4, 54)], "{findings:#?}");
    assert!(findings[0].render(false).contains("labels: {v: 1}"));
}

#[test]
fn alias_bombs_deep_nests_and_floods_of_complaints_are_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let before = n - 1;
        let aliases = vec![format!("*a{before}"); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    let reading = read(&bomb);
    assert!(reading.findings[0].message.contains("aliases"), "{:#?}", reading.findings);

    let mut chain = "a0: &a0 [x]\n".to_owned();
    (1..5000).for_each(|n| chain.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1)));
    assert!(read(&chain).findings[0].message.contains("nested too deep"));

    for open in ["[", "{a: ", "- "] {
        assert!(!read(&open.repeat(100_000)).findings.is_empty());
    }
    let many = "kind: Nothing\n---\n".repeat(5000);
    assert!(read(&many).findings.len() <= 101);
}

#[test]
fn an_unreadable_file_is_one_finding() {
    let reading = files::parse(&Document { origin: "a.yaml".into(), text: Err("the file is not UTF-8".into()) });
    assert!(reading.incomplete);
    assert_eq!(reading.findings[0].severity, Severity::Error);
    assert!(reading.findings[0].render(false).contains("a.yaml"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        for finding in read(&text).findings {
            finding.render(false);
        }
    }

    #[test]
    fn no_damaged_document_panics(cut in 0usize..400, insert in "[\\PC\n\t]{0,6}") {
        let whole = object("HTTPRoute", "  parentRefs: [{kind: Service, name: a, port: 80}]\n  rules:\n  - name: ä\n    matches: [{path: {type: Exact, value: /x}}]\n    backendRefs: [{name: b, port: 80, weight: 3}]\n");
        let mut cut = cut.min(whole.len());
        while !whole.is_char_boundary(cut) {
            cut -= 1;
        }
        let text = format!("{}{insert}{}", &whole[..cut], &whole[cut..]);
        for finding in read(&text).findings {
            finding.render(true);
        }
    }
}
