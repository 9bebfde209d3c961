//! The versions of Kubernetes that are supported.

/// The oldest minor version of Kubernetes 1 whose API server injects sidecars by itself.
const OLDEST: u16 = 36;

/// Why nothing can be installed into a cluster of this version, written `1.36`, `v1.36` or longer, if so.
pub fn problem(version: &str) -> Option<String> {
    let mut parts = version.strip_prefix('v').unwrap_or(version).split('.');
    let minor: Option<u16> = parts.next().filter(|major| *major == "1").and_then(|_| parts.next()?.parse().ok());
    match minor {
        None => Some(format!(
            "'{version}' is no version of Kubernetes: expected one such as 1.36; `kubectl version` tells it"
        )),
        Some(minor) if minor < OLDEST => Some(format!(
            "Kubernetes {version} is not supported: 1.{OLDEST} is the oldest whose API server puts sidecars into pods by \
             itself (MutatingAdmissionPolicy v1), and nothing else does it yet; update the cluster"
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_kubectl_tells_them() {
        for supported in ["1.36", "v1.37.1-eks-1", "1.40"] {
            assert_eq!(problem(supported), None);
        }
        for (version, why) in [("1.35.9", "1.36 is the oldest"), ("36", "such as 1.36"), ("2.1", "such"), ("", "such")]
        {
            let told = problem(version).unwrap();
            assert!(told.contains(why), "{version}: {told}");
        }
    }
}
