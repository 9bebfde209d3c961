//! Markdown pages as the rules of the house see them: their examples, headings and links.

use std::{fs, path::PathBuf};

use crate::{source, workspace};

/// One page of the documentation.
pub struct Page {
    /// Path relative to the workspace root.
    pub name: String,
    /// The file on disk that it was read from.
    pub path: PathBuf,
    /// The whole text of the page.
    pub text: String,
}

/// Every page people read: `docs`, the README files of examples, and what lies in the root.
pub fn all() -> Vec<Page> {
    let root = workspace();
    let in_root = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name));
    let examples = source::files(&root.join("examples")).into_iter().filter(|path| path.ends_with("README.md"));
    let docs = source::files(&root.join("docs"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| Page {
        name: path.strip_prefix(&root).unwrap_or(&path).display().to_string(),
        text: fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        path,
    };
    let pages: Vec<Page> = docs.chain(examples).chain(in_root).map(read).collect();
    assert!(pages.iter().any(|page| page.name.starts_with("examples/")), "no README of an example was found");
    pages
}

impl Page {
    /// The page of this name, as `docs/metrics.md`.
    pub fn named(name: &str) -> Self {
        let found = all().into_iter().find(|page| page.name == name);
        found.unwrap_or_else(|| panic!("there is no page {name}"))
    }

    /// The blocks of YAML.
    pub fn examples(&self) -> impl Iterator<Item = &str> {
        self.text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next())
    }

    /// The blocks of shell.
    pub fn shell(&self) -> impl Iterator<Item = &str> {
        self.text.split("```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next())
    }

    /// What a link to a heading of this page may name, as GitHub makes it of the heading.
    pub fn anchors(&self) -> impl Iterator<Item = String> {
        self.text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#')))
    }

    /// The targets of its links, with the line each stands on.
    pub fn links(&self) -> impl Iterator<Item = (usize, &str)> {
        let links = |line| str::split(line, "](").skip(1).filter_map(|rest| rest.split(')').next());
        self.text.lines().enumerate().flat_map(move |(index, line)| links(line).map(move |link| (index + 1, link)))
    }

    /// Whether `word` stands in it, not as a part of another.
    pub fn mentions(&self, word: &str) -> bool {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        self.text
            .match_indices(word)
            .any(|(at, _)| !self.text[..at].ends_with(part) && !self.text[at + word.len()..].starts_with(part))
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gives_its_examples_links_and_anchors() {
        let text = "# One: `two`, three\n\nA [link](a.md#b) and [more](#c).\n\n```yaml\na: 1\n```\n";
        let page = Page { name: String::new(), path: PathBuf::new(), text: text.to_owned() };
        assert_eq!(page.examples().collect::<Vec<_>>(), ["a: 1"]);
        assert_eq!(page.anchors().collect::<Vec<_>>(), ["one-two-three"]);
        assert_eq!(page.links().collect::<Vec<_>>(), [(3, "a.md#b"), (3, "#c")]);
        assert!(page.mentions("more") && !page.mentions("mor"));
    }
}
