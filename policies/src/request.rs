//! Decisions on requests and connections, one file for each kind, and the one evaluator of them all.

mod asked;
pub mod authorize;
pub mod fault_injection;
pub mod rate_limit;
mod set;
mod unenforceable;

pub use asked::Asked;
pub use set::{PolicySet, Unsound};
