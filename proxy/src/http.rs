//! HTTP as the mesh reads it: one canonical request, bodies, hop-by-hop hygiene, replies of our own.
//!
//! What hyper lets through and a proxy must not is refused in [`canonical`], before routing and policy, so that
//! the value which policy judged is the value that is forwarded.

pub(crate) mod authority;
pub(crate) mod body;
pub(crate) mod canonical;
pub(crate) mod case;
pub(crate) mod coalesce;
pub(crate) mod guard;
pub(crate) mod hop;
pub(crate) mod pace;
pub(crate) mod reply;
mod trailers;
pub(crate) mod upgrade;

pub(crate) use body::Body;

/// Bytes that may lie unread on an HTTP/2 connection which many callers share; a stream has a fraction of it, so that
/// readers who pause hold up nobody else (`docs/decisions/`).
pub(crate) const SHARED_WINDOW: u32 = 64 << 20;

/// hyper's executor on a worker: every task stays on its thread, so nothing needs `Send`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
