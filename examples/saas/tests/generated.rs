//! The checked-in code is what the `.proto` files say. `UPDATE_GENERATED=1 cargo test -p selvedge-saas --test
//! generated` writes it anew.

use std::{fs, path::Path};

#[test]
fn generated_code_is_current() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = here.join("proto");
    let files = ["saas/v1/auth.proto", "saas/v1/data.proto"].map(|file| protos.join(file));
    let fresh = tempfile::tempdir().expect("a temporary directory");
    let descriptors = protox::compile(files, [&protos]).expect("the protos compile");
    tonic_prost_build::configure()
        .out_dir(fresh.path())
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .expect("code is generated");

    let kept = here.join("src/generated/saas.v1.rs");
    let new = fs::read_to_string(fresh.path().join("saas.v1.rs")).expect("generated text");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&kept, &new).expect("written");
    }
    let old = fs::read_to_string(&kept).unwrap_or_default();
    assert!(new == old, "{} is stale; run with UPDATE_GENERATED=1", kept.display());
}
