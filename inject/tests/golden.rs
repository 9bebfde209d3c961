//! The injector and its policy in CEL say the same of every shape of pod, and so did a real API server, whose answers are in
//! `golden/answers.json`. `tests/tests/injection.rs` asks one for them anew.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where its own set-up fails")]

use kube_cel::cel::Value as Cel;
use selvedge_inject::{
    injection::inject,
    pod::Namespace,
    policy::advising,
    setting::{NAME, Settings},
    warning::{misspelt, warnings},
};
use serde_json::{Value, json};

#[path = "golden/answers.rs"]
mod answers;
#[path = "golden/evaluator.rs"]
mod evaluator;
#[path = "golden/shapes.rs"]
mod shapes;

use shapes::{Shape, shapes};

/// The namespace of an object, as an injector has it.
fn namespace(object: &Value) -> Namespace {
    let labels = object["metadata"]["labels"].as_object().unwrap().clone();
    Namespace { name: object["metadata"]["name"].as_str().unwrap().to_owned(), labels }
}

/// What the injector says, in the form of the policy.
fn injector(shape: &Shape) -> Value {
    match inject(&shape.pod, &namespace(&shape.namespace), &Settings::of(&shape.settings)) {
        Ok(patch) if patch.is_empty() => json!({ "left": true }),
        Ok(patch) => json!({ "patch": patch }),
        Err(why) if why.is_refusal() => json!({ "refused": why.to_string() }),
        Err(_) => json!({ "left": true }),
    }
}

/// Whether the policy says the same; of a refusal its own words stand around ours.
fn agrees(injector: &Value, policy: &Value) -> bool {
    match (injector.get("refused").and_then(Value::as_str), policy.get("refused").and_then(Value::as_str)) {
        (Some(ours), Some(theirs)) => theirs.contains(ours),
        _ => injector == policy,
    }
}

