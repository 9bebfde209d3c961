//! What a scalar means: the core schema of YAML 1.2 (section 10.3.2).

use serde_json::Number;

use crate::source::files::tree::Content;

/// The value of a scalar; only one without quotes is anything but text.
pub(super) fn resolve(text: &str, plain: bool) -> Content {
    if !plain {
        return Content::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Content::Null,
        "true" | "True" | "TRUE" => Content::Bool(true),
        "false" | "False" | "FALSE" => Content::Bool(false),
        _ => number(text).map_or_else(|| Content::Text(text.to_owned()), Content::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return digits_of(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return digits_of(digits, 8);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.bytes().next().is_some_and(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        return match unsigned.parse::<u64>() {
            Ok(number) => Some(number.into()),
            Err(_) => unsigned.parse::<i64>().ok().map(Number::from),
        };
    }
    let is_float = digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
    is_float.then(|| text.parse().ok().and_then(Number::from_f64)).flatten()
}

fn digits_of(digits: &str, radix: u32) -> Option<Number> {
    let sound = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    sound.then(|| u64::from_str_radix(digits, radix).ok().map(Number::from)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_core_schema_is_special() {
        for (text, expected) in [
            ("80", Content::Number(80.into())),
            ("-1", Content::Number((-1).into())),
            ("0o17", Content::Number(15.into())),
            ("0x1f", Content::Number(31.into())),
            ("012", Content::Number(12.into())),
            ("1.5", Content::Number(Number::from_f64(1.5).unwrap())),
            ("true", Content::Bool(true)),
            ("~", Content::Null),
            ("yes", Content::Text("yes".into())),
            ("off", Content::Text("off".into())),
            ("1_000", Content::Text("1_000".into())),
            ("10.0.0.1", Content::Text("10.0.0.1".into())),
            ("1s", Content::Text("1s".into())),
            ("1e999", Content::Text("1e999".into())),
            (".nan", Content::Text(".nan".into())),
            ("99999999999999999999", Content::Text("99999999999999999999".into())),
        ] {
            assert_eq!(resolve(text, true), expected, "{text}");
        }
        assert_eq!(resolve("80", false), Content::Text("80".into()), "quoted");
    }
}
