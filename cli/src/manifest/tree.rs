//! A document of YAML as a tree that keeps how scalars are written and the order of keys.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

/// How many nodes a document may come to where aliases repeat parts of it.
const NODES: usize = 1_000_000;
/// How deep a document may be.
const DEPTH: usize = 200;

/// A part of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    /// A scalar: its text, and whether it is plain, so that its words may mean a number or a truth.
    Scalar(String, bool),
    /// The elements of a list.
    List(Vec<Tree>),
    /// Keys with the line that each stands on, and their values.
    Map(Vec<(String, usize, Tree)>),
}

impl Tree {
    /// Nothing at all, as an empty document is.
    pub(crate) const fn nothing() -> Self {
        Self::Scalar(String::new(), true)
    }

    /// What it means to Kubernetes.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Scalar(text, true) => plain(text),
            Self::Scalar(text, false) => text.as_str().into(),
            Self::List(list) => list.iter().map(Self::to_json).collect(),
            Self::Map(map) => {
                map.iter().map(|(key, _, value)| (key.clone(), value.to_json())).collect::<Map<_, _>>().into()
            }
        }
    }

    /// A tree that means what a value of JSON does.
    pub(crate) fn of_json(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::Scalar(text.clone(), false),
            Value::Array(list) => Self::List(list.iter().map(Self::of_json).collect()),
            Value::Object(map) => {
                Self::Map(map.iter().map(|(key, value)| (key.clone(), 0, Self::of_json(value))).collect())
            }
            other => Self::Scalar(other.to_string(), true),
        }
    }

    /// The line of the first key of a map.
    fn first_line(&self, otherwise: usize) -> usize {
        match self {
            Self::Map(map) => map.first().map_or(otherwise, |(_, line, _)| (*line).max(1)),
            _ => otherwise,
        }
    }

    /// The line of the last key on the way of a JSON pointer, as far as there is one, else of the first key.
    pub(crate) fn line_of(&self, pointer: &str) -> usize {
        let (mut node, mut line) = (self, self.first_line(1));
        for step in pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")) {
            node = match node {
                Self::Map(map) => match map.iter().find(|(key, _, _)| *key == step) {
                    Some((_, at, value)) => {
                        line = (*at).max(line);
                        value
                    }
                    None => return line,
                },
                Self::List(list) => match step.parse::<usize>().ok().and_then(|at| list.get(at)) {
                    Some(value) => {
                        line = value.first_line(line);
                        value
                    }
                    None => return line,
                },
                Self::Scalar(..) => return line,
            };
        }
        line
    }
}

/// What a plain scalar means: nothing, a truth, a number, or its own text.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true.into(),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => false.into(),
        _ => {
            let is_numeric = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
            let float = || text.parse::<f64>().ok().filter(|_| is_numeric);
            text.parse::<i64>().map_or_else(|_| float().map_or_else(|| text.into(), Value::from), Value::from)
        }
    }
}

/// Reads one document. An error is its line, from 1, and what is wrong.
pub(crate) fn parse(text: &str) -> Result<Tree, (usize, String)> {
    let mut builder = Builder::default();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| (error.marker().line().max(1), error.info().to_owned()))?;
        let line = span.start.line();
        let taken = match event {
            Event::Scalar(value, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain && tag.is_none();
                builder.value(Tree::Scalar(value.into_owned(), is_plain), anchor, line)
            }
            Event::SequenceStart(_, anchor, _) => builder.open(Tree::List(Vec::new()), anchor, line),
            Event::MappingStart(_, anchor, _) => builder.open(Tree::Map(Vec::new()), anchor, line),
            Event::SequenceEnd | Event::MappingEnd => builder.close(),
            Event::Alias(anchor) => builder.alias(anchor, line),
            _ => Ok(()),
        };
        taken.map_err(|problem| (line.max(1), problem.to_owned()))?;
    }
    Ok(builder.root.unwrap_or(Tree::nothing()))
}

/// Puts a tree together from the events of a parser.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Tree>,
    nodes: usize,
    root: Option<Tree>,
}

/// A list or map whose end has not come yet.
struct Open {
    tree: Tree,
    anchor: usize,
    line: usize,
    key: Option<(String, usize)>,
}

impl Builder {
    fn open(&mut self, tree: Tree, anchor: usize, line: usize) -> Result<(), &'static str> {
        if self.open.len() == DEPTH {
            return Err("it is nested too deeply");
        }
        self.open.push(Open { tree, anchor, line, key: None });
        Ok(())
    }

    fn close(&mut self) -> Result<(), &'static str> {
        let Some(Open { tree, anchor, line, .. }) = self.open.pop() else { return Ok(()) };
        self.value(tree, anchor, line)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), &'static str> {
        let tree = self.anchors.get(&anchor).cloned().ok_or("an alias within what it stands for")?;
        self.nodes += size(&tree);
        self.value(tree, 0, line)
    }

    fn value(&mut self, tree: Tree, anchor: usize, line: usize) -> Result<(), &'static str> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err("its aliases come to too much");
        }
        if anchor > 0 {
            self.anchors.insert(anchor, tree.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(tree);
            return Ok(());
        };
        match (&mut parent.tree, parent.key.take()) {
            (Tree::Map(map), Some((key, at))) => {
                if map.iter().any(|(known, _, _)| *known == key) {
                    return Err("a key stands twice");
                }
                map.push((key, at, tree));
            }
            (Tree::Map(_), None) => match tree {
                Tree::Scalar(key, _) => parent.key = Some((key, line)),
                _ => return Err("a key is not a text"),
            },
            (Tree::List(list), _) => list.push(tree),
            (Tree::Scalar(..), _) => {}
        }
        Ok(())
    }
}

fn size(tree: &Tree) -> usize {
    match tree {
        Tree::Scalar(..) => 1,
        Tree::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Tree::Map(map) => 1 + map.iter().map(|(_, _, value)| size(value)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_mean_what_they_mean_to_kubernetes() {
        let text = "a: yes\nb: 'yes'\nc: 1\nd: \"1\"\ne: 1.5\nf:\ng: 10m\nh: ~\ni: !!str 1\nj: 1Gi\nk: [x, {l: off}]\n";
        let expected = json!({
            "a": true, "b": "yes", "c": 1, "d": "1", "e": 1.5, "f": null, "g": "10m", "h": null, "i": "1", "j": "1Gi",
            "k": ["x", { "l": false }],
        });
        assert_eq!(parse(text).unwrap().to_json(), expected);
    }

    #[test]
    fn aliases_are_written_out_and_bounded() {
        let tree = parse("a: &x {b: 1}\nc: *x\n").unwrap();
        assert_eq!(tree.to_json(), json!({ "a": { "b": 1 }, "c": { "b": 1 } }));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{before}]\n");
        }
        assert!(parse(&bomb).unwrap_err().1.contains("too much"));
        assert!(parse(&"[".repeat(1000)).is_err());
        assert!(parse("a: 1\na: 2\n").unwrap_err().1.contains("twice"));
    }
}
