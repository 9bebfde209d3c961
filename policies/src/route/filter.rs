//! The filters of a route: the list of their kinds, and those of a rule or backend compiled.
//!
//! Whoever adds a filter adds its file and its entry in [`FILTERS`]. Filters act at the caller's sidecar, once, in the
//! order of the list; all filters of a kind that a rule has are compiled together.

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug, sync::Arc};

use http::HeaderMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    context::Context,
    facts::RequestFacts,
    kind::{self, Problem},
    policy::Reference,
    verdict::Verdict,
};

mod cors;
mod header_filter;
mod request_header_modifier;
mod response_header_modifier;

/// The list: every kind of filter, in the order in which they act.
pub const FILTERS: &[&FilterKind] = &[&cors::KIND, &request_header_modifier::KIND, &response_header_modifier::KIND];

/// Filters of the Gateway API that are told from misspelt ones, and not supported.
const NOT_YET: [&str; 5] = ["RequestMirror", "RequestRedirect", "URLRewrite", "ExternalAuth", "ExtensionRef"];

/// What a kind of filter says of itself.
pub struct FilterKind {
    /// Its `type` in a route, such as `RequestHeaderModifier`.
    pub name: &'static str,
    /// The field that says what it does.
    pub field: &'static str,
    /// The schema of that field.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Compiles all filters of this kind that a rule or backend has, each the value of its field and the path of it. What
    /// cannot be compiled is left out and reported.
    pub compile: Compile,
    /// The services that the value of its field, found at this path in a route of this namespace, sends requests to.
    pub references: fn(&Value, &str, &str) -> Vec<Reference>,
    /// Whether it decides on requests. A backend is chosen after that, so none can have such a filter.
    pub decides: bool,
}

/// How filters of a kind become one that decides ([`FilterKind::compile`]).
pub type Compile = fn(&[Written<'_>], &mut Vec<Problem>) -> Option<Arc<dyn RouteFilter>>;

/// Where the field of a filter stands, and its value.
pub type Written<'a> = (String, &'a Value);

/// What the filters of one kind in one rule were compiled to.
pub trait RouteFilter: Debug + Send + Sync {
    /// Decides a request that the policies have let pass.
    fn on_request(&self, _request: &RequestFacts<'_>, _context: &mut Context) -> Verdict {
        Verdict::Continue
    }

    /// Changes the header section of the request, whatever it is.
    fn change_request(&self, _headers: &mut HeaderMap) {}

    /// Changes the header section of the response, whatever it is.
    fn change_response(&self, _headers: &mut HeaderMap) {}
}

/// One filter, as written: its `type`, and the field of that type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// Which filter it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// Everything else; the check lets only the field of its type be.
    #[serde(flatten)]
    pub fields: BTreeMap<String, Value>,
}

impl JsonSchema for Filter {
    fn schema_name() -> Cow<'static, str> {
        "Filter".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = Map::new();
        properties.insert("type".into(), json_schema!({ "type": "string" }).into());
        properties.extend(FILTERS.iter().map(|kind| (kind.field.into(), (kind.schema)(generator).into())));
        json_schema!({ "type": "object", "required": ["type"], "properties": properties })
    }
}

/// The filters of a rule or backend, compiled.
///
/// ```
/// use http::HeaderMap;
/// use selvedge_policies::{
///     kind::{self, Attached},
///     route::RouteTable,
///     testing::{Clock, Request},
///     verdict::Verdict,
/// };
/// use serde_json::json;
///
/// let filter = |of: &str| json!({ "set": [{ "name": "x-of", "value": of }] });
/// let spec = json!({ "parentRefs": [{ "kind": "Service", "name": "web" }], "rules": [{ "filters": [
///     { "type": "RequestHeaderModifier", "requestHeaderModifier": filter("request") },
///     { "type": "ResponseHeaderModifier", "responseHeaderModifier": filter("response") },
/// ] }] });
/// let table = RouteTable::compile(&[Attached { name: "shop/web".into(), spec: kind::parse(&spec).unwrap() }]).unwrap();
/// let filters = &table.rules().next().unwrap().filters;
/// assert!(!filters.is_empty());
/// let (request, mut context) = (Request::new("GET", "/"), Clock::default().context());
/// assert_eq!(filters.on_request(&request.facts(), &mut context), Verdict::Continue);
/// let mut headers = HeaderMap::new();
/// filters.change_request(&mut headers);
/// assert_eq!(headers["x-of"], "request");
/// filters.change_response(&mut headers);
/// assert_eq!(headers["x-of"], "response");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Filters(Vec<Arc<dyn RouteFilter>>);

impl Filters {
    /// True when nothing is decided and nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Asks the filter in this place; where there is none, nothing is in the way.
    pub(crate) fn ask(&self, place: usize, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        self.0.get(place).map_or(Verdict::Continue, |filter| filter.on_request(request, context))
    }

