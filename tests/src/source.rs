//! The workspace's Rust files as the rules of the house see them: production lines, functions, and code without
//! the text of comments and literals, so that a rule never trips over a word in a message.

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml_edit::DocumentMut;

use crate::workspace;

mod blank;

/// One file of production code.
pub struct Source {
    /// Path relative to the workspace root, with `/`.
    pub path: String,
    /// The whole text of the file.
    pub text: String,
    /// Lines before the first `#[cfg(test)]`, as written.
    pub production: Vec<String>,
    /// The production lines with comments and the insides of literals replaced by spaces.
    pub code: Vec<String>,
}

/// One function with a body.
pub struct Function {
    /// The name of the function, without what holds it.
    pub name: String,
    /// Line of the `fn`, counted from 1.
    pub line: usize,
    /// Lines from the `fn` to the closing brace, blank and comment lines included.
    pub length: usize,
}

impl Source {
    /// The file at `path` with this text.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let blanked = blank::comments_and_literals(&text);
        let cut = blanked.lines().position(|line| line.trim_start().starts_with("#[cfg(test)]"));
        let keep = |text: &str| text.lines().take(cut.unwrap_or(usize::MAX)).map(str::to_owned).collect::<Vec<_>>();
        let (production, code) = (keep(&text), keep(&blanked));
        Self { path, text, production, code }
    }

    /// Lines that are neither blank nor comment.
    pub fn lines_of_code(&self) -> usize {
        self.code.iter().filter(|line| !line.trim().is_empty()).count()
    }

    /// The functions of the production part that have a body.
    pub fn functions(&self) -> Vec<Function> {
        let starts = self.code.iter().enumerate().filter_map(|(index, line)| Some((index, function_name(line)?)));
        starts.filter_map(|(index, name)| self.body_end(index).map(|end| (index, name, end))).map(function).collect()
    }

    /// Lines of code that contain `needle`, counted from 1, with the text as written.
    pub fn find<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = (usize, &'a str)> + 'a {
        let hits =
            self.code.iter().zip(&self.production).enumerate().filter(move |(_, (code, _))| code.contains(needle));
        hits.map(|(index, (_, written))| (index + 1, written.as_str()))
    }

    /// The line on which the block that opens at or after line `start` closes; `None` for a declaration only.
    fn body_end(&self, start: usize) -> Option<usize> {
        let (mut depth, mut brackets) = (0_usize, 0_usize);
        for (index, line) in self.code.iter().enumerate().skip(start) {
            for byte in line.bytes() {
                match byte {
                    b'(' | b'[' => brackets += 1,
                    b')' | b']' => brackets = brackets.saturating_sub(1),
                    b'{' => depth += 1,
                    b'}' if depth == 1 => return Some(index),
                    b'}' => depth = depth.checked_sub(1)?,
                    b';' if depth == 0 && brackets == 0 => return None,
                    _ => {}
                }
            }
        }
        None
    }
}

/// What a line of code declares, without indentation, where other files of its package or everybody may name it: behind
/// `pub` or `pub(crate)`. `None` for what is private, and for what only the neighbours see (`pub(super)`).
pub fn public(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    rest.strip_prefix("(crate)").unwrap_or(rest).strip_prefix(' ')
}

fn function((start, name, end): (usize, String, usize)) -> Function {
    Function { name, line: start + 1, length: end - start + 1 }
}

/// The name of the function that a line declares.
fn function_name(line: &str) -> Option<String> {
    let at = line.find("fn ")?;
    let before = &line[..at];
    let word = |word: &str| {
        matches!(word, "pub" | "const" | "async" | "unsafe" | "extern" | "default") || word.starts_with("pub(")
    };
    if !before.split_whitespace().all(word) || before.ends_with(|c: char| !c.is_whitespace()) {
        return None;
    }
    let name: String = line[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The folders of the workspace's packages, as its `Cargo.toml` lists them, so that none is forgotten.
pub fn packages() -> Vec<String> {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace has a Cargo.toml");
    let manifest: DocumentMut = manifest.parse().expect("Cargo.toml is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("the workspace has members");
    members.iter().filter_map(|member| member.as_str().map(str::to_owned)).collect()
}

/// Every production file of the workspace, in order of path: the `src` folders of all packages but this test
/// kit, without what is generated and without test modules in files of their own.
pub fn production() -> Vec<Source> {
    let packages = packages().into_iter().filter(|package| !package.starts_with("tests"));
    let mut sources: Vec<Source> = packages.flat_map(|package| rust_files(&format!("{package}/src"))).collect();
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    sources.retain(|source| !source.path.contains("/generated/") && !is_test(&source.path));
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The production files whose path begins with `prefix`: a file, or a package with `/`. Panics when there are none, so
/// that no rule is kept by looking at nothing.
pub fn below(prefix: &str) -> Vec<Source> {
    let found: Vec<Source> = production().into_iter().filter(|source| source.path.starts_with(prefix)).collect();
    assert!(!found.is_empty(), "there is no production file {prefix}");
    found
}

/// Every Rust file under `folder`, a path relative to the workspace root.
pub fn rust_files(folder: &str) -> Vec<Source> {
    let is_rust = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let read = |path: PathBuf| {
        let name = path.strip_prefix(workspace()).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        Source::new(name, fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    };
    files(&workspace().join(folder)).into_iter().filter(|path| is_rust(path)).map(read).collect()
}

/// Every file under `folder`, at any depth, in order; none when there is no such folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_measured_from_its_signature_to_its_brace() {
        let text = "trait T { fn declared(&self); }\n\npub(crate) async fn f(a: [u8; 2]) {\n  // }\n  let s = \"}\";\n  if a {\n  }\n}\n";
        let functions = Source::new("x.rs", text).functions();
        assert_eq!(functions.iter().map(|f| (f.name.as_str(), f.line, f.length)).collect::<Vec<_>>(), [("f", 3, 6)]);
    }

    #[test]
    fn what_the_rest_of_a_package_may_name_is_public() {
        assert_eq!(public("    pub(crate) a: u8,"), Some("a: u8,"));
        assert_eq!(public("pub fn a() {"), Some("fn a() {"));
        for line in ["fn a() {", "pub(super) fn a() {", "public();", "// pub fn a() {"] {
            assert_eq!(public(line), None, "{line}");
        }
    }

    #[test]
    fn tests_at_the_bottom_are_not_production() {
        let source = Source::new("x.rs", "//! doc\n\nfn a() {} // why\n#[cfg(test)]\nmod tests { fn b() {} }\n");
        assert_eq!((source.lines_of_code(), source.functions().len()), (1, 1));
    }
}
