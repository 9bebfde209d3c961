//! Modules stand data first: each uses only those listed above it.
//!
//! What control plane and sidecar have in common of identity: how a certificate is read, how keys are kept,
//! and how it is put on record who came by which.
//!
//! [`svid`] says what a workload certificate is, so that whoever issues one and whoever checks one agree. [`mod@file`]
//! is the one writer of files that must be there whole or not at all: keys, certificates, tokens, and what a restart
//! goes by. [`audit`] is the record of who was let in and who was not, [`mod@line`] how its lines and those of access logs are
//! written. Signing belongs to the control plane, trust to TLS.

pub mod file;
pub mod line;
pub mod svid;
pub mod audit;
