//! Collects everything that breaks one rule, so that a run shows all of it at once with the way out.

use std::{fmt::Display, fs};

use crate::{source, workspace};

/// What breaks one rule.
pub struct Complaints {
    advice: &'static str,
    found: Vec<String>,
}

impl Complaints {
    /// None yet; `advice` says what to do about them.
    pub fn new(advice: &'static str) -> Self {
        Self { advice, found: Vec::new() }
    }

    /// A whole file breaks the rule.
    pub fn file(&mut self, path: &str, what: impl Display) {
        self.found.push(format!("{path}: {what}"));
    }

    /// One line breaks the rule.
    pub fn line(&mut self, path: &str, line: usize, what: impl Display) {
        self.found.push(format!("{path}:{line}: {what}"));
    }

    /// Each of these lines breaks the rule.
    pub fn lines<'a>(&mut self, path: &str, hits: impl Iterator<Item = (usize, &'a str)>, what: &str) {
        for (line, written) in hits {
            self.line(path, line, format!("{what}: {}", written.trim()));
        }
    }

    /// The 95th percentile of `sizes` is above `limit`; names the largest.
    pub fn percentile(&mut self, mut sizes: Vec<(usize, String)>, limit: usize, what: &str) {
        sizes.sort();
        let rank = (sizes.len() * 95).div_ceil(100).saturating_sub(1);
        let Some((size, _)) = sizes.get(rank) else { return };
        println!("{} {what}, 95th percentile {size} lines (limit {limit})", sizes.len());
        if *size > limit {
            let largest: Vec<String> = sizes[rank..].iter().map(|(size, name)| format!("{name} ({size})")).collect();
            self.found.push(format!(
                "95 of 100 {what} have up to {size} lines, limit {limit}; above: {}",
                largest.join(", ")
            ));
        }
    }

    /// `folder` must have a Markdown page for each of `names`, and no other.
    pub fn pages(&mut self, folder: &str, names: Vec<String>) {
        let pages = page_names(folder);
        for name in names.iter().filter(|name| !pages.contains(name)) {
            self.file(&format!("{folder}/{name}.md"), "is missing");
        }
        for page in pages.iter().filter(|page| *page != "README" && !names.contains(page)) {
            self.file(&format!("{folder}/{page}.md"), "is about nothing that exists");
        }
    }

    /// What breaks the rule, each with its place.
    pub fn found(&self) -> &[String] {
        &self.found
    }

    /// Fails the test when there is any complaint.
    pub fn report(self) {
        assert!(
            self.found.is_empty(),
            "{} broken; {}:\n  {}\n",
            self.found.len(),
            self.advice,
            self.found.join("\n  ")
        );
    }
}

/// Names of the Markdown pages in `folder`, without their extension.
pub fn page_names(folder: &str) -> Vec<String> {
    let pages = source::files(&workspace().join(folder));
    let name = |path: &std::path::PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".md")?.to_owned());
    pages.iter().filter_map(name).collect()
}

/// The text of `folder/name.md`; empty when there is none.
pub fn read_page(folder: &str, name: &str) -> String {
    fs::read_to_string(workspace().join(folder).join(format!("{name}.md"))).unwrap_or_default()
}
