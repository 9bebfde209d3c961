//! One complaint about one place in a file, told as a compiler tells it.
//!
//! A diagnostic carries the lines it is about, so it can be shown long after the file changed.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use selvedge_policies::finding::Code;
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The object is refused.
    Error,
    /// The object is in force, but hardly does what was meant.
    Warning,
    /// Nothing is wrong; it is said how something is read.
    Note,
}

impl Severity {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Path of the file.
    pub file: String,
    /// Line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Column in characters, from 1; 0 when the whole file is meant.
    pub column: usize,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

/// The lines of a place, with the span that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    span: Range<usize>,
}

/// What to write in a place instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// The text, without quotes.
    pub text: String,
    /// True when it is certain that this is meant; else it is the likeliest.
    pub certain: bool,
}

/// One complaint about what users wrote, as commands print it and `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What kind of complaint it is.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, without place and without what was expected.
    pub message: String,
    /// What was expected or probably meant; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// What to write instead, where that is one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
    /// The file and line it is about, or what its source calls the object.
    #[serde(flatten)]
    pub place: Place,
    /// The field, as `spec.rules[0].to`; empty when no field is meant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// The object, as `Kind namespace/name`; empty when it cannot be told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// Another place that matters, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
}

/// Another place that matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// The file and line of that other place.
    #[serde(flatten)]
    pub place: Place,
    /// What the other place has to do with it.
    pub message: String,
}

/// Longest part of a line that is shown.
const MAX_EXCERPT: usize = 400;

impl Place {
    /// The place of `span` (bytes) in the text of `file`. A span that reaches over several lines is cut at the end
    /// of the first.
    pub fn new(file: &str, text: &str, span: Range<usize>) -> Self {
        let start = floor_boundary(text, span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let line_end = if text[line_start..line_end].ends_with('\r') { line_end - 1 } else { line_end }.max(start);
        let end = floor_boundary(text, span.end.min(line_end)).max(start);
        let excerpt = (line_end - line_start <= MAX_EXCERPT).then(|| Excerpt {
            text: text[line_start..line_end].replace(|c: char| c.is_control() && c != '\t', "."),
            span: start - line_start..end - line_start,
        });
        let excerpt = excerpt.filter(|excerpt| excerpt.text.len() == line_end - line_start);
        Self {
            file: file.to_owned(),
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            excerpt,
        }
    }

    /// The file as a whole.
    pub fn file(file: &str) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, excerpt: None }
    }

    /// `text`, which the file has, with this place in it written otherwise; `None` when the place is not there any more.
    pub fn rewrite(&self, text: &str, with: &str) -> Option<String> {
        let excerpt = self.excerpt.as_ref()?;
        let start: usize = text.split_inclusive('\n').take(self.line.checked_sub(1)?).map(str::len).sum();
        let span = start + excerpt.span.start..start + excerpt.span.end;
        let is_there = text.get(span.clone()).is_some_and(|was| *was == excerpt.text[excerpt.span.clone()]);
        if is_there { Some([&text[..span.start], &self.written(with)?, &text[span.end..]].concat()) } else { None }
    }

    /// `with` as it is written in this place, in the quotes that are there or in such as it needs; `None` for a whole file.
    pub fn written(&self, with: &str) -> Option<String> {
        let excerpt = self.excerpt.as_ref()?;
        let is_plain = with.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
        Some(match excerpt.text[excerpt.span.clone()].chars().next()? {
            quote @ ('\'' | '"') => format!("{quote}{with}{quote}"),
            _ if is_plain => with.to_owned(),
            _ => format!("'{with}'"),
        })
    }

    /// What is written there, without quotes, as far as that is known.
    fn text(&self) -> &str {
        let text = self.excerpt.as_ref().map_or("", |excerpt| &excerpt.text[excerpt.span.clone()]);
        text.trim_matches(['\'', '"'])
    }

    /// The column after its last character, from 1; its own column where that is not known.
    pub fn end_column(&self) -> usize {
        let length = |excerpt: &Excerpt| excerpt.text[excerpt.span.clone()].chars().count();
        self.column + self.excerpt.as_ref().map_or(0, length)
    }

    fn element<'a>(&'a self, kind: AnnotationKind, label: &'a str, group: Group<'a>) -> Group<'a> {
        let label = (!label.is_empty()).then_some(label);
        match &self.excerpt {
            Some(excerpt) => group.element(
                Snippet::source(&excerpt.text)
                    .path(self.file.as_str())
                    .line_start(self.line)
                    .annotation(kind.span(excerpt.span.clone()).label(label)),
            ),
            None => {
                let origin = Origin::path(self.file.as_str());
                let origin = if self.line > 0 { origin.line(self.line).char_column(self.column) } else { origin };
                let group = group.element(origin);
                match label {
                    Some(label) => group.element(Level::NOTE.message(label)),
                    None => group,
                }
            }
        }
    }
}

