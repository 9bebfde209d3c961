//! Which API server is asked, and as whom.

use std::path::{Path, PathBuf};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// Why no API server can be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A kubeconfig file cannot be used.
    #[error("the kubeconfig file {path} cannot be used")]
    Kubeconfig {
        /// The file, as it was given.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// The cluster to watch is the one around this process, and there is none.
    #[error("this process runs in no pod of a cluster; name a cluster with --kubeconfig FILE")]
    NoCluster(#[source] Box<InClusterError>),
    /// The client of the API server cannot be made.
    #[error("the client of the Kubernetes API server cannot be made")]
    Client(#[source] Box<kube::Error>),
}

/// The API server of that kubeconfig file, in its current context; that of the cluster around when there is none.
pub(super) async fn client(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| ConnectError::Kubeconfig { path: path.to_owned(), source: Box::new(source) };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::incluster().map_err(|error| ConnectError::NoCluster(Box::new(error)))?,
    };
    // A watch knows better when to try again, and tells meanwhile why it does.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))
}
