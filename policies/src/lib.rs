//! Modules stand data first: each uses only those listed above it.
//!
//! The decisions of the mesh, and nothing else.
//!
//! A policy looks at facts (who calls, what, when) and answers with a verdict. It does no I/O, reads no
//! clock and knows no runtime: time and chance are handed in, so every policy is a table test with a fake
//! clock. The control plane uses this crate to check what users wrote; the sidecar uses it to decide.
//!
//! - [`request`]: once per request and connection (authorization, rate limits)
//! - [`attempt`]: once per try (retries, timeouts, breaker)
//! - [`balance`]: which endpoint gets the try
//! - [`route`]: which rule of an `HTTPRoute` a request belongs to
//!
//! [`policy`] is the contract of them all; [`registry`] is the list of their kinds.

pub mod duration;
pub mod timestamp;
pub mod cidr;
mod suggest;
pub mod reason;
pub mod finding;
pub mod facts;
pub mod kind;
pub mod names;
pub mod advice;
pub mod matching;
pub mod changes;
pub mod verdict;
pub mod context;
pub mod policy;
pub mod merge;
pub mod settings;

pub mod balance;

pub mod attempt;
pub mod route;

pub mod request;

pub mod registry;
pub mod testing;
