//! Sockets as the sidecar wants them: listeners without a lock, connections that capture rules tell from the
//! workload's, peers that are found out when they are gone, and where a redirected connection was going.

mod dial;
mod keepalive;
mod listen;
mod observed;
mod original_dst;
pub(crate) mod pass;
mod reset;

pub(crate) use dial::dial_host;
pub use dial::{Side, dial, expect_capture};
pub(crate) use listen::{adopt, bind, refuse, take};
pub(crate) use observed::{End, Observed, Observer};
pub use original_dst::original_dst;
pub(crate) use reset::reset;
