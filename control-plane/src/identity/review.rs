//! Who a pod is, proven by the token of its service account that Kubernetes puts into it.
//!
//! Guarantees: an identity is that of a pod which the watch of the cluster tells of, alive and with this service account,
//! and the API server says of the token that it was made for that pod and for us; no token is kept, logged or told; the API
//! server is asked at most [`TURNS`] times per [`HOLD`], whoever asks how often. What cannot be found out now is no refusal.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, api::PostParams};
use selvedge_policies::{facts::Identity, names::WorkloadName};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    guarded::Guarded,
    source::kubernetes::{self, Known, Pods},
};

/// Whom tokens are for that are sent to us (`audience` of the projected volume).
const AUDIENCE: &str = "selvedge";
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
/// How long an answer counts: as long as a sidecar takes to ask again a few times.
const FRESH: Duration = Duration::from_secs(10);
/// How many answers are kept.
const KEPT: usize = 1024;

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
    turns: Arc<Semaphore>,
    answers: Guarded<HashMap<Hash, (Instant, Answer)>>,
}

/// SHA-256 of a token.
type Hash = [u8; 32];

/// Whose the token is, or what is wrong with it.
type Answer = Result<Bearer, String>;

/// What a token that is good says of its bearer.
#[derive(Clone, Debug)]
struct Bearer {
    user: String,
    pod: Option<String>,
    uid: Option<String>,
}

impl Reviewer {
    /// A reviewer of tokens of the pods that are in `pods`.
    pub fn new(client: &kube::Client, pods: Pods, trust_domain: &str) -> Self {
        let (turns, answers) = (Arc::new(Semaphore::new(TURNS)), Guarded::default());
        Self { reviews: Api::all(client.clone()), pods, trust_domain: trust_domain.to_owned(), turns, answers }
    }

    /// The identity of the pod `workload` (`namespace/name`), which `token` has to prove.
    pub async fn identify(&self, token: &str, workload: &str) -> Result<Identity, ReviewError> {
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
        let bearer = self.bearer(token).await?.map_err(ReviewError::Refused)?;
        check(&bearer, &name, &pod)?;
        Identity::new(&self.trust_domain, name.namespace(), &pod.account)
            .map_err(|_| refused("the name of the pod's service account makes no identity"))
    }

    /// Whose the token is, as the API server said a moment ago or says now.
    async fn bearer(&self, token: &str) -> Result<Answer, ReviewError> {
        let hash = hash(token);
        let is_fresh = |at: &Instant| at.elapsed() < FRESH;
        let known = self.answers.with(|answers| answers.get(&hash).filter(|(at, _)| is_fresh(at)).cloned());
        if let Some((_, answer)) = known {
            return Ok(answer);
        }
        let answer = self.ask(token).await?;
        self.answers.with(|answers| {
            if answers.len() >= KEPT {
                answers.retain(|_, (at, _)| is_fresh(at));
            }
            if answers.len() < KEPT {
                answers.insert(hash, (Instant::now(), answer.clone()));
            }
        });
        Ok(answer)
    }

    async fn ask(&self, token: &str) -> Result<Answer, ReviewError> {
        let not_now = |why: &str| ReviewError::NotNow(why.to_owned());
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(not_now("too many pods ask for certificates at once")) };
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
        // The API server knows the pod of the token, so the one that is known here is gone, or its successor is not known yet.
        return Err(ReviewError::NotNow(format!("the token is of another pod {name} than the one that is known here")));
    }
    Ok(())
}

fn hash(token: &str) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}
