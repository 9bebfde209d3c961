//! No locked package has a known vulnerability or unsoundness, by the RustSec advisory database.
//!
//! Works offline on a checkout of the database: `SELVEDGE_ADVISORY_DB`, or `../shared/advisory-db` beside the
//! workspace. Without one the audit is skipped, and says so.

use std::{env, fs, path::PathBuf};

use selvedge_tests::{
    lockfile::{self, Package},
    skip, source, workspace,
};
use semver::{Comparator, Op, Version, VersionReq};
use toml_edit::{DocumentMut, Item};

/// Advisories that were read and do not apply to us, each with the reason.
const ACCEPTED: &[(&str, &str)] = &[];

/// The part of an advisory that the audit needs.
struct Advisory {
    id: String,
    package: String,
    title: String,
    /// `unmaintained`, `unsound` or `notice`; a vulnerability has none.
    informational: Option<String>,
    withdrawn: bool,
    /// Versions that do not have the problem.
    fine: Vec<VersionReq>,
}

impl Advisory {
    /// Reads the TOML front matter of an advisory, and its title.
    fn parse(text: &str) -> Result<Self, String> {
        let body = text.trim_start().strip_prefix("```toml").ok_or("no front matter")?;
        let (front, rest) = body.split_once("\n```").ok_or("the front matter does not end")?;
        let document: DocumentMut = front.parse().map_err(|error| format!("{error}"))?;
        let (about, versions) = (&document["advisory"], document.get("versions"));
        let field = |name: &str| about.get(name).and_then(Item::as_str).map(|value| value.trim().to_owned());
        let ranges = |name: &str| lockfile::strings(versions.and_then(|versions| versions.get(name)));
        let fine = ranges("patched").into_iter().chain(ranges("unaffected"));
        Ok(Self {
            id: field("id").ok_or("no id")?,
            package: field("package").ok_or("no package")?,
            title: rest.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default().to_owned(),
            informational: field("informational"),
            withdrawn: about.get("withdrawn").is_some(),
            fine: fine
                .map(|range| range.parse().map_err(|error| format!("{range}: {error}")))
                .collect::<Result<_, _>>()?,
        })
    }

    fn affects(&self, package: &Package) -> bool {
        let safe = self.fine.iter().any(|range| contains(range, &package.version));
        !self.withdrawn && self.package == package.name && !safe
    }

    /// True when using an affected version must not pass.
    fn is_grave(&self) -> bool {
        let harmless = matches!(self.informational.as_deref(), Some("unmaintained" | "notice"));
        !harmless && !ACCEPTED.iter().any(|(id, _)| *id == self.id)
    }
}

/// Whether `version` lies in `range` by plain order. `VersionReq::matches` never lets a pre-release match a range
/// that names none, which is right for choosing a dependency and wrong for "is 1.0.0-rc.1 affected".
fn contains(range: &VersionReq, version: &Version) -> bool {
    range.comparators.iter().all(|comparator| {
        let Comparator { op, major, minor, patch, pre } = comparator;
        let mut bound = Version::new(*major, minor.unwrap_or(0), patch.unwrap_or(0));
        bound.pre = pre.clone();
        match op {
            Op::Greater => *version > bound,
            Op::GreaterEq => *version >= bound,
            Op::Less => *version < bound,
            Op::LessEq => *version <= bound,
            _ => comparator.matches(version),
        }
    })
}

fn database() -> Option<PathBuf> {
    let beside = || workspace().parent().map(|parent| parent.join("shared/advisory-db"));
    let folder = env::var_os("SELVEDGE_ADVISORY_DB").map(PathBuf::from).or_else(beside)?;
    folder.join("crates").is_dir().then_some(folder)
}

#[test]
fn no_locked_package_has_a_known_vulnerability() {
    let Some(folder) = database() else {
        return skip("no RustSec checkout; set SELVEDGE_ADVISORY_DB to one to run the audit");
    };
    let locked = lockfile::locked();
    let (mut grave, mut read) = (Vec::new(), 0);
    for package in &locked {
        let advisories = source::files(&folder.join("crates").join(&package.name));
        for path in advisories.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
            let text = fs::read_to_string(&path).unwrap();
            let advisory = Advisory::parse(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
            read += 1;
            if advisory.affects(package) {
                let line = format!("{} {}: {} {}", package.name, package.version, advisory.id, advisory.title);
                println!("{line}");
                grave.extend(advisory.is_grave().then_some(line));
            }
        }
    }
    println!("{} locked packages, {read} advisories about them read", locked.len());
    assert!(grave.is_empty(), "known vulnerabilities in Cargo.lock:\n  {}", grave.join("\n  "));
}

#[test]
fn ranges_are_read_as_rustsec_means_them() {
    let text = "```toml\n[advisory]\nid = \"X-1\"\npackage = \"h2\"\n[versions]\npatched = [\"^0.3.26\", \">= 0.4.4\"]\nunaffected = [\"< 0.2.0-alpha.3\"]\n```\n# Flood\n";
    let advisory = Advisory::parse(text).unwrap();
    let affected =
        |version: &str| advisory.affects(&Package { name: "h2".to_owned(), version: version.parse().unwrap() });
    for (version, wanted) in [
        ("0.3.25", true),
        ("0.3.26", false),
        ("0.4.0", true),
        ("0.4.3", true),
        ("0.4.4", false),
        ("0.4.4-rc.1", true),
        ("0.2.0", true),
        ("0.2.0-alpha.2", false),
        ("0.1.9", false),
    ] {
        assert_eq!(affected(version), wanted, "{version}");
    }
    assert_eq!((advisory.title.as_str(), advisory.is_grave()), ("Flood", true));
}
