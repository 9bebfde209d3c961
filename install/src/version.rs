//! The versions of Kubernetes that are supported, and what puts sidecars into pods there.

use selvedge_control_plane::source::kubernetes::{NEWEST, OLDEST};

/// The first minor version of Kubernetes 1 whose API server injects sidecars by itself (MutatingAdmissionPolicy v1).
const BY_ITSELF: u32 = 36;

/// What puts sidecars into the pods of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injector {
    /// The API server itself, by a policy.
    Policy,
    /// The control plane, which the API server asks.
    Webhook,
}

/// What injects in a cluster of this version, written `1.36`, `v1.36` or longer.
///
/// # Errors
/// Why nothing can be installed there.
pub fn injector(version: &str) -> Result<Injector, String> {
    match minor(version) {
        None => Err(format!(
            "'{version}' is no version of Kubernetes: expected one such as 1.36; `kubectl version` tells it"
        )),
        Some(minor) if minor < OLDEST => Err(format!(
            "Kubernetes {version} is not supported: 1.{OLDEST} is the oldest where sidecars start before and end after the \
             containers of their pod on every node; update the cluster"
        )),
        Some(minor) if minor < BY_ITSELF => Ok(Injector::Webhook),
        Some(_) => Ok(Injector::Policy),
    }
}

/// What is not known of a cluster of this version, if anything.
pub fn doubt(version: &str) -> Option<String> {
    let is_newer = minor(version).is_some_and(|minor| minor > NEWEST);
    is_newer.then(|| format!("this release was tried up to Kubernetes 1.{NEWEST}, and the cluster has {version}"))
}

fn minor(version: &str) -> Option<u32> {
    let mut parts = version.strip_prefix('v').unwrap_or(version).split('.');
    parts.next().filter(|major| *major == "1").and_then(|_| parts.next()?.trim_end_matches('+').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_kubectl_tells_them() {
        for version in ["1.36", "v1.37.1-eks-1", "1.40"] {
            assert_eq!(injector(version), Ok(Injector::Policy), "{version}");
        }
        for version in ["1.31", "v1.35.9", "1.33+"] {
            assert_eq!(injector(version), Ok(Injector::Webhook), "{version}");
        }
        for (version, why) in [("1.30.9", "1.31 is the oldest"), ("36", "such as 1.36"), ("2.1", "such"), ("", "such")]
        {
            let told = injector(version).unwrap_err();
            assert!(told.contains(why), "{version}: {told}");
        }
    }

    #[test]
    fn a_version_that_nobody_tried_is_told_of() {
        assert_eq!(["1.31", "v1.37.9", "none"].map(doubt), [None, None, None]);
        assert!(doubt("v1.38.0").is_some_and(|told| told.contains("up to Kubernetes 1.37")));
    }
}
