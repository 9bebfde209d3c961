//! Everything that is installed: what it is, what it may do, and what is not among it.

use std::{collections::BTreeSet, process::Command};

use selvedge_install::{
    NAMESPACE, cni,
    images::{self, Images},
    injection::Capture,
    package::Package,
    removal,
    rights::{self, Right},
    version::Injector,
};
use selvedge_tests::{pages::Page, process::binary};
use serde_json::{Value, json};

/// A list of images as `make image` writes it.
pub(crate) fn list() -> String {
    let names = [images::SIDECAR, images::CONTROL_PLANE, images::CAPTURE, images::CNI];
    let digests = names.iter().enumerate().map(|(n, name)| (name.to_string(), format!("sha256:{n:064x}").into()));
    Value::Object(digests.collect()).to_string()
}

pub(crate) fn objects(capture: Capture) -> Vec<Value> {
    objects_for(capture, Injector::Policy)
}

/// The objects where this puts sidecars into pods.
pub(crate) fn objects_for(capture: Capture, injector: Injector) -> Vec<Value> {
    let images = Images::read(&list(), "registry.example/mesh").unwrap();
    Package { images, capture, injector }.objects().unwrap()
}

fn one(objects: &[Value], kind: &str) -> Value {
    let found: Vec<&Value> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}: {found:?}");
    found[0].clone()
}

#[test]
fn the_same_is_rendered_each_time_and_what_others_need_comes_first() {
    let objects = objects(Capture::Init);
    assert_eq!(objects, self::objects(Capture::Init));
    let place = |kind: &str| objects.iter().position(|object| object["kind"] == kind).expect(kind);
    let order = [
        "Namespace",
        "CustomResourceDefinition",
        "ServiceAccount",
        "ClusterRole",
        "Deployment",
        "Service",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    ];
    let places: Vec<usize> = order.iter().map(|kind| place(kind)).collect();
    assert!(places.is_sorted(), "{order:?}: {places:?}");
}

#[test]
fn a_webhook_takes_the_place_of_the_policy_that_injects_and_is_reached_where_its_configuration_says() {
    let objects = objects_for(Capture::Init, Injector::Webhook);
    assert!(!objects.iter().any(|object| object["kind"] == "MutatingAdmissionPolicy"));
    one(&objects, "ValidatingAdmissionPolicy");
    let configuration = one(&objects, "MutatingWebhookConfiguration");
    let service = one(&objects, "Service");
    let deployment = one(&objects, "Deployment");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    for webhook in configuration["webhooks"].as_array().unwrap() {
        let asked = &webhook["clientConfig"]["service"];
        for field in ["namespace", "name"] {
            assert_eq!(asked[field], service["metadata"][field]);
        }
        let ports = service["spec"]["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["port"] == asked["port"]).expect("the Service has the port");
        let ports = container["ports"].as_array().unwrap();
        let bound = ports.iter().find(|bound| bound["name"] == port["targetPort"]).expect("the pod has the port");
        let listens = format!("[::]:{}", bound["containerPort"]);
        let arguments = container["args"].as_array().unwrap();
        assert!(arguments.windows(2).any(|pair| pair == ["--webhook", &listens]), "{arguments:?}");
    }
}

#[test]
fn nothing_that_is_made_in_a_cluster_or_says_how_strict_it_is_is_rendered() {
    let injectors = [Injector::Policy, Injector::Webhook];
    let captures = [Capture::None, Capture::Init, Capture::Cni];
    for (capture, injector) in captures.into_iter().flat_map(|capture| injectors.map(|injector| (capture, injector))) {
        let objects = objects_for(capture, injector);
        for kind in ["Secret", "MeshPolicy", "InjectionConfig"] {
            assert!(!objects.iter().any(|object| object["kind"] == kind), "a {kind}");
        }
        let arguments = one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        assert!(arguments.as_array().unwrap().contains(&format!("capture={}", capture.word()).into()), "{arguments}");
        for object in &objects {
            assert!(!object.to_string().contains("caBundle"));
        }
    }
}

#[test]
fn every_image_is_named_by_its_digest() {
    let text = Value::from(objects(Capture::Init)).to_string();
    let named = text.matches("registry.example/mesh/").count();
    assert_eq!(named, 3, "the control plane's, the sidecar's and that of the container with the rules");
    assert_eq!(text.matches("@sha256:").count(), named);
    let without = Images::read("{}", "registry.example/mesh").unwrap();
    let refused = Package { images: without, capture: Capture::Init, injector: Injector::Policy }
        .objects()
        .unwrap_err()
        .to_string();
    assert!(refused.contains("make image"), "{refused}");
}

/// What the profile `restricted` of the Pod Security Standards asks.
#[test]
fn the_control_plane_is_restricted() {
    let objects = objects(Capture::Init);
    let namespace = one(&objects, "Namespace");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    let pod = one(&objects, "Deployment")["spec"]["template"]["spec"].clone();
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod.get(field).is_none(), "{field}");
    }
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
    }
    assert!(pod["volumes"].as_array().unwrap().iter().all(|volume| volume.get("hostPath").is_none()));
}

