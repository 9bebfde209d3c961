//! The wire between sidecars ([`frames`]) under libFuzzer: its bytes are a script of what both ends do and say. The files of
//! the wire are links to those of the sidecar, so that nothing of it is named outside for this.
#![no_main]
#![allow(dead_code, unused_imports, reason = "a sidecar and its tests use the rest")]

mod budget;
mod frames;
#[path = "frames/tests/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| script::play(bytes));
