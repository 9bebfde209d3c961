//! What tests expect of an API server, of the double and of a real one alike.

use base64::{Engine, prelude::BASE64_STANDARD};
use selvedge_tests::{api_server::ApiServer, wait};
use serde_json::{Value, json};

use super::{deny, pod, service, slice};

fn config_map(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "shop", "name": "map" }, "data": data })
}

#[tokio::test]
async fn each_manager_owns_the_fields_it_applies_and_takes_back_only_those() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(deny("shop", "makes-the-namespace")).await;
        let apply = async |data: Value, manager: &str, force: bool| {
            let path = format!("/api/v1/namespaces/shop/configmaps/map?fieldManager={manager}&force={force}");
            server.calls().ask(http::Method::PATCH, &path, "application/apply-patch+yaml", &config_map(data)).await
        };
        apply(json!({ "a": "1", "b": "1" }), "one", false).await.unwrap();
        let both = apply(json!({ "c": "2", "b": "1" }), "two", false).await.unwrap();
        assert_eq!(both["data"], json!({ "a": "1", "b": "1", "c": "2" }));
        let again = apply(json!({ "c": "2", "b": "1" }), "two", false).await.unwrap();
        assert_eq!(again["metadata"]["resourceVersion"], both["metadata"]["resourceVersion"], "nothing changed");
        let refused = apply(json!({ "a": "other" }), "two", false).await.unwrap_err();
        assert_eq!(refused.code, 409, "{refused}");
        assert!(refused.message.contains("conflict with \"one\": .data.a"), "{refused}");
        let less = apply(json!({ "a": "1" }), "one", false).await.unwrap();
        assert_eq!(less["data"], json!({ "a": "1", "b": "1", "c": "2" }), "the other one says b too");
        let taken = apply(json!({ "a": "other" }), "two", true).await.unwrap();
        assert_eq!(
            taken["data"],
            json!({ "a": "other" }),
            "b and c were the other one's alone, which says them no more"
        );
    }
}

#[tokio::test]
async fn an_entry_of_a_webhook_configuration_is_of_several_managers() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let hook = |ca: Option<&str>| {
            let mut config = json!({ "url": "https://127.0.0.1:1/inject" });
            if let Some(ca) = ca {
                config = json!({ "caBundle": ca });
            }
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
                "metadata": { "name": "hooks" },
                "webhooks": [{ "name": "a.example.com", "clientConfig": config }],
            })
        };
        let mut whole = hook(None);
        whole["webhooks"][0]["sideEffects"] = json!("None");
        whole["webhooks"][0]["admissionReviewVersions"] = json!(["v1"]);
        server.calls().apply(&whole, "installer").await.unwrap();
        let authority = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).unwrap();
        let ca = BASE64_STANDARD.encode(authority.cert.pem());
        let patched = server.calls().apply(&hook(Some(&ca)), "owner-of-ca").await.unwrap();
        assert_eq!(patched["webhooks"][0]["clientConfig"]["caBundle"], ca);
        let again = server.calls().apply(&whole, "installer").await.unwrap();
        assert_eq!(again["webhooks"][0]["clientConfig"]["caBundle"], ca);
        assert_eq!(again["webhooks"][0]["clientConfig"]["url"], "https://127.0.0.1:1/inject");
    }
}

#[tokio::test]
async fn the_status_is_written_apart_from_the_rest() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let mut policy = deny("shop", "nobody");
        policy["status"] = json!({ "told": "by whoever applied the rest" });
        server.put(deny("shop", "nobody")).await;
        let applied = server.calls().apply(&policy, "other").await.unwrap();
        assert!(applied["status"].is_null(), "{applied}");
        let mut status = policy.clone();
        status["spec"] = json!({ "action": "ALLOW" });
        let with_status = server.calls().apply_status(&status, "other").await.unwrap();
        assert_eq!(with_status["status"], policy["status"]);
        assert_eq!(with_status["spec"], applied["spec"]);
        assert_eq!(with_status["metadata"]["generation"], applied["metadata"]["generation"]);
    }
}

#[tokio::test]
async fn what_the_cluster_would_refuse_is_refused() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let nowhere = server.calls().create(&service("nowhere", "web")).await.unwrap_err();
        assert_eq!(nowhere.code, 404, "{nowhere}");
        server.put(service("shop", "web")).await;
        let twice = server.calls().create(&service("shop", "web")).await.unwrap_err();
        assert_eq!(twice.code, 409, "{twice}");
        let loopback = server.try_put(&slice("shop", "web", &[("127.0.0.1", None, "ready")])).await.unwrap_err();
        assert_eq!(loopback.code, 422, "{loopback}");
        assert!(loopback.message.contains("loopback"), "{loopback}");
        let mut no_image = pod("shop", "web-1", "10.1.0.5", false);
        no_image["spec"]["containers"][0].as_object_mut().unwrap().remove("image");
        assert_eq!(server.try_put(&no_image).await.unwrap_err().code, 422);
        server.put(pod("shop", "web-1", "10.1.0.5", false)).await;
        let late = server.try_put(&pod("shop", "web-1", "10.1.0.5", true)).await.unwrap_err();
        assert_eq!(late.code, 422, "{late}");
    }
}

#[tokio::test]
async fn an_old_version_of_a_lease_is_not_written_over_a_newer_one() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(deny("shop", "makes-the-namespace")).await;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "namespace": "shop", "name": "one" },
            "spec": { "holderIdentity": "first" },
        });
        let made = server.calls().create(&lease).await.unwrap();
        let path = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/one";
        let put = async |holder: &str| {
            let mut wanted = made.clone();
            wanted["spec"]["holderIdentity"] = json!(holder);
            server.calls().ask(http::Method::PUT, path, "application/json", &wanted).await
        };
        put("second").await.unwrap();
        assert_eq!(put("third").await.unwrap_err().code, 409);
        let now = server.calls().get("Lease", "shop", "one").await.unwrap();
        assert_eq!(now["spec"]["holderIdentity"], "second");
    }
}

#[tokio::test]
async fn a_token_of_a_pod_is_worth_something_for_its_audience_while_the_pod_is_there() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(pod("shop", "web-1", "10.1.0.5", false)).await;
        let token = server.token("shop", "web-1", "selvedge").await;
        let review = async |audience: &str| {
            let api = "authentication.k8s.io/v1";
            let spec = json!({ "token": token, "audiences": [audience] });
            let review = json!({ "apiVersion": api, "kind": "TokenReview", "spec": spec });
            server.calls().post("/apis/authentication.k8s.io/v1/tokenreviews", &review).await.unwrap()["status"].clone()
        };
        let status = review("selvedge").await;
        assert_eq!(status["authenticated"], true, "{status}");
        assert_eq!(status["user"]["username"], "system:serviceaccount:shop:web");
        assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["web-1"]));
        assert_eq!(status["audiences"], json!(["selvedge"]));
        let status = review("others").await;
        assert_ne!(status["authenticated"], true, "{status}");
        server.delete("Pod", "shop", "web-1").await;
        // A real one remembers for some seconds what it said of a token.
        wait::until_true("the token ends with its pod", async || review("selvedge").await["authenticated"] != true)
            .await;
    }
}
