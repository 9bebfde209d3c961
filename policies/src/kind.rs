//! What a policy kind says of itself, and how a bad document is reported.

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

mod blank;
pub mod structure;
pub mod vocabulary;

pub use blank::take_nulls;
pub(crate) use blank::{blanks, close_with, until_mended};

pub(crate) use crate::suggest::suggest;

/// One complaint about a document, addressed by field path so that the control plane can point at the line.
///
/// ```
/// use selvedge_policies::kind::Problem;
///
/// let problem = Problem::new("rules[0].to", "there is nothing in it");
/// assert_eq!(problem.path, "rules[0].to");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path inside `spec`, for instance `rules[0].to[1].paths[0]`; empty for the whole document.
    pub path: String,
    /// What is wrong, and what was expected.
    pub message: String,
}

impl Problem {
    /// A complaint at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// The `apiVersion` of the mesh's own kinds.
pub const SELVEDGE: &str = "selvedge.dev/v1alpha1";

/// The `apiVersion` of the kinds of the Gateway API.
pub const GATEWAY: &str = "gateway.networking.k8s.io/v1";

/// An older name of [`GATEWAY`], in which the same kinds have the same fields.
const GATEWAY_BETA: &str = "gateway.networking.k8s.io/v1beta1";

/// A kind of document the mesh understands: what it says of itself.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The name users write in `kind:`.
    pub name: &'static str,
    /// The API group and version users write in `apiVersion:`.
    pub api_version: &'static str,
    /// One sentence for help texts and docs.
    pub summary: &'static str,
    /// JSON schema of `spec`.
    pub schema: fn() -> schemars::Schema,
    /// Every structural problem of a `spec`, or every semantic one when its structure is sound.
    pub check: fn(&Value) -> Vec<Problem>,
    /// Takes what is written and empty out of a `spec`, so that what is left lets pass no more than was meant, and says
    /// where it was and what to write instead.
    pub close: fn(&mut Value) -> Vec<Problem>,
}

impl Kind {
    /// The API group; empty for that of Kubernetes' core.
    ///
    /// ```
    /// use selvedge_policies::registry;
    ///
    /// assert_eq!(registry::find("HTTPRoute").unwrap().kind.group(), "gateway.networking.k8s.io");
    /// ```
    pub fn group(&self) -> &'static str {
        self.api_version.rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Whether documents of the kind may be written as of this `apiVersion`.
    ///
    /// ```
    /// use selvedge_policies::registry;
    ///
    /// let routes = registry::find("HTTPRoute").unwrap().kind;
    /// assert!(routes.is_of("gateway.networking.k8s.io/v1") && routes.is_of("gateway.networking.k8s.io/v1beta1"));
    /// assert!(!routes.is_of("gateway.networking.k8s.io/v1alpha2"));
    /// ```
    pub fn is_of(&self, api_version: &str) -> bool {
        api_version == self.api_version || (self.api_version == GATEWAY && api_version == GATEWAY_BETA)
    }
}

/// [`Kind::close`] of kinds in which an empty list means what leaving it out does.
///
/// ```
/// let mut spec = serde_json::json!({ "list": [] });
/// assert!(selvedge_policies::kind::as_written(&mut spec).is_empty());
/// assert_eq!(spec, serde_json::json!({ "list": [] }));
/// ```
pub const fn as_written(_: &mut Value) -> Vec<Problem> {
    Vec::new()
}

/// A document together with the object it came from.
#[derive(Clone, Debug)]
pub struct Attached<T> {
    /// `namespace/name` of the user's object.
    pub name: std::sync::Arc<str>,
    /// Its `spec`: as a document, or as the type of its kind once it was read.
    pub spec: T,
}

