//! Which versions of Kubernetes the mesh runs on.

use std::time::Duration;

use kube::Client;
use tokio::time::timeout;

/// The first minor version of Kubernetes 1 of which every node has sidecars, for a node may be three versions behind its API server.
pub const OLDEST: u32 = 31;
/// The newest minor version of Kubernetes 1 that the mesh was tried on.
pub const NEWEST: u32 = 37;
/// How long the answer is waited for.
const ANSWER: Duration = Duration::from_secs(5);

/// A cluster that cannot do what the mesh needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "the cluster runs Kubernetes {found}, and the mesh needs 1.{OLDEST} or later, where sidecars start before and end after \
     the containers of their pod; upgrade the cluster"
)]
pub struct TooOld {
    /// The version that the API server says, such as `v1.30.2`.
    found: String,
}

/// Refuses a cluster that is too old. One that does not answer is no reason to end: what is in force stays so meanwhile.
pub(super) async fn check(client: &Client) -> Result<(), TooOld> {
    let version = match timeout(ANSWER, client.apiserver_version()).await {
        Ok(Ok(version)) => version,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the API server does not tell its version");
            return Ok(());
        }
        Err(_) => {
            tracing::warn!("the API server does not tell its version within {ANSWER:?}");
            return Ok(());
        }
    };
    match minor(&version.major, &version.minor) {
        Some(minor) if minor < OLDEST => Err(TooOld { found: version.git_version }),
        Some(minor) if minor > NEWEST => {
            tracing::warn!(version = version.git_version, "this release was tried up to Kubernetes 1.{NEWEST}");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The minor version of Kubernetes 1; some providers write a `+` behind it. All of 0 is older than any, and a later major
/// version newer.
fn minor(major: &str, minor: &str) -> Option<u32> {
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    match number(major)? {
        0 => Some(0),
        1 => number(minor),
        _ => Some(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_is_read_as_providers_write_it() {
        assert_eq!(minor("1", "31"), Some(31));
        assert_eq!(minor("1", "30+"), Some(30));
        assert_eq!(minor("0", "9"), Some(0));
        assert_eq!(minor("2", "0"), Some(u32::MAX));
        assert_eq!(minor("1", ""), None);
    }
}
