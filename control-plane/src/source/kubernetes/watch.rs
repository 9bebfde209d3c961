//! One kind of a cluster: listed, then watched, then listed again.

use std::{collections::HashSet, time::Duration};

use futures_util::TryStreamExt;
use kube::core::{WatchEvent, params::WatchParams, request::Request};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    list::{self, List},
    pruned::{Api, Key, Pruned, Version},
    told::Told,
};

/// A watch that lasts this much longer than it may is broken, whatever the connection says.
const GRACE: Duration = Duration::from_secs(20);

/// How long what takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long the API server may take to answer: for a page of a list, and for the beginning of a watch.
    pub answer: Duration,
    /// How long the API server may keep a watch open.
    pub watch: Duration,
    /// How often everything is listed again although no watch was lost, plus or minus a fifth.
    pub reconciliation: Duration,
    /// How long a list that is suddenly empty waits for the one that confirms it.
    pub doubt: Duration,
    /// The first pause after an error or the end of a watch; each next one is twice as long, plus or minus a fifth, until
    /// something comes of a watch.
    pub first_pause: Duration,
    /// The pauses grow up to this one.
    pub longest_pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(60),
            watch: Duration::from_secs(290),
            reconciliation: Duration::from_secs(1800),
            doubt: Duration::from_secs(10),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// The watch over one kind.
pub(super) struct Watch {
    client: kube::Client,
    pace: Pace,
    api: Api,
    steps: mpsc::Sender<Told>,
    /// The objects that were told of and not taken back, or are in force from before the start.
    keys: HashSet<Key>,
    /// True once somebody says that a kind which the cluster does not know any more is meant to be gone.
    confirmed: watch::Sender<bool>,
    pause: Duration,
    /// True from an error to the next complete list.
    failed: bool,
    /// True while it is told that the kind cannot be read.
    unavailable: bool,
}

/// Nobody listens any more.
struct Closed;

impl Watch {
    /// A watch over a kind of which these objects are in force from before the start.
    pub(super) fn new(
        client: kube::Client,
        pace: Pace,
        api: Api,
        keys: HashSet<Key>,
        steps: mpsc::Sender<Told>,
    ) -> Self {
        let confirmed = watch::Sender::new(false);
        let (failed, unavailable) = (false, false);
        Self { client, pace, api, steps, keys, confirmed, pause: pace.first_pause, failed, unavailable }
    }

    /// Where it is said that a kind which the cluster does not know any more is meant to be gone.
    pub(super) fn confirmed(&self) -> watch::Sender<bool> {
        self.confirmed.clone()
    }

    /// Tells what there is of the kind, and goes on with what becomes of it, until nobody listens any more.
    pub(super) async fn follow<T: Pruned>(mut self) {
        loop {
            let next = match self.list::<T>().await {
                Ok(listed) => self.take(listed).await,
                Err(error) => self.fail(&error).await.map(|()| None),
            };
            let watched = match next {
                Ok(Some(version)) => self.watch::<T>(version).await,
                Ok(None) => Ok(()),
                Err(Closed) => return,
            };
            if watched.is_err() {
                return;
            }
        }
    }

    /// Tells of a complete list, and returns its version; of one that is in doubt only when a second says the same.
    async fn take<T: Pruned>(&mut self, mut listed: List<T>) -> Result<Option<Version>, Closed> {
        if listed.items.is_empty() && self.failed && !self.keys.is_empty() {
            let reason =
                format!("the API server has lost every {} after an error; waiting for a second list", self.api.kind);
            self.say_unavailable(reason).await?;
            let first = listed.version;
            sleep(self.pace.doubt).await;
            listed = match self.list::<T>().await {
                Ok(again) if again.version.is_newer_than(&first) || !again.items.is_empty() => again,
                Ok(_) => return Ok(None),
                Err(error) => return self.fail(&error).await.map(|()| None),
            };
        }
        let List { items, version } = listed;
        let mut gone = std::mem::take(&mut self.keys);
        for item in items {
            gone.remove(&item.key());
            self.put(item).await?;
        }
        for key in gone {
            self.say(Told::Gone(self.api.kind, key)).await?;
        }
        self.say_complete().await?;
        self.failed = false;
        self.confirmed.send_replace(false);
        Ok(Some(version))
    }

    async fn list<T: Pruned>(&self) -> kube::Result<List<T>> {
        list::all(&self.client, &self.api, self.pace.answer).await
    }

