//! Hop-by-hop hygiene (RFC 9110 section 7.6.1): what belongs to one connection does not cross it.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING},
};

use super::case::HEADER_CASE;

/// Names the protocol the caller spoke, on the hop between sidecars only.
pub(crate) const ORIGINAL_VERSION: HeaderName = HeaderName::from_static("selvedge-original-version");
/// The reason code of an answer the mesh gave, to meshed callers only.
pub(crate) const REASON: HeaderName = HeaderName::from_static("selvedge-reason");

/// What exactly happened there, to sidecars only.
pub(crate) const DETAIL: HeaderName = HeaderName::from_static("selvedge-detail");
/// The object that decided there, to sidecars only.
pub(crate) const POLICY: HeaderName = HeaderName::from_static("selvedge-policy");

/// What all names of the mesh's own fields begin with.
const OURS: &str = "selvedge-";

/// What a head has that may not go on as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Fields of the connection it came on, for [`strip`].
    pub of_connection: bool,
    /// Fields that only the mesh may set, for [`strip_mesh`].
    pub of_mesh: bool,
}

/// Looks once for what most heads have nothing of.
pub(crate) fn look(headers: &HeaderMap) -> Found {
    let mut found = Found::default();
    for (name, value) in headers {
        found.of_connection |= is_of_connection(name, value);
        found.of_mesh |= is_ours(name);
    }
    found
}

fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with(OURS)
}

/// Removes the fields of the connection it came on from a message head. Fields named by `Connection` go too,
/// except those that frame or route a message: naming one is an error, which leaves all that are named in place.
pub(crate) fn strip(headers: &mut HeaderMap) -> Result<(), &'static str> {
    let mut gone: Vec<HeaderName> =
        headers.iter().filter(|(name, value)| is_of_connection(name, value)).map(|(name, _)| name.clone()).collect();
    let named = if gone.contains(&CONNECTION) { named(headers) } else { Ok(Vec::new()) };
    gone.extend(named.iter().flatten().cloned());
    for name in gone {
        headers.remove(name);
    }
    named.map(drop)
}

fn is_of_connection(name: &HeaderName, value: &HeaderValue) -> bool {
    let name = name.as_str();
    // Few names are as long as one of these.
    if !matches!(name.len(), 2 | 7 | 10 | 16 | 17) {
        return false;
    }
    match name {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
        "te" => !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
        _ => false,
    }
}

/// The fields that `Connection` names besides those which go anyway.
fn named(headers: &HeaderMap) -> Result<Vec<HeaderName>, &'static str> {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty()) {
            if token.eq_ignore_ascii_case(b"keep-alive") {
                continue;
            }
            let name = HeaderName::from_bytes(token).map_err(|_| "Connection names something that is not a field")?;
            if name == HOST || name == CONTENT_LENGTH || name == TRANSFER_ENCODING || is_ours(&name) {
                return Err("Connection names a field that frames or routes the message");
            }
            if name != TE {
                named.push(name);
            }
        }
    }
    Ok(named)
}

/// Removes the mesh's own fields, which only the mesh may set.
pub(crate) fn strip_mesh(headers: &mut HeaderMap) {
    if headers.keys().any(is_ours) {
        for name in [ORIGINAL_VERSION, REASON, DETAIL, POLICY, HEADER_CASE] {
            headers.remove(name);
        }
    }
}

/// Leaves of the fields that a policy gives its answer what a policy can say: the frame, the connection and the mesh's own
/// fields are the sidecar's.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    // What it names wrongly stays in place; the answer is as good as without the names.
    let _ = strip(headers);
    headers.remove(CONTENT_LENGTH);
    strip_mesh(headers);
}

/// The value of [`ORIGINAL_VERSION`] for a caller's version; HTTP/2 needs no mark.
pub(crate) fn original_version(version: Version) -> Option<HeaderValue> {
    match version {
        Version::HTTP_10 => Some(HeaderValue::from_static("1.0")),
        Version::HTTP_11 => Some(HeaderValue::from_static("1.1")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::header::UPGRADE;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn connection_fields_stay_on_their_connection() {
        let mut map = headers(&[
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("x-end-to-end", "1"),
        ]);
        strip(&mut map).unwrap();
        assert_eq!(map, headers(&[("x-end-to-end", "1")]));
    }

    #[test]
    fn te_trailers_survives_for_grpc() {
        let mut map = headers(&[("te", "trailers")]);
        strip(&mut map).unwrap();
        assert!(map.contains_key("te"));
    }

    #[test]
    fn framing_cannot_be_hidden_behind_connection() {
        for name in ["content-length", "host", "transfer-encoding", "selvedge-reason"] {
            let mut map = headers(&[]);
            map.insert(CONNECTION, HeaderValue::from_static(name));
            map.insert(UPGRADE, HeaderValue::from_static("h2c"));
            assert!(strip(&mut map).is_err(), "{name}");
            assert!(!map.contains_key(UPGRADE), "the others go nevertheless");
        }
    }
}
