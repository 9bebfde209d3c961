//! Makes code of every Rust block of the pages, for `src/lib.rs` to compile.
//!
//! Guarantees: no block is left out, whatever its fence says after `rust`; one that is not closed or names no file of a
//! package fails the build.

use std::{
    env,
    error::Error,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// What pages lie in, relative to the root of the workspace.
const PLACES: [&str; 5] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs", "examples"];

/// A Rust block of a page.
struct Block {
    /// What the fence says after `rust`: the file of a package that the block is, or nothing.
    file: String,
    code: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let mut code = String::new();
    for place in PLACES {
        println!("cargo::rerun-if-changed={}", root.join(place).display());
        for page in pages(&root.join(place))? {
            let name = page.strip_prefix(&root)?.display().to_string();
            let found = blocks(&fs::read_to_string(&page)?).ok_or_else(|| format!("{name}: a block has no end"))?;
            for (line, block) in found {
                writeln!(code, "\n// {name}:{line}\n{}", block.module(&name, line)?)?;
            }
        }
    }
    Ok(fs::write(PathBuf::from(env::var("OUT_DIR")?).join("blocks.rs"), code)?)
}

/// The pages at and below `place`, in order of their paths.
fn pages(place: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    if !place.is_dir() {
        return Ok(place
            .extension()
            .filter(|extension| *extension == "md")
            .map(|_| place.to_owned())
            .into_iter()
            .collect());
    }
    let mut entries =
        fs::read_dir(place)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    entries.sort_unstable();
    Ok(entries.iter().map(|entry| pages(entry)).collect::<Result<Vec<_>, _>>()?.concat())
}

/// The Rust blocks of a page with the line of their fence. A block may be indented, as a part of a list.
fn blocks(page: &str) -> Option<Vec<(usize, Block)>> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((index, fence)) = lines.next() {
        let Some((indent, file)) = fence.split_once("```rust") else { continue };
        let mut code = String::new();
        loop {
            let line = lines.next()?.1;
            if line.trim() == "```" {
                break;
            }
            code = code + line.strip_prefix(indent).unwrap_or(line) + "\n";
        }
        found.push((index + 1, Block { file: file.trim().to_owned(), code }));
    }
    Some(found)
}

impl Block {
    /// The block on this line of `page` as code. A file of a package is a module of its name, and sees what it would see
    /// there, as far as that is public; statements stand in a function.
    fn module(&self, page: &str, line: usize) -> Result<String, String> {
        let page = page.trim_end_matches(".md").to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        if self.file.is_empty() {
            let head = format!("/// A block of a page.\npub async fn {page}_{line}()");
            return Ok(format!("{head} -> Result<(), Box<dyn std::error::Error>> {{\n{}Ok(())\n}}", self.code));
        }
        let module = self.file.strip_suffix(".rs").ok_or_else(|| format!("{} is no file of a package", self.file))?;
        let (package, module) =
            module.split_once("/src/").ok_or_else(|| format!("{} is no file of a package", self.file))?;
        let root = format!("selvedge_{}", package.replace('-', "_"));
        let parent = module.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.replace('/', "::") + "::");
        let code = self.code.replace("super::", &format!("{root}::{parent}")).replace("crate::", &format!("{root}::"));
        let name = module.rsplit('/').next().unwrap_or(module);
        Ok(format!("pub mod {page}_{name} {{\n{code}}}"))
    }
}
