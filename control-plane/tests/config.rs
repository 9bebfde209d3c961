//! What users write, from the file to the snapshot.
#![cfg(test)]

#[path = "config/compile.rs"]
mod compile;
#[path = "config/diagnostics.rs"]
mod diagnostics;
#[path = "config/docs.rs"]
mod docs;
#[path = "config/equivalence.rs"]
mod equivalence;
#[path = "config/files.rs"]
mod files;
#[path = "config/kept.rs"]
mod kept;
#[path = "config/linted.rs"]
mod linted;
#[path = "config/left_out.rs"]
mod left_out;
#[path = "config/mistakes.rs"]
mod mistakes;
#[path = "config/restart.rs"]
mod restart;
#[path = "config/routes.rs"]
mod routes;
#[path = "config/scope.rs"]
mod scope;
#[path = "config/settings.rs"]
mod settings;
#[path = "config/shadows.rs"]
mod shadows;
#[path = "config/skew.rs"]
mod skew;
#[path = "config/sources.rs"]
mod sources;
#[path = "config/vanished.rs"]
mod vanished;
