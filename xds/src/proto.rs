//! Generated messages. `tests/generated.rs` proves them current.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated code

/// Of Envoy's delta aggregated discovery service.
pub mod discovery {
    include!("generated/envoy.service.discovery.v3.rs");
}

/// Of Selvedge: its own resources, and the certificate service.
pub mod mesh {
    include!("generated/selvedge.v1alpha1.rs");
}

/// Of OpenTelemetry: what spans are to collectors (OTLP).
pub mod traces {
    include!("generated/opentelemetry.proto.collector.trace.v1.rs");
}
