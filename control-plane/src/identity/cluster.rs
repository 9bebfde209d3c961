//! An authority that a cluster keeps: in a Secret of the control plane's own namespace, with the state directory as the
//! copy to work with.
//!
//! Guarantees: an authority is founded only where there never was one: without the Secret, without the trust bundle and
//! without a pod that has a sidecar. Where only the key is missing, none is made: who has no certificate gets none, who has
//! one goes on, and the finding, the log and an Event say what to do, until the Secret is back. Of several control planes
//! that found an authority or take a step of a rotation at once, one does, and the others read what it did: the Secret is
//! written only over the version that was read. A step is taken only when those before it are in the Secret.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use selvedge_inject::setting::{KIND, NAME, Settings};
use selvedge_policies::facts::Moment;
use tokio::{
    sync::watch,
    time::{Instant, interval},
};

use self::{
    bundle::Bundle,
    event::{Events, Weight},
    secret::{Kept, Secrets},
};
use super::{
    Authority, IdentityError,
    rotation::{self, Sightings},
};
use crate::{clock, source::kubernetes};

mod bundle;
mod edit;
mod event;
mod secret;

pub use edit::Edit;
pub use secret::SECRET;

/// How often the directory is looked at for a step, and the Secret while the key is missing.
const LOOK: Duration = Duration::from_secs(1);
/// How often the Secret is read while all is well.
const READ: Duration = Duration::from_secs(5);
/// How often the trust bundle is written although it did not change, in case somebody else did.
const WRITE: Duration = Duration::from_secs(60);
/// How often one look tries again when others write the Secret at the same time.
const TRIES: usize = 3;

/// Why it is not known what the cluster keeps.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The API server does not say.
    #[error("the API server does not give or take {what}: {}", kubernetes::explain(error))]
    Api {
        /// What it was asked for.
        what: &'static str,
        /// What it says, or what kept it from saying anything.
        error: kube::Error,
    },
    /// What it keeps cannot be used, or not be written to the state directory.
    #[error("the authority in the Secret {SECRET} cannot be used")]
    Authority(#[from] IdentityError),
    /// Others wrote the Secret again and again.
    #[error("others write the Secret {SECRET} all the time; trying again")]
    Busy,
}

/// Keeps the copy in the state directory and the Secret the same.
pub struct Keeper {
    client: Client,
    secrets: Secrets,
    bundle: Bundle,
    events: Events,
    state_dir: PathBuf,
    trust_domain: String,
    lifetime: Duration,
    /// What all sidecars are to have, beside the trust bundle.
    sidecars: Settings,
    /// What the Secret had when it was last read or written.
    kept: Option<Kept>,
    closed: watch::Sender<Option<Arc<str>>>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("state_dir", &self.state_dir).finish_non_exhaustive() // the key is not for logs
    }
}

/// What a look at the cluster found.
#[derive(Debug)]
pub enum Found {
    /// The state directory has the authority as the Secret has it.
    Authority,
    /// The key is missing, and this is what to say of it.
    Missing(String),
}

impl Keeper {
    /// For the authority of `trust_domain`, whose certificates live for `lifetime`; its Secret is in the namespace of
    /// `client`, and pods are told of it with these settings of `sidecars`.
    pub fn new(client: &Client, state_dir: &Path, trust_domain: &str, lifetime: Duration, sidecars: Settings) -> Self {
        let namespace = client.default_namespace();
        Self {
            client: client.clone(),
            secrets: Secrets::new(client, namespace),
            bundle: Bundle::new(client, namespace),
            events: Events::new(client),
            state_dir: state_dir.to_owned(),
            trust_domain: trust_domain.to_owned(),
            lifetime,
            sidecars,
            kept: None,
            closed: watch::Sender::default(),
        }
    }

    /// Why nobody who has no certificate gets one, as it changes.
    pub fn closed(&self) -> super::Closed {
        self.closed.subscribe()
    }

    /// Finds an authority to work with: what the cluster keeps or, where that cannot be had now, the copy of it in the state
    /// directory; otherwise why there is none.
    pub async fn begin(&mut self) -> Result<(), String> {
        let why = match self.look().await {
            Ok(Found::Authority) => return Ok(()),
            Ok(Found::Missing(why)) => {
                self.close(&why).await;
                why
            }
            Err(ClusterError::Authority(error)) => {
                format!("the authority in the Secret {SECRET} cannot be used: {error}")
            }
            Err(error) => error.to_string(),
        };
        if rotation::is_founded(&self.state_dir) { Ok(()) } else { Err(why) }
    }

    /// Reads the Secret into the state directory, and founds an authority where there never was one.
    pub async fn look(&mut self) -> Result<Found, ClusterError> {
        for _ in 0..TRIES {
            let found = self.secrets.read().await?;
            if let Some(kept) = found.as_ref().filter(|kept| kept.has_key()) {
                self.take(kept.clone())?;
                return Ok(Found::Authority);
            }
            if let Some(why) = self.missing().await? {
                self.kept = None;
                return Ok(Found::Missing(why));
            }
            rotation::found(&self.state_dir, &self.trust_domain, self.lifetime, clock::unix())?;
            let files = rotation::pack(&self.state_dir)?;
            let made = match found {
                None => self.secrets.create(&files).await?,
                Some(empty) => self.secrets.replace(&empty, &files).await?,
            };
            if made.is_some() {
                self.kept = made;
                return Ok(Found::Authority);
            }
        }
        Err(ClusterError::Busy)
    }

