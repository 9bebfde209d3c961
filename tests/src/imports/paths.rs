//! The paths that a file writes: those of its `use` declarations, and those that begin with `crate`, `self` or `super`
//! anywhere in its code.

use crate::source::Source;

/// A path, as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Its names, from the first.
    pub(super) path: Vec<String>,
    /// The name by which a `use` brings it into the file; `None` where it is only used.
    pub(super) alias: Option<String>,
    /// Line of the declaration or of the path, counted from 1.
    pub(super) line: usize,
}

/// The paths of the production part of `source`.
pub(super) fn of(source: &Source) -> Vec<Named> {
    let mut found = Vec::new();
    let mut declaration: Option<(usize, String)> = None;
    for (line, code) in source.code.iter().enumerate().map(|(index, code)| (index + 1, code.as_str())) {
        if declaration.is_none() && !is_use(code) {
            found.extend(written_out(code).map(|path| Named { path, alias: None, line }));
            continue;
        }
        let (begun, text) = declaration.get_or_insert_with(|| (line, String::new()));
        text.push_str(code);
        if let Some((tree, _)) = text.split_once(';') {
            let tree = tree.split_once("use ").map_or("", |(_, tree)| tree);
            leaves(&[], tree, *begun, &mut found);
            declaration = None;
        }
    }
    found
}

/// The modules that a file declares, in its order.
pub(super) fn modules(source: &Source) -> Vec<String> {
    let declared = source.code.iter().filter_map(|line| {
        let (before, rest) = line.trim().split_once("mod ")?;
        (before.is_empty() || before.starts_with("pub")).then_some(rest.strip_suffix(';')?.to_owned())
    });
    declared.collect()
}

fn is_use(code: &str) -> bool {
    let code = code.trim_start();
    code.starts_with("use ") || (code.starts_with("pub") && code.contains(" use "))
}

/// Takes a tree of imports apart.
fn leaves(before: &[String], tree: &str, line: usize, found: &mut Vec<Named>) {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut path: Vec<String> = before.iter().cloned().chain(names(path)).collect();
        if before.len() < path.len() && path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        let alias = Some(alias.trim()).filter(|alias| !alias.is_empty()).map(str::to_owned).or(path.last().cloned());
        return found.push(Named { path, alias, line });
    };
    let before: Vec<String> = before.iter().cloned().chain(names(prefix)).collect();
    let inside = rest.rsplit_once('}').map_or(rest, |(inside, _)| inside);
    let mut depth = 0_usize;
    let parts = inside.split(|c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.trim().is_empty()).for_each(|part| leaves(&before, part, line, found));
}

fn names(path: &str) -> impl Iterator<Item = String> {
    path.split("::").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Paths in a line of code that begin where the package or a module does.
fn written_out(code: &str) -> impl Iterator<Item = Vec<String>> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(move |c: char| !is_part(c));
    words
        .filter(|word| ["crate::", "self::", "super::"].iter().any(|first| word.starts_with(first)))
        .map(|word| names(word).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<(String, Option<String>, usize)> {
        let named = of(&Source::new("x.rs", text)).into_iter();
        named.map(|named| (named.path.join("::"), named.alias, named.line)).collect()
    }

    #[test]
    fn trees_of_imports_are_taken_apart() {
        let text = "use std::io;\n\npub use self::b::C as D;\nuse crate::{\n    a::{self, B},\n    d,\n};\n";
        let alias = |name: &str| Some(name.to_owned());
        assert_eq!(
            written(text),
            [
                ("std::io".to_owned(), alias("io"), 1),
                ("self::b::C".to_owned(), alias("D"), 3),
                ("crate::a".to_owned(), alias("a"), 4),
                ("crate::a::B".to_owned(), alias("B"), 4),
                ("crate::d".to_owned(), alias("d"), 4),
            ]
        );
    }

    #[test]
    fn paths_in_the_code_count_and_words_in_texts_do_not() {
        let text = "fn f(_: &crate::a::B) { super::c::d(\"crate::e::F\") } // self::g::H\n";
        assert_eq!(written(text), [("crate::a::B".to_owned(), None, 1), ("super::c::d".to_owned(), None, 1)]);
    }
}
