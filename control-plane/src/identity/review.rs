//! Who a pod is, proven by the token of its service account that Kubernetes puts into it.
//!
//! Guarantees: an identity is that of a pod which the watch of the cluster tells of, alive and with this service account,
//! and the API server says of the token that it was made for that pod and for us; no token is kept, logged or told; the API
//! server is asked at most [`TURNS`] times per [`HOLD`], whoever asks how often, and never about a token that does not even
//! say to be of that pod; whoever asks often waits for others, and others do not wait for it. What cannot be found out now
//! is no refusal.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, api::PostParams};
use selvedge_policies::{facts::Identity, names::WorkloadName};
use tokio::time::{Instant, sleep_until, timeout};

use super::claimed::{self, AUDIENCE, Bearer};
use crate::{
    clock,
    fair_queue::{FairQueue, Standing},
    guarded::Guarded,
    source::kubernetes::{self, Known, Pods},
};

/// What a token says of the pod it was made for.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
/// No token of a service account is longer.
const LONGEST: usize = 16 * 1024;
/// How many questions to the API server begin within [`HOLD`].
const TURNS: usize = 16;
const HOLD: Duration = Duration::from_millis(160);
/// How long a pod waits for its turn.
const TURN: Duration = Duration::from_secs(4);
/// How many questions about one pod from one address wait or are asked: several pods may come from one address.
const OF_ONE_POD: usize = 2;
/// How long an answer counts: as long as a sidecar takes to ask again a few times.
const FRESH: Duration = Duration::from_secs(10);
/// How long a token that was good goes before others: as long as a kubelet leaves one in a pod.
const GOOD: Duration = Duration::from_secs(3600);
/// How many answers are kept.
const KEPT: usize = 16 * 1024;

/// Why a pod gets no certificate.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReviewError {
    /// It may get one when it asks again.
    #[error("{0}")]
    NotNow(String),
    /// With this token it never will.
    #[error("the token of the service account was refused: {0}")]
    Refused(String),
}

/// Asks the API server whom a token was made for.
#[derive(Debug)]
pub struct Reviewer {
    reviews: Api<TokenReview>,
    pods: Pods,
    trust_domain: String,
    turns: FairQueue,
    /// How many questions there are now about the pods of these uids, from these addresses.
    asking: Questions,
    answers: Guarded<HashMap<Hash, (Instant, Answer)>>,
}

/// SHA-256 of a token.
type Hash = [u8; 32];

/// How many questions there are, by what they are.
type Questions = Arc<Guarded<HashMap<Question, usize>>>;

/// The address that asks, the uid of the pod it is about, and whether the token was good before.
type Question = (IpAddr, Arc<str>, Standing);

/// Whose the token is, or what is wrong with it.
type Answer = Result<Bearer, String>;

impl Reviewer {
    /// A reviewer of tokens of the pods that are in `pods`.
    pub fn new(client: &kube::Client, pods: Pods, trust_domain: &str) -> Self {
        Self {
            reviews: Api::all(client.clone()),
            pods,
            trust_domain: trust_domain.to_owned(),
            turns: FairQueue::new(TURNS),
            asking: Arc::default(),
            answers: Guarded::default(),
        }
    }

