//! The Prometheus text format (0.0.4) of somebody else, read as strictly as scrapers do: one line that they do not
//! understand would cost the whole scrape.

/// What names of our own begin with.
const OWN: &str = "selvedge_";

/// What of `text` can stand behind the sidecar's own metrics: all series and their descriptions, without those that have
/// names of ours, and without comments. `None` when some line is not the format's.
pub(super) fn foreign(text: &str) -> Option<String> {
    let mut kept = String::with_capacity(text.len() + 1);
    for line in text.lines().map(str::trim_ascii) {
        let name = match line.strip_prefix('#') {
            Some(comment) => described(comment),
            None if line.is_empty() => None,
            None => Some(sample(line)?),
        };
        if name.is_some_and(|name| !name.starts_with(OWN)) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    Some(kept)
}

/// The metric that a comment describes by `HELP` or `TYPE`; any other comment may be left out.
fn described(comment: &str) -> Option<&str> {
    let (keyword, rest) = comment.trim_ascii_start().split_once([' ', '\t'])?;
    let (name, text) = rest.trim_ascii_start().split_once([' ', '\t'])?;
    let is_kind = |text: &str| matches!(text, "counter" | "gauge" | "histogram" | "summary" | "untyped");
    let is_whole = match keyword {
        "HELP" => true,
        "TYPE" => is_kind(text.trim_ascii()),
        _ => false,
    };
    (is_whole && word(name, true) == Some((name, ""))).then_some(name)
}

/// The metric of a line `name{label="value",...} value [timestamp]`.
fn sample(line: &str) -> Option<&str> {
    let (name, rest) = word(line, true)?;
    let rest = rest.trim_ascii_start();
    let rest = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => rest,
    };
    let mut fields = rest.split_ascii_whitespace();
    fields.next()?.parse::<f64>().ok()?;
    let is_time = |field: &str| field.strip_prefix('-').unwrap_or(field).bytes().all(|byte| byte.is_ascii_digit());
    (fields.next().is_none_or(is_time) && fields.next().is_none()).then_some(name)
}

/// What follows the labels up to the closing brace.
fn labels(inside: &str) -> Option<&str> {
    let mut rest = inside.trim_ascii_start();
    loop {
        if let Some(behind) = rest.strip_prefix('}') {
            return Some(behind);
        }
        let (_, value) = word(rest, false)?;
        let value = value.trim_ascii_start().strip_prefix('=')?.trim_ascii_start().strip_prefix('"')?;
        rest = quoted(value)?.trim_ascii_start();
        rest = match rest.strip_prefix(',') {
            Some(behind) => behind.trim_ascii_start(),
            None if rest.starts_with('}') => rest,
            None => return None,
        };
    }
}

/// What follows the quotation mark that ends a value.
fn quoted(value: &str) -> Option<&str> {
    let mut is_escaped = false;
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' if !is_escaped => return value.get(at + 1..),
            _ => is_escaped = byte == b'\\' && !is_escaped,
        }
    }
    None
}

/// The name that `text` begins with, and the rest; names of metrics may have colons.
fn word(text: &str, is_metric: bool) -> Option<(&str, &str)> {
    let is_part = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric() || (is_metric && byte == b':');
    let length = text.bytes().take_while(|byte| is_part(*byte)).count();
    let is_name = text.bytes().next().is_some_and(|first| is_part(first) && !first.is_ascii_digit());
    is_name.then(|| text.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_every_form_are_kept() {
        let text = "# HELP http_requests_total All of \\\\ them.\n# TYPE http_requests_total counter\n\
                    http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000\n\
                    http_requests_total{method=\"a \\\"quoted\\\" } , one\",} 3\n\
                    msdos_file_access{path=\"C:\\\\DIR\\\\\"}\t1.45e9\nsomething_weird{problem=\"\u{fc}\"} +Inf -3982045\n\
                    job:rate:sum NaN\nempty{} -1\n";
        assert_eq!(foreign(text).as_deref(), Some(text));
        assert_eq!(foreign("no_end_of_line 1").as_deref(), Some("no_end_of_line 1\n"));
        assert_eq!(foreign("").as_deref(), Some(""));
    }

    #[test]
    fn names_of_ours_and_comments_are_left_out() {
        let text = "# a comment\n#\n# EOF\n\n# TYPE selvedge_requests_total gauge\nselvedge_requests_total 0\n# TYPE a what\n\
                    # HELP a\n# UNIT a seconds\na 1\n";
        assert_eq!(foreign(text).as_deref(), Some("a 1\n"));
    }

    #[test]
    fn one_line_that_is_not_the_formats_is_enough() {
        for line in [
            "<html>",
            "a",
            "a one",
            "1a 1",
            "a{b} 1",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\" 1",
            "a{b=\"c\"d=\"e\"} 1",
            "a{b:c=\"d\"} 1",
            "a 1 soon",
            "a 1 2 3",
            "a 1 # {trace_id=\"x\"} 1",
            "{\"quoted.name\"} 1",
            "a\u{fc} 1",
        ] {
            assert_eq!(foreign(&format!("good 1\n{line}\ngood 2\n")), None, "{line}");
        }
    }
}
