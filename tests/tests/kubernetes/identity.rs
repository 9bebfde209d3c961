//! Who pods are, and who keeps the authority that says so: real control planes and sidecars beside a cluster.

use std::fs;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use selvedge_install::version::Injector;
use selvedge_proxy::{Credentials, IdentityError, explain, join_pod};
use selvedge_tests::{
    api_server::ApiServer,
    client,
    load::{self, Load, Plan},
    mesh::{Mesh, Sidecar, Workload},
    upstream::Upstream,
    wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAMESPACE: &str = "selvedge-system";
const AUDIENCE: &str = "selvedge";
const API: &str = "shop/api:80";

/// A cluster, and a mesh whose control plane watches it.
struct Cluster {
    server: ApiServer,
    mesh: Mesh,
    kubeconfig: String,
    _folder: TempDir,
}

/// Runs a test on every server there is, with these settings of the control plane.
async fn on_each(settings: &[&str], test: impl AsyncFn(Cluster)) {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        test(Cluster::over(server, settings).await).await;
    }
}

impl Cluster {
    async fn over(server: ApiServer, settings: &[&str]) -> Self {
        let (kubeconfig, _folder) = Self::prepare(&server).await;
        let mesh = Self::mesh(&kubeconfig, settings).await;
        Self { server, mesh, kubeconfig, _folder }
    }

    /// Makes the namespaces there are, and the file that names the cluster.
    async fn prepare(server: &ApiServer) -> (String, TempDir) {
        let folder = TempDir::new().unwrap();
        for namespace in [NAMESPACE, "shop"] {
            server.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } })).await;
        }
        (server.kubeconfig(folder.path()).display().to_string(), folder)
    }

    async fn mesh(kubeconfig: &str, settings: &[&str]) -> Mesh {
        Mesh::start_with(&[&["--kubernetes", "--kubeconfig", kubeconfig], settings].concat()).await
    }

    /// The trust bundle as the injector finds it.
    async fn bundle(&self) -> String {
        let read = async || {
            let settings = self.server.calls().get("InjectionConfig", NAMESPACE, "selvedge-inject").await?;
            Some(settings["spec"]["trustBundle"].as_str()?.to_owned())
        };
        wait::until("the trust bundle is written", read).await
    }

    /// A pod of that name and service account in the cluster, which has a sidecar and no address yet.
    async fn pod(&self, name: &str, account: &str) {
        let place = |name: &str| json!({ "namespace": "shop", "name": name, "labels": { "app": account } });
        let sidecar = json!({ "name": "selvedge-proxy", "image": "selvedge-proxy", "restartPolicy": "Always" });
        let spec = json!({
            "serviceAccountName": account,
            "initContainers": [sidecar],
            "containers": [{ "name": "application", "image": "application" }],
        });
        self.server.put(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": place(name), "spec": spec })).await;
    }

    async fn token(&self, pod: &str, audience: &str) -> String {
        self.server.token("shop", pod, audience).await
    }

    /// `workload` as a pod with a token of its own.
    async fn injected(&self, workload: Workload, account: &str) -> Workload {
        let name = workload.name().trim_start_matches("shop/").to_owned();
        self.pod(&name, account).await;
        workload.runs_as(account).in_pod(&self.token(&name, AUDIENCE).await, &self.bundle().await)
    }

    /// Joins as the pod `shop/name` with `token`, as its sidecar does.
    async fn join(&self, name: &str, token: &str) -> Result<Credentials, IdentityError> {
        let roots = roots(&self.bundle().await);
        join(&self.mesh, name, token, &roots).await
    }

    /// Joins until it works, as every sidecar does.
    async fn joined(&self, name: &str, token: &str) -> Credentials {
        wait::until("the pod joins", async || self.join(name, token).await.ok()).await
    }

    async fn status(&self) -> Value {
        client::get(self.mesh.admin(), "/status").await.map(|answer| answer.json()).unwrap_or_default()
    }

    async fn ready(&self) -> (u16, String) {
        let answer = client::get(self.mesh.admin(), "/ready").await;
        answer.map_or_else(|_| (0, String::new()), |answer| (answer.status.as_u16(), answer.text()))
    }

    /// What the control plane says of itself, until it mentions `words`.
    async fn finding(&self, words: &str) -> String {
        let find = async || {
            let status = self.status().await;
            let findings = status["findings"].as_array()?.clone();
            let messages = findings.iter().filter_map(|finding| finding["message"].as_str());
            messages.map(str::to_owned).find(|message| message.contains(words))
        };
        wait::until(&format!("a finding mentions '{words}'"), find).await
    }

    /// `selvedge ca ...` on the cluster, which answers meanwhile.
    async fn ca(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = std::process::Command::new(selvedge_tests::process::binary("selvedge"));
        command.arg("ca").args(arguments).args(["--kubernetes", "--kubeconfig", &self.kubeconfig]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    async fn secret(&self) -> Option<Value> {
        self.server.calls().get("Secret", NAMESPACE, "selvedge-ca").await
    }

    /// Deletes the Secret, and returns what a backup of it has.
    async fn delete_secret(&self) -> Value {
        let mut secret = self.secret().await.unwrap();
        self.server.delete("Secret", NAMESPACE, "selvedge-ca").await;
        let metadata = json!({ "namespace": NAMESPACE, "name": "selvedge-ca" });
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret["data"].take() })
    }

    /// What the Events about the Secret say happened, as it did.
    async fn reasons(&self) -> Vec<String> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/events");
        let mut events =
            self.server.calls().read(&path).await.unwrap()["items"].as_array().cloned().unwrap_or_default();
        let version = |event: &Value| event["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        events.sort_by_key(version);
        events.iter().map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }

    /// Fingerprints and roles of the authorities, as the control plane tells.
    async fn authorities(&self) -> Vec<(String, String)> {
        let status = self.status().await;
        let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
        let all = status["authorities"].as_array().cloned().unwrap_or_default();
        all.iter().map(|authority| (text(authority, "fingerprint"), text(authority, "role"))).collect()
    }
}

