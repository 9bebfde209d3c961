//! The Secret with the files of an authority, each under its name.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use super::ClusterError;
use crate::{
    identity::rotation::{self, Files, SIGNING},
    source::kubernetes,
};

/// The name of the Secret.
pub const SECRET: &str = "selvedge-ca";

/// What a Secret has, at one version of it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// All that is not ours, such as labels of who keeps copies, at its version.
    rest: Secret,
    pub(super) files: Files,
}

impl Kept {
    /// Whether the key is among the files.
    pub(super) fn has_key(&self) -> bool {
        self.files.contains_key(SIGNING)
    }

    fn of(mut secret: Secret) -> Self {
        let (ours, foreign) =
            secret.data.take().unwrap_or_default().into_iter().partition(|(name, _)| rotation::is_ours(name));
        secret.data = Some(foreign);
        secret.metadata.managed_fields = None; // the server keeps them itself
        let files = ours.into_iter().map(|(name, content): (String, ByteString)| (name, content.0)).collect();
        Self { rest: secret, files }
    }
}

/// The Secret, there or not.
#[derive(Debug)]
pub(super) struct Secrets {
    api: Api<Secret>,
}

impl Secrets {
    pub(super) fn new(client: &Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client.clone(), namespace) }
    }

    pub(super) async fn read(&self) -> Result<Option<Kept>, ClusterError> {
        let read = kubernetes::answered(self.api.get_opt(SECRET)).await;
        Ok(read.map_err(failed)?.map(Kept::of))
    }

    /// Makes it; `None` when it was there already.
    pub(super) async fn create(&self, files: &Files) -> Result<Option<Kept>, ClusterError> {
        let metadata = ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() };
        let secret = Secret { metadata, type_: Some("Opaque".to_owned()), ..Secret::default() };
        let secret = with(secret, files);
        unless_others(kubernetes::answered(self.api.create(&PostParams::default(), &secret)).await)
    }

    /// Puts `files` in the place of what was read; `None` when it is not there any more, or not as it was.
    pub(super) async fn replace(&self, read: &Kept, files: &Files) -> Result<Option<Kept>, ClusterError> {
        let secret = with(read.rest.clone(), files);
        unless_others(kubernetes::answered(self.api.replace(SECRET, &PostParams::default(), &secret)).await)
    }
}

fn with(mut secret: Secret, files: &Files) -> Secret {
    let files = files.iter().map(|(name, content)| (name.clone(), ByteString(content.clone())));
    secret.data.get_or_insert_default().extend(files);
    secret
}

/// What was written, unless others were faster: they made it, changed it or deleted it.
fn unless_others(written: kube::Result<Secret>) -> Result<Option<Kept>, ClusterError> {
    match written {
        Ok(secret) => Ok(Some(Kept::of(secret))),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: kube::Error) -> ClusterError {
    ClusterError::Api { what: "the Secret selvedge-ca", error }
}
