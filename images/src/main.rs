//! Makes the images of the programs in a folder, and the list of their digests.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Context;
use clap::Parser;
use selvedge_images::{image::Image, program};

/// Make OCI archives of the programs, and images.json with the digest of each.
#[derive(Parser)]
struct Arguments {
    /// Folder with the programs, as cargo leaves them.
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
    /// Folder for the archives; made where it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Host and path that nodes know the images by.
    #[arg(long, value_name = "HOST/PATH", default_value = "localhost/selvedge")]
    registry: String,
}

fn main() -> anyhow::Result<()> {
    let Arguments { programs, out, registry } = Arguments::parse();
    fs::create_dir_all(&out).with_context(|| format!("{} cannot be made", out.display()))?;
    let mut digests = BTreeMap::new();
    for program in &program::PROGRAMS {
        let files = program::files(&programs, program)?;
        let image = Image::new(program, &files, &registry, env!("CARGO_PKG_VERSION"))?;
        let path = out.join(format!("{}.tar", program.name));
        fs::write(&path, &image.archive).with_context(|| format!("{} cannot be written", path.display()))?;
        println!("{:>10}  {}  {}", image.archive.len(), path.display(), image.digest);
        digests.insert(program.name, image.digest);
    }
    let path = out.join("images.json");
    let list = serde_json::to_string_pretty(&digests)? + "\n";
    fs::write(&path, list).with_context(|| format!("{} cannot be written", path.display()))
}
