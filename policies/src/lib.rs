//! The decisions of the mesh, and nothing else.
//!
//! A policy looks at facts (who calls, what, when) and answers with a verdict. It does no I/O, reads no
//! clock and knows no runtime: time and chance are handed in, so every policy is a table test with a fake
//! clock. The control plane uses this crate to check what users wrote; the sidecar uses it to decide.
//!
//! - [`request`]: once per request (authorization, rate limits)
//! - [`attempt`]: once per try (retries, timeouts, breaker)
//! - [`balance`]: which endpoint gets the try
//! - [`route`]: which rule of an `HTTPRoute` a request belongs to
//!
//! Each family's door file holds the list of its members; [`registry`] finds any of them by kind name.

pub mod attempt;
pub mod balance;
pub mod duration;
pub mod facts;
pub mod kind;
pub mod matching;
pub mod names;
pub mod reason;
pub mod registry;
pub mod request;
pub mod route;
pub mod testing;
pub mod timestamp;
pub mod verdict;