    /// Follows what changes after `version`, until the watch has to be begun again with a list.
    async fn watch<T: Pruned>(&mut self, mut version: Version) -> Result<(), Closed> {
        let reconcile = Instant::now() + jitter(self.pace.reconciliation);
        while Instant::now() < reconcile {
            let begun = Instant::now();
            let ended = self.events::<T>(&mut version).await;
            if begun.elapsed() >= self.pace.longest_pause {
                self.pause = self.pace.first_pause;
            }
            match ended {
                // However soon: a server, or a proxy before it, that ends every watch at once is not asked without pause.
                Ok(()) => self.rest().await,
                Err(Ended::Closed) => return Err(Closed),
                // What went on after that version is not known any more: a complete list says what is left of it.
                Err(Ended::Expired) => {
                    self.failed = true;
                    self.rest().await;
                    return Ok(());
                }
                Err(Ended::Failed(error)) => {
                    self.fail(&error).await?;
                    if !is_transient(&error) {
                        return Ok(());
                    }
                }
            }
            if self.went_back(&version).await {
                self.failed = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// True when the API server is at an earlier version than the one that was told last: its data were restored from a
    /// backup. A watch from there on would tell nothing until as much has happened anew.
    async fn went_back(&self, told: &Version) -> bool {
        let now = list::version(&self.client, &self.api, self.pace.answer).await;
        let Some(now) = now.ok().filter(|now| now.is_older_than(told)) else { return false };
        tracing::warn!(
            kind = self.api.kind,
            told = told.as_str(),
            now = now.as_str(),
            "the API server has gone back to earlier data, as after a backup was restored; everything is listed again"
        );
        true
    }

    /// One watch from beginning to end; `version` is that of the last event.
    async fn events<T: Pruned>(&mut self, version: &mut Version) -> Result<(), Ended> {
        let seconds = u32::try_from(self.pace.watch.as_secs()).unwrap_or(u32::MAX);
        let params = WatchParams::default().timeout(seconds);
        let request =
            Request::new(self.api.path.clone()).watch(&params, version.as_str()).map_err(kube::Error::BuildRequest);
        let opened = timeout(self.pace.answer, self.client.request_events::<T>(request?)).await;
        let mut events = std::pin::pin!(opened.map_err(|_| list::unanswered(self.pace.answer))??);
        if self.unavailable {
            self.say_complete().await?; // it goes on from where it ended
        }
        let end = Instant::now() + self.pace.watch + GRACE;
        while let Ok(event) = timeout_at(end, events.try_next()).await {
            let Some(event) = event? else { return Ok(()) };
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *version = object.version();
                    self.put(object).await?;
                }
                WatchEvent::Deleted(object) => {
                    *version = object.version();
                    let key = object.key();
                    self.keys.remove(&key);
                    self.say(Told::Gone(self.api.kind, key)).await?;
                }
                WatchEvent::Bookmark(mark) => *version = Version::new(mark.metadata.resource_version),
                WatchEvent::Error(status) if status.code == 410 => return Err(Ended::Expired),
                WatchEvent::Error(status) => return Err(Ended::Failed(kube::Error::Api(status))),
            }
            self.pause = self.pace.first_pause;
        }
        Ok(())
    }

    /// Says that the kind cannot be read now, and waits before the next try.
    async fn fail(&mut self, error: &kube::Error) -> Result<(), Closed> {
        self.failed = true;
        if !is_absent(error) {
            self.say_unavailable(reason(&self.api, error)).await?;
        } else if self.keys.is_empty() || *self.confirmed.borrow() {
            self.keys.clear();
            self.say_complete().await?;
        } else {
            self.unavailable = true;
            let (reason, keys) = (reason(&self.api, error), self.keys.iter().cloned().collect());
            self.say(Told::Absent(self.api.kind, reason.into(), keys)).await?;
        }
        self.rest().await;
        Ok(())
    }

    /// Waits before the next try, each time longer.
    async fn rest(&mut self) {
        sleep(jitter(self.pause)).await;
        self.pause = (self.pause * 2).min(self.pace.longest_pause);
    }

    async fn put<T: Pruned>(&mut self, object: T) -> Result<(), Closed> {
        let key = object.key();
        self.keys.insert(key.clone());
        if let Some(aside) = object.aside() {
            self.say(Told::Aside(key.clone(), aside)).await?;
        }
        self.say(Told::Put(self.api.kind, key, object.reading(&self.api))).await
    }

    async fn say_complete(&mut self) -> Result<(), Closed> {
        self.unavailable = false;
        self.say(Told::Complete(self.api.kind)).await
    }

    async fn say_unavailable(&mut self, reason: String) -> Result<(), Closed> {
        self.unavailable = true;
        self.say(Told::Unavailable(self.api.kind, reason.into())).await
    }

    async fn say(&self, told: Told) -> Result<(), Closed> {
        self.steps.send(told).await.map_err(|_| Closed)
    }
}

/// Why a watch ended that was not to.
enum Ended {
    Closed,
    Expired,
    Failed(kube::Error),
}

impl From<Closed> for Ended {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl From<kube::Error> for Ended {
    fn from(error: kube::Error) -> Self {
        match status_of(&error) {
            Some(410) => Self::Expired,
            _ => Self::Failed(error),
        }
    }
}

/// The status of the API server's answer, when there was one.
fn status_of(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// True when the cluster does not know the kind.
pub(super) fn is_absent(error: &kube::Error) -> bool {
    status_of(error) == Some(404)
}

/// True when the same watch may go on after a pause; after what cannot be read only a list can tell.
fn is_transient(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::SerdeError(_)) && status_of(error).is_none_or(|status| status == 429 || status >= 500)
}

/// What to tell people of an error.
fn reason(api: &Api, error: &kube::Error) -> String {
    let Api { kind, path, .. } = api;
    match status_of(error) {
        Some(401 | 403) => {
            format!("the control plane may not list and watch {path}: grant it the verbs list and watch")
        }
        Some(404) => {
            format!(
                "the cluster does not know {kind} any more, so what was in force stays in force: expected its \
                 CustomResourceDefinition, or `selvedge confirm {kind}` when the mesh is to have none"
            )
        }
        _ => format!("the API server does not tell of {kind}: {}", told(error)),
    }
}

/// What the API server says itself, or what kept it from saying anything.
pub(crate) fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("it answers {}, {}", status.code, status.message),
        kube::Error::Service(error) => chain(&**error),
        error => chain(error),
    }
}

