//! `selvedge install`: prints what a cluster needs to have a mesh, for `kubectl apply`.

use std::{fs, io::Write, path::PathBuf};

use anyhow::{Context, bail};
use selvedge_install::{crd, images::Images, injection::Capture, package::Package, text, version};
use serde_json::Value;

/// Print what a cluster needs, for `kubectl apply --server-side -f -`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// The digests of the images: `images.json`, as `make image` writes it.
    #[arg(long, value_name = "FILE")]
    images: Option<PathBuf>,
    /// Where nodes pull the images from, such as registry.example/mesh.
    #[arg(long, value_name = "HOST/PATH")]
    registry: Option<String>,
    /// How connections reach sidecars that say nothing else.
    #[arg(long, value_enum, value_name = "MODE", default_value = "init")]
    capture: Mode,
    /// The cluster's version, as `kubectl version` tells it: below 1.36 the control plane is asked for sidecars.
    #[arg(long, value_name = "V", default_value = "1.36")]
    kubernetes_version: String,
    /// Only the definitions of the kinds that users write, for a control plane that runs elsewhere.
    #[arg(long, conflicts_with_all = ["images", "registry"])]
    crds: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Applications are told where the sidecar listens.
    None,
    /// A container that runs before the others loads rules.
    Init,
    /// A plugin of the node's network loads rules, so pods need no right.
    Cni,
}

/// Prints the objects.
///
/// # Errors
/// Images without a digest, a cluster that is too old, or output that nobody takes.
pub fn run(args: &InstallArgs) -> anyhow::Result<()> {
    let objects = if args.crds { crd::all() } else { package(args)? };
    let text = text::yaml(&objects).context("the objects cannot be written as YAML")?;
    std::io::stdout().write_all(text.as_bytes()).context("nobody takes the output")
}

fn package(args: &InstallArgs) -> anyhow::Result<Vec<Value>> {
    let injector = version::injector(&args.kubernetes_version).map_err(anyhow::Error::msg)?;
    if let Some(doubt) = version::doubt(&args.kubernetes_version) {
        eprintln!("selvedge install: {doubt}");
    }
    let (Some(list), Some(registry)) = (&args.images, &args.registry) else {
        bail!(
            "images are installed by their digests: run `make image`, bring the archives where nodes pull them from \
             (docs/kubernetes/install.md), and give --images target/image/images.json --registry HOST/PATH"
        );
    };
    let list = fs::read_to_string(list).with_context(|| format!("{} cannot be read", list.display()))?;
    let capture = match args.capture {
        Mode::None => Capture::None,
        Mode::Init => Capture::Init,
        Mode::Cni => Capture::Cni,
    };
    Ok(Package { images: Images::read(&list, registry)?, capture, injector }.objects()?)
}
