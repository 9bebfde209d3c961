//! Sockets as the sidecar wants them: listeners without a lock, connections that capture rules tell from the
//! workload's, peers that are found out when they are gone, and where a redirected connection was going.

mod dial;
mod keepalive;
mod listen;
mod observed;
mod original_dst;

pub use dial::{INBOUND_MARK, INBOUND_SOURCE, OUTBOUND_MARK, Side, dial, dial_host, expect_capture};
pub use listen::bind;
pub use observed::{End, Observed, Observer};
pub use original_dst::original_dst;
