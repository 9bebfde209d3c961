//! One JSON object (RFC 8259) at a time, appended to a byte buffer without intermediate values.

use std::{fmt::Display, io::Write, net::IpAddr};

/// Longest string value, in bytes of the value before escaping.
const VALUE_MAX: usize = 1024;

/// Writes one object and ends it with a line feed.
///
/// ```
/// use selvedge_identity::line::Object;
///
/// let mut line = Vec::new();
/// let mut object = Object::open(&mut line);
/// object.text("path", "/a\"b").text("host", "").plain("port", 80).address("from", [127, 0, 0, 1].into());
/// object.close();
/// assert_eq!(line, b"{\"path\":\"/a\\\"b\",\"port\":80,\"from\":\"127.0.0.1\"}\n");
/// ```
#[derive(Debug)]
pub struct Object<'a> {
    line: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Begins an object behind what `line` has.
    pub fn open(line: &'a mut Vec<u8>) -> Self {
        line.push(b'{');
        Self { line, first: true }
    }

    /// Appends a string; nothing when it is empty.
    pub fn text(&mut self, key: &'static str, value: &str) -> &mut Self {
        if !value.is_empty() {
            self.key(key);
            self.line.push(b'"');
            escape(&value[..value.floor_char_boundary(VALUE_MAX)], self.line);
            self.line.push(b'"');
        }
        self
    }

    /// Appends a number or a boolean, whatever prints as JSON does.
    pub fn plain(&mut self, key: &'static str, value: impl Display) -> &mut Self {
        self.key(key);
        // Writing to a Vec cannot fail.
        let _ = write!(self.line, "{value}");
        self
    }

    /// Appends an address as a string.
    pub fn address(&mut self, key: &'static str, value: IpAddr) -> &mut Self {
        self.plain(key, format_args!("\"{value}\""))
    }

    /// Ends it, and the line.
    pub fn close(self) {
        self.line.extend_from_slice(b"}\n");
    }

    fn key(&mut self, key: &'static str) {
        self.line.extend_from_slice(if self.first { b"\"" } else { b",\"" });
        self.line.extend_from_slice(key.as_bytes());
        self.line.extend_from_slice(b"\":");
        self.first = false;
    }
}

/// Escapes what RFC 8259 section 7 demands, and also DEL, the C1 controls and the Unicode line separators, which
/// terminals and log readers may take for commands or line ends.
fn escape(value: &str, line: &mut Vec<u8>) {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    let mut rest = value;
    loop {
        let run = rest.as_bytes().iter().take_while(|byte| plain(byte)).count();
        line.extend_from_slice(&rest.as_bytes()[..run]);
        let mut chars = rest[run..].chars();
        let Some(next) = chars.next() else { return };
        // Writing to a Vec cannot fail.
        let _ = match next {
            '"' | '\\' => write!(line, "\\{next}"),
            _ if next.is_control() || matches!(next, '\u{2028}' | '\u{2029}') => write!(line, "\\u{:04x}", next as u32),
            _ => write!(line, "{next}"),
        };
        rest = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(value: &str) -> Vec<u8> {
        let mut line = Vec::new();
        let mut object = Object::open(&mut line);
        object.plain("n", 1).text("k", value);
        object.close();
        line
    }

    #[test]
    fn a_value_cannot_leave_its_string() {
        for value in ["\",\"admin\":\"yes", "a\r\n{\"forged\":1}", "\u{1b}[2J\u{9b}31m", "\\", "\u{2028}", "\0\u{7f}"] {
            let line = object(value);
            let parsed: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(parsed["k"], value);
            assert_eq!(parsed.as_object().unwrap().len(), 2);
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let parsed: serde_json::Value = serde_json::from_slice(&object(&"\u{e9}x".repeat(2000))).unwrap();
        assert!(parsed["k"].as_str().unwrap().len() <= VALUE_MAX);
    }

    proptest! {
        #[test]
        fn any_value_reads_back_and_holds_no_control(value in "\\PC*|(?s).{0,40}") {
            prop_assume!(!value.is_empty());
            let line = object(&value);
            let text = std::str::from_utf8(&line).unwrap();
            let (body, end) = text.split_at(text.len() - 1);
            prop_assert_eq!(end, "\n");
            prop_assert!(!body.chars().any(char::is_control));
            let parsed: serde_json::Value = serde_json::from_str(text).unwrap();
            prop_assert_eq!(parsed["k"].as_str().unwrap(), &value[..value.floor_char_boundary(VALUE_MAX)]);
        }
    }
}