#[test]
fn the_injector_and_the_policy_agree_on_every_shape() {
    let shapes = shapes();
    assert!(shapes.len() >= 60, "{} shapes", shapes.len());
    let mut differences = Vec::new();
    for shape in &shapes {
        let (ours, theirs) = (injector(shape), evaluator::answer(&shape.pod, &shape.namespace, &shape.settings));
        if !agrees(&ours, &theirs) {
            differences.push(format!("{}\n  injector: {ours}\n  policy:   {theirs}", shape.name));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn the_injector_says_what_a_real_api_server_said() {
    let golden: Value = serde_json::from_str(include_str!("golden/answers.json")).unwrap();
    assert!(golden["by"].as_str().unwrap().starts_with("kube-apiserver v1."), "{}", golden["by"]);
    let shapes = shapes();
    for shape in &shapes {
        let (ours, theirs) = (answers::injector(shape), &golden["answers"][&shape.name]);
        assert!(answers::is_same(&ours, theirs), "{}\n  injector: {ours}\n  server:   {theirs}", shape.name);
    }
    assert_eq!(golden["answers"].as_object().unwrap().len(), shapes.len(), "answers to shapes that are no more");
}

/// The warnings of the policy that warns, of an object in a namespace.
fn advice(object: &Value, namespace: &Value, settings: &Value) -> Vec<String> {
    let mut context = evaluator::context();
    context.add_variable_from_value("object", evaluator::to_cel(object));
    context.add_variable_from_value("params", evaluator::to_cel(settings));
    context.add_variable_from_value("namespaceObject", evaluator::to_cel(namespace));
    context
        .add_variable_from_value("request", evaluator::to_cel(&json!({ "namespace": namespace["metadata"]["name"] })));
    let mut known = Vec::new();
    for (name, expression) in advising::variables() {
        context.add_variable_from_value("variables", evaluator::map(known.iter().cloned()));
        let value = evaluator::evaluate(&context, &expression).unwrap_or_else(|error| panic!("{expression}\n{error}"));
        known.push((name, value));
    }
    context.add_variable_from_value("variables", evaluator::map(known.into_iter()));
    let text = |of: &Value| of.as_str().unwrap().to_owned();
    let broken = advising::validations().into_iter().filter(|validation| {
        let expression = text(&validation["expression"]);
        evaluator::evaluate(&context, &expression).unwrap_or_else(|error| panic!("{expression}\n{error}"))
            != Cel::Bool(true)
    });
    broken
        .map(|validation| match evaluator::evaluate(&context, &text(&validation["messageExpression"])).unwrap() {
            Cel::String(message) => message.to_string(),
            other => panic!("a message is {other:?}"),
        })
        .collect()
}

/// The warnings of an object in a namespace without labels.
fn advice_of(object: &Value) -> Vec<String> {
    let shape = shapes().remove(0);
    advice(object, &json!({ "metadata": { "name": "shop" } }), &shape.settings)
}

/// The policy sees a pod after it was injected, and the template of one before.
#[test]
fn the_policy_warns_of_what_the_injector_warns_of_in_the_same_words() {
    let mut warned = 0;
    for shape in shapes() {
        let mut injected = shape.pod.clone();
        if let Ok(patch) = inject(&shape.pod, &namespace(&shape.namespace), &Settings::of(&shape.settings)) {
            json_patch::patch(&mut injected, &serde_json::from_value::<json_patch::Patch>(json!(patch)).unwrap())
                .unwrap();
        }
        let template = json!({ "metadata": shape.pod["metadata"], "spec": shape.pod["spec"] });
        let deployment = json!({ "kind": "Deployment", "metadata": {}, "spec": { "template": template } });
        for (object, pod) in [(&shape.pod, &shape.pod), (&injected, &injected), (&deployment, &shape.pod)] {
            let mut ours = answers::said(&shape, pod);
            let (of_keys, mut theirs): (Vec<_>, Vec<_>) = advice(object, &shape.namespace, &shape.settings)
                .into_iter()
                .partition(|said| said.starts_with("there is no annotation"));
            ours.sort();
            theirs.sort();
            assert_eq!(ours, theirs, "{}: {object}", shape.name);
            assert_eq!(of_keys.len(), misspelt(pod).count().min(1), "{}", shape.name);
            warned += theirs.len();
        }
    }
    assert!(warned > 60, "{warned} warnings");
}

#[test]
fn the_policy_warns_of_a_label_that_says_nothing() {
    let labelled = |value: &str| json!({ "labels": { "selvedge.dev/inject": value } });
    let objects = |metadata: Value| {
        let template = json!({ "metadata": metadata, "spec": {} });
        [
            json!({ "kind": "Namespace", "metadata": metadata }),
            json!({ "kind": "Pod", "metadata": metadata }),
            json!({ "kind": "Deployment", "metadata": {}, "spec": { "template": template } }),
            json!({ "kind": "CronJob", "metadata": {}, "spec": { "jobTemplate": { "spec": { "template": template } } } }),
        ]
    };
    for object in objects(labelled("true")) {
        let expected = "the label selvedge.dev/inject is 'true', which says nothing: expected enabled or disabled";
        assert_eq!(advice_of(&object), [expected], "{object}");
    }
    for metadata in [labelled("enabled"), labelled("disabled"), json!({ "labels": { "app": "web" } }), json!({})] {
        for object in objects(metadata) {
            assert!(advice_of(&object).is_empty(), "{object}");
        }
    }
    let annotated = json!({ "kind": "Namespace", "metadata": { "annotations": { "config.selvedge.dev/none": "1" } } });
    assert!(advice_of(&annotated).is_empty(), "annotations of a namespace are nobody's business here");
}

#[test]
fn the_policy_warns_of_templates_too() {
    let annotations = json!({ "config.selvedge.dev/uid": "root", "config.selvedge.dev/none": "1" });
    let template = json!({ "metadata": { "annotations": annotations }, "spec": {} });
    for object in [
        json!({ "kind": "Pod", "metadata": { "annotations": annotations } }),
        json!({ "kind": "Deployment", "metadata": {}, "spec": { "template": template } }),
        json!({ "kind": "CronJob", "metadata": {}, "spec": { "jobTemplate": { "spec": { "template": template } } } }),
    ] {
        let advice = advice_of(&object);
        assert_eq!(advice.len(), 2, "{object}: {advice:?}");
        assert!(advice[0].starts_with("there is no annotation config.selvedge.dev/none (known after"), "{advice:?}");
        assert_eq!(
            advice[1],
            "config.selvedge.dev/uid is 'root', which is ignored: expected a user id from 1 to 1999999999"
        );
    }
    assert!(advice_of(&json!({ "kind": "Deployment", "metadata": {}, "spec": { "template": {} } })).is_empty());
}

#[test]
fn settings_that_say_nothing_refuse_in_plain_words() {
    let shape = &shapes()[0];
    let empty = json!({ "metadata": { "name": NAME } });
    let answer = evaluator::answer(&shape.pod, &shape.namespace, &empty);
    assert!(
        answer["refused"]
            .as_str()
            .unwrap()
            .starts_with("mesh not ready: the InjectionConfig selvedge-system/selvedge-inject")
    );
}

#[test]
fn a_pod_that_nothing_put_a_sidecar_into_is_refused_in_plain_words_whatever_it_says_of_itself() {
    for annotations in [json!({}), json!({ "selvedge.dev/status": "injected" })] {
        let pod = json!({ "metadata": { "annotations": annotations }, "spec": { "containers": [{ "name": "web" }] } });
        let said = evaluator::required(&pod, &json!([])).unwrap();
        assert!(said.starts_with("mesh not ready: nothing has put a sidecar into this pod"), "{said}");
    }
    let injected = json!({ "metadata": {}, "spec": { "initContainers": [{ "name": "selvedge-proxy" }] } });
    assert_eq!(evaluator::required(&injected, &json!([])), None);
}

/// It depends on the labels of the namespace, which the shapes have none of.
#[test]
fn where_the_capture_container_is_not_admitted_the_workload_is_warned_of() {
    let shape = shapes().remove(0);
    for (level, capture, warned) in
        [("restricted", "init", 1), ("baseline", "init", 1), ("privileged", "init", 0), ("restricted", "cni", 0)]
    {
        let labels = json!({ "selvedge.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": level });
        let around = json!({ "metadata": { "name": "strict", "labels": labels } });
        let template = json!({ "metadata": { "annotations": { "config.selvedge.dev/capture": capture } }, "spec": {} });
        let deployment = json!({ "kind": "Deployment", "metadata": {}, "spec": { "template": template } });
        let theirs = advice(&deployment, &around, &shape.settings);
        let ours = warnings(&template, &namespace(&around), &Settings::of(&shape.settings));
        assert_eq!(theirs, ours.into_iter().map(|warning| warning.text).collect::<Vec<_>>());
        assert_eq!(theirs.len(), warned, "{level} {capture}: {theirs:?}");
        assert!(theirs.iter().all(|said| said.contains(&format!("Pod Security Standard {level} of its namespace"))));
    }
}
