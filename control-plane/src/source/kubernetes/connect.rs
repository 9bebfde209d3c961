//! Which API server is asked, and as whom.

use std::path::{Path, PathBuf};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

/// The namespace of the control plane, where a kubeconfig file names none.
const NAMESPACE: &str = "selvedge-system";

use super::version::{self, TooOld};

/// Why no API server can be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A kubeconfig file cannot be used.
    #[error("the kubeconfig file {path} cannot be used: {}", why(error))]
    Kubeconfig {
        /// The file, as it was given.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<KubeconfigError>,
    },
    /// The cluster to watch is the one around this process, and there is none.
    #[error("this process runs in no pod of a cluster; name a cluster with --kubeconfig FILE")]
    NoCluster,
    /// It runs in a pod, and what the pod says of the cluster cannot be used.
    #[error("the cluster around cannot be used: {0}")]
    Pod(Box<InClusterError>),
    /// The cluster cannot do what the mesh needs.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// The client of the API server cannot be made.
    #[error("the client of the Kubernetes API server cannot be made")]
    Client(#[source] Box<kube::Error>),
}

/// The API server of that kubeconfig file, in its current context; that of the cluster around when there is none.
///
/// # Errors
/// A file that cannot be used, a process that runs in no pod, or a cluster that is too old.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let config = match kubeconfig {
        Some(path) => {
            let failed = |error| ConnectError::Kubeconfig { path: path.to_owned(), error: Box::new(error) };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            let namespace = namespace(&kubeconfig).unwrap_or(NAMESPACE).to_owned();
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            let mut config = config.map_err(failed)?;
            config.default_namespace = namespace;
            config
        }
        None => Config::incluster().map_err(|error| match error {
            InClusterError::ReadEnvironmentVariable(_) => ConnectError::NoCluster,
            error => ConnectError::Pod(Box::new(error)),
        })?,
    };
    made(config).await
}

/// The API server that `kubectl` asks: of that kubeconfig file, or of the one that it finds by itself.
pub(crate) async fn administrator(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    if kubeconfig.is_some() {
        return client(kubeconfig).await;
    }
    let failed = |error| ConnectError::Kubeconfig { path: "of kubectl".into(), error: Box::new(error) };
    let kubeconfig = Kubeconfig::read().map_err(failed)?;
    made(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?).await
}

async fn made(mut config: Config) -> Result<Client, ConnectError> {
    // Whoever asks knows better when to try again, and tells meanwhile why.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    version::check(&client).await?;
    Ok(client)
}

/// The namespace of the current context, when it has one.
fn namespace(kubeconfig: &Kubeconfig) -> Option<&str> {
    let current = kubeconfig.current_context.as_deref()?;
    let named = kubeconfig.contexts.iter().find(|named| named.name == current)?;
    named.context.as_ref()?.namespace.as_deref()
}

/// What is wrong with a kubeconfig file, in words of what stands in it.
fn why(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        KubeconfigError::KindMismatch | KubeconfigError::ApiVersionMismatch => {
            "it has documents of several kinds, and a kubeconfig is of kind Config".to_owned()
        }
        KubeconfigError::CurrentContextNotSet => "it has no current-context".to_owned(),
        KubeconfigError::LoadContext(name) => format!("its current-context '{name}' is none of its contexts"),
        KubeconfigError::LoadClusterOfContext(name) => {
            format!("cluster '{name}' of its context is none of its clusters")
        }
        other => other.to_string(),
    }
}
