//! Trailer fields that may cross the mesh: those that say something about the content, or that an application made up.
//!
//! A receiver may merge trailers into the header section (RFC 9110 section 6.5.1), which policy has judged long before.
//! So what frames, routes or authorizes a message, and what only a proxy may say, is taken out of them, however its name is
//! spelt.

use http::{
    HeaderMap, HeaderName,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPECT,
        FORWARDED, HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};
use selvedge_policies::matching::header::is_alias;

/// Fields that belong in front of the content or nowhere.
const REFUSED: [HeaderName; 17] = [
    AUTHORIZATION,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    FORWARDED,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    VIA,
];

/// What all names begin with that are refused besides: the hop's own, those of proxies and those of the mesh.
const REFUSED_FAMILIES: [&str; 4] = ["proxy-", "x-forwarded-", "x-real-ip", "selvedge-"];

/// Takes out of a trailer section what does not belong in one.
pub(super) fn strip(trailers: &mut HeaderMap) {
    if trailers.keys().all(may_trail) {
        return;
    }
    let refused: Vec<HeaderName> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    for name in refused {
        trailers.remove(name);
    }
}

fn may_trail(name: &HeaderName) -> bool {
    let name = name.as_str();
    let begins = |family: &str| name.get(..family.len()).is_some_and(|start| is_alias(family, start));
    !is_alias("keep-alive", name)
        && !REFUSED.iter().any(|refused| is_alias(refused.as_str(), name))
        && !REFUSED_FAMILIES.iter().any(|family| begins(family))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_describes_the_content_or_is_made_up_stays() {
        let stays = ["grpc-status", "grpc-message", "grpc-status-details-bin", "digest", "etag", "x-sum"];
        let goes = [
            "authorization",
            "connection",
            "content_length",
            "content-encoding",
            "content-length",
            "content-range",
            "content-type",
            "cookie",
            "expect",
            "forwarded",
            "host",
            "keep-alive",
            "max-forwards",
            "proxy-authorization",
            "proxy-connection",
            "selvedge-reason",
            "set-cookie",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "via",
            "x-forwarded-for",
            "x_forwarded.for",
            "x-real-ip",
            "x_real_ip",
        ];
        let value = HeaderValue::from_static("1");
        for name in goes {
            let fields = stays.iter().chain([&name]).map(|name| (HeaderName::from_static(name), value.clone()));
            let mut trailers: HeaderMap = fields.collect();
            strip(&mut trailers);
            assert!(stays.iter().all(|name| trailers.contains_key(*name)), "{name}: {trailers:?}");
            assert_eq!(trailers.len(), stays.len(), "{name}: {trailers:?}");
        }
    }
}
