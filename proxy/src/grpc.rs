//! Generated gRPC clients of the contract's services. A test of `selvedge-xds` proves them current.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated code

/// Envoy's delta aggregated discovery service.
pub mod discovery {
    include!("generated/envoy.service.discovery.v3.rs");
}

/// The service that signs certificates for sidecars, and its messages.
pub mod mesh {
    include!("generated/selvedge.v1alpha1.rs");
}

/// OpenTelemetry's service that takes spans.
pub mod traces {
    include!("generated/opentelemetry.proto.collector.trace.v1.rs");
}
