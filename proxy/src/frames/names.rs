//! Names of fields that are one byte on the wire. They are the wire: a sidecar refuses a byte that it does not know, so another
//! table needs another name by ALPN.

use http::{HeaderName, header};

/// How the names of a head were written: the names in order up to the last one with a capital letter, joined by commas.
pub(crate) const SPELLING: HeaderName = HeaderName::from_static("selvedge-header-case");

/// The names, each known by its place, counted from one.
static NAMES: [HeaderName; 62] = [
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    header::ACCESS_CONTROL_REQUEST_HEADERS,
    header::ACCESS_CONTROL_REQUEST_METHOD,
    header::AGE,
    header::ALLOW,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::CONTENT_SECURITY_POLICY,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPECT,
    header::EXPIRES,
    header::FORWARDED,
    header::FROM,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LAST_MODIFIED,
    header::LINK,
    header::LOCATION,
    header::ORIGIN,
    header::PRAGMA,
    header::RANGE,
    header::REFERER,
    header::RETRY_AFTER,
    header::SERVER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::TE,
    header::TRAILER,
    header::USER_AGENT,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
    SPELLING,
    HeaderName::from_static("selvedge-reason"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-forwarded-for"),
];

/// Slots of the table by which a name's place is found; twice as many as there are names, and more.
const SLOTS: usize = 256;

/// Place of the name in each slot, 0 where there is none. Names whose slot is taken are in one of the next.
static PLACES: std::sync::LazyLock<[u8; SLOTS]> = std::sync::LazyLock::new(|| {
    let mut places = [0; SLOTS];
    for (index, name) in (1..).zip(&NAMES) {
        let mut slot = slot(name.as_str());
        while places[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        places[slot] = index;
    }
    places
});

fn slot(name: &str) -> usize {
    let bytes = name.as_bytes();
    let at = |index: usize| bytes.get(index).copied().map_or(0, usize::from);
    (bytes.len() * 37 + at(0) * 3 + at(bytes.len() / 2) * 5 + at(bytes.len().saturating_sub(1)) * 11) % SLOTS
}

/// The byte that stands for `name`; `None` when it has to be spelt out.
pub(super) fn place(name: &HeaderName) -> Option<u8> {
    let name = name.as_str();
    let mut slot = slot(name);
    loop {
        let place = PLACES[slot];
        let known = NAMES.get(usize::from(place.checked_sub(1)?))?;
        if known.as_str() == name {
            return Some(place);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// The name that `place` stands for.
pub(super) fn at(place: u8) -> Option<HeaderName> {
    NAMES.get(usize::from(place.checked_sub(1)?)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_place_and_no_other_has_one() {
        for (index, name) in (1..).zip(&NAMES) {
            assert_eq!((place(name), at(index).as_ref()), (Some(index), Some(name)));
        }
        for name in ["x", "x-forwarded-host", "content-typf", "ageing"] {
            assert_eq!(place(&HeaderName::from_static(name)), None, "{name}");
        }
        assert_eq!((at(0), at(255)), (None, None));
    }
}
