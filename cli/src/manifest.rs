//! Manifests as people keep them: YAML of several documents, of which some are changed and the others stay as they are,
//! byte by byte.
//!
//! A document that is changed is written anew, without its comments; what is plain in it stays as it was written, for a
//! word such as `0644` or `yes` is not the same to everybody.

use std::ops::Range;

pub(crate) mod patch;
pub(crate) mod tree;
mod write;

use tree::Tree;

/// One document of a text.
pub(crate) struct Document<'a> {
    /// The text as it stands, with the marker that it begins with.
    text: &'a str,
    /// The line of the text that it begins on, from 1.
    line: usize,
    /// The object that it describes, as it is or will be written.
    pub(crate) tree: Tree,
    /// Whether it has to be written anew.
    pub(crate) is_changed: bool,
}

/// Why a text is no YAML.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: this is not YAML: {problem}")]
pub(crate) struct NotYaml {
    line: usize,
    problem: String,
}

impl<'a> Document<'a> {
    /// The line in the whole text of what is at a JSON pointer, or of the nearest that there is above it.
    pub(crate) fn line_of(&self, pointer: &str) -> usize {
        self.line + self.tree.line_of(pointer).saturating_sub(1)
    }

    /// The text to write: as it stands, or anew.
    pub(crate) fn written(&self) -> String {
        if !self.is_changed {
            return self.text.to_owned();
        }
        format!("{}{}", before_content(self.text), write::block(&self.tree))
    }
}

/// The documents of a text, in their order.
///
/// # Errors
/// One of them is no YAML.
pub(crate) fn read(text: &str) -> Result<Vec<Document<'_>>, NotYaml> {
    let document = |range: Range<usize>| {
        let line = text[..range.start].lines().count() + 1;
        let text = &text[range];
        let tree = tree::parse(text).map_err(|(at, problem)| NotYaml { line: line + at - 1, problem })?;
        Ok(Document { text, line, tree, is_changed: false })
    };
    ranges(text).into_iter().map(document).collect()
}

/// Cuts a text before each line that is a marker, which it is wherever it stands.
fn ranges(text: &str) -> Vec<Range<usize>> {
    let (mut starts, mut at) = (vec![0], 0);
    for line in text.split_inclusive('\n') {
        let is_marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if at > 0 && is_marker {
            starts.push(at);
        }
        at += line.len();
    }
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| start..end).collect()
}

/// The marker, comments and blank lines that a document begins with.
fn before_content(text: &str) -> String {
    let stays = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "---"
    };
    let kept: String = text.split_inclusive('\n').take_while(stays).collect();
    if kept.is_empty() && text.starts_with("---") { "---\n".to_owned() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# first\nkind: A\n---\n# second\nkind: B # said\nmode: 0644\nflag: yes\n---\n- 1\n";

    #[test]
    fn what_is_not_changed_stays_as_it_is() {
        let documents = read(TEXT).unwrap();
        assert_eq!(documents.iter().map(Document::written).collect::<String>(), TEXT);
        assert_eq!(documents[1].line_of("/mode"), 6);
        assert_eq!(documents[1].line_of("/spec/none"), 5);
    }

    #[test]
    fn what_is_changed_keeps_its_plain_words_and_its_head() {
        let mut documents = read(TEXT).unwrap();
        documents[1].is_changed = true;
        let written: String = documents.iter().map(Document::written).collect();
        assert_eq!(written, TEXT.replace(" # said", ""));
    }

    #[test]
    fn a_broken_document_is_found_by_its_line() {
        let broken = read("a: 1\n---\nb: 1\nc: [\n---\nd: 1\n").err().unwrap();
        assert!(broken.to_string().starts_with("line 4:") || broken.to_string().starts_with("line 5:"), "{broken}");
    }
}
