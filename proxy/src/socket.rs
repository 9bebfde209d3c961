//! Sockets as the sidecar wants them: listeners without a lock, connections that capture rules tell from the
//! workload's, peers that are found out when they are gone, and where a redirected connection was going.

mod dial;
mod keepalive;
mod listen;
mod observed;
mod original_dst;

pub use dial::{INBOUND_MARK, OUTBOUND_MARK, Side, dial, expect_capture};
pub(crate) use dial::{INBOUND_SOURCE, dial_host};
pub(crate) use listen::bind;
pub(crate) use observed::{End, Observed, Observer};
pub use original_dst::original_dst;
