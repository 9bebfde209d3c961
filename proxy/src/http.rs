//! HTTP as the mesh reads it: one canonical request, bodies, hop-by-hop hygiene, replies of our own.
//!
//! What hyper lets through and a proxy must not is refused in [`canonical`], before routing and policy, so that
//! the value which policy judged is the value that is forwarded.

pub(crate) mod answer;
pub(crate) mod authority;
pub(crate) mod body;
pub(crate) mod body_error;
pub(crate) mod canonical;
pub(crate) mod case;
pub(crate) mod coalesce;
pub(crate) mod content;
pub(crate) mod early;
pub(crate) mod guard;
pub(crate) mod hop;
pub(crate) mod http2;
pub(crate) mod link;
pub(crate) mod pace;
pub(crate) mod reply;
pub(crate) mod told;
pub(crate) mod trace;
mod trailers;
pub(crate) mod upgrade;

pub(crate) use body::Body;
pub(crate) use content::Content;

/// How much content may lie unread on an HTTP/2 connection which many callers share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    /// Bytes of one stream.
    pub stream: u32,
    /// Bytes of all; a stream has a fraction of it, so that readers who pause hold up nobody else (`docs/decisions/`).
    pub shared: u32,
}

impl Windows {
    /// Of answers from another sidecar, or from far away.
    pub(crate) const FAR: Self = Self { stream: 256 << 10, shared: 16 << 20 };
    /// Of requests from the workload itself, or from a sidecar that knows no frames.
    pub(crate) const REQUESTS: Self = Self { stream: 256 << 10, shared: 8 << 20 };
    /// Of answers from the application beside the sidecar.
    pub(crate) const NEAR: Self = Self { stream: 128 << 10, shared: 8 << 20 };
}

/// Bytes of a message of HTTP/1 that are read at once, or wait to be written: more than a head has.
pub(crate) const PIECE: usize = 96 << 10;
/// Bytes of one answer of HTTP/2 that wait to be written.
pub(crate) const UNSENT: usize = 64 << 10;
