//! Questions of the API server and the answers to them, `AdmissionReview` of `admission.k8s.io/v1`, without I/O.

use base64::{Engine, prelude::BASE64_STANDARD};
use selvedge_inject::{injection::inject, pod::Namespace, setting::Settings, switch::WhyNot, warning::misspelt};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

const API_VERSION: &str = "admission.k8s.io/v1";

/// A question about one pod.
#[derive(Debug)]
pub(super) struct Review {
    uid: String,
    /// The namespace that the pod is created in.
    pub(super) namespace: String,
    /// As it was sent: read into values, what anybody may send takes many times its size.
    pod: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    api_version: String,
    request: Request,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    namespace: String,
    object: Box<RawValue>,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    spec: &'a RawValue,
}

impl Review {
    /// Reads a question.
    ///
    /// # Errors
    /// What keeps it from being one.
    pub(super) fn read(content: &[u8]) -> Result<Self, String> {
        let Asked { api_version, request } = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if api_version != API_VERSION {
            return Err(format!("its apiVersion is '{api_version}', and this webhook speaks {API_VERSION}"));
        }
        let pod = serde_json::from_str::<Pod<'_>>(request.object.get());
        if pod.map_or(true, |pod| !pod.spec.get().starts_with('{')) {
            return Err("its object is no pod".to_owned());
        }
        Ok(Self { uid: request.uid, namespace: request.namespace, pod: request.object })
    }

    /// What is counted of the answer, and the answer: a patch, or that the pod stays as it is, or a refusal; and what is to
    /// be said to whoever created the pod.
    pub(super) fn answer(&self, namespace: &Namespace, settings: &Settings) -> (&'static str, Value) {
        let pod: Value = match serde_json::from_str(self.pod.get()) {
            Ok(pod) => pod,
            Err(error) => return ("failed", self.refuse(&format!("the pod cannot be read: {error}"))),
        };
        // All the rest is said by the policy that warns.
        let mut said: Vec<String> = misspelt(&pod).map(|warning| warning.text).collect();
        match inject(&pod, namespace, settings) {
            Ok(patch) if patch.is_empty() => ("unchanged", self.allow(&said, None)),
            Ok(patch) => ("injected", self.allow(&said, Some(&Value::Array(patch)))),
            Err(why) if why.is_refusal() => ("refused", self.refuse(&why.to_string())),
            Err(why) => {
                if let WhyNot::LeftAlone(_) = why {
                    said.push(format!("no sidecar is put into this pod: {why}"));
                }
                ("left_alone", self.allow(&said, None))
            }
        }
    }

    /// The answer that the pod must not be created, and why.
    pub(super) fn refuse(&self, why: &str) -> Value {
        let status = json!({ "code": 503, "reason": "ServiceUnavailable", "message": why });
        self.respond(&json!({ "uid": self.uid, "allowed": false, "status": status }))
    }

    fn allow(&self, warnings: &[String], patch: Option<&Value>) -> Value {
        let mut response = json!({ "uid": self.uid, "allowed": true });
        if !warnings.is_empty() {
            response["warnings"] = json!(warnings);
        }
        if let Some(patch) = patch {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(BASE64_STANDARD.encode(patch.to_string()));
        }
        self.respond(&response)
    }

    fn respond(&self, response: &Value) -> Value {
        json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response })
    }
}

#[cfg(test)]
mod tests {
    use selvedge_inject::{
        setting::{CAPTURE, IMAGE, TRUST_BUNDLE},
        switch::{ENABLED, LABEL},
    };

    use super::*;

    fn review(pod: &Value) -> Review {
        let request = json!({ "uid": "u-1", "namespace": "shop", "object": pod, "dryRun": true });
        let asked = json!({ "apiVersion": API_VERSION, "kind": "AdmissionReview", "request": request });
        Review::read(asked.to_string().as_bytes()).unwrap()
    }

    fn enabled() -> Namespace {
        let labels = json!({ LABEL: ENABLED });
        Namespace { name: "shop".to_owned(), labels: labels.as_object().unwrap().clone() }
    }

    fn settings() -> Settings {
        let set = [(&IMAGE, "proxy@sha256:1"), (&TRUST_BUNDLE, "PEM"), (&CAPTURE, "none")];
        set.into_iter().map(|(setting, value)| (setting, value.to_owned())).collect()
    }

    fn pod() -> Value {
        json!({ "metadata": {}, "spec": { "containers": [{ "name": "web", "image": "web" }] } })
    }

    #[test]
    fn a_pod_of_an_enabled_namespace_is_patched_and_its_uid_answered() {
        let (result, answer) = review(&pod()).answer(&enabled(), &settings());
        assert_eq!(result, "injected");
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
        let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
        assert!(patch.iter().any(|operation| operation["path"] == "/spec/initContainers/0"), "{patch:?}");
    }

    #[test]
    fn what_is_misspelt_is_told_with_what_was_meant() {
        let mut pod = pod();
        pod["metadata"]["annotations"]["config.selvedge.dev/worker"] = json!("2");
        let (_, answer) = review(&pod).answer(&enabled(), &settings());
        let said = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(said.contains("did you mean 'workers'?"), "{said}");
    }

    #[test]
    fn without_settings_a_pod_that_should_have_a_sidecar_is_refused_and_another_one_is_not() {
        let (result, answer) = review(&pod()).answer(&enabled(), &Settings::default());
        assert_eq!((result, &answer["response"]["allowed"]), ("refused", &json!(false)));
        let why = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(why.starts_with("mesh not ready"), "{why}");
        let (result, answer) = review(&pod()).answer(&Namespace::default(), &Settings::default());
        assert_eq!((result, &answer["response"]["allowed"]), ("left_alone", &json!(true)));
    }

    #[test]
    fn a_pod_that_no_sidecar_can_be_put_into_says_so() {
        let mut pod = pod();
        pod["spec"]["hostNetwork"] = json!(true);
        let (result, answer) = review(&pod).answer(&enabled(), &settings());
        assert_eq!(result, "left_alone");
        assert!(answer["response"]["warnings"][0].as_str().unwrap().contains("hostNetwork"), "{answer}");
    }

    #[test]
    fn a_pod_that_is_nested_without_end_is_refused_and_harms_nobody() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let asked = format!(
            r#"{{"apiVersion":"{API_VERSION}","request":{{"uid":"u","namespace":"shop","object":{{"spec":{{"a":{deep}}}}}}}}}"#
        );
        let (result, answer) = Review::read(asked.as_bytes()).unwrap().answer(&enabled(), &settings());
        assert_eq!((result, &answer["response"]["allowed"]), ("failed", &json!(false)));
    }

    #[test]
    fn what_is_no_question_is_refused_with_the_reason() {
        let v1beta1 = json!({ "apiVersion": "admission.k8s.io/v1beta1",
            "request": { "uid": "", "namespace": "", "object": pod() } });
        let mut no_pod =
            json!({ "apiVersion": API_VERSION, "request": { "uid": "", "namespace": "", "object": { "spec": [] } } });
        let wrong_spec = no_pod.to_string();
        no_pod["request"]["object"] = json!({ "spce": {} });
        for (content, why) in [
            ("", "EOF"),
            ("{}", "apiVersion"),
            (&v1beta1.to_string(), "v1beta1"),
            (&wrong_spec, "no pod"),
            (&no_pod.to_string(), "no pod"),
        ] {
            let refused = Review::read(content.as_bytes()).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
