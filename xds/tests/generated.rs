//! The checked-in code is what the `.proto` files say. `UPDATE_GENERATED=1 cargo test -p selvedge-xds --test
//! generated` writes it anew.

use std::{fs, path::Path};

const PROTOS: [&str; 3] = [
    "envoy/service/discovery/v3/discovery.proto",
    "selvedge/v1alpha1/resources.proto",
    "selvedge/v1alpha1/certificates.proto",
];

fn generate(out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let descriptors = protox::compile(PROTOS.map(|p| root.join(p)), [&root])?;
    let mut prost = prost_build::Config::new();
    prost.out_dir(out).bytes(["."]).enable_type_names().type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .out_dir(out)
        .emit_rerun_if_changed(false)
        .compile_fds_with_config(descriptors, prost)?;
    Ok(())
}

#[test]
fn generated_code_is_current() {
    let fresh = tempfile::tempdir().expect("a temporary directory");
    generate(fresh.path()).expect("the protos compile");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    for entry in fs::read_dir(fresh.path()).expect("generated files") {
        let entry = entry.expect("a file");
        let new = fs::read_to_string(entry.path()).expect("generated text");
        let old_path = kept.join(entry.file_name());
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(&old_path, &new).expect("written");
        }
        let old = fs::read_to_string(&old_path).unwrap_or_default();
        assert!(new == old, "{} is stale; run with UPDATE_GENERATED=1", old_path.display());
    }
}
