//! The dependencies are the ones we meant: from crates.io, under licences we may ship, one version of each, nothing
//! banned, nothing below the floor of known fixes. Reads `deny.toml` in cargo-deny's own format, works offline.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use selvedge_tests::{
    lockfile::{self, Built, Package},
    source, workspace,
};
use semver::VersionReq;
use toml_edit::{InlineTable, Item};

/// `{ crate = "name@requirement", reason = "..." }` of `deny.toml`.
struct Entry {
    name: String,
    versions: Option<VersionReq>,
    reason: String,
}

impl Entry {
    fn read(table: &InlineTable) -> Self {
        let text = |key: &str| table.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        let spec = text("crate").expect("an entry of deny.toml names a crate");
        let (name, versions) = match spec.split_once('@') {
            Some((name, versions)) => (name.to_owned(), Some(versions.parse().expect("a version requirement"))),
            None => (spec, None),
        };
        let reason = text("reason").filter(|reason| !reason.is_empty());
        Self { reason: reason.unwrap_or_else(|| panic!("deny.toml gives no reason for {name}")), name, versions }
    }

    fn covers(&self, package: &Package) -> bool {
        self.name == package.name && self.versions.as_ref().is_none_or(|versions| versions.matches(&package.version))
    }
}

fn entries(key: &str) -> Vec<Entry> {
    let deny = lockfile::toml("deny.toml");
    let list = deny["bans"].get(key).and_then(Item::as_array).into_iter().flatten();
    list.filter_map(|value| value.as_inline_table()).map(Entry::read).collect()
}

/// What `[sources]` of deny.toml says: nothing comes from elsewhere than crates.io, from this workspace, or from a copy that
/// lies in it.
#[test]
fn every_package_comes_from_the_registry_or_the_workspace() {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let sources = lockfile::toml("deny.toml")["sources"].clone();
    for key in ["unknown-registry", "unknown-git"] {
        assert_eq!(sources[key].as_str(), Some("deny"), "deny.toml and this test say the same");
    }
    let members = lockfile::toml("Cargo.toml")["workspace"]["members"].clone();
    let copies: Vec<String> = lockfile::copies().into_iter().map(|(_, path)| path).collect();
    let ours: BTreeSet<String> = lockfile::strings(Some(&members))
        .iter()
        .chain(&copies)
        .map(|member| lockfile::toml(&format!("{member}/Cargo.toml"))["package"]["name"].as_str().unwrap().to_owned())
        .collect();
    let packages = lockfile::sources();
    assert!(packages.len() > ours.len() && !ours.is_empty());
    let strange: Vec<String> = packages
        .into_iter()
        .filter(|(name, source)| source != REGISTRY && !(source.is_empty() && ours.contains(name)))
        .map(|(name, source)| format!("{name} from '{source}'"))
        .collect();
    assert!(strange.is_empty(), "packages from elsewhere:\n  {}", strange.join("\n  "));
}

/// What was changed in a copy is beside it, as `git apply` takes it, so that the next version gets the same change.
#[test]
fn every_copy_has_the_change_that_is_beside_it_and_the_licence() {
    let copies = lockfile::copies();
    assert!(!copies.is_empty());
    for (name, path) in copies {
        let read = |path: &str| fs::read_to_string(workspace().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(read(&format!("{path}/LICENSE")).contains("Copyright"), "{name} is under a licence");
        let change = read(&format!("{path}.patch"));
        let files = change.split("\n+++ b/").skip(1);
        let mut hunks = 0;
        for (file, rest) in files.filter_map(|file| Some(file.split_at(file.find('\n')?))) {
            let text = read(&format!("{path}/{file}"));
            for hunk in rest.split("\ndiff --git").next().unwrap_or_default().split("\n@@").skip(1) {
                let lines = hunk.lines().skip(1).filter(|line| !line.starts_with('-'));
                let after: Vec<&str> = lines.map(|line| line.get(1..).unwrap_or_default()).collect();
                assert!(text.contains(&after.join("\n")), "{path}/{file} is not what {path}.patch makes of it:{hunk}");
                hunks += 1;
            }
        }
        assert!(hunks > 0, "{path}.patch changes nothing");
    }
}

#[test]
fn every_licence_is_allowed() {
    let deny = lockfile::toml("deny.toml");
    let allowed: BTreeSet<String> = lockfile::strings(deny["licenses"].get("allow")).into_iter().collect();
    let refused: Vec<String> = lockfile::built()
        .into_iter()
        .filter(|built| !satisfied(&built.licence, &allowed))
        .map(|Built { package, licence }| format!("{} {} is under '{licence}'", package.name, package.version))
        .collect();
    assert!(refused.is_empty(), "licences that deny.toml does not allow:\n  {}", refused.join("\n  "));
}

#[test]
fn nothing_banned_and_nothing_below_the_floor_is_used() {
    let (locked, built) = (lockfile::locked(), lockfile::built());
    let mut found = Vec::new();
    for entry in entries("deny") {
        // A bare name may stand in Cargo.lock for an optional feature nobody turns on; a version may not.
        let candidates: Vec<&Package> = match entry.versions {
            Some(_) => locked.iter().collect(),
            None => built.iter().map(|built| &built.package).collect(),
        };
        let hits = candidates.into_iter().filter(|package| entry.covers(package));
        found.extend(hits.map(|package| format!("{} {}: {}", package.name, package.version, entry.reason)));
    }
    assert!(found.is_empty(), "deny.toml bans:\n  {}", found.join("\n  "));
}

#[test]
fn no_package_is_built_in_two_versions_without_a_reason() {
    let skipped = entries("skip");
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Built { package, .. } in lockfile::built() {
        if !skipped.iter().any(|entry| entry.covers(&package)) {
            versions.entry(package.name).or_default().push(package.version.to_string());
        }
    }
    let twice: Vec<String> = versions
        .into_iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| format!("{name}: {}", versions.join(", ")))
        .collect();
    assert!(
        twice.is_empty(),
        "duplicate versions; align them or give a reason in deny.toml:\n  {}",
        twice.join("\n  ")
    );
}

