//! `CORS`: which pages may use a service that is not of their own origin (Gateway API `HTTPCORSFilter`, GEP-1767).
//!
//! Guarantees:
//! - A preflight is answered here, whoever asks, and never comes to the service.
//! - What a response says about sharing is what the filter says, and to a request without an origin it says nothing. What
//!   the service says of it is taken out, so that two opinions never add up to more than either: not even in a cache that
//!   keeps what one request was told for the next one.
//! - An origin that is not allowed, or is none, is answered without a word about sharing; the browser then refuses.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FilterKind, RouteFilter, Written, no_references};
use crate::{
    context::Context,
    facts::RequestFacts,
    kind::{self, Problem},
    matching::{header::field_name, method},
    verdict::{Answer, Verdict},
};

mod origin;

use origin::OriginPattern;

/// The filter `CORS`.
pub(super) const KIND: FilterKind = FilterKind {
    name: "CORS",
    field: "cors",
    schema: |generator| generator.subschema_for::<CorsSpec>(),
    compile,
    references: no_references,
    decides: true,
};

/// Stands for everything in the lists.
const ALL: &str = "*";
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARIES: HeaderValue = HeaderValue::from_static("Origin");

/// What pages of other origins may do (Gateway API `HTTPCORSFilter`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CorsSpec {
    /// Origins `scheme://host[:port]`, where the host may be `*` or begin with `*.`; `*` alone for every origin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow_origins: Vec<String>,
    /// Whether requests may carry cookies, client certificates and `Authorization`.
    #[serde(default)]
    allow_credentials: bool,
    /// Methods beside GET, HEAD and POST, or `*` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow_methods: Vec<String>,
    /// Fields that requests may have, or `*` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow_headers: Vec<String>,
    /// Fields of responses that scripts may read, or `*` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    expose_headers: Vec<String>,
    /// For how many seconds browsers may keep what a preflight says.
    #[serde(default = "five")]
    #[schemars(range(min = 1))]
    max_age: u32,
}

const fn five() -> u32 {
    5
}

