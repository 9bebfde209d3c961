//! Text to trees: YAML 1.2 with places, document by document.
//!
//! A syntax error ends its own document only. Nesting and the size of what aliases multiply are bounded, so no
//! input takes more than a small multiple of its own size and time. Every key is a string and stands once in its map.

use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::tree::Node;

mod build;
mod scalar;

use build::Builder;

/// What is wrong with a text as YAML, and where.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    /// The other place of a field that stands twice.
    pub(crate) first: Option<Range<usize>>,
    /// False when the document could be read all the same.
    pub(crate) fatal: bool,
}

/// The documents of a text. Empty ones are left out; of a document with a fatal fault there is no tree.
pub(crate) fn read(text: &str) -> (Vec<Node>, Vec<Fault>) {
    let (mut trees, mut faults) = (Vec::new(), Vec::new());
    let mut builder = Builder::default();
    for range in documents(text) {
        let found = faults.len();
        let tree = document(&text[range.clone()], range.start, &mut builder, &mut faults);
        if !faults[found..].iter().any(|fault| fault.fatal) {
            trees.extend(tree);
        }
    }
    (trees, faults)
}

/// Cuts a text at its document markers. A line that begins with `---` is always one (YAML 1.2 section 9.1.2).
fn documents(text: &str) -> Vec<Range<usize>> {
    let (mut starts, mut at) = (vec![0], 0);
    for line in text.split_inclusive('\n') {
        let marker = line.strip_prefix("---");
        if at > 0 && marker.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n'])) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    let ranges = starts.into_iter().zip(ends).map(|(start, end)| start..end);
    ranges.filter(|range| says_something(&text[range.clone()])).collect()
}

/// False for a document of blank lines, comments and directives.
fn says_something(text: &str) -> bool {
    let content = |line: &str| !line.is_empty() && !line.starts_with('#') && !line.starts_with('%') && line != "---";
    text.trim_start_matches('\u{feff}').lines().any(|line| content(line.trim()))
}

fn document(text: &str, base: usize, builder: &mut Builder, faults: &mut Vec<Fault>) -> Option<Node> {
    builder.begin();
    for next in Parser::new_from_str(text) {
        let (event, span) = match next {
            Ok(next) => next,
            Err(error) => {
                faults.push(syntax_fault(&error, text, base));
                return None;
            }
        };
        let span = place(&span, base);
        let step = match event {
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
        };
        if let Err(fault) = step {
            faults.push(fault);
            return None;
        }
    }
    faults.append(&mut builder.faults);
    builder.root.take()
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
    Fault {
        span: base + at..base + end,
        message: format!("this is not YAML: {}", error.info()),
        first: None,
        fatal: true,
    }
}