#[test]
fn skipped_duplicates_still_exist() {
    let locked = lockfile::locked();
    let stale: Vec<String> = entries("skip")
        .into_iter()
        .filter(|entry| !locked.iter().any(|package| entry.covers(package)))
        .map(|entry| entry.name)
        .collect();
    assert!(stale.is_empty(), "deny.toml skips what Cargo.lock no longer has: {}", stale.join(", "));
}

/// What brings a runtime, a network or cryptography with it.
const NETWORK: [&str; 12] = [
    "tokio",
    "mio",
    "socket2",
    "hyper",
    "h2",
    "http-body",
    "tower",
    "tonic",
    "tonic-prost",
    "rustls",
    "aws-lc-rs",
    "x509-parser",
];

/// The packages that know what the mesh would do, and link nothing that could do it.
const WITHOUT_NETWORK: [&str; 4] = ["selvedge-policies", "selvedge-xds", "selvedge-decide", "selvedge-inject"];

fn network_of(package: &str) -> Vec<String> {
    let names = lockfile::linked(package).into_iter().map(|linked| linked.name);
    names.filter(|name| NETWORK.contains(&name.as_str())).collect()
}

#[test]
fn what_only_decides_links_no_network() {
    for package in WITHOUT_NETWORK {
        let found = network_of(package);
        assert!(found.is_empty(), "{package} is to be used without sockets, and links {}", found.join(", "));
    }
    assert!(network_of("selvedge-proxy").len() > 8, "the sidecar has a network, so the test can see one");
}

#[test]
fn one_package_speaks_to_the_api_server_of_a_cluster() {
    for client in ["kube", "k8s-openapi"] {
        let names = |member: &String| {
            let manifest = lockfile::toml(&format!("{member}/Cargo.toml"));
            let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
            tables.iter().any(|table| manifest.get(table).is_some_and(|table| table.get(client).is_some()))
        };
        let members: Vec<String> = source::packages().into_iter().filter(names).collect();
        assert_eq!(members, ["control-plane"], "{client} in one package, so that its breaking changes end there");
    }
}

/// True when the SPDX expression can be satisfied with allowed licences alone. `/` is the old spelling of `OR`.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (value, used) = any(&words, allowed);
    value && used == words.len()
}

/// `all (OR all)*`; the value and how many words it took.
fn any(words: &[&str], allowed: &BTreeSet<String>) -> (bool, usize) {
    let (mut value, mut used) = all(words, allowed);
    while words.get(used) == Some(&"OR") {
        let (right, taken) = all(&words[used + 1..], allowed);
        (value, used) = (value || right, used + 1 + taken);
    }
    (value, used)
}

/// `one (AND one)*`.
fn all(words: &[&str], allowed: &BTreeSet<String>) -> (bool, usize) {
    let (mut value, mut used) = one(words, allowed);
    while words.get(used) == Some(&"AND") {
        let (right, taken) = one(&words[used + 1..], allowed);
        (value, used) = (value && right, used + 1 + taken);
    }
    (value, used)
}

/// `( any )`, `licence` or `licence WITH exception`.
fn one(words: &[&str], allowed: &BTreeSet<String>) -> (bool, usize) {
    match words {
        ["(", rest @ ..] => {
            let (value, used) = any(rest, allowed);
            (value && rest.get(used) == Some(&")"), used + 2)
        }
        [licence, "WITH", exception, ..] => (allowed.contains(&format!("{licence} WITH {exception}")), 3),
        [licence, ..] => (allowed.contains(*licence), 1),
        [] => (false, 0),
    }
}

#[test]
fn licence_expressions_mean_what_spdx_says() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned(), "A WITH B".to_owned()]);
    for good in
        ["MIT", "MIT/GPL-3.0", "GPL-3.0 OR MIT", "MIT AND (GPL-3.0 OR ISC)", "A WITH B", "GPL-2.0 OR MIT AND ISC"]
    {
        assert!(satisfied(good, &allowed), "{good} was refused");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "A", "(MIT", "MIT AND (GPL-3.0 OR GPL-2.0)", "MIT GPL-3.0"] {
        assert!(!satisfied(bad, &allowed), "{bad} was accepted");
    }
}