/// A compiled [`CorsSpec`].
#[derive(Debug)]
struct Cors {
    origins: Origins,
    credentials: bool,
    methods: Allowed,
    headers: Allowed,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

#[derive(Debug)]
enum Origins {
    Every,
    Listed(Vec<OriginPattern>),
}

/// What a preflight is told that requests may have.
#[derive(Debug)]
enum Allowed {
    Nothing,
    Told(HeaderValue),
    /// What it asks for: where credentials are allowed, browsers take `*` for a name.
    Asked,
}

impl RouteFilter for Cors {
    fn on_request(&self, request: &RequestFacts<'_>, context: &mut Context) -> Verdict {
        let mut origins = request.headers.get_all(ORIGIN).iter();
        let (origin, second) = (origins.next(), origins.next());
        let allowed = origin.filter(|origin| second.is_none() && self.allows(origin));
        if origin.is_some() && is_preflight(request) {
            return Verdict::Answer(self.preflight(request.headers, allowed));
        }
        let response = &mut context.changes().response;
        response.add(VARY, VARIES);
        for (name, value) in self.shared(allowed) {
            match value {
                Some(value) => response.set(name, value),
                None => response.remove(name),
            }
        }
        Verdict::Continue
    }
}

impl Cors {
    fn new(spec: &CorsSpec, path: &str, problems: &mut Vec<Problem>) -> Self {
        let mut list = |texts: &[String], field: &str, most: usize, read: &dyn Fn(&str) -> Result<String, String>| {
            check_list(texts, &format!("{path}.{field}"), most, problems, read);
            texts.join(", ")
        };
        let name = |text: &str| field_name(text).map(|name| name.to_string());
        let methods = list(&spec.allow_methods, "allowMethods", 9, &|text| method::parse(text).map(|m| m.to_string()));
        let headers = list(&spec.allow_headers, "allowHeaders", 64, &name);
        let expose = list(&spec.expose_headers, "exposeHeaders", 64, &name);
        list(&spec.allow_origins, "allowOrigins", 64, &|text| OriginPattern::new(text).map(|_| text.to_owned()));
        if expose == ALL && spec.allow_credentials {
            let why = "where credentials are allowed, browsers take '*' for a field of this name: list the fields";
            problems.push(Problem::new(format!("{path}.exposeHeaders[0]"), why));
        }
        let origins = match &*spec.allow_origins {
            [only] if only == ALL => Origins::Every,
            listed => Origins::Listed(listed.iter().filter_map(|text| OriginPattern::new(text).ok()).collect()),
        };
        Self {
            origins,
            credentials: spec.allow_credentials,
            methods: Allowed::new(&methods, spec.allow_credentials),
            headers: Allowed::new(&headers, spec.allow_credentials),
            expose: HeaderValue::from_str(&expose).ok().filter(|value| !value.is_empty()),
            max_age: spec.max_age.into(),
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        match &self.origins {
            Origins::Every => !self.credentials || origin.to_str().is_ok_and(origin::is_origin),
            Origins::Listed(patterns) => {
                origin.to_str().is_ok_and(|origin| patterns.iter().any(|pattern| pattern.matches(origin)))
            }
        }
    }

    /// The value of `Access-Control-Allow-Origin` and of `Access-Control-Allow-Credentials`.
    fn sharing(&self, origin: &HeaderValue) -> (HeaderValue, Option<HeaderValue>) {
        match (&self.origins, self.credentials) {
            (Origins::Every, false) => (HeaderValue::from_static(ALL), None),
            (_, credentials) => (origin.clone(), credentials.then_some(TRUE)),
        }
    }

    /// Every field about sharing that a response may have, with what this one has.
    fn shared(&self, allowed: Option<&HeaderValue>) -> [(HeaderName, Option<HeaderValue>); 3] {
        let (origin, credentials) = allowed.map(|origin| self.sharing(origin)).unzip();
        [
            (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials.flatten()),
            (ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone().filter(|_| allowed.is_some())),
        ]
    }

    fn preflight(&self, asked: &HeaderMap, allowed: Option<&HeaderValue>) -> Answer {
        let mut answer = Answer::reply(StatusCode::NO_CONTENT, Arc::default());
        let headers = &mut answer.headers;
        headers.insert(VARY, VARIES);
        let Some(origin) = allowed else { return answer };
        let (origin, credentials) = self.sharing(origin);
        let fields = [
            (ACCESS_CONTROL_ALLOW_ORIGIN, Some(origin)),
            (ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials),
            (ACCESS_CONTROL_ALLOW_METHODS, self.methods.told(asked.get(ACCESS_CONTROL_REQUEST_METHOD))),
            (ACCESS_CONTROL_ALLOW_HEADERS, self.headers.told(asked.get(ACCESS_CONTROL_REQUEST_HEADERS))),
            (ACCESS_CONTROL_MAX_AGE, Some(self.max_age.clone())),
        ];
        headers.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
        answer
    }
}

impl Allowed {
    fn new(list: &str, credentials: bool) -> Self {
        match HeaderValue::from_str(list) {
            Ok(value) if value == ALL && credentials => Self::Asked,
            Ok(value) if !value.is_empty() => Self::Told(value),
            _ => Self::Nothing,
        }
    }

    fn told(&self, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::Nothing => None,
            Self::Told(list) => Some(list.clone()),
            Self::Asked => asked.cloned(),
        }
    }
}

/// A browser asks before it sends what forms and links could not (Fetch standard, CORS-preflight request).
fn is_preflight(request: &RequestFacts<'_>) -> bool {
    request.method == Method::OPTIONS && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn compile(filters: &[Written<'_>], problems: &mut Vec<Problem>) -> Option<Arc<dyn RouteFilter>> {
    let ((path, value), others) = filters.split_first()?;
    for (path, _) in others {
        problems.push(Problem::new(&**path, "the rule has a CORS filter already: say everything in one"));
    }
    match kind::parse::<CorsSpec>(value) {
        Ok(spec) => Some(Arc::new(Cors::new(&spec, path, problems))),
        Err(found) => {
            problems.extend(found.into_iter().map(|problem| Problem::new(&**path, problem.message)));
            None
        }
    }
}

/// What is wrong with a list of what is allowed.
fn check_list(
    texts: &[String],
    path: &str,
    most: usize,
    problems: &mut Vec<Problem>,
    read: &dyn Fn(&str) -> Result<String, String>,
) {
    if texts.len() > most {
        problems.push(Problem::new(path, format!("{} entries are more than {most}, which is the limit", texts.len())));
    }
    for (n, text) in texts.iter().enumerate() {
        let why = match text.as_str() {
            ALL if texts.len() == 1 => continue,
            ALL => Some("'*' says all there is: leave the other entries out, or '*'".to_owned()),
            text => read(text).err(),
        };
        problems.extend(why.map(|why| Problem::new(format!("{path}[{n}]"), why)));
    }
}
