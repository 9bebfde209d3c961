//! The part of a page that a measurement writes.

use std::{fs, path::Path};

use anyhow::{Context, ensure};

const END: &str = "<!-- end of the figures -->";

/// Puts `figures` into `page`, behind the mark of `program` and before the mark of the end.
///
/// # Errors
/// A page that cannot be read or written, or without the marks.
pub fn replace(page: &Path, program: &str, figures: &str) -> anyhow::Result<()> {
    let begin = format!("<!-- figures: written by benches/{program} -->");
    let text = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let (before, rest) = text.split_once(&begin).with_context(|| format!("{} has no '{begin}'", page.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{} has no '{END}'", page.display()))?;
    ensure!(!figures.contains(END), "the figures contain the mark of their end");
    fs::write(page, format!("{before}{begin}\n\n{figures}\n{END}{after}"))?;
    Ok(())
}