/// What follows is the text to write instead.
const WRITE: &str = ": write '";

/// The text that a hint names, when it names one.
fn replacement(hint: &str) -> Option<&str> {
    let (text, rest) =
        hint.strip_prefix("did you mean '").or_else(|| hint.strip_prefix(&WRITE[2..]))?.split_once('\'')?;
    matches!(rest, "" | "?").then_some(text)
}

/// The nearest character boundary at or before `at`.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl Diagnostic {
    /// A complaint. What follows the first `: did you mean`, `: expected` or `: write '` of the message becomes the hint.
    pub fn new(code: Code, severity: Severity, place: Place, message: impl Into<String>) -> Self {
        let mut message = message.into();
        let cut = [": did you mean", ": expected", WRITE].iter().filter_map(|mark| message.find(mark)).min();
        let hint = cut.map_or(String::new(), |cut| message.split_off(cut)[2..].to_owned());
        // Letters in another case are no other word.
        let fix = replacement(&hint)
            .map(|text| Fix { text: text.to_owned(), certain: place.text().eq_ignore_ascii_case(text) });
        Self { code, severity, message, hint, fix, place, field: String::new(), object: String::new(), related: None }
    }

    /// This complaint, of which it is certain what to write instead.
    #[must_use]
    pub fn certain(mut self) -> Self {
        self.fix.iter_mut().for_each(|fix| fix.certain = true);
        self
    }

    /// This complaint, about the field of this path, as `spec.rules[0].to`.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// This complaint, about the object `Kind namespace/name`.
    #[must_use]
    pub fn object(mut self, object: impl Into<String>) -> Self {
        self.object = object.into();
        self
    }

    /// Points at another place too.
    #[must_use]
    pub fn related(mut self, place: Place, message: impl Into<String>) -> Self {
        self.related = Some(Related { place, message: message.into() });
        self
    }

    /// The complaint with the lines it is about, as a compiler prints it, with colours or without.
    pub fn render(&self, colours: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Note => Level::NOTE,
        };
        let group = Group::with_title(level.primary_title(self.message.as_str()).id(self.code.name()));
        let group = self.place.element(AnnotationKind::Primary, &self.hint, group);
        let note = match (self.field.as_str(), self.object.as_str()) {
            ("", "") => None,
            ("", object) => Some(object.to_owned()),
            (field, "") => Some(format!("field {field}")),
            (field, object) => Some(format!("field {field} of {object}")),
        };
        let group = note.into_iter().fold(group, |group, note| group.element(Level::NOTE.no_name().message(note)));
        let mut report = vec![group];
        if let Some(related) = &self.related {
            let group = Group::with_title(Level::NOTE.secondary_title(related.message.as_str()));
            report.push(related.place.element(AnnotationKind::Context, "", group));
        }
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&report)
    }
}

/// One line: place, severity, message.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = self.severity.name();
        write!(f, "{}", self.place.file)?;
        if self.place.line > 0 {
            write!(f, ":{}:{}", self.place.line, self.place.column)?;
        }
        write!(f, ": {severity}: {}", self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, ": {}", self.hint) }
    }
}
