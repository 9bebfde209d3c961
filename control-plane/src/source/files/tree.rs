//! A YAML value of which every part knows where it was written.

use std::ops::Range;

use serde_json::{Map, Number, Value};

/// One value, with its bytes in the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Where it was written, in bytes from the start of the text.
    pub(crate) span: Range<usize>,
    /// What was written there, with the values inside it.
    pub(crate) content: Content,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One field of a map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The name of the field, without quotes and escapes.
    pub(crate) key: String,
    /// Where the name was written, in bytes from the start of the text.
    pub(crate) key_span: Range<usize>,
    /// What the field is set to.
    pub(crate) value: Node,
}

impl Node {
    /// The field of that name, when this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text of the field of that name, when it is one.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it says as JSON, without the places in the file.
    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(bool) => Value::Bool(*bool),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Content::Map(entries) => {
                let fields = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// Where a complaint about the field at `path` points: at the name of an unknown field, at the value of a known
    /// one, and at what comes nearest of a field that is not there. `path` is as in `rules[0].to[1].paths`.
    pub(crate) fn locate(&self, path: &str, wants_key: bool) -> Range<usize> {
        let (mut node, mut key, mut rest) = (self, None, path);
        while let Some((entry_key, next, after)) = node.step(rest) {
            (node, key, rest) = (next, entry_key.or(key), after);
        }
        let is_collection = matches!(node.content, Content::List(_) | Content::Map(_));
        match key {
            Some(key) if wants_key || is_collection || node.span.is_empty() => key,
            _ => node.span.clone(),
        }
    }

    /// One step along `path`: the key passed, if any, the node reached and the rest of the path.
    fn step<'a>(&'a self, path: &'a str) -> Option<(Option<Range<usize>>, &'a Node, &'a str)> {
        match &self.content {
            Content::Map(entries) => {
                let path = path.strip_prefix('.').unwrap_or(path);
                // A key may have dots in it, so the longest one that fits is meant.
                let fits = entries.iter().filter(|entry| {
                    let after = path.strip_prefix(entry.key.as_str());
                    !entry.key.is_empty()
                        && after.is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
                });
                let entry = fits.max_by_key(|entry| entry.key.len())?;
                Some((Some(entry.key_span.clone()), &entry.value, &path[entry.key.len()..]))
            }
            Content::List(items) => {
                let (index, after) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                // A map in a list has no key of its own; its first field stands for it.
                let first = match &item.content {
                    Content::Map(entries) => entries.first().map(|entry| &entry.key_span),
                    _ => None,
                };
                Some((Some(first.unwrap_or(&item.span).clone()), item, after))
            }
            _ => None,
        }
    }
}
