//! Which names an operator may give the field that says who calls.

/// Fields that frame, route or authorize a message, or belong to one connection.
const TAKEN: [&str; 21] = [
    "accept",
    "age",
    "authorization",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "keep-alive",
    "max-forwards",
    "origin",
    "range",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];

/// What other names begin with that have a meaning already: of HTTP, of browsers, of gRPC, of tracing, of proxies, and the
/// mesh's own.
const TAKEN_FAMILIES: [&str; 14] = [
    "accept-",
    "access-control-",
    "cache-",
    "content-",
    "grpc-",
    "http2-",
    "if-",
    "proxy-",
    "sec-",
    "selvedge-",
    "set-",
    "trace",
    "www-",
    "x-real-",
];

/// Why a field of this name cannot say who calls, if so.
pub(super) fn problem(name: &str) -> Option<String> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.bytes().any(|b| b.is_ascii_uppercase()) && name.to_ascii_lowercase().bytes().all(fine) {
        return Some(format!("names are written in lower case here: expected {}", name.to_ascii_lowercase()));
    }
    if name.is_empty()
        || name.len() > 100
        || !name.bytes().all(fine)
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
    {
        let why = "is no name for it: expected letters, digits and '-', such as x-caller-id; what is spelt with '_' or '.' \
                   instead of '-' is removed too";
        return Some(format!("'{name}' {why}"));
    }
    let is_forwarded = name.starts_with("x-forwarded-") && name != super::CLIENT_CERT;
    let is_taken =
        TAKEN.contains(&name) || TAKEN_FAMILIES.iter().any(|family| name.starts_with(family)) || is_forwarded;
    is_taken.then(|| format!("'{name}' has another meaning already: expected a name of your own, such as x-caller-id"))
}