fn roots(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap()
}

async fn join(
    mesh: &Mesh,
    name: &str,
    token: &str,
    roots: &[CertificateDer<'static>],
) -> Result<Credentials, IdentityError> {
    let key: KeyPair = selvedge_proxy::new_key().unwrap();
    join_pod(&mesh.control_plane_address().to_string(), &format!("shop/{name}"), token, roots, &key).await
}

/// Where tokens are asked about.
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A token that says the same as `token`, and is not signed by anybody.
fn made_up(token: &str, signature: &str) -> String {
    let (said, _) = token.rsplit_once('.').unwrap();
    format!("{said}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// `web-1`, which calls `api-1`, both pods.
async fn pair(cluster: &Cluster, upstream: &Upstream) -> (Sidecar, Sidecar) {
    cluster.mesh.service("shop/api", 80, 8080, "http");
    let api = Workload::new("shop/api-1").backs("api").serves(8080, upstream.address());
    let api = cluster.mesh.sidecar(cluster.injected(api, "api").await).await;
    let web = Workload::new("shop/web-1").backs("web").calls(API);
    let web = cluster.mesh.sidecar(cluster.injected(web, "web").await).await;
    let entry = web.outbound(API);
    wait::until_true("the pods talk", || client::answers(entry)).await;
    (web, api)
}

fn load(web: &Sidecar) -> Load {
    Load::start(&Plan::new(web.outbound(API), "api.shop", "/"), 3, load::ok)
}

#[tokio::test]
async fn pods_are_who_their_service_account_says_and_no_token_is_ever_told() {
    on_each(&[], async |cluster| {
        let upstream = Upstream::start("api").await;
        let (mut web, _api) = pair(&cluster, &upstream).await;
        let log = web.process().log();
        assert!(log.contains("spiffe://mesh.local/ns/shop/sa/web"), "{log}");
        let token = fs::read_to_string(web.home().join("token")).unwrap();
        for text in [log, cluster.mesh.control_plane_log(), cluster.status().await.to_string()] {
            assert!(!text.contains(&token), "a token was told: {text}");
        }
        // Neither a join token nor a Secret of the user's namespace took part.
        let secrets = cluster.server.calls().list("Secret").await;
        assert!(secrets.iter().all(|secret| secret["metadata"]["namespace"] == NAMESPACE), "{secrets:?}");
        assert!(!cluster.mesh.state_dir().join("tokens").read_dir().is_ok_and(|mut files| files.next().is_some()));
    })
    .await;
}

#[tokio::test]
async fn who_is_not_the_pod_gets_no_certificate_and_is_told_why() {
    on_each(&[], async |cluster| {
        for (pod, account) in [("web-1", "web"), ("web-2", "web"), ("api-1", "api")] {
            cluster.pod(pod, account).await;
        }
        let of_web = cluster.token("web-1", AUDIENCE).await;
        let web = cluster.joined("web-1", &of_web).await;
        assert_eq!(web.svid.identity.to_string(), "spiffe://mesh.local/ns/shop/sa/web");
        let gone = cluster.token("web-2", AUDIENCE).await;
        cluster.server.delete("Pod", "shop", "web-2").await;
        cluster.pod("web-2", "web").await;
        for (pod, token, expected) in [
            ("web-1", cluster.token("web-1", "https://kubernetes.default.svc").await, "audience"),
            ("web-2", of_web.clone(), "made for the pod 'web-1'"),
            ("api-1", of_web.clone(), "runs as service account 'api'"),
            ("web-1", "header.forged.signature".to_owned(), "no token of a service account"),
            ("web-1", "no\ntoken".to_owned(), "no token of a service account"),
            ("web-1", made_up(&of_web, "web"), "the API server says"),
        ] {
            // The pod may not be known yet.
            let refuse = async || match cluster.join(pod, &token).await {
                Err(IdentityError::Refused(why)) => Some(why),
                Err(IdentityError::NotNow(_)) => None,
                other => panic!("{pod}: {other:?}"),
            };
            let words = wait::until("the pod is refused", refuse).await;
            assert!(words.contains(expected) && !words.contains(&token), "{pod}: {words}");
            assert!(!cluster.mesh.control_plane_log().contains(&token), "the log has a token");
        }
        let log = cluster.mesh.control_plane_log();
        assert!(log.contains("the API server says"), "the log says why: {log}");
        let of_before = cluster.join("web-2", &gone).await.unwrap_err().to_string();
        assert!(of_before.contains("of another pod shop/web-2"), "the watch may be behind: {of_before}");
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_found_out_now_is_no_refusal() {
    on_each(&[], async |cluster| {
        cluster.pod("web-1", "web").await;
        let (token, other) = (cluster.token("web-1", AUDIENCE).await, cluster.token("web-1", AUDIENCE).await);
        let unknown = cluster.join("web-9", &token).await.unwrap_err();
        assert!(matches!(unknown, IdentityError::NotNow(_)), "{unknown}");
        cluster.joined("web-1", &token).await;
        cluster.server.relay().fail(Some(500));
        let bundle = roots(&cluster.bundle().await);
        let away = join(&cluster.mesh, "web-1", &other, &bundle).await.unwrap_err();
        let words = away.to_string();
        assert!(matches!(away, IdentityError::NotNow(_)) && words.contains("did not check the token"), "{words}");
        assert!(!words.contains(&other), "{words}");
        cluster.join("web-1", &token).await.expect("what the API server said a moment ago still counts");
        cluster.server.relay().fail(None);
        cluster.joined("web-1", &other).await;
    })
    .await;
}

#[tokio::test]
async fn the_api_server_is_asked_once_however_often_a_sidecar_asks() {
    on_each(&[], async |cluster| {
        cluster.pod("web-1", "web").await;
        let token = cluster.token("web-1", AUDIENCE).await;
        cluster.joined("web-1", &token).await;
        for _ in 0..20 {
            cluster.join("web-1", &token).await.unwrap();
        }
        assert_eq!(cluster.server.relay().posts(REVIEWS), 1);
    })
    .await;
}

#[tokio::test]
async fn a_token_that_cannot_be_good_costs_the_api_server_nothing() {
    on_each(&[], async |cluster| {
        cluster.pod("web-1", "web").await;
        cluster.pod("web-2", "web").await;
        let (of_web, of_other) = (cluster.token("web-1", AUDIENCE).await, cluster.token("web-2", AUDIENCE).await);
        cluster.joined("web-1", &of_web).await;
        let asked = cluster.server.relay().posts(REVIEWS);
        for n in 0..20 {
            let unsigned = of_web.rsplit_once('.').unwrap().0.to_owned();
            for token in [format!("no.{n}.token"), unsigned, made_up(&of_other, &n.to_string())] {
                cluster.join("web-1", &token).await.unwrap_err();
            }
        }
        assert_eq!(cluster.server.relay().posts(REVIEWS), asked);
    })
    .await;
}

#[tokio::test]
async fn a_token_goes_to_nobody_who_does_not_prove_to_be_the_control_plane() {
    on_each(&[], async |cluster| {
        let other = Mesh::start().await;
        cluster.pod("web-1", "web").await;
        let token = cluster.token("web-1", AUDIENCE).await;
        let bundle = roots(&cluster.bundle().await);
        let refused = join(&other, "web-1", &token, &bundle).await.unwrap_err();
        let words = explain(&refused);
        assert!(words.contains("no token was sent") && words.contains("Delete the pod"), "{words}");
        let log = other.control_plane_log();
        assert!(!log.contains("certificate"), "nobody asked for one: {log}");
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_knows_only_the_authority_before_still_joins_and_one_too_old_says_so() {
    on_each(&["--certificate-lifetime", "4s"], async |mut cluster| {
        let upstream = Upstream::start("api").await;
        let (mut web, _api) = pair(&cluster, &upstream).await;
        let before = cluster.bundle().await;
        let load = load(&web);
        cluster.ca(&["rotate"]).await.unwrap();
        let after = wait::until("the new authority is alone", async || {
            let roles: Vec<String> = cluster.authorities().await.into_iter().map(|(_, role)| role).collect();
            Some(cluster.bundle().await).filter(|bundle| roles == ["signs"] && !bundle.contains(before.trim()))
        })
        .await;
        load.stop().await.assert_flawless(100);

        web.restart_without_state();
        web.ready().await;
        assert!(client::answers(web.outbound(API)).await);

        // A control plane that has lost its folder leads from the old authority too: the Secret has what it takes.
        cluster.mesh.kill_control_plane();
        fs::remove_dir_all(cluster.mesh.state_dir()).unwrap();
        cluster.mesh.start_control_plane().await;
        assert_eq!(cluster.bundle().await, after);
        web.restart_without_state();
        web.ready().await;

        let stranger = Mesh::start().await;
        stranger.selvedge(&["ca", "show"]);
        let foreign = fs::read_to_string(stranger.state_dir().join("ca.pem")).unwrap();
        let foreign = &foreign[foreign.find("-----BEGIN CERTIFICATE").unwrap()..];
        cluster.pod("old-1", "web").await;
        let old = Workload::new("shop/old-1").runs_as("web").in_pod(&cluster.token("old-1", AUDIENCE).await, foreign);
        let mut old = cluster.mesh.start_sidecar(old);
        let says = || std::future::ready(old.process().log().contains("Delete the pod"));
        wait::until_true("the sidecar says what to do", says).await;
    })
    .await;
}

#[tokio::test]
async fn a_deleted_key_stops_nothing_that_runs_and_comes_back_under_load() {
    on_each(&[], async |mut cluster| {
        let upstream = Upstream::start("api").await;
        let (web, _api) = pair(&cluster, &upstream).await;
        let (bundle, first) = (cluster.bundle().await, cluster.authorities().await);
        let load = load(&web);
        let backup = cluster.delete_secret().await;
        let finding = cluster.finding("the key of the certificate authority is missing").await;
        assert!(
            finding.contains("ca new --replace") && finding.contains("InjectionConfig selvedge-inject"),
            "{finding}"
        );
        let (status, text) = cluster.ready().await;
        assert!(status == 200 && text.contains("not for new joins"), "sidecars that run need it: {status} {text}");
        let is_told = async || cluster.reasons().await == ["AuthorityMissing"];
        wait::until_true("an Event tells of it", is_told).await;
        cluster.pod("late-1", "web").await;
        let token = cluster.token("late-1", AUDIENCE).await;
        let refused = cluster.join("late-1", &token).await.unwrap_err();
        assert!(matches!(&refused, IdentityError::NotNow(why) if why.contains("key of the certificate")), "{refused}");

        // The same for a control plane that starts without the key.
        cluster.mesh.kill_control_plane();
        fs::remove_dir_all(cluster.mesh.state_dir()).unwrap();
        cluster.mesh.launch_control_plane();
        cluster.finding("the key of the certificate authority is missing").await;
        let (status, text) = cluster.ready().await;
        assert!(status == 503 && text.contains("the key of the certificate authority is missing"), "{status} {text}");
        load.progress(100).await;
        assert!(cluster.secret().await.is_none(), "no key is made");

        cluster.server.put(backup).await;
        let credentials = cluster.joined("late-1", &token).await;
        assert_eq!(credentials.svid.identity.to_string(), "spiffe://mesh.local/ns/shop/sa/web");
        assert_eq!((cluster.bundle().await, cluster.authorities().await), (bundle, first));
        load.progress(100).await;
        load.stop().await.assert_flawless(300);
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_restored_while_the_control_plane_runs_opens_the_mesh_again() {
    on_each(&[], async |cluster| {
        cluster.pod("web-1", "web").await;
        let token = cluster.token("web-1", AUDIENCE).await;
        cluster.joined("web-1", &token).await;
        let backup = cluster.delete_secret().await;
        cluster.finding("is missing").await;
        cluster.server.put(backup).await;
        cluster.joined("web-1", &token).await;
        assert_eq!(cluster.ready().await, (200, "ready\n".to_owned()));
        let told = async || cluster.reasons().await == ["AuthorityMissing", "AuthorityRestored"];
        wait::until_true("both are told", told).await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_key_is_replaced_by_whoever_says_so_and_by_nobody_else() {
    on_each(&[], async |cluster| {
        cluster.pod("web-1", "web").await;
        let token = cluster.token("web-1", AUDIENCE).await;
        cluster.joined("web-1", &token).await;
        let first = cluster.bundle().await;
        let refused = cluster.ca(&["new"]).await.unwrap_err();
        assert!(refused.contains("--replace"), "{refused}");
        cluster.delete_secret().await;
        cluster.finding("is missing").await;
        let refused = cluster.ca(&["new"]).await.unwrap_err();
        assert!(refused.contains("--replace"), "{refused}");
        let made = cluster.ca(&["new", "--replace"]).await.unwrap();
        assert!(made.contains("in the Secret selvedge-system/selvedge-ca"), "{made}");
        let second = wait::until("the bundle has the new one too", async || {
            Some(cluster.bundle().await).filter(|bundle| *bundle != first)
        })
        .await;
        let (first, second) = (roots(&first), roots(&second));
        assert_eq!(second[1..], first[..], "certificates of the one before are believed until they expire");
        let join_anew = async || join(&cluster.mesh, "web-1", &token, &second[..1]).await.ok();
        wait::until("a pod that is created anew joins", join_anew).await;
    })
    .await;
}

#[tokio::test]
async fn control_planes_that_start_together_agree_on_one_authority() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let (kubeconfig, _folder) = Cluster::prepare(&server).await;
        let (mesh, two) = tokio::join!(Cluster::mesh(&kubeconfig, &[]), Cluster::mesh(&kubeconfig, &[]));
        let show = |mesh: &Mesh| mesh.selvedge(&["ca", "show"]);
        assert_eq!(show(&mesh), show(&two));
        let cluster = Cluster { server, mesh, kubeconfig, _folder };
        // A step that either takes the other follows.
        cluster.ca(&["rotate"]).await.unwrap();
        let agree = async || show(&cluster.mesh) == show(&two) && show(&two).contains("signs from");
        wait::until_true("both announce the same next one", agree).await;
    }
}

#[tokio::test]
async fn a_rotation_goes_on_where_it_was_after_everything_but_the_secret_is_lost() {
    on_each(&[], async |mut cluster| {
        cluster.bundle().await;
        let mut labelled = cluster.secret().await.unwrap();
        labelled["metadata"] =
            json!({ "namespace": NAMESPACE, "name": "selvedge-ca", "labels": { "copied-by": "backup" } });
        cluster.server.put(labelled).await;
        cluster.ca(&["rotate"]).await.unwrap();
        let announced = async |cluster: &Cluster| {
            let authorities = cluster.authorities().await;
            authorities.iter().any(|(_, role)| role == "signsFrom").then_some(authorities)
        };
        let before = wait::until("it is announced", || announced(&cluster)).await;
        let is_kept = async || {
            let secret = cluster.secret().await.unwrap();
            secret["data"].as_object().unwrap().keys().any(|name| name.starts_with("ca-next-"))
        };
        wait::until_true("the Secret has it", is_kept).await;
        let label = cluster.secret().await.unwrap()["metadata"]["labels"]["copied-by"].clone();
        assert_eq!(label, "backup", "what others wrote on the Secret stays");
        cluster.mesh.kill_control_plane();
        fs::remove_dir_all(cluster.mesh.state_dir()).unwrap();
        cluster.mesh.start_control_plane().await;
        assert_eq!(wait::until("it goes on", || announced(&cluster)).await, before);
    })
    .await;
}

#[tokio::test]
async fn the_health_port_tells_health_and_nothing_else() {
    let health = selvedge_tests::ports::Reserved::new();
    let address = health.address().to_string();
    on_each(&["--health", &address], async |cluster| {
        cluster.bundle().await;
        for (path, expected) in
            [("/live", 200), ("/ready", 200), ("/status", 404), ("/metrics", 404), ("/confirm", 404)]
        {
            let answers =
                async || client::get(health.address(), path).await.is_ok_and(|answer| answer.status == expected);
            wait::until_true(&format!("{path} answers {expected}"), answers).await;
        }
    })
    .await;
}

/// A role with the rights that an installation gives the control plane, everywhere or in its own namespace, and who has it.
pub(super) fn roles(injector: Injector, is_everywhere: bool) -> [Value; 2] {
    let rights = selvedge_install::rights::all(injector);
    let rule = |right: &selvedge_install::rights::Right| {
        let mut rule = json!({ "apiGroups": [right.group], "resources": right.resources, "verbs": right.verbs });
        if let Some(name) = right.name {
            rule["resourceNames"] = json!([name]);
        }
        rule
    };
    let rules: Vec<Value> = rights.iter().filter(|right| right.is_everywhere == is_everywhere).map(rule).collect();
    let (api, kind) = ("rbac.authorization.k8s.io", if is_everywhere { "ClusterRole" } else { "Role" });
    let metadata = if is_everywhere {
        json!({ "name": "selvedge" })
    } else {
        json!({ "namespace": NAMESPACE, "name": "selvedge" })
    };
    let whole = |kind: String| json!({ "apiVersion": format!("{api}/v1"), "kind": kind, "metadata": metadata });
    let (mut role, mut binding) = (whole(kind.to_owned()), whole(format!("{kind}Binding")));
    role["rules"] = json!(rules);
    binding["roleRef"] = json!({ "apiGroup": api, "kind": kind, "name": "selvedge" });
    binding["subjects"] = json!([{ "kind": "ServiceAccount", "name": "selvedge", "namespace": NAMESPACE }]);
    [role, binding]
}

/// A real server forbids what is not among them; the double forbids nothing.
#[tokio::test]
async fn the_rights_of_an_installation_are_enough() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let (_, folder) = Cluster::prepare(&server).await;
        let own = |kind: &str, name: &str, more: Value| {
            let mut object =
                json!({ "apiVersion": "v1", "kind": kind, "metadata": { "namespace": NAMESPACE, "name": name } });
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        let containers = json!([{ "name": "control-plane", "image": "selvedge" }]);
        let spec = json!({ "spec": { "serviceAccountName": "selvedge", "containers": containers } });
        server.put(own("ServiceAccount", "selvedge", json!({}))).await;
        server.put(own("Pod", "selvedge-0", spec)).await;
        let mut settings =
            own("InjectionConfig", "selvedge-inject", json!({ "spec": { "uid": "2000", "image": "old" } }));
        settings["apiVersion"] = "selvedge.dev/v1alpha1".into();
        server.put(settings).await;
        for object in roles(Injector::Policy, true).into_iter().chain(roles(Injector::Policy, false)) {
            server.put(object).await;
        }
        let token = server.token(NAMESPACE, "selvedge-0", "https://kubernetes.default.svc").await;
        let kubeconfig = server.kubeconfig_of(&token, folder.path()).display().to_string();
        let mesh = Cluster::mesh(&kubeconfig, &["--sidecar", "image=mesh/proxy@sha256:1"]).await;
        let cluster = Cluster { server, mesh, kubeconfig, _folder: folder };
        cluster.pod("web-1", "web").await;
        let token = cluster.token("web-1", AUDIENCE).await;
        cluster.joined("web-1", &token).await;
        let settings = cluster.server.get("InjectionConfig", NAMESPACE, "selvedge-inject").await.unwrap();
        assert_eq!(settings["spec"]["image"], "mesh/proxy@sha256:1", "it is the control plane's");
        assert_eq!(settings["spec"]["uid"], "2000", "what others wrote stays");
        cluster.ca(&["rotate"]).await.unwrap();
        let both = async || roots(&cluster.bundle().await).len() == 2;
        wait::until_true("the next authority is announced", both).await;
        let backup = cluster.delete_secret().await;
        cluster.finding("is missing").await;
        cluster.server.put(backup).await;
        cluster.joined("web-1", &token).await;
        let told = async || cluster.reasons().await == ["AuthorityMissing", "AuthorityRestored"];
        wait::until_true("both are told", told).await;
    }
}