/// Reads a `spec` as its type.
///
/// ```
/// use selvedge_policies::{attempt::TrafficPolicySpec, kind};
/// use serde_json::json;
///
/// let spec: TrafficPolicySpec = kind::parse(&json!({ "targetRef": { "name": "web" } })).unwrap();
/// assert!(spec.retry.is_none());
/// assert!(kind::parse::<TrafficPolicySpec>(&json!({})).is_err());
/// ```
pub fn parse<T: DeserializeOwned>(document: &Value) -> Result<T, Vec<Problem>> {
    T::deserialize(document).map_err(|e| vec![Problem::new("", e.to_string())])
}

/// Writes a `spec` as the document that travels on the wire.
///
/// ```
/// use selvedge_policies::{duration::Span, kind};
///
/// assert_eq!(kind::document(&Span::from_secs(2)), "2s");
/// ```
pub fn document<T: Serialize>(spec: &T) -> Value {
    serde_json::to_value(spec).unwrap_or(Value::Null)
}

/// The problems of a document: every difference from the schema of its type, or, when there is none, every problem that
/// `semantic` finds.
///
/// ```
/// use selvedge_policies::{attempt::TrafficPolicySpec, kind};
/// use serde_json::json;
///
/// let found = kind::check::<TrafficPolicySpec>(&json!({ "targetRef": { "name": "web" }, "retires": {} }), |_| Vec::new());
/// assert_eq!(found[0].path, "retires");
/// ```
pub fn check<T: DeserializeOwned + JsonSchema>(document: &Value, semantic: fn(&T) -> Vec<Problem>) -> Vec<Problem> {
    let found = structure::problems(schemars::schema_for!(T).as_value(), document);
    if !found.is_empty() {
        return found;
    }
    parse(document).map_or_else(|problems| problems, |spec| semantic(&spec))
}

/// Reads every `spec` as its type; all problems at once. The control plane has closed them, an older one has not.
///
/// ```
/// use selvedge_policies::{
///     attempt::TrafficPolicySpec,
///     kind::{self, Attached},
/// };
/// use serde_json::json;
///
/// let document = Attached { name: "shop/web".into(), spec: json!({}) };
/// let problems = kind::parse_all::<TrafficPolicySpec>(&[document], kind::as_written).unwrap_err();
/// assert!(problems[0].message.starts_with("shop/web: "), "each names its object");
/// ```
pub fn parse_all<T: DeserializeOwned>(
    documents: &[Attached<Value>],
    close: fn(&mut Value) -> Vec<Problem>,
) -> Result<Vec<Attached<T>>, Vec<Problem>> {
    let mut problems = Vec::new();
    let parsed = documents.iter().filter_map(|document| {
        let mut spec = document.spec.clone();
        close(&mut spec);
        match parse(&spec) {
            Ok(spec) => Some(Attached { name: document.name.clone(), spec }),
            Err(found) => {
                problems.extend(of(document, found));
                None
            }
        }
    });
    let parsed = parsed.collect();
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

/// Names the object in problems that are reported together with those of other objects.
pub(crate) fn of<T>(object: &Attached<T>, problems: Vec<Problem>) -> impl Iterator<Item = Problem> {
    let name = object.name.clone();
    problems.into_iter().map(move |problem| Problem { message: format!("{name}: {}", problem.message), ..problem })
}

/// What is wrong with the name of an object, if anything: of all that Kubernetes has, but for those that are host names, it
/// is one or more parts with dots between them (RFC 1123 subdomain), as long as 253 characters.
///
/// ```
/// use selvedge_policies::kind::name_problem;
///
/// assert_eq!(name_problem("etcd-node-1.example.com"), None);
/// assert!(name_problem("a..b").is_some() && name_problem("a/b").is_some() && name_problem("A").is_some());
/// ```
pub fn name_problem(name: &str) -> Option<String> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ends = |c: char| c.is_ascii_alphanumeric();
    let is_part = |part: &str| part.bytes().all(fine) && part.starts_with(ends) && part.ends_with(ends);
    if name.len() <= 253 && name.split('.').all(is_part) {
        return None;
    }
    let shown: String = name.chars().take(80).collect();
    Some(format!(
        "'{shown}' is not the name of an object: expected up to 253 characters a-z, 0-9, '-' and '.', such as checkout-2"
    ))
}
