//! One image as an OCI archive: a layer, what to run, and an index over them, each blob by its digest.

use anyhow::ensure;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{
    layer::{archive, compressed, path},
    program::{Files, Program},
};

/// An archive, and by which digest a node pulls what is in it.
pub struct Image {
    /// The bytes of the archive.
    pub archive: Vec<u8>,
    /// The digest of its manifest, as in `sha256:...`.
    pub digest: String,
}

/// When everything was made: bytes that follow from a clock are other bytes each time.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A blob and what it is.
struct Blob {
    media_type: &'static str,
    content: Vec<u8>,
}

impl Blob {
    fn json(media_type: &'static str, value: &Value) -> Self {
        Self { media_type, content: value.to_string().into_bytes() }
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": sha256(&self.content), "size": self.content.len() })
    }
}

impl Image {
    /// The image of a program with these files, which a node that loads the archive knows as `registry/name@digest`, and
    /// others by its version.
    ///
    /// # Errors
    /// An image that is larger than it may be.
    pub fn new(program: &Program, files: &Files, registry: &str, version: &str) -> anyhow::Result<Self> {
        let layer = archive(files)?;
        let config = Blob::json("application/vnd.oci.image.config.v1+json", &config(program, version, &sha256(&layer)));
        let layer = Blob { media_type: "application/vnd.oci.image.layer.v1.tar+gzip", content: compressed(&layer)? };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        });
        let manifest = Blob::json(MANIFEST, &manifest);
        let digest = sha256(&manifest.content);
        let mut described = manifest.descriptor();
        described["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        described["annotations"] = json!({
            "org.opencontainers.image.ref.name": version,
            "io.containerd.image.name": format!("{registry}/{}@{digest}", program.name),
        });
        let archive = layout(&described, [&config, &layer, &manifest])?;
        ensure!(
            archive.len() <= program.limit,
            "the image of {} has {} bytes, and may have {}",
            program.name,
            archive.len(),
            program.limit
        );
        Ok(Self { archive, digest })
    }
}

/// Media type of a manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a container of the image runs, and as whom.
fn config(program: &Program, version: &str, layer: &str) -> Value {
    json!({
        "created": CREATED,
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": format!("{0}:{0}", program.user),
            "Entrypoint": [format!("/{}", program.name)],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": program.name,
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
        "history": [{ "created": CREATED, "created_by": "make image" }],
    })
}

/// The layout with its one image as an archive.
fn layout(manifest: &Value, blobs: [&Blob; 3]) -> std::io::Result<Vec<u8>> {
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    let mut files: Files = blobs
        .iter()
        .map(|blob| (path(&["blobs", "sha256", hex(&blob.content).as_str()]), blob.content.clone()))
        .collect();
    files.insert(path(&["index.json"]), index.to_string().into_bytes());
    files.insert(path(&["oci-layout"]), json!({ "imageLayoutVersion": "1.0.0" }).to_string().into_bytes());
    archive(&files)
}

/// This machine's, in the words of images.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn hex(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(content: &[u8]) -> String {
    format!("sha256:{}", hex(content))
}
