//! Generated messages and services of `proto/saas/v1`. `tests/generated.rs` proves them current.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::unwrap_used)] // generated code

include!("generated/saas.v1.rs");
