//! Why a request or connection ended without the service's own answer: one code for status body, header,
//! access log, metric and documentation.

/// Whose fault an ending is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller, or the connection to it.
    Downstream,
    /// The service that was called.
    Upstream,
    /// The sidecar or its configuration.
    Mesh,
}

macro_rules! reasons {
    ($($variant:ident $code:literal $status:literal $flag:literal $fault:ident $summary:literal;)*) => {
        /// Every reason, with its stable code.
        ///
        /// ```
        /// use selvedge_policies::reason::{Fault, Reason};
        ///
        /// let reason = Reason::RateLimited;
        /// assert_eq!((reason.code(), reason.status(), reason.flag()), ("rate_limited", 429, "RL"));
        /// assert_eq!(reason.page(), "docs/codes/rate_limited.md");
        /// assert_eq!((reason.fault(), reason.summary()), (Fault::Downstream, "The caller is over a RateLimit."));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $(#[doc = $summary] $variant,)* }

        impl Reason {
            /// All reasons, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable code, `snake_case`; `docs/codes/<code>.md` explains it.
            pub const fn code(self) -> &'static str { match self { $(Reason::$variant => $code,)* } }

            /// The page that explains it, from the root of the repository or of the documentation.
            pub const fn page(self) -> &'static str {
                match self { $(Reason::$variant => concat!("docs/codes/", $code, ".md"),)* }
            }

            /// The HTTP status (RFC 9110 section 15) of the answer.
            pub const fn status(self) -> u16 { match self { $(Reason::$variant => $status,)* } }

            /// Envoy's response flag for the same ending, `-` where Envoy has none.
            pub const fn flag(self) -> &'static str { match self { $(Reason::$variant => $flag,)* } }

            /// Whose fault it is.
            pub const fn fault(self) -> Fault { match self { $(Reason::$variant => Fault::$fault,)* } }

            /// One sentence for people.
            pub const fn summary(self) -> &'static str { match self { $(Reason::$variant => $summary,)* } }
        }
    };
}

reasons! {
    PolicyDenied "policy_denied" 403 "RBAC" Downstream "A DENY rule of an AuthorizationPolicy matched the request.";
    PolicyDefaultDeny "policy_default_deny" 403 "RBAC" Downstream "No ALLOW rule matched, where an ALLOW policy covers the target or the default posture is deny.";
    PolicyUnenforceable "policy_unenforceable" 500 "-" Mesh "A policy or route rule covers the request, and the sidecar is too old to enforce it.";
    PlaintextRefused "plaintext_refused" 403 "RBAC" Downstream "The caller came without mTLS and the workload accepts only mTLS.";
    RateLimited "rate_limited" 429 "RL" Downstream "The caller is over a RateLimit.";
    FaultInjected "fault_injected" 503 "FI" Mesh "A FaultInjection let it fail on purpose.";
    NoRoute "no_route" 404 "NR" Mesh "The service has routes and none of them matches the request.";
    InvalidRoute "invalid_route" 500 "NC" Mesh "The route rule sends the request where there is nothing, or asks for what cannot be done.";
    UnknownDestination "unknown_destination" 503 "NC" Mesh "The destination is not known to the mesh and the outbound mode requires mTLS.";
    NoEndpoints "no_endpoints" 503 "UH" Upstream "The destination has no endpoint to send to.";
    BreakerOpen "breaker_open" 503 "UH" Upstream "Every endpoint's breaker is open after consecutive failures.";
    UpstreamConnectFailed "upstream_connect_failed" 503 "UF" Upstream "No connection to the endpoint could be made.";
    UpstreamConnectTimeout "upstream_connect_timeout" 503 "UF" Upstream "The endpoint did not accept a connection in time.";
    ApplicationUnreachable "application_unreachable" 503 "UF" Upstream "The endpoint's own sidecar could not connect to its application.";
    UpstreamTlsFailed "upstream_tls_failed" 503 "UF" Upstream "The TLS handshake with the endpoint failed.";
    UpstreamIdentityMismatch "upstream_identity_mismatch" 503 "UF" Upstream "The endpoint proved another identity than the one it should have.";
    UpstreamReset "upstream_reset" 502 "UC" Upstream "The endpoint closed or reset the connection before it answered.";
    UpstreamProtocolError "upstream_protocol_error" 502 "UPE" Upstream "The endpoint's answer was not valid HTTP.";
    AttemptTimeout "attempt_timeout" 504 "UT" Upstream "Every try ran into the per-try timeout.";
    RequestTimeout "request_timeout" 504 "UT" Upstream "The overall timeout of the request passed.";
    DownstreamClosed "downstream_closed" 499 "DC" Downstream "The caller went away before the answer was complete.";
    CallerTimeout "caller_timeout" 408 "SI" Downstream "The caller took too long to send its request or to read the answer.";
    MalformedFraming "malformed_framing" 400 "DPE" Downstream "Content-Length or Transfer-Encoding is contradictory or odd (RFC 9112 section 6).";
    UnsupportedTransferCoding "unsupported_transfer_coding" 501 "DPE" Downstream "The transfer coding is not chunked (RFC 9112 section 6.1).";
    MalformedHost "malformed_host" 400 "DPE" Downstream "Host or authority is missing, doubled, contradictory or malformed (RFC 9112 section 3.2).";
    MalformedPath "malformed_path" 400 "DPE" Downstream "The request target is not one that all parties read the same way.";
    MalformedHeader "malformed_header" 400 "DPE" Downstream "A header field must not be in a request, or not with this value.";
    HeadersTooLarge "headers_too_large" 431 "DPE" Downstream "The header section is over its limit in bytes or fields.";
    FrameFlood "frame_flood" 400 "DPE" Downstream "The peer sent HTTP/2 control frames faster than any client needs.";
    Overloaded "overloaded" 503 "OM" Mesh "The sidecar is at its limit of connections or requests.";
    Draining "draining" 503 "OM" Mesh "The sidecar is shutting down.";
    NotReady "not_ready" 503 "NC" Mesh "The sidecar has not been told yet what it needs to know.";
    DetectTimeout "detect_timeout" 408 "SI" Downstream "Neither side said what it speaks in time.";
    TlsHandshakeFailed "tls_handshake_failed" 400 "DPE" Downstream "The caller's TLS handshake failed.";
    Internal "internal" 500 "-" Mesh "A defect of the sidecar; please report it.";
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}
