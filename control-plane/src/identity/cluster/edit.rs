//! Changes of the authority that a cluster keeps, by whoever runs the mesh.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};
use selvedge_identity::file;
use selvedge_inject::policy::webhook::SERVICE;

use super::{
    ClusterError, SECRET,
    bundle::Bundle,
    secret::{Kept, Secrets},
};
use crate::{
    identity::{IdentityError, failed, rotation},
    source::kubernetes,
};

/// Where files are in memory, which a pod has too whose others are read-only.
const MEMORY: &str = "/dev/shm";

/// A copy of what the Secret has in a directory of its own, to be looked at or changed and put back. The directory is gone
/// with it.
#[derive(Debug)]
pub struct Edit {
    secrets: Secrets,
    namespace: String,
    directory: PathBuf,
    read: Option<Kept>,
    trusted: Option<String>,
    is_installed: bool,
}

impl Edit {
    /// Reads the Secret in that namespace, and the trust bundle.
    pub async fn begin(client: &Client, namespace: &str) -> Result<Self, ClusterError> {
        let secrets = Secrets::new(client, namespace);
        let trusted = Bundle::new(client, namespace).read().await?;
        let is_installed = trusted.is_some() || has_service(client, namespace).await?;
        let (namespace, directory) = (namespace.to_owned(), directory()?);
        let mut edit = Self { secrets, namespace, directory, read: None, trusted, is_installed };
        edit.read = edit.secrets.read().await?;
        if let Some(read) = &edit.read {
            rotation::unpack(&edit.directory, &read.files)?;
        }
        Ok(edit)
    }

    /// The directory with the files of the authority.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The Secret in words, such as `the Secret selvedge-system/selvedge-ca`.
    pub fn place(&self) -> String {
        format!("the Secret {}/{SECRET}", self.namespace)
    }

    /// The certificates that pods are told to trust, PEM, if any.
    pub fn trusted(&self) -> Option<&str> {
        self.trusted.as_deref()
    }

    /// Whether something says that the control plane is in that namespace, or is to be: its key, its trust bundle, or the
    /// Service that sidecars call.
    pub fn is_installed(&self) -> bool {
        self.read.is_some() || self.is_installed
    }

    /// Puts the directory into the Secret.
    ///
    /// # Errors
    /// Also when the Secret is not what it was.
    pub async fn put(self) -> Result<(), ClusterError> {
        let files = rotation::pack(&self.directory)?;
        let put = match &self.read {
            None => self.secrets.create(&files).await?,
            Some(read) => self.secrets.replace(read, &files).await?,
        };
        put.map(drop).ok_or(ClusterError::Busy)
    }
}

/// Whether the Service of a control plane is in that namespace.
async fn has_service(client: &Client, namespace: &str) -> Result<bool, ClusterError> {
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    let found = kubernetes::answered(services.get_opt(SERVICE)).await;
    Ok(found.map_err(|error| ClusterError::Api { what: "the Service selvedge", error })?.is_some())
}

/// A new directory of this process alone: in memory, so that the key is on no disk, or where there is none with the other
/// temporary files.
fn directory() -> Result<PathBuf, IdentityError> {
    let name = format!("selvedge-ca-{:016x}", fastrand::u64(..));
    let in_memory = Path::new(MEMORY).join(&name);
    if Path::new(MEMORY).is_dir() && file::create_dir(&in_memory).is_ok() {
        return Ok(in_memory);
    }
    let directory = env::temp_dir().join(name);
    file::create_dir(&directory).map_err(|source| failed("creating", &directory, source))?;
    Ok(directory)
}

impl Drop for Edit {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let directory = self.directory.display();
            tracing::error!(%error, "remove {directory} by hand: it has the key of the Secret {SECRET}");
        }
    }
}
