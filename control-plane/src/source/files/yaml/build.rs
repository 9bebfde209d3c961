//! Builds a tree from parser events, within a budget.

use std::{collections::HashMap, ops::Range};

use super::{Fault, Repeated};
use crate::source::files::tree::{Content, Entry, Node};

/// Deepest nesting, aliases followed.
const MAX_DEPTH: usize = 64;
/// Most memory a text may take as trees, roughly in bytes. Aliases multiply; this is where they stop.
const MAX_WEIGHT: usize = 64 * 1024 * 1024;
/// Memory of a value beside its text, roughly in bytes.
const NODE_WEIGHT: usize = 96;

/// The tree in the making. The budget is one for all documents of a text.
#[derive(Default)]
pub(super) struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    weight: usize,
    pub(super) root: Option<Node>,
    /// Faults that leave the document readable.
    pub(super) faults: Vec<Fault>,
}

struct Open {
    node: Node,
    anchor: usize,
    /// The key that waits for its value.
    key: Option<(String, Range<usize>)>,
    /// Where each key of the map stands.
    keys: HashMap<String, Range<usize>>,
    weight: usize,
    depth: usize,
}

#[derive(Clone)]
struct Anchored {
    node: Node,
    weight: usize,
    depth: usize,
}

impl Builder {
    /// Begins a document: anchors reach no further than theirs.
    pub(super) fn begin(&mut self) {
        self.open.clear();
        self.anchors.clear();
        self.faults.clear();
        self.root = None;
    }

    pub(super) fn open(&mut self, span: Range<usize>, anchor: usize, map: bool) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(fatal(span, format!("nested too deep: expected at most {MAX_DEPTH} levels")));
        }
        if self.awaits_key() {
            return Err(fatal(span, "a list or map cannot be the name of a field: expected text".to_owned()));
        }
        let content = if map { Content::Map(Vec::new()) } else { Content::List(Vec::new()) };
        let node = Node { span, content };
        self.open.push(Open { node, anchor, key: None, keys: HashMap::new(), weight: NODE_WEIGHT, depth: 1 });
        Ok(())
    }

    pub(super) fn close(&mut self, end: usize) -> Result<(), Fault> {
        let Some(mut open) = self.open.pop() else { return Ok(()) };
        open.node.span.end = end.max(open.node.span.start);
        // It is kept for as long as the file says so, and most maps are small.
        match &mut open.node.content {
            Content::List(items) => items.shrink_to_fit(),
            Content::Map(entries) => entries.shrink_to_fit(),
            _ => {}
        }
        let anchored = Anchored { node: open.node, weight: open.weight, depth: open.depth };
        self.place(anchored, open.anchor, 0)
    }

    pub(super) fn value(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        let length = if let Content::Text(text) = &node.content { text.len() } else { 0 };
        let weight = NODE_WEIGHT + length;
        self.place(Anchored { node, weight, depth: 1 }, anchor, weight)
    }

    pub(super) fn alias(&mut self, anchor: usize, span: Range<usize>) -> Result<(), Fault> {
        let Some(known) = self.anchors.get(&anchor) else {
            return Err(fatal(
                span,
                "the alias stands inside what it names: expected an anchor that is complete".into(),
            ));
        };
        if self.weight + known.weight > MAX_WEIGHT {
            return Err(too_large(span));
        }
        let (weight, mut copy) = (known.weight, known.clone());
        copy.node.span = span;
        self.place(copy, 0, weight)
    }

    /// Puts a finished value where it belongs; `added` is what it adds to the weight of the text.
    fn place(&mut self, value: Anchored, anchor: usize, added: usize) -> Result<(), Fault> {
        self.weight += added;
        if self.weight > MAX_WEIGHT {
            return Err(too_large(value.node.span));
        }
        if self.open.len() + value.depth > MAX_DEPTH + 1 {
            return Err(fatal(value.node.span, format!("nested too deep: expected at most {MAX_DEPTH} levels")));
        }
        if anchor > 0 {
            self.weight += value.weight;
            self.anchors.insert(anchor, value.clone());
        }
        let at_top = self.open.len() == 1;
        let Some(open) = self.open.last_mut() else {
            if self.root.is_some() {
                return Err(fatal(
                    value.node.span,
                    "a second document begins here: expected a line --- before it".into(),
                ));
            }
            self.root = Some(value.node);
            return Ok(());
        };
        open.weight += value.weight;
        open.depth = open.depth.max(value.depth + 1);
        match &mut open.node.content {
            Content::List(items) => items.push(value.node),
            Content::Map(entries) => match open.key.take() {
                None => open.key = Some((key_of(&value.node)?, value.node.span)),
                Some((key, key_span)) => match open.keys.get(&key) {
                    Some(first) => {
                        let mut message = format!("field '{}' stands twice", key.chars().take(80).collect::<String>());
                        if at_top && matches!(key.as_str(), "apiVersion" | "kind") {
                            message.push_str(": expected a line --- before each further object");
                        }
                        let repeats = Some(Repeated { first: first.clone(), key });
                        self.faults.push(Fault { span: key_span, message, repeats });
                    }
                    None => {
                        open.keys.insert(key.clone(), key_span.clone());
                        entries.push(Entry { key, key_span, value: value.node });
                    }
                },
            },
            _ => {}
        }
        Ok(())
    }

    fn awaits_key(&self) -> bool {
        self.open.last().is_some_and(|open| matches!(open.node.content, Content::Map(_)) && open.key.is_none())
    }
}

/// The name of a field. A number or word without quotes is its own text.
fn key_of(node: &Node) -> Result<String, Fault> {
    match &node.content {
        Content::Text(text) if text == "<<" => {
            Err(fatal(node.span.clone(), "merge keys are not supported: expected the fields themselves".to_owned()))
        }
        Content::Text(text) => Ok(text.clone()),
        Content::Number(number) => Ok(number.to_string()),
        Content::Bool(bool) => Ok(bool.to_string()),
        Content::Null => Ok("null".to_owned()),
        Content::List(_) | Content::Map(_) => {
            Err(fatal(node.span.clone(), "a list or map cannot be the name of a field: expected text".to_owned()))
        }
    }
}

fn too_large(span: Range<usize>) -> Fault {
    let limit = MAX_WEIGHT / (1024 * 1024);
    fatal(span, format!("the file takes more than {limit} MiB of memory with all aliases followed: split it"))
}

fn fatal(span: Range<usize>, message: String) -> Fault {
    Fault { span, message, repeats: None }
}