    /// The identity of the pod `workload` (`namespace/name`), which `token`, sent from `address`, has to prove.
    pub async fn identify(&self, token: &str, workload: &str, address: IpAddr) -> Result<Identity, ReviewError> {
        let refused = |why: &str| ReviewError::Refused(why.to_owned());
        let name: WorkloadName = workload.parse().map_err(|_| refused("the workload is not named NAMESPACE/POD"))?;
        if token.is_empty() || token.len() > LONGEST || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused("it is no token of a service account"));
        }
        let unknown = || ReviewError::NotNow(format!("no pod {workload} is known here, or not yet"));
        let pod = self.pods.get(name.namespace(), name.name()).ok_or_else(unknown)?;
        if !pod.is_alive {
            return Err(ReviewError::Refused(format!("the pod {workload} has ended")));
        }
        check(&claimed::read(token, clock::unix()).map_err(ReviewError::Refused)?, &name, &pod)?;
        let bearer = self.bearer(token, address, &pod.uid).await?.map_err(ReviewError::Refused)?;
        check(&bearer, &name, &pod)?;
        Identity::new(&self.trust_domain, name.namespace(), &pod.account)
            .map_err(|_| refused("the name of the pod's service account makes no identity"))
    }

    /// Whose the token is, as the API server said a moment ago or says now.
    async fn bearer(&self, token: &str, address: IpAddr, pod: &Arc<str>) -> Result<Answer, ReviewError> {
        let hash = hash(token);
        let is_fresh = |at: &Instant| at.elapsed() < FRESH;
        let known = self.answers.with(|answers| answers.get(&hash).cloned());
        let standing = match known {
            Some((at, answer)) if is_fresh(&at) => return Ok(answer),
            Some((_, Ok(_))) => Standing::Known,
            _ => Standing::Unknown,
        };
        let _asking = self.asking((address, Arc::clone(pod), standing))?;
        let answer = self.ask(token, address, standing).await?;
        self.answers.with(|answers| {
            if answers.len() >= KEPT {
                // Who makes tokens up drives nobody out whose own is good.
                answers.retain(|_, (at, answer)| is_fresh(at) || (answer.is_ok() && at.elapsed() < GOOD));
            }
            if answers.len() < KEPT {
                answers.insert(hash, (Instant::now(), answer.clone()));
            }
        });
        Ok(answer)
    }

    /// One more question about a pod, until the value is dropped.
    fn asking(&self, key: Question) -> Result<Asking, ReviewError> {
        let count = self.asking.with(|asking| {
            let count = asking.entry(key.clone()).or_default();
            *count += 1;
            *count
        });
        let asking = Asking { key, all: Arc::clone(&self.asking) };
        if count > OF_ONE_POD {
            return Err(ReviewError::NotNow("this pod asks for several certificates at once".to_owned()));
        }
        Ok(asking)
    }

    async fn ask(&self, token: &str, address: IpAddr, standing: Standing) -> Result<Answer, ReviewError> {
        let not_now = |why: &str| ReviewError::NotNow(why.to_owned());
        let turn = timeout(TURN, self.turns.take(address, standing)).await;
        let Ok(turn) = turn else { return Err(not_now("too many pods ask for certificates at once")) };
        let end = Instant::now() + HOLD;
        tokio::spawn(async move {
            sleep_until(end).await;
            drop(turn);
        });
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        match kubernetes::answered(self.reviews.create(&PostParams::default(), &review)).await {
            Ok(review) => Ok(judge(review.status.unwrap_or_default(), token)),
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => Err(not_now(
                "the control plane may not check tokens of service accounts: grant it create on tokenreviews",
            )),
            Err(error) => {
                let why = kubernetes::explain(&error).replace(token, "(the token)");
                Err(ReviewError::NotNow(format!(
                    "the API server did not check the token of the service account: {why}"
                )))
            }
        }
    }
}

/// A question about a pod that is being asked.
#[derive(Debug)]
struct Asking {
    key: Question,
    all: Questions,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.all.with(|all| {
            let Some(count) = all.get_mut(&self.key) else { return };
            *count -= 1;
            if *count == 0 {
                all.remove(&self.key);
            }
        });
    }
}

/// What the API server says of a token.
fn judge(status: TokenReviewStatus, token: &str) -> Answer {
    if status.authenticated != Some(true) {
        let said = status.error.filter(|said| !said.is_empty()).unwrap_or_else(|| "it is of nobody".to_owned());
        let said: String = said.replace(token, "(the token)").chars().take(300).collect();
        return Err(format!("the API server says: {said}"));
    }
    if !status.audiences.is_some_and(|audiences| audiences.iter().any(|audience| audience == AUDIENCE)) {
        return Err(format!("it is not for the audience '{AUDIENCE}'"));
    }
    let user = status.user.unwrap_or_default();
    let extra = user.extra.unwrap_or_default();
    let only = |extra: &BTreeMap<String, Vec<String>>, name: &str| match extra.get(name).map(Vec::as_slice) {
        Some([value]) => Some(value.clone()),
        _ => None,
    };
    let (pod, uid) = (only(&extra, POD_NAME), only(&extra, POD_UID));
    Ok(Bearer { user: user.username.unwrap_or_default(), pod, uid })
}

/// Whether the bearer is this pod with its service account.
fn check(bearer: &Bearer, name: &WorkloadName, pod: &Known) -> Result<(), ReviewError> {
    let refused = |why: String| Err(ReviewError::Refused(why));
    let Bearer { user, pod: made_for, uid } = bearer;
    let (Some(made_for), Some(uid)) = (made_for, uid) else {
        return refused("it was made for no pod; it has to be a projected token".to_owned());
    };
    let (namespace, account) = (name.namespace(), &pod.account);
    if *user != format!("system:serviceaccount:{namespace}:{account}") {
        return refused(format!("it is of '{user}', and the pod {name} runs as service account '{account}'"));
    }
    if made_for != name.name() {
        return refused(format!("it was made for the pod '{made_for}', and {name} asks"));
    }
    if **uid != *pod.uid {
        // The one that is known here is gone, or its successor is not known yet.
        return Err(ReviewError::NotNow(format!("the token is of another pod {name} than the one that is known here")));
    }
    Ok(())
}

