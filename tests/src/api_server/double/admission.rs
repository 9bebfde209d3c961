//! What webhooks say of pods before they are created. Match conditions are not evaluated: a webhook is called for more pods
//! here than by a real server.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::{Shared, asked::Asked, objects::Refused};
use crate::{
    api_server::calls,
    client::{Answer, Failure},
};

const PODS: &str = "/api/v1/pods";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// An object as the webhooks want it.
pub(super) async fn admit(shared: &Shared, asked: &Asked, mut object: Value) -> Result<Value, Refused> {
    if asked.collection != PODS {
        return Ok(object);
    }
    let webhooks = wanted(shared, asked, &object);
    let mut left = Vec::new();
    for webhook in &webhooks {
        object = changed(shared, asked, webhook, object).await?;
        left.push(object.clone());
    }
    // Once more those that want it, when others have changed what they left.
    for (webhook, left) in webhooks.iter().zip(left) {
        if webhook["reinvocationPolicy"] == "IfNeeded" && left != object {
            object = changed(shared, asked, webhook, object).await?;
        }
    }
    Ok(object)
}

/// An object as one webhook wants it.
async fn changed(shared: &Shared, asked: &Asked, webhook: &Value, mut object: Value) -> Result<Value, Refused> {
    let name = webhook["name"].as_str().unwrap_or_default();
    let patience = Duration::from_secs(webhook["timeoutSeconds"].as_u64().unwrap_or(10));
    let called = timeout(patience, call(shared, asked, webhook, &object)).await;
    let response = match called.map_err(Failure::from).and_then(|response| response) {
        Ok(response) => response,
        Err(_) if webhook["failurePolicy"] == "Ignore" => return Ok(object),
        Err(failure) => {
            return Err(Refused::new(500, &format!("Internal error: failed calling webhook \"{name}\": {failure}")));
        }
    };
    if response["allowed"] != true {
        let status = &response["status"];
        let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(403);
        let why = status["message"].as_str().unwrap_or_default();
        return Err(Refused::new(code, &format!("admission webhook \"{name}\" denied the request: {why}")));
    }
    let malformed = |what: &str| Refused::new(500, &format!("webhook \"{name}\" answered a malformed patch: {what}"));
    if let Some(patch) = response["patch"].as_str() {
        let patch = BASE64_STANDARD.decode(patch).map_err(|error| malformed(&error.to_string()))?;
        let patch =
            serde_json::from_slice::<json_patch::Patch>(&patch).map_err(|error| malformed(&error.to_string()))?;
        json_patch::patch(&mut object, &patch).map_err(|error| malformed(&error.to_string()))?;
    }
    Ok(object)
}

/// The webhooks that are to be called about a new pod.
fn wanted(shared: &Shared, asked: &Asked, object: &Value) -> Vec<Value> {
    let objects = shared.objects.borrow();
    let all = |collection: &str| {
        objects.list(&Asked { collection: collection.to_owned(), ..Asked::default() }, usize::MAX, "").0
    };
    let namespaces = all("/api/v1/namespaces");
    let namespace = namespaces.iter().find(|namespace| namespace["metadata"]["name"] == asked.namespace.as_str());
    let labels = namespace.map(|namespace| namespace["metadata"]["labels"].clone()).unwrap_or_default();
    let is_for_pods = |webhook: &Value| {
        let rules = webhook["rules"].as_array().into_iter().flatten();
        let has = |rule: &Value, list: &str, wanted: &str| {
            rule[list].as_array().is_some_and(|all| all.iter().any(|one| one == wanted))
        };
        rules.into_iter().any(|rule| has(rule, "resources", "pods") && has(rule, "operations", "CREATE"))
    };
    let configurations = all(WEBHOOKS);
    let webhooks = configurations.iter().filter_map(|configuration| configuration["webhooks"].as_array()).flatten();
    let wants = |webhook: &&Value| {
        is_for_pods(webhook)
            && selects(&webhook["namespaceSelector"], &labels)
            && selects(&webhook["objectSelector"], &object["metadata"]["labels"])
    };
    webhooks.filter(wants).cloned().collect()
}

/// Whether a label selector holds of these labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let by_label = selector["matchLabels"].as_object().into_iter().flatten();
    let terms = selector["matchExpressions"].as_array().into_iter().flatten();
    let holds = |term: &Value| {
        let value = term["key"].as_str().and_then(|key| labels.get(key));
        let is_among =
            value.is_some_and(|value| term["values"].as_array().is_some_and(|values| values.contains(value)));
        match term["operator"].as_str().unwrap_or_default() {
            "In" => is_among,
            "NotIn" => !is_among,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        }
    };
    by_label.into_iter().all(|(label, value)| labels.get(label) == Some(value)) && terms.into_iter().all(holds)
}

async fn call(shared: &Shared, asked: &Asked, webhook: &Value, object: &Value) -> Result<Value, Failure> {
    let config = &webhook["clientConfig"];
    let text = |field: &str| config["service"][field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let address = shared.routes.borrow().get(&format!("{namespace}/{name}")).copied();
    let address = address.ok_or_else(|| format!("service \"{name}\" not found"))?;
    let bundle = BASE64_STANDARD.decode(config["caBundle"].as_str().unwrap_or_default())?;
    let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bundle).collect::<Result<_, _>>()?;
    let host = format!("{name}.{namespace}.svc");
    let mut open = calls::over_tls(&calls::trusting(roots)?, &host, TcpStream::connect(address).await?).await?;
    let uid = format!("review-{}", fastrand::u64(..));
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid, "namespace": asked.namespace, "operation": "CREATE", "object": object, "oldObject": null,
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "dryRun": asked.value("dryRun") == "All",
        },
    });
    let request = Request::post(text("path"))
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))?;
    let answer = Answer::read(open.send_request(request).await?).await?;
    let response = answer.json()["response"].clone();
    if !answer.status.is_success() || response["uid"] != uid.as_str() {
        return Err(format!("it answered {}: {}", answer.status, answer.text()).into());
    }
    Ok(response)
}
