//! A cluster read once, for who asks and goes.

use super::{kind::watched, watch};
use crate::source::Change;

/// A kind that the API server does not list.
#[derive(Debug, thiserror::Error)]
#[error("the API server does not list {path}: {}", watch::told(error))]
pub struct Unlisted {
    path: String,
    error: kube::Error,
}

/// All that there is in a cluster now, as its watch would tell it. Nothing is changed there. A kind that the cluster does not
/// know has no objects.
///
/// # Errors
/// A kind that the API server does not list.
pub async fn once(client: &kube::Client) -> Result<Vec<Change>, Unlisted> {
    let mut told = Vec::new();
    for watched in watched() {
        let path = watched.api.path.clone();
        match (watched.read)(client.clone(), watched.api).await {
            Ok(changes) => told.extend(changes),
            Err(error) if watch::is_absent(&error) => {}
            Err(error) => return Err(Unlisted { path, error }),
        }
    }
    Ok(told)
}