    /// Decides a request by the filters alone, as [`PolicySet::on_request`](crate::request::PolicySet::on_request) does.
    pub fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        context.ask_each(&self.0, |filter, context| filter.on_request(request, context))
    }

    /// Changes the header section of a request.
    pub fn change_request(&self, headers: &mut HeaderMap) {
        self.0.iter().for_each(|filter| filter.change_request(headers));
    }

    /// Changes the header section of a response.
    pub fn change_response(&self, headers: &mut HeaderMap) {
        self.0.iter().for_each(|filter| filter.change_response(headers));
    }

    /// Compiles the filters found at `path`; what cannot be compiled is left out and reported.
    pub(super) fn compile(filters: &[Filter], path: &str, problems: &mut Vec<Problem>) -> Self {
        let compiled = FILTERS.iter().filter_map(|kind| {
            let found = filters.iter().enumerate().filter_map(|(n, filter)| {
                let value = filter.fields.get(kind.field).filter(|_| filter.kind == kind.name)?;
                Some((format!("{path}[{n}].{}", kind.field), value))
            });
            let found: Vec<Written<'_>> = found.collect();
            if found.is_empty() { None } else { (kind.compile)(&found, problems) }
        });
        Self(compiled.collect())
    }
}

/// The services that the filters found at `path` in a route of `namespace` send requests to.
pub(super) fn references(filters: &[Filter], namespace: &str, path: &str) -> Vec<Reference> {
    let each = filters.iter().enumerate().filter_map(|(n, filter)| {
        let kind = find(&filter.kind)?;
        let value = filter.fields.get(kind.field)?;
        Some((kind.references)(value, namespace, &format!("{path}[{n}].{}", kind.field)))
    });
    each.flatten().collect()
}

/// [`FilterKind::references`] of filters that send nothing anywhere.
fn no_references(_: &Value, _: &str, _: &str) -> Vec<Reference> {
    Vec::new()
}

fn find(name: &str) -> Option<&'static FilterKind> {
    FILTERS.iter().copied().find(|kind| kind.name == name)
}

/// What is wrong with the filters of a rule or backend, found at `path`, but for what compiling them tells.
pub(super) fn check(filters: &[Filter], path: &str, problems: &mut Vec<Problem>) {
    for (n, filter) in filters.iter().enumerate() {
        let path = format!("{path}[{n}]");
        match find(&filter.kind) {
            Some(kind) => check_fields(kind, filter, &path, problems),
            None => problems.extend(misspelt(&filter.kind).map(|why| Problem::new(format!("{path}.type"), why))),
        }
    }
}

/// What was probably meant by a filter that is neither one of those here nor one of the Gateway API.
fn misspelt(given: &str) -> Option<String> {
    let hint = kind::suggest(given, names(true));
    (!NOT_YET.contains(&given) && hint.contains("did you mean")).then(|| format!("'{given}' is not a filter{hint}"))
}

/// The names of the filters of a rule, or of those that a backend may have.
pub(super) fn names(of_rules: bool) -> Vec<&'static str> {
    FILTERS.iter().filter(|kind| of_rules || !kind.decides).map(|kind| kind.name).collect()
}

/// The first filter of a rule that is not supported, by its number and name.
pub(super) fn unsupported(filters: &[Filter]) -> Option<(usize, &str)> {
    first(filters, |kind| kind.is_none())
}

/// The first filter of a backend that is not supported there, by its number and name.
pub(super) fn unsupported_of_backend(filters: &[Filter]) -> Option<(usize, &str)> {
    first(filters, |kind| kind.is_none_or(|kind| kind.decides))
}

fn first(filters: &[Filter], such: impl Fn(Option<&FilterKind>) -> bool) -> Option<(usize, &str)> {
    let found = filters.iter().enumerate().find(|(_, filter)| such(find(&filter.kind)));
    found.map(|(number, filter)| (number, &*filter.kind))
}

/// The fields of a filter: the one of its type and no other.
fn check_fields(kind: &FilterKind, filter: &Filter, path: &str, problems: &mut Vec<Problem>) {
    if !filter.fields.contains_key(kind.field) {
        problems.push(Problem::new(format!("{path}.{}", kind.field), format!("a {} needs it", kind.name)));
    }
    for field in filter.fields.keys().filter(|field| *field != kind.field) {
        let why = match FILTERS.iter().any(|other| other.field == field) {
            true => format!("does not belong to a {}", kind.name),
            false => format!("unknown field '{field}'{}", kind::suggest(field, FILTERS.iter().map(|kind| kind.field))),
        };
        problems.push(Problem::new(format!("{path}.{field}"), why));
    }
}
