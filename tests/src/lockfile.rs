//! What the workspace is built from: `Cargo.lock`, and the packages that are really compiled here.

use std::{fs, process::Command};

use semver::Version;
use toml_edit::{DocumentMut, Item};

use crate::workspace;

/// One package of `Cargo.lock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Name in the registry.
    pub name: String,
    /// The version that is locked.
    pub version: Version,
}

/// One package that takes part in a build on this platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Built {
    /// The package with the version that is locked.
    pub package: Package,
    /// SPDX expression of its manifest, empty when it has none.
    pub licence: String,
}

/// A TOML file of the workspace, by its path relative to the root.
pub fn toml(path: &str) -> DocumentMut {
    let text = fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The strings of a TOML array; empty when `item` is absent.
pub fn strings(item: Option<&Item>) -> Vec<String> {
    let values = item.and_then(Item::as_array).into_iter().flatten();
    values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// The packages of others of which a changed copy is used, with where it is.
pub fn copies() -> Vec<(String, String)> {
    let manifest = toml("Cargo.toml");
    let patched = manifest["patch"]["crates-io"].as_table().expect("Cargo.toml names the copies");
    let path = |item: &Item| item.get("path").and_then(Item::as_str).expect("a copy has a path").to_owned();
    patched.iter().map(|(name, item)| (name.to_owned(), path(item))).collect()
}

/// Every package of `Cargo.lock` that others publish: it comes from a registry, or is a copy.
pub fn locked() -> Vec<Package> {
    let lock = toml("Cargo.lock");
    let packages = lock["package"].as_array_of_tables().expect("Cargo.lock lists packages");
    let text = |item: Option<&Item>| item.and_then(Item::as_str).unwrap_or_default().to_owned();
    let copies = copies();
    let of_others = packages.iter().filter(|package| {
        let is_copy = |(name, _): &(String, String)| package.get("name").and_then(Item::as_str) == Some(name);
        package.contains_key("source") || copies.iter().any(is_copy)
    });
    of_others.map(|package| parse(&text(package.get("name")), &text(package.get("version")))).collect()
}

/// Every package of `Cargo.lock` with where it comes from, empty for one of a path.
pub fn sources() -> Vec<(String, String)> {
    let lock = toml("Cargo.lock");
    let packages = lock["package"].as_array_of_tables().expect("Cargo.lock lists packages");
    let text = |item: Option<&Item>| item.and_then(Item::as_str).unwrap_or_default().to_owned();
    packages.iter().map(|package| (text(package.get("name")), text(package.get("source")))).collect()
}

/// Every package that is compiled for this platform, tests and build scripts included. `Cargo.lock` also lists
/// what an unused optional feature or another platform would need; `cargo tree` tells the two apart, offline.
pub fn built() -> Vec<Built> {
    tree("--workspace --edges all")
}

/// Every package that is compiled into `package`, a member of the workspace, on this platform; tests and build scripts
/// are not.
pub fn linked(package: &str) -> Vec<Package> {
    tree(&format!("--package {package} --edges normal")).into_iter().map(|built| built.package).collect()
}

fn tree(of: &str) -> Vec<Built> {
    let arguments = format!("tree --offline --locked {of} --prefix none --format {{p}}|{{l}}");
    let output = Command::new(env!("CARGO"))
        .args(arguments.split(' '))
        // Unified features would name what others in the workspace need, too.
        .env_remove("CARGO_RESOLVER_FEATURE_UNIFICATION")
        .current_dir(workspace())
        .output()
        .expect("cargo runs, it has just built this test");
    assert!(output.status.success(), "cargo tree failed:\n{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found: Vec<Built> = text.lines().filter_map(line).collect();
    found.sort();
    found.dedup();
    assert!(!found.is_empty(), "cargo tree named no package:\n{text}");
    found
}

/// Reads `name v1.2.3 (notes)|licence`; lines of features have no version and are left out.
fn line(line: &str) -> Option<Built> {
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let licence = licence.trim_end_matches(" (*)").to_owned();
    Some(Built { package: parse(name, version), licence })
}

fn parse(name: &str, version: &str) -> Package {
    let version = version.parse().unwrap_or_else(|error| panic!("{name} {version}: {error}"));
    Package { name: name.to_owned(), version }
}
