//! A tree as YAML in blocks, as people and kubectl write it.

use super::tree::Tree;

/// The whole text of a document.
pub(super) fn block(tree: &Tree) -> String {
    let mut out = String::new();
    match tree {
        Tree::Scalar(..) => out.push_str(&scalar(tree, 0)),
        Tree::List(list) if list.is_empty() => out.push_str("[]\n"),
        Tree::Map(map) if map.is_empty() => out.push_str("{}\n"),
        _ => node(&mut out, tree, 0),
    }
    out
}

/// Writes a list or a map that is not empty, each entry on a line of its own with this indentation.
fn node(out: &mut String, tree: &Tree, indent: usize) {
    match tree {
        Tree::Map(map) => {
            for (key, _, value) in map {
                out.push_str(&format!("{}{}:", " ".repeat(indent), word(key)));
                entry(out, value, indent);
            }
        }
        Tree::List(list) => {
            for element in list {
                out.push_str(&" ".repeat(indent));
                out.push('-');
                element_of(out, element, indent);
            }
        }
        Tree::Scalar(..) => {}
    }
}

/// Writes the value of a key behind its colon. Lists stand as deep as the key.
fn entry(out: &mut String, value: &Tree, indent: usize) {
    match value {
        Tree::Map(map) if !map.is_empty() => {
            out.push('\n');
            node(out, value, indent + 2);
        }
        Tree::List(list) if !list.is_empty() => {
            out.push('\n');
            node(out, value, indent);
        }
        _ => leaf(out, value, indent),
    }
}

/// Writes an element of a list behind its hyphen; the first line of a map or list stands on the same line.
fn element_of(out: &mut String, element: &Tree, indent: usize) {
    let is_empty = match element {
        Tree::Map(map) => map.is_empty(),
        Tree::List(list) => list.is_empty(),
        Tree::Scalar(..) => true,
    };
    if is_empty {
        return leaf(out, element, indent);
    }
    let mut inner = String::new();
    node(&mut inner, element, indent + 2);
    out.push(' ');
    out.push_str(inner.trim_start());
}

/// Writes what has nothing below it.
fn leaf(out: &mut String, tree: &Tree, indent: usize) {
    let text = match tree {
        Tree::Map(_) => "{}\n".to_owned(),
        Tree::List(_) => "[]\n".to_owned(),
        Tree::Scalar(..) => scalar(tree, indent + 2),
    };
    if text != "\n" {
        out.push(' ');
    }
    out.push_str(&text);
}

/// A scalar with the end of its line; what has several lines is written in several, if nothing is lost by it.
fn scalar(tree: &Tree, indent: usize) -> String {
    let Tree::Scalar(text, is_plain) = tree else { return String::new() };
    if *is_plain {
        return format!("{text}\n");
    }
    let body = text.strip_suffix('\n').unwrap_or(text);
    let is_block = body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\t', '\n', '#'])
        && !body.chars().any(|letter| letter.is_control() && letter != '\n' && letter != '\t')
        && !body.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}']);
    if !is_block {
        return format!("{}\n", word(text));
    }
    let mark = if body.len() < text.len() { "|" } else { "|-" };
    let lines = body.split('\n').map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("{}{line}\n", " ".repeat(indent)),
    });
    format!("{mark}\n{}", lines.collect::<String>())
}

/// A text on one line: as it is where that is a text to every reader, else between quotes.
fn word(text: &str) -> String {
    const OTHERS: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"];
    let is_safe = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./@:".contains(letter))
        && !text.ends_with(':')
        && !OTHERS.contains(&text.to_ascii_lowercase().as_str());
    if is_safe { text.to_owned() } else { quoted(text) }
}

/// A text between quotes, of which JSON and YAML differ in what has to be escaped.
fn quoted(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let is_special = |letter: char| letter.is_control() || "\u{2028}\u{2029}\u{feff}".contains(letter);
    let escaped = quoted.chars().map(|letter| match letter {
        letter if is_special(letter) => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tree, *};

    #[test]
    fn what_is_written_means_the_same() {
        for value in [
            json!({ "a": ["x", "1", "true", "", " y", "a: b", "a #b", "- c", "é", "null", "1e3", "0x1", "a\tb", "\u{7f}"] }),
            json!({ "text": "a\nb\n", "kept": "a\n\n  b", "end": "a\n\n", "odd": " a\nb", "cr": "a\r\nb", "one": "a\n" }),
            json!([[1, [2]], { "a": {}, "b": [], "c": [{ "d": [{ "e": 1, "f": null }] }] }, [], {}]),
            json!({ "weird: key": 1, "-": 2, "8080": "http", "yes": true }),
            json!([]),
            json!("alone"),
        ] {
            let text = block(&Tree::of_json(&value));
            let read = tree::parse(&text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
            assert_eq!(read.to_json(), value, "\n{text}");
        }
    }

    #[test]
    fn plain_words_stay_as_they_are() {
        let text = "mode: 0644\nflag: yes\nlist:\n- 1.10\n- ~\n";
        assert_eq!(block(&tree::parse(text).unwrap()), text);
    }
}
