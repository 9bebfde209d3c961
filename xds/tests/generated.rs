//! The checked-in code is what the `.proto` files say: messages here, gRPC services with the party that serves or dials
//! them. `UPDATE_GENERATED=1 cargo test -p selvedge-xds --test generated` writes it anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

const PROTOS: [&str; 4] = [
    "envoy/service/discovery/v3/discovery.proto",
    "selvedge/v1alpha1/resources.proto",
    "selvedge/v1alpha1/certificates.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
];

/// Where the messages of each protobuf package are in Rust.
const MESSAGES: [(&str, &str); 3] = [
    (".envoy.service.discovery.v3", "::selvedge_xds::proto::discovery"),
    (".selvedge.v1alpha1", "::selvedge_xds::proto::mesh"),
    (".opentelemetry.proto.collector.trace.v1", "::selvedge_xds::proto::traces"),
];

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn descriptors() -> Result<prost_types::FileDescriptorSet, Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    Ok(protox::compile(PROTOS.map(|p| root.join(p)), [&root])?)
}

fn messages(out: &Path) -> Outcome {
    let mut prost = prost_build::Config::new();
    prost.out_dir(out).bytes(["."]).enable_type_names().type_name_domain(["."], "type.googleapis.com");
    prost.compile_fds(descriptors()?)?;
    Ok(())
}

fn services(out: &Path, serves: bool) -> Outcome {
    let mut builder = tonic_prost_build::configure()
        .out_dir(out)
        .emit_rerun_if_changed(false)
        .build_server(serves)
        .build_client(!serves);
    for (package, module) in MESSAGES {
        builder = builder.extern_path(package, module);
    }
    builder.compile_fds(descriptors()?)?;
    if serves {
        // Discovery is served by hand, and spans by others.
        fs::remove_file(out.join("envoy.service.discovery.v3.rs"))?;
        fs::remove_file(out.join("opentelemetry.proto.collector.trace.v1.rs"))?;
    }
    Ok(())
}

/// Whether what is checked in under `kept` is what `generate` makes.
fn compare(kept: &str, generate: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let fresh = tempfile::tempdir()?;
    generate(fresh.path())?;
    let kept: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", kept].iter().collect();
    for entry in fs::read_dir(fresh.path())? {
        let entry = entry?;
        let new = fs::read_to_string(entry.path())?;
        let old_path = kept.join(entry.file_name());
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(&old_path, &new)?;
        }
        let old = fs::read_to_string(&old_path).unwrap_or_default();
        if new != old {
            return Err(format!("{} is stale; run with UPDATE_GENERATED=1", old_path.display()).into());
        }
    }
    Ok(())
}

#[test]
fn generated_messages_are_current() {
    compare("xds/src/generated", messages).unwrap();
}

#[test]
fn generated_services_are_current() {
    compare("control-plane/src/generated", |out| services(out, true)).unwrap();
    compare("proxy/src/generated", |out| services(out, false)).unwrap();
}
