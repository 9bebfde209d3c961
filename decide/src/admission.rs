//! Whether a peer may call at all, before any policy is asked.

use selvedge_policies::{facts::Identity, reason::Reason};

use crate::config::RuntimeConfig;

/// Whether a peer that has proven `identity`, or nothing, may call the workload. Without the workload's own view its
/// policies are not known, so nobody may.
///
/// # Errors
/// [`Reason::NotReady`] without that view, [`Reason::PlaintextRefused`] for a peer without identity where the mode is strict.
///
/// ```
/// use selvedge_decide::{
///     admission::may_call,
///     config::{Own, RuntimeConfig},
/// };
/// use selvedge_policies::reason::Reason;
///
/// assert_eq!(may_call(None, &RuntimeConfig::default()), Err(Reason::NotReady));
/// let own = Own { workload: "shop/web-1".parse().ok(), ..Own::default() };
/// let strict = RuntimeConfig { own, ..RuntimeConfig::default() };
/// assert_eq!(may_call(None, &strict), Err(Reason::PlaintextRefused));
/// ```
pub fn may_call(identity: Option<&Identity>, config: &RuntimeConfig) -> Result<(), Reason> {
    match identity {
        _ if !config.is_own_known() => Err(Reason::NotReady),
        None if !config.permissive => Err(Reason::PlaintextRefused),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Own;

    fn config(workload: &str, permissive: bool) -> RuntimeConfig {
        let own = Own { workload: workload.parse().ok(), ..Own::default() };
        RuntimeConfig { own, permissive, ..RuntimeConfig::default() }
    }

    #[test]
    fn nobody_calls_a_workload_whose_policies_are_not_known() {
        let identity = Identity::new("mesh.local", "shop", "ui").unwrap();
        for (identity, config, expected) in [
            (Some(&identity), config("", false), Err(Reason::NotReady)),
            (None, config("", true), Err(Reason::NotReady)),
            (Some(&identity), config("shop/web-1", false), Ok(())),
            (None, config("shop/web-1", false), Err(Reason::PlaintextRefused)),
            (None, config("shop/web-1", true), Ok(())),
        ] {
            assert_eq!(may_call(identity, &config), expected, "{identity:?}");
        }
    }
}
