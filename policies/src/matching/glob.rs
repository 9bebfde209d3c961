//! Globs with one `*` at the start or the end, and an index that finds the ones matching a text among thousands.

use std::{borrow::Cow, collections::HashMap};

/// A pattern: `x` (equal), `x*` (prefix), `*x` (suffix) or `*` (anything).
///
/// ```
/// use selvedge_policies::matching::glob::Glob;
///
/// assert!(Glob::new("/cart/*").unwrap().matches("/cart/7"));
/// assert!(!Glob::new("/cart/*").unwrap().matches("/cart"));
/// assert!(Glob::new("/*/cart").is_err(), "one '*', at the start or the end");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Glob {
    /// `*`: any text, the empty one too.
    Any,
    /// Without `*`: this text and no other.
    Exact(Box<str>),
    /// Text that begins with this.
    Prefix(Box<str>),
    /// Text that ends with this.
    Suffix(Box<str>),
}

impl Glob {
    /// Reads a pattern. The error says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let glob = match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(""), _) => Self::Any,
            (Some(suffix), _) => Self::Suffix(suffix.into()),
            (_, Some(prefix)) => Self::Prefix(prefix.into()),
            _ => Self::Exact(pattern.into()),
        };
        match &glob {
            Self::Exact(text) if text.is_empty() => Err("an empty pattern matches nothing".into()),
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) if text.contains('*') => {
                Err(format!("'{pattern}' has a '*' in a place where none may be: only one, at the start or at the end"))
            }
            _ => Ok(glob),
        }
    }

    /// True when `text` matches, case-sensitively.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
        }
    }

    /// This pattern for texts that are compared in another `form` than the one in which it is written.
    pub(crate) fn in_form(&self, form: impl for<'a> Fn(&'a str) -> Cow<'a, str>) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::Exact(text) => Self::Exact(form(text).into()),
            Self::Prefix(text) => Self::Prefix(form(text).into()),
            Self::Suffix(text) => Self::Suffix(form(text).into()),
        }
    }
}

/// Globs more than this are matched through an index.
const FEW: usize = 8;

/// A list of globs.
#[derive(Clone, Debug)]
pub(crate) struct Globs {
    list: Vec<Glob>,
    index: Option<GlobIndex<()>>,
}

impl Globs {
    /// Compiles the list; a long one gets an index, so that its length costs a request nothing.
    pub(crate) fn new(list: Vec<Glob>) -> Self {
        let index = (list.len() > FEW).then(|| {
            let mut index = GlobIndex::default();
            list.iter().for_each(|glob| index.insert(glob, ()));
            index
        });
        Self { list, index }
    }

    /// The globs themselves, in the order in which they were given.
    pub(crate) fn list(&self) -> &[Glob] {
        &self.list
    }

    /// True when there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// True when one of them matches, or there are none.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match &self.index {
            Some(index) => index.matching(text).next().is_some(),
            None => self.list.is_empty() || self.list.iter().any(|glob| glob.matches(text)),
        }
    }
}

/// Values by glob. Finding costs a few hash probes (one for each distinct length of a prefix or suffix that the
/// text is long enough for), whatever the number of globs.
#[derive(Clone, Debug, Default)]
pub(crate) struct GlobIndex<T> {
    any: Vec<T>,
    exact: HashMap<Box<str>, Vec<T>>,
    prefixes: ByLength<Vec<T>>,
    suffixes: ByLength<Vec<T>>,
}

impl<T: Copy> GlobIndex<T> {
    /// Files `value` under `glob`.
    pub(crate) fn insert(&mut self, glob: &Glob, value: T) {
        let list = match glob {
            Glob::Any => &mut self.any,
            Glob::Exact(text) => self.exact.entry(text.clone()).or_default(),
            Glob::Prefix(text) => self.prefixes.entry(text),
            Glob::Suffix(text) => self.suffixes.entry(text),
        };
        list.push(value);
    }

    /// The values of every glob that matches `text`, in no particular order.
    pub(crate) fn matching<'a>(&'a self, text: &'a str) -> impl Iterator<Item = T> + 'a {
        let exact = self.exact.get(text).into_iter();
        let prefixes = self.prefixes.longest_first(text.len(), |length| text.get(..length));
        let suffixes = self.suffixes.longest_first(text.len(), |length| text.get(text.len() - length..));
        exact.chain(prefixes).chain(suffixes).chain([&self.any]).flatten().copied()
    }

    /// Every value there is, in no particular order.
    pub(crate) fn values(&self) -> impl Iterator<Item = T> + '_ {
        let lists = self.exact.values().chain(self.prefixes.map.values()).chain(self.suffixes.map.values());
        lists.chain([&self.any]).flatten().copied()
    }
}

/// Values by string, found by the parts of a text that have the length of one of the strings.
#[derive(Clone, Debug)]
pub(crate) struct ByLength<T> {
    map: HashMap<Box<str>, T>,
    /// The distinct lengths of the keys, longest first.
    lengths: Vec<usize>,
}

impl<T> Default for ByLength<T> {
    fn default() -> Self {
        Self { map: HashMap::new(), lengths: Vec::new() }
    }
}

impl<T: Default> ByLength<T> {
    /// The value under `key`, made when there is none.
    pub(crate) fn entry(&mut self, key: &str) -> &mut T {
        if let Err(place) = self.lengths.binary_search_by(|length| key.len().cmp(length)) {
            self.lengths.insert(place, key.len());
        }
        self.map.entry(key.into()).or_default()
    }
}

impl<T> ByLength<T> {
    /// The values whose key is the part of that length, longest first. `part` is asked for the parts of a text of
    /// `limit` bytes; it answers `None` where the text has no such part.
    pub(crate) fn longest_first<'a>(
        &'a self,
        limit: usize,
        part: impl Fn(usize) -> Option<&'a str> + 'a,
    ) -> impl Iterator<Item = &'a T> + 'a {
        let from = self.lengths.partition_point(|length| *length > limit);
        self.lengths[from..].iter().filter_map(move |length| self.map.get(part(*length)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_match() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("/x", "/x", true),
            ("/x", "/x/", false),
            ("/v1/*", "/v1/a", true),
            ("/v1/*", "/v1", false),
            ("*/health", "/a/health", true),
            ("*/health", "/a/healthy", false),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn other_patterns_are_refused() {
        for bad in ["", "a*b", "**", "*a*", "a**"] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_index_finds_what_each_glob_would(
            patterns in prop::collection::vec("\\*?[ab/é]{1,4}\\*?", 0..40),
            text in "[ab/é]{0,6}",
        ) {
            let globs: Vec<Glob> = patterns.iter().filter_map(|pattern| Glob::new(pattern).ok()).collect();
            let mut index = GlobIndex::default();
            for (number, glob) in globs.iter().enumerate() {
                index.insert(glob, number);
            }
            let mut found: Vec<usize> = index.matching(&text).collect();
            found.sort_unstable();
            let naive: Vec<usize> = (0..globs.len()).filter(|number| globs[*number].matches(&text)).collect();
            prop_assert_eq!(found, naive);
            prop_assert_eq!(index.values().count(), globs.len());
        }
    }
}
