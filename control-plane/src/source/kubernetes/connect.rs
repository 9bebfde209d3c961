//! Which API server is asked, and as whom: the same for every command.

use std::{
    env,
    path::{Path, PathBuf},
};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use selvedge_inject::setting::NAMESPACE;

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
    /// No file names a cluster, and there is none around this process.
    #[error(
        "nothing names a cluster: give --kubeconfig FILE, or what kubectl reads, KUBECONFIG or ~/.kube/config; this process \
         runs in no pod of a cluster"
    )]
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

/// The API server of that kubeconfig file, in its current context; without one, of the files that `kubectl` reads
/// (`KUBECONFIG`, else `~/.kube/config`); where there is none of them either, of the cluster around this process.
///
/// The namespace of the client is where the control plane keeps what is its own: that of the pod around this process, or
/// `selvedge-system`. In which namespace a context works is the concern of `kubectl`.
///
/// # Errors
/// A file that cannot be used, a process that runs in no pod, or a cluster that is too old.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let Some((path, kubeconfig)) = written(kubeconfig)? else { return made(around()?).await };
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|error| failed(&path, error))?;
    NAMESPACE.clone_into(&mut config.default_namespace);
    made(config).await
}

/// The first kubeconfig that there is, and what it is called.
fn written(kubeconfig: Option<&Path>) -> Result<Option<(PathBuf, Kubeconfig)>, ConnectError> {
    let read = |path: PathBuf| match Kubeconfig::read_from(&path) {
        Ok(kubeconfig) => Ok(Some((path, kubeconfig))),
        Err(error) => Err(failed(&path, error)),
    };
    if let Some(path) = kubeconfig {
        return read(path.to_owned());
    }
    let named: PathBuf = env::var_os("KUBECONFIG").unwrap_or_default().into();
    if let Some(kubeconfig) = Kubeconfig::from_env().map_err(|error| failed(&named, error))? {
        return Ok(Some((named, kubeconfig)));
    }
    let of_home = env::home_dir().map(|home| home.join(".kube/config"));
    of_home.filter(|path| path.exists()).map_or(Ok(None), read)
}

/// The cluster whose pod this process runs in.
fn around() -> Result<Config, ConnectError> {
    Config::incluster().map_err(|error| match error {
        InClusterError::ReadEnvironmentVariable(_) => ConnectError::NoCluster,
        error => ConnectError::Pod(Box::new(error)),
    })
}

fn failed(path: &Path, error: KubeconfigError) -> ConnectError {
    ConnectError::Kubeconfig { path: path.to_owned(), error: Box::new(error) }
}

async fn made(mut config: Config) -> Result<Client, ConnectError> {
    // Whoever asks knows better when to try again, and tells meanwhile why.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))?;
    version::check(&client).await?;
    Ok(client)
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