#[test]
fn the_plugin_has_two_folders_of_the_node_and_nothing_else() {
    let objects = objects(Capture::Cni);
    let pod = one(&objects, "DaemonSet")["spec"]["template"]["spec"].clone();
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(pod["hostNetwork"], true, "it waits for the network of pods, and is in none");
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(context["allowPrivilegeEscalation"], false);
    let mut command = Command::new(binary("selvedge-cni"));
    let told = command.args(cni::arguments()).args(["--remove-on-exit", "--help"]).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
}

/// The row of a right in the page.
fn row(right: &Right) -> String {
    let group = if right.group.is_empty() { "core" } else { &right.group };
    let which = right.name.map(|name| format!(" named `{name}`")).unwrap_or_default();
    let place = if right.is_everywhere { "everywhere" } else { "own namespace" };
    format!(
        "| {group} | {}{which} | {} | {place} | {} |",
        right.resources.join(", "),
        right.verbs.join(", "),
        right.reason
    )
}

#[test]
fn the_page_lists_every_right_and_no_other() {
    let page = Page::named("docs/kubernetes/install.md");
    let head = "| group | resources | verbs | where | for |\n|---|---|---|---|---|\n";
    let table = page.text.split_once(head).expect("the table of rights").1;
    let told: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    let rights: Vec<String> = rights::all(Injector::Webhook).iter().map(row).collect();
    assert_eq!(told, rights, "expected:\n{}", rights.join("\n"));
}

#[test]
fn the_roles_give_what_the_list_says_and_read_no_secrets_elsewhere() {
    for injector in [Injector::Policy, Injector::Webhook] {
        let objects = objects_for(Capture::Init, injector);
        for (kind, is_everywhere) in [("ClusterRole", true), ("Role", false)] {
            let rules = one(&objects, kind)["rules"].as_array().unwrap().len();
            let given = rights::all(injector).iter().filter(|right| right.is_everywhere == is_everywhere).count();
            assert_eq!(rules, given, "{kind} with {injector:?}");
        }
    }
    let about_webhooks = |injector| -> usize {
        let is_about = |right: &&Right| right.resources.concat().contains("webhook");
        rights::all(injector).iter().filter(is_about).count()
    };
    assert_eq!([Injector::Policy, Injector::Webhook].map(about_webhooks), [0, 1]);
    for right in rights::all(Injector::Webhook) {
        let all = [&right.group, &right.resources.join(" "), &right.verbs.join(" ")].map(|text| text.contains('*'));
        assert_eq!(all, [false; 3], "{right:?}");
        let touches = |resource: &str| right.resources.iter().any(|known| known == resource);
        assert!(!(touches("secrets") && right.is_everywhere), "{right:?}");
        let is_named = right.name.is_some() || right.verbs == ["create"] || right.is_everywhere;
        assert!(is_named, "one object is meant: {right:?}");
    }
}

#[test]
fn whatever_is_installed_is_removed() {
    let named = |object: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        (text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
    };
    let installed = [Injector::Policy, Injector::Webhook].map(|injector| objects_for(Capture::Cni, injector));
    let installed: BTreeSet<_> = installed.concat().iter().map(named).collect();
    let removed = |purge| -> BTreeSet<_> {
        let targets = removal::steps(purge).into_iter().flat_map(|step| step.targets);
        targets.map(|target| (target.kind, target.namespace.unwrap_or_default(), target.name)).collect()
    };
    let mut all = installed.clone();
    // What the control plane makes.
    for (kind, name) in [("Secret", "selvedge-ca"), ("InjectionConfig", "selvedge-inject")] {
        all.insert((kind.to_owned(), NAMESPACE.to_owned(), name.to_owned()));
    }
    assert_eq!(removed(true), all);
    let kept: BTreeSet<String> = all.difference(&removed(false)).map(|(kind, ..)| kind.clone()).collect();
    assert_eq!(kept, ["CustomResourceDefinition", "Namespace", "Secret"].map(str::to_owned).into());
}
