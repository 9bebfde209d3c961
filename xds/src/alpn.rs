//! ALPN of the hop between sidecars. A ClientHello with one of these is mesh TLS; any other is the application's own and
//! passes through.

/// Frames of our own carrying requests of any HTTP version (`proxy/src/frames.rs`).
pub const FRAMES: &[u8] = b"selvedge-frames";
/// HTTP/2 carrying requests of any HTTP version.
pub const HTTP2: &[u8] = b"selvedge-h2";
/// HTTP/1.1, for upgrades, CONNECT and bulk bodies.
pub const HTTP1: &[u8] = b"selvedge-h1";
/// The hop carries opaque bytes (TCP) as the application sent them.
pub const TCP: &[u8] = b"selvedge-tcp";
