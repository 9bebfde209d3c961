//! Blanks comments and the insides of literals and keeps every newline, so that line numbers stay true.

/// `text` with every character of a comment, string or character literal replaced by a space.
pub(super) fn comments_and_literals(text: &str) -> String {
    let mut rest = text;
    let mut out = String::with_capacity(text.len());
    while let Some(first) = rest.chars().next() {
        let hidden = hidden_prefix(rest, out.chars().next_back());
        let (kept, length) = if hidden == 0 { (true, first.len_utf8()) } else { (false, hidden) };
        let (taken, left) = rest.split_at(length);
        out.extend(taken.chars().map(|c| if kept || c == '\n' { c } else { ' ' }));
        rest = left;
    }
    out
}

/// How many bytes of `rest` a comment or literal that starts here takes; 0 when none starts here.
fn hidden_prefix(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return 0;
    }
    let bare = rest.strip_prefix('b').or_else(|| rest.strip_prefix('c')).unwrap_or(rest);
    let prefix = rest.len() - bare.len();
    if let Some(length) = raw_string(bare) {
        return prefix + length;
    }
    match bare.chars().next() {
        Some('"') => prefix + quoted(bare, '"'),
        Some('\'') if is_character(bare) => prefix + quoted(bare, '\''),
        _ => 0,
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..rest.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(1 + hashes + 1 + length)
}

/// Length of a literal that ends at the first `quote` without a backslash before it.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Tells `'x'` and `'\n'` from the lifetime `'x`.
fn is_character(rest: &str) -> bool {
    let mut inside = rest.chars().skip(1);
    match inside.next() {
        Some('\\') => true,
        Some(_) => inside.next() == Some('\''),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::comments_and_literals;

    #[test]
    fn literals_and_comments_become_spaces_and_lines_stay() {
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */\n*/ d", "a             \n   d"),
            (r#"f("x \" {") + 1"#, "f(        ) + 1"),
            ("r#\"{\"# b\"}\" '{' 'a '\\''", "                'a     "),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ];
        for (given, wanted) in cases {
            assert_eq!(comments_and_literals(given), wanted, "of {given:?}");
        }
    }
}