fn hash(token: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use serde_json::{Value, json};
    use tokio::{task::JoinSet, time::sleep};

    use super::*;

    const SIGNED: &str = "signed";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn token(pod: &str, signature: &str) -> String {
        let claims = json!({
            "aud": [AUDIENCE], "sub": "system:serviceaccount:shop:web",
            "kubernetes.io": { "pod": { "name": pod, "uid": pod } },
        });
        ["{}", &claims.to_string(), signature].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".")
    }

    /// An API server that takes a moment, knows tokens by their signature, and counts what it is asked.
    fn api_server(asked: &Arc<AtomicUsize>) -> kube::Client {
        let asked = Arc::clone(asked);
        let answer = move |request: http::Request<kube::client::Body>| {
            let asked = Arc::clone(&asked);
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(5)).await;
                let content = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&content).unwrap();
                let token = review["spec"]["token"].as_str().unwrap();
                let bearer = claimed::read(token, 0).unwrap();
                let is_good = token.ends_with(&BASE64_URL_SAFE_NO_PAD.encode(SIGNED));
                let extra = json!({ POD_NAME: [bearer.pod], POD_UID: [bearer.uid] });
                let user = json!({ "username": bearer.user, "extra": extra });
                review["status"] = json!({ "authenticated": is_good, "audiences": [AUDIENCE], "user": user });
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(review.to_string()))))
            }
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    fn reviewer(asked: &Arc<AtomicUsize>) -> Arc<Reviewer> {
        let pods = ["web-1", "web-2"].map(str::to_owned).into_iter().chain((0..FLOODING).map(flooding));
        let pods = pods.fold(Pods::default(), |pods, name| pods.with("shop", &name, "web"));
        Arc::new(Reviewer::new(&api_server(asked), pods, "mesh.local"))
    }

    /// More pods than there are turns while one waits.
    const FLOODING: usize = 1000;

    fn flooding(n: usize) -> String {
        format!("flood-{n}")
    }

    /// A thousand callers from `address` that show tokens of the pods, made up anew each time, as often as they can.
    fn flood(reviewer: &Arc<Reviewer>, pods: &[String], address: IpAddr) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        for (caller, pod) in pods.iter().cloned().cycle().take(FLOODING).enumerate() {
            let reviewer = Arc::clone(reviewer);
            callers.spawn(async move {
                for n in 0.. {
                    let made_up = token(&pod, &format!("{caller}-{n}"));
                    reviewer.identify(&made_up, &format!("shop/{pod}"), address).await.unwrap_err();
                    sleep(Duration::from_millis(50)).await;
                }
            });
        }
        callers
    }

    #[tokio::test(start_paused = true)]
    async fn who_makes_tokens_up_keeps_no_other_pod_from_joining() {
        for (floods, joins) in [("10.0.0.1", "10.0.0.2"), ("10.0.0.1", "10.0.0.1")] {
            let asked = Arc::default();
            let reviewer = reviewer(&asked);
            let _flood = flood(&reviewer, &[flooding(1)], ip(floods));
            sleep(Duration::from_secs(1)).await;
            for pod in ["web-1", "web-2"] {
                let began = Instant::now();
                let identity = reviewer.identify(&token(pod, SIGNED), &format!("shop/{pod}"), ip(joins)).await.unwrap();
                assert_eq!(identity.to_string(), "spiffe://mesh.local/ns/shop/sa/web");
                assert!(began.elapsed() <= 3 * HOLD, "from {joins}: {:?}", began.elapsed());
            }
            assert!(asked.load(Ordering::Relaxed) <= 20 * TURNS, "{asked:?} within two seconds");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_knows_another_pod_keeps_it_from_nothing_either() {
        let asked = Arc::default();
        let reviewer = reviewer(&asked);
        let _flood = flood(&reviewer, &["web-1".to_owned()], ip("10.0.0.1"));
        sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        reviewer.identify(&token("web-1", SIGNED), "shop/web-1", ip("10.0.0.2")).await.unwrap();
        assert!(began.elapsed() <= 3 * HOLD, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_good_goes_before_those_that_nobody_knows() {
        let asked = Arc::default();
        let reviewer = reviewer(&asked);
        let token = token("web-1", SIGNED);
        let joins = || reviewer.identify(&token, "shop/web-1", ip("10.0.0.1"));
        joins().await.unwrap();
        let pods: Vec<String> = ["web-1".to_owned()].into_iter().chain((0..FLOODING).map(flooding)).collect();
        let _flood = flood(&reviewer, &pods, ip("10.0.0.1"));
        sleep(2 * FRESH).await;
        let (began, before) = (Instant::now(), asked.load(Ordering::Relaxed));
        joins().await.unwrap();
        assert!(began.elapsed() <= 3 * HOLD, "{:?}", began.elapsed());
        assert!(asked.load(Ordering::Relaxed) > before, "it is asked about anew");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_cannot_be_good_is_not_asked_about() {
        let asked = Arc::default();
        let reviewer = reviewer(&asked);
        for (token, workload) in [
            ("made.up.token".to_owned(), "shop/web-1"),
            (token("web-2", SIGNED), "shop/web-1"),
            (token("web-9", SIGNED), "shop/web-9"),
        ] {
            reviewer.identify(&token, workload, ip("10.0.0.1")).await.unwrap_err();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }
}
