//! How what has ended ended, in one of four words, so that a share of success is one quotient. It follows from labels that are
//! counted anyway and is told when somebody looks: counting costs nothing more.

use selvedge_policies::reason::Reason;

/// How a request or connection ended, for whoever called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With the whole answer of the service, which is no error of the server.
    Success,
    /// It did not get what it was there for, and that is not the caller's doing: an error of the server, an answer that broke
    /// off, no answer, or a mesh that could not carry it.
    Failure,
    /// The mesh did not let it through for what it was: policy, limit, no route, a malformed message.
    Refused,
    /// The caller went away, or was too slow, before there was an answer that had failed.
    Cancelled,
}

/// The word of every [`Outcome`].
pub(super) const OUTCOMES: [&str; 4] = ["success", "failure", "refused", "cancelled"];

/// What a policy does with requests and connections.
pub(super) const ACTIONS: [&str; 3] = ["denied", "limited", "audited"];

/// The code of every [`Reason`].
pub(super) const REASONS: [&str; Reason::ALL.len()] = {
    let mut codes = [""; Reason::ALL.len()];
    let mut at = 0;
    while at < codes.len() {
        codes[at] = Reason::ALL[at].code();
        at += 1;
    }
    codes
};

impl Outcome {
    /// The label value: one of [`OUTCOMES`].
    pub(super) const fn as_str(self) -> &'static str {
        OUTCOMES[self as usize]
    }

    /// By the values of the labels `reason`, `response_class` and `grpc_status`; empty where there is none.
    pub(super) fn of(reason: &str, class: &str, grpc_status: &str) -> Self {
        let has_failed = class == "5xx" || is_server_error(grpc_status);
        match Reason::ALL.iter().find(|known| known.code() == reason) {
            // Whoever hangs up on an error has seen one.
            Some(reason) if has_failed && Self::ended(*reason) == Self::Cancelled => Self::Failure,
            Some(reason) => Self::ended(*reason),
            None if has_failed => Self::Failure,
            None => Self::Success,
        }
    }

    /// What the mesh has ended for this reason.
    const fn ended(reason: Reason) -> Self {
        match reason {
            Reason::PolicyDenied
            | Reason::PolicyDefaultDeny
            | Reason::PlaintextRefused
            | Reason::RateLimited
            | Reason::NoRoute
            | Reason::MalformedFraming
            | Reason::UnsupportedTransferCoding
            | Reason::MalformedHost
            | Reason::MalformedPath
            | Reason::MalformedHeader
            | Reason::HeadersTooLarge
            | Reason::FrameFlood
            | Reason::TlsHandshakeFailed => Self::Refused,
            Reason::DownstreamClosed | Reason::CallerTimeout | Reason::DetectTimeout => Self::Cancelled,
            Reason::PolicyUnenforceable
            | Reason::FaultInjected
            | Reason::InvalidRoute
            | Reason::UnknownDestination
            | Reason::NoEndpoints
            | Reason::BreakerOpen
            | Reason::UpstreamConnectFailed
            | Reason::UpstreamConnectTimeout
            | Reason::ApplicationUnreachable
            | Reason::UpstreamTlsFailed
            | Reason::UpstreamIdentityMismatch
            | Reason::UpstreamReset
            | Reason::UpstreamProtocolError
            | Reason::AttemptTimeout
            | Reason::RequestTimeout
            | Reason::Overloaded
            | Reason::Draining
            | Reason::NotReady
            | Reason::Internal => Self::Failure,
        }
    }
}

/// What a policy did for this reason: one of [`ACTIONS`], or empty when no policy had a part in it.
pub(super) fn action(reason: &str) -> &'static str {
    if is_denial(reason) {
        "denied"
    } else if reason == Reason::RateLimited.code() {
        "limited"
    } else {
        ""
    }
}

/// Whether what ended for this reason was refused by policy.
pub(super) fn is_denial(reason: &str) -> bool {
    [Reason::PolicyDenied, Reason::PolicyDefaultDeny, Reason::PlaintextRefused].iter().any(|r| r.code() == reason)
}

/// True for the gRPC statuses that are the service's fault, not the caller's: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
/// INTERNAL, UNAVAILABLE and DATA_LOSS, and those that gRPC does not define. Their HTTP status is 200.
pub(super) fn is_server_error(grpc_status: &str) -> bool {
    matches!(grpc_status, "2" | "4" | "8" | "13" | "14" | "15" | "other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_what_the_caller_has_got() {
        for (reason, class, grpc_status, outcome) in [
            ("", "2xx", "", "success"),
            ("", "3xx", "", "success"),
            ("", "4xx", "", "success"), // the service's own answer: the caller asked for what is not there
            ("", "5xx", "", "failure"),
            ("", "2xx", "0", "success"),
            ("", "2xx", "5", "success"),
            ("", "2xx", "14", "failure"),
            ("", "2xx", "other", "failure"),
            ("", "", "", "success"),                  // a connection that its two ends have ended
            ("upstream_reset", "2xx", "", "failure"), // an answer that broke off
            ("upstream_connect_failed", "5xx", "", "failure"),
            ("fault_injected", "4xx", "", "failure"),
            ("policy_denied", "4xx", "", "refused"),
            ("policy_denied", "2xx", "7", "refused"),
            ("rate_limited", "4xx", "", "refused"),
            ("rate_limited", "2xx", "8", "refused"),
            ("unsupported_transfer_coding", "5xx", "", "refused"),
            ("downstream_closed", "4xx", "", "cancelled"),
            ("downstream_closed", "2xx", "", "cancelled"),
            ("downstream_closed", "5xx", "", "failure"),
            ("caller_timeout", "2xx", "13", "failure"),
        ] {
            assert_eq!(Outcome::of(reason, class, grpc_status).as_str(), outcome, "{reason} {class} {grpc_status}");
        }
    }

    #[test]
    fn whatever_a_policy_refuses_is_refused_and_what_it_does_has_a_word() {
        for reason in Reason::ALL {
            let action = action(reason.code());
            assert!(action.is_empty() || ACTIONS.contains(&action));
            assert!(action.is_empty() || Outcome::ended(*reason) == Outcome::Refused, "{reason}");
        }
    }
}