    /// Why no authority may be founded although the Secret has none; `None` where there never was one.
    async fn missing(&self) -> Result<Option<String>, ClusterError> {
        let sign = if self.bundle.read().await?.is_some() {
            format!("the trust bundle in the {KIND} {NAME}")
        } else {
            let asked = kubernetes::any_injected(&self.client).await;
            match asked.map_err(|error| ClusterError::Api { what: "the list of pods", error })? {
                Some(pod) => format!("a sidecar in the pod {pod}"),
                None => return Ok(None),
            }
        };
        let namespace = self.client.default_namespace();
        Ok(Some(format!(
            "the key of the certificate authority is missing: there is no Secret {namespace}/{SECRET}, and {sign} shows that \
             there was one. No new one is made, for nobody would trust it. Certificates that were issued go on, and no \
             workload joins. Restore the Secret from a backup; or, when it is lost, run `selvedge ca new --replace \
             --kubernetes` and create every pod with a sidecar anew"
        )))
    }

    /// Puts what the Secret has into the state directory.
    fn take(&mut self, kept: Kept) -> Result<(), IdentityError> {
        if rotation::pack(&self.state_dir)? != kept.files {
            rotation::unpack(&self.state_dir, &kept.files)?;
        }
        self.kept = Some(kept);
        Ok(())
    }

    /// Keeps `authority` and the cluster the same for as long as it runs.
    pub async fn keep(mut self, authority: Arc<Authority>) {
        let (started, mut ticks) = (Instant::now(), interval(LOOK));
        let (mut sightings, mut known) = (Sightings::default(), None);
        let (mut read, mut written) = (None, None);
        loop {
            ticks.tick().await;
            let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let now = Moment { nanos, unix: clock::unix() };
            let problem = self.turn(&authority, &mut sightings, now, &mut read, &mut written).await.err();
            let text = problem.as_ref().map(|error| format!("{error:?}"));
            if let Some(error) = problem.as_ref().filter(|_| text != known) {
                let error = error as &dyn std::error::Error;
                tracing::error!(error, "the authority and what the cluster keeps of it may differ; trying again");
            }
            known = text;
        }
    }

    async fn turn(
        &mut self,
        authority: &Authority,
        sightings: &mut Sightings,
        now: Moment,
        read: &mut Option<Instant>,
        written: &mut Option<(Instant, String)>,
    ) -> Result<(), ClusterError> {
        // Files of a few hundred bytes, once in a second.
        if self.is_in_step()? {
            authority.advance(sightings, now)?;
        }
        let is_behind = self.kept.is_some() && !self.is_in_step()? && !self.push().await?;
        if is_behind || read.is_none_or(|read| read.elapsed() >= READ) {
            match self.look().await? {
                Found::Authority => self.open(authority, now.unix).await?,
                Found::Missing(why) => self.close(&why).await,
            }
            *read = self.kept.is_some().then(Instant::now);
        }
        if self.kept.is_some() {
            let pem = authority.roots_pem();
            if written.as_ref().is_none_or(|(at, last)| *last != pem || at.elapsed() >= WRITE) {
                self.bundle.write(&self.sidecars, &pem).await?;
                *written = Some((Instant::now(), pem));
            }
        }
        Ok(())
    }

    /// Whether the directory has what the Secret had when it was last seen.
    fn is_in_step(&self) -> Result<bool, IdentityError> {
        let files = rotation::pack(&self.state_dir)?;
        Ok(self.kept.as_ref().is_some_and(|kept| kept.files == files))
    }

    /// Puts what was done here into the Secret; false when somebody else wrote or deleted it meanwhile.
    async fn push(&mut self) -> Result<bool, ClusterError> {
        let Some(kept) = &self.kept else { return Ok(false) };
        let put = self.secrets.replace(kept, &rotation::pack(&self.state_dir)?).await?;
        let is_put = put.is_some();
        if is_put {
            self.kept = put;
        }
        Ok(is_put)
    }

    /// Lets workloads join, with what the state directory has now.
    async fn open(&self, authority: &Authority, now: u64) -> Result<(), ClusterError> {
        authority.reload(now)?;
        if self.closed.send_replace(None).is_some() {
            let message = "the key of the certificate authority is back; workloads join again";
            tracing::info!("{message}");
            self.events.tell(Weight::Normal, "AuthorityRestored", message).await;
        }
        Ok(())
    }

    async fn close(&self, why: &str) {
        if self.closed.borrow().as_deref() != Some(why) {
            self.closed.send_replace(Some(why.into()));
            tracing::error!("{why}");
            self.events.tell(Weight::Warning, "AuthorityMissing", why).await;
        }
    }
}
