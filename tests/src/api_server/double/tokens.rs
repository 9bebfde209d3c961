//! Tokens of service accounts: TokenRequest, and what the server says of one afterwards (TokenReview).

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    asked::Asked,
    objects::{Objects, Refused},
};

/// Where tokens are asked about.
pub(super) const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Where service accounts are listed.
pub(super) const ACCOUNTS: &str = "/api/v1/serviceaccounts";
const API: &str = "authentication.k8s.io/v1";

/// The tokens that were issued.
#[derive(Default)]
pub(super) struct Tokens(HashMap<String, Issued>);

/// What a token says.
#[derive(Clone)]
struct Issued {
    user: String,
    audiences: Value,
    /// The pod that it ends with.
    pod: Option<Asked>,
    uid: Value,
}

impl Tokens {
    /// Issues the token that is requested for a service account.
    pub(super) fn issue(&mut self, objects: &Objects, asked: &Asked, request: &Value) -> Result<Value, Refused> {
        objects.get(&Asked { part: String::new(), ..asked.clone() })?;
        let Asked { namespace, name, .. } = asked;
        let bound = &request["spec"]["boundObjectRef"];
        let pod = bound["name"].as_str().map(|pod| Asked {
            collection: "/api/v1/pods".to_owned(),
            namespace: namespace.clone(),
            name: pod.to_owned(),
            ..Asked::default()
        });
        if let Some(pod) = &pod {
            let found = objects.get(pod)?;
            if found["spec"]["serviceAccountName"] != name.as_str() || found["metadata"]["uid"] != bound["uid"] {
                return Err(Refused::new(409, "the pod of the token is of another service account or another pod"));
            }
        }
        let audiences = request["spec"]["audiences"].clone();
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let pod_claims = pod.as_ref().map(|pod| json!({ "name": pod.name, "uid": bound["uid"] }));
        let claims = json!({
            "aud": audiences, "sub": user, "jti": self.0.len().to_string(),
            "kubernetes.io": { "namespace": namespace, "pod": pod_claims, "serviceaccount": { "name": name } },
        });
        let token = jwt(&claims);
        self.0.insert(token.clone(), Issued { user, audiences, pod, uid: bound["uid"].clone() });
        Ok(json!({ "apiVersion": API, "kind": "TokenRequest", "status": { "token": token } }))
    }

    /// What there is to say of a token.
    pub(super) fn review(&self, objects: &Objects, review: &Value) -> Value {
        let spec = &review["spec"];
        let token = spec["token"].as_str().unwrap_or_default();
        let status = match self.valid(objects, token) {
            None => json!({ "authenticated": false, "error": "[invalid bearer token]" }),
            Some(issued) => {
                let asked = spec["audiences"].as_array().into_iter().flatten();
                let both: Vec<&Value> = asked.filter(|one| is_among(&issued.audiences, one)).collect();
                if both.is_empty() {
                    let error = format!("[invalid bearer token, token audiences {} is invalid]", issued.audiences);
                    json!({ "authenticated": false, "error": error })
                } else {
                    json!({ "authenticated": true, "audiences": both, "user": issued.told() })
                }
            }
        };
        json!({ "apiVersion": API, "kind": "TokenReview", "metadata": {}, "spec": spec, "status": status })
    }

    /// Whether somebody may call with this token.
    pub(super) fn authenticates(&self, objects: &Objects, token: &str) -> bool {
        self.valid(objects, token).is_some()
    }

    fn valid(&self, objects: &Objects, token: &str) -> Option<&Issued> {
        let is_there = |issued: &&Issued| {
            issued.pod.as_ref().is_none_or(|pod| objects.get(pod).is_ok_and(|pod| pod["metadata"]["uid"] == issued.uid))
        };
        self.0.get(token).filter(is_there)
    }
}

/// A token that says this (RFC 7515 section 7.1), with a signature that nobody can check.
fn jwt(claims: &Value) -> String {
    let parts = [r#"{"alg":"none"}"#, &claims.to_string(), "signature"];
    parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".")
}

impl Issued {
    fn told(&self) -> Value {
        let mut extra = json!({ "authentication.kubernetes.io/credential-id": ["JTI=0"] });
        if let Some(pod) = &self.pod {
            extra["authentication.kubernetes.io/pod-name"] = json!([pod.name]);
            extra["authentication.kubernetes.io/pod-uid"] = json!([self.uid]);
        }
        let groups = ["system:serviceaccounts", "system:authenticated"];
        json!({ "username": self.user, "uid": "uid-of-the-account", "groups": groups, "extra": extra })
    }
}

fn is_among(all: &Value, one: &Value) -> bool {
    all.as_array().is_some_and(|all| all.contains(one))
}
