//! What a text of users or administrators may look like. What is taken here, the sidecar and the programs that capture take
//! too: a text that they do not read would end them at every start, and whoever wrote it would hear nothing.

use regex::Regex;

use crate::cel::literal;

/// What a value may look like.
#[derive(Debug)]
pub struct Form {
    /// What is expected, as it follows `expected`.
    pub expects: &'static str,
    /// A regular expression for the whole value, in which the names of [`WORDS`] stand for what they mean.
    pub(crate) written: &'static str,
}

/// Letters that a value has at most: together they stay far below the 128 KiB that Linux gives a variable.
pub const LONGEST: usize = 4096;
/// Entries that a list has at most: each becomes a rule of the kernel, which takes some hundred at once.
pub const MOST: usize = 64;
/// Letters of a value that are shown in what is said about it.
const SHOWN: usize = 64;

/// What stands for something in a form, each before those that it is made of.
const WORDS: [(&str, &str); 8] = [
    ("RANGE", "(IPV4(/(3[0-2]|[12]?[0-9]))?|IPV6(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)"),
    ("NETWORK", "(IPV4/(3[0-2]|[12]?[0-9])|IPV6/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))"),
    ("IPV4", "OCTET([.]OCTET){3}"),
    (
        "IPV6",
        "(HEX(:HEX){7}|(HEX:){1,7}:|(HEX:){1,6}:HEX|(HEX:){1,5}(:HEX){1,2}|(HEX:){1,4}(:HEX){1,3}|(HEX:){1,3}(:HEX){1,4}|\
         (HEX:){1,2}(:HEX){1,5}|HEX:(:HEX){1,6}|:((:HEX){1,7}|:))",
    ),
    ("HEX", "[0-9a-fA-F]{1,4}"),
    ("OCTET", "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"),
    (
        "PORT",
        "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9][0-9]|6[0-4][0-9][0-9][0-9]|[1-5][0-9][0-9][0-9][0-9]|[1-9][0-9]{0,3})",
    ),
    ("NAME", "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"),
];

impl Form {
    /// The regular expression that a value must match; the same in Rust, RE2 and JSON Schema.
    pub fn pattern(&self) -> String {
        WORDS.iter().fold(self.written.to_owned(), |pattern, (word, meaning)| pattern.replace(word, meaning))
    }

    /// Whether a value looks as expected.
    pub fn takes(&self, value: &str) -> bool {
        let is_short = value.len() <= LONGEST && value.split(',').count() <= MOST;
        // No form takes nothing, and most values are absent.
        !value.is_empty() && is_short && Regex::new(&self.pattern()).is_ok_and(|pattern| pattern.is_match(value))
    }

    /// The condition in CEL that `value`, an expression, looks as expected.
    pub(crate) fn cel(&self, value: &str) -> String {
        let pattern = literal(&self.pattern());
        format!("[{value}].exists(v, v.size() <= {LONGEST} && v.split(',').size() <= {MOST} && v.matches({pattern}))")
    }
}

/// A value as it is shown to people: on one line, which an API server asks for, and not too long.
pub(crate) fn shown(value: &str) -> String {
    let line = value.replace('\n', " ");
    let cut: String = line.chars().take(SHOWN).collect();
    if cut.len() < line.len() { cut + "..." } else { cut }
}

/// What [`shown`] makes of `value`, in CEL.
pub(crate) fn shown_in_cel(value: &str) -> String {
    format!("[{value}.replace('\\n', ' ')].map(v, v.size() > {SHOWN} ? v.substring(0, {SHOWN}) + '...' : v)[0]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_as_long_as_programs_take_and_no_longer() {
        let ports = Form { expects: "", written: "^PORT( *, *PORT)*$" };
        assert!(ports.takes(&["65535"; MOST].join(",")));
        assert!(!ports.takes(&["1"; MOST + 1].join(",")));
        assert!(ports.takes(&format!("1,{}2", " ".repeat(LONGEST - 3))));
        assert!(!ports.takes(&format!("1,{}2", " ".repeat(LONGEST - 2))));
    }

    #[test]
    fn long_values_are_shown_by_their_beginning_on_one_line() {
        assert_eq!(shown("a\nb"), "a b");
        assert_eq!(shown(&"x".repeat(64)), "x".repeat(64));
        assert_eq!(shown(&"\u{fc}".repeat(65)), "\u{fc}".repeat(64) + "...");
    }
}
