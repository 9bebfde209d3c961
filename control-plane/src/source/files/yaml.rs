//! Text to trees: YAML 1.2 with places, document by document.
//!
//! Documents end at a line `---` or `...` (YAML 1.2 section 9.1.2). A syntax error ends its own document only, and a
//! field that stands twice makes its document unsound. Nesting and the size of what aliases multiply are bounded, so no
//! input takes more than a small multiple of its own size and time. Every key is a string and stands once in its map.

use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::tree::Node;

mod build;
mod scalar;

use build::Builder;

/// What is wrong with a text as YAML, and where.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    /// Where it is wrong, in bytes from the start of the text.
    pub(crate) span: Range<usize>,
    /// What is wrong, for people; without the place.
    pub(crate) message: String,
    /// Of a field that stands twice; the document could be read all the same.
    pub(crate) repeats: Option<Repeated>,
}

/// A field that stands twice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Repeated {
    /// The name of the field, as it is meant.
    pub(crate) key: String,
    /// Where it stands first.
    pub(crate) first: Range<usize>,
}

/// One document of a text.
pub(crate) struct Document {
    /// What it says; `None` when its syntax is broken. Of a field that stands twice it has the first.
    pub(crate) tree: Option<Node>,
    /// What is wrong with it, in the order in which it was met.
    pub(crate) faults: Vec<Fault>,
}

/// The documents of a text, without the empty ones.
pub(crate) fn read(text: &str) -> Vec<Document> {
    let mut builder = Builder::default();
    let read_one = |range: Range<usize>| {
        let tree = document(&text[range.clone()], range.start, &mut builder);
        let mut faults = std::mem::take(&mut builder.faults);
        let tree = tree.unwrap_or_else(|fault| {
            faults.push(fault);
            None
        });
        Document { tree, faults }
    };
    documents(text).into_iter().map(read_one).collect()
}

/// True when no document of the text says anything.
pub(crate) fn is_blank(text: &str) -> bool {
    documents(text).is_empty()
}

/// True when nobody wrote anything in the text, not even a comment: blank lines, directives and markers are what a program
/// writes that has nothing to write.
pub(crate) fn is_empty(text: &str) -> bool {
    let is_comment = |line: &str| line.trim_start_matches('\u{feff}').trim_start().starts_with('#');
    !text.lines().any(|line| is_comment(line) || says_something(line))
}

/// Cuts a text at its document markers. A line that begins with one is always one, also within a text of several lines.
fn documents(text: &str) -> Vec<Range<usize>> {
    let (mut starts, mut at) = (vec![0], 0);
    for line in text.split_inclusive('\n') {
        if at > 0 && is_marker(line, "---") {
            starts.push(at);
        }
        at += line.len();
        if is_marker(line, "...") {
            starts.push(at);
        }
    }
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    let ranges = starts.into_iter().zip(ends).map(|(start, end)| start..end);
    ranges.filter(|range| says_something(&text[range.clone()])).collect()
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// False for a document of blank lines, comments, directives and markers.
fn says_something(text: &str) -> bool {
    let content =
        |line: &str| !(line.is_empty() || line.starts_with(['#', '%']) || line == "---" || is_marker(line, "..."));
    text.trim_start_matches('\u{feff}').lines().any(|line| content(line.trim()))
}

fn document(text: &str, base: usize, builder: &mut Builder) -> Result<Option<Node>, Fault> {
    builder.begin();
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| syntax_fault(&error, text, base))?;
        let span = place(&span, base);
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                let is_text = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let plain = style == ScalarStyle::Plain && !is_text;
                let node = Node { span, content: scalar::resolve(&value, plain) };
                builder.value(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => builder.open(span, anchor, false),
            Event::MappingStart(_, anchor, _) => builder.open(span, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => builder.close(span.end),
            Event::Alias(anchor) => builder.alias(anchor, span),
            _ => Ok(()),
        }?;
    }
    Ok(builder.root.take())
}

fn place(span: &Span, base: usize) -> Range<usize> {
    let at = |offset: Option<usize>| base + offset.unwrap_or_default();
    let (start, end) = (at(span.start.byte_offset()), at(span.end.byte_offset()));
    start..end.max(start)
}

fn syntax_fault(error: &ScanError, text: &str, base: usize) -> Fault {
    let at = error.marker().byte_offset().unwrap_or_default().min(text.len());
    // An error at the end of the text is shown at its last line with something on it.
    let at = if text[..at].trim_end().len() < at && text.get(at..).is_none_or(|rest| rest.trim().is_empty()) {
        text[..at].trim_end().len()
    } else {
        at
    };
    let end = text.get(at..).and_then(|rest| rest.chars().next()).map_or(at, |c| at + c.len_utf8());
    Fault { span: base + at..base + end, message: format!("this is not YAML: {}", error.info()), repeats: None }
}
