//! What a client asks for.

use std::collections::BTreeMap;

use serde_json::Value;

/// The objects that a request is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Where all objects of their kind are listed.
    pub(super) collection: String,
    pub(super) namespace: String,
    /// Empty when the request is about more than one object.
    pub(super) name: String,
    /// A part of the object with a path of its own, such as `status`.
    pub(super) part: String,
    pub(super) query: BTreeMap<String, String>,
}

impl Asked {
    pub(super) fn new(uri: &http::Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let plain = |text: &str| text.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",").replace('+', " ");
        let query = pairs.map(|(name, value)| (name.to_owned(), plain(value))).collect();
        let segments: Vec<&str> = uri.path().split('/').skip(1).collect();
        let (api, rest) = segments.split_at(segments.len().min(if segments[0] == "api" { 2 } else { 3 }));
        let api = api.join("/");
        let (namespace, rest) = match rest {
            ["namespaces", namespace, plural, rest @ ..] if !["status", "finalize"].contains(plural) => {
                (*namespace, [&[*plural], rest].concat())
            }
            rest => ("", rest.to_vec()),
        };
        let part = |n: usize| rest.get(n).copied().unwrap_or_default();
        Self {
            collection: format!("/{api}/{}", part(0)),
            namespace: namespace.to_owned(),
            name: part(1).to_owned(),
            part: part(2).to_owned(),
            query,
        }
    }

    /// A parameter of the query, empty when it is not there.
    pub(super) fn value(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub(super) fn is_watch(&self) -> bool {
        matches!(self.value("watch"), "true" | "1")
    }

    /// Who says what is written.
    pub(super) fn manager(&self) -> &str {
        Some(self.value("fieldManager")).filter(|manager| !manager.is_empty()).unwrap_or("unknown")
    }

    /// True for the objects of a collection that are asked for: by namespace, and by what selectors say with `=`.
    pub(super) fn wants(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let is_there = self.namespace.is_empty() || metadata["namespace"] == self.namespace.as_str();
        let selected = |parameter: &str, value_of: &dyn Fn(&str) -> Value| {
            let terms = self.value(parameter).split(',').filter(|term| !term.is_empty());
            terms.map(|term| term.split_once('=').unwrap_or_else(|| panic!("the double knows no selector {term}"))).all(
                |(of, wanted)| {
                    value_of(of.trim_end_matches('!')).as_str().unwrap_or_default() == wanted.trim_start_matches('=')
                },
            )
        };
        let by_field = |path: &str| path.split('.').fold(object.clone(), |at, field| at[field].clone());
        let by_label = |label: &str| metadata["labels"][label].clone();
        is_there && selected("fieldSelector", &by_field) && selected("labelSelector", &by_label)
    }
}
