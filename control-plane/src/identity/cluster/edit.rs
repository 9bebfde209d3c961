//! Changes of the authority that a cluster keeps, by whoever runs the mesh.

use std::{fs, path::PathBuf};

use kube::Client;
use selvedge_identity::file;

use super::{
    ClusterError, SECRET,
    bundle::Bundle,
    secret::{Kept, Secrets},
};
use crate::identity::{failed, rotation};

/// A copy of what the Secret has in a directory of its own, to be looked at or changed and put back. The directory is gone
/// with it.
#[derive(Debug)]
pub struct Edit {
    secrets: Secrets,
    namespace: String,
    directory: PathBuf,
    read: Option<Kept>,
    trusted: Option<String>,
}

impl Edit {
    /// Reads the Secret in the namespace of `client`, and the trust bundle.
    pub async fn begin(client: &Client) -> Result<Self, ClusterError> {
        let directory = std::env::temp_dir().join(format!("selvedge-ca-{:016x}", fastrand::u64(..)));
        file::create_dir(&directory).map_err(|source| failed("creating", &directory, source))?;
        let namespace = client.default_namespace().to_owned();
        let mut edit = Self { secrets: Secrets::new(client), namespace, directory, read: None, trusted: None };
        edit.trusted = Bundle::new(client).read().await?;
        edit.read = edit.secrets.read().await?;
        if let Some(read) = &edit.read {
            rotation::unpack(&edit.directory, &read.files)?;
        }
        Ok(edit)
    }

    /// The directory with the files of the authority.
    pub fn directory(&self) -> &std::path::Path {
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

impl Drop for Edit {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let directory = self.directory.display();
            tracing::error!(%error, "remove {directory} by hand: it has the key of the Secret {SECRET}");
        }
    }
}