/// An error with everything that led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}

/// `pause`, plus or minus a fifth, so that many control planes do not come at once.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use bytes::Bytes;
    use futures_util::{FutureExt, StreamExt};
    use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
    use hyper::body::Frame;
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::{guarded::Guarded, source::kubernetes::document::Document};

    const API: &str = "/apis/selvedge.dev/v1alpha1/meshpolicies";
    const HOUR: Duration = Duration::from_secs(3600);

    fn api() -> Api {
        Api { kind: "MeshPolicy", api_version: "selvedge.dev/v1alpha1", path: API.to_owned() }
    }

    /// An API server whose watches tell nothing for as long as they may last, and which has another object by its second
    /// list. It notes when it was listed.
    fn silent(lists: &Arc<Guarded<Vec<Instant>>>) -> kube::Client {
        let lists = Arc::clone(lists);
        let answer = move |request: http::Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let says = |what: &str| query.split('&').find_map(|field| field.strip_prefix(what)?.strip_prefix('='));
            let body: UnsyncBoxBody<Bytes, Infallible> = if let Some(seconds) = says("timeoutSeconds") {
                let end = sleep(Duration::from_secs(seconds.parse().unwrap()));
                StreamBody::new(end.into_stream().filter_map(|()| async { None::<Result<Frame<Bytes>, _>> }))
                    .boxed_unsync()
            } else {
                let count = lists.with(|lists| {
                    lists.extend(says("limit").filter(|limit| *limit == "500").map(|_| Instant::now()));
                    lists.len()
                });
                let name = if count <= 1 { "first" } else { "second" };
                let metadata = json!({ "namespace": "shop", "name": name, "resourceVersion": "7" });
                let list =
                    json!({ "metadata": { "resourceVersion": "7" }, "items": [{ "metadata": metadata, "spec": {} }] });
                Full::new(Bytes::from(list.to_string())).boxed_unsync()
            };
            async move { Ok::<_, Infallible>(http::Response::new(body)) }
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_listed_again_at_intervals_that_are_never_the_same_and_what_no_watch_told_of_is_found() {
        fastrand::seed(7);
        let lists = Arc::default();
        let (steps, mut told) = mpsc::channel(1024);
        let pace = Pace::default();
        tokio::spawn(Watch::new(silent(&lists), pace, api(), HashSet::new(), steps).follow::<Document>());
        let began = Instant::now();
        let gone = async {
            loop {
                if let Told::Gone(_, key) = told.recv().await.expect("it goes on") {
                    return key;
                }
            }
        };
        assert_eq!(gone.await, Key::new("shop", "first"));
        // The one that is under way ends first.
        let rest = pace.watch + pace.longest_pause;
        assert!(began.elapsed() <= pace.reconciliation.mul_f64(1.2) + rest, "{:?}", began.elapsed());

        sleep(20 * HOUR).await;
        let lists = lists.with(|lists| lists.clone());
        let intervals: Vec<Duration> = lists.windows(2).map(|two| two[1] - two[0]).collect();
        for interval in &intervals {
            let (least, most) = (pace.reconciliation.mul_f64(0.8), pace.reconciliation.mul_f64(1.2) + rest);
            assert!((least..=most).contains(interval), "{interval:?} of {intervals:?}");
        }
        let spread = intervals.iter().max().unwrap().saturating_sub(*intervals.iter().min().unwrap());
        assert!(intervals.len() > 20 && spread > pace.reconciliation / 10, "{intervals:?}");
    }
}
