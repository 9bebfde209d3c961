//! The generated gRPC server of certificates; discovery is served by hand, see `serve`. A test of `selvedge-xds` proves them current.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated code

/// The service that signs certificates for sidecars, and its messages.
pub mod mesh {
    include!("generated/selvedge.v1alpha1.rs");
}
