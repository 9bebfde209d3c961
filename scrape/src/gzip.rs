//! gzip (RFC 1952) for who asks for it. Metrics repeat themselves, and shrink to a twentieth.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header};

/// What is shorter, in bytes, goes in a packet as it is.
const WORTH: usize = 1_400;

/// Whether gzip is asked for by name, with a weight above zero (RFC 9110 sections 12.4.2 and 12.5.3).
pub fn is_accepted(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        is_named && weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f32| weight > 0.0))
    })
}

/// `text` in gzip; `None` when that is not worth it.
pub fn encode(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() < WORTH {
        return None;
    }
    // The fastest level makes metrics nearly as small as the best one does.
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn gzip_is_for_who_asks_for_it_by_name() {
        for (accept, accepted) in [
            ("gzip", true),
            ("GZIP", true),
            ("deflate, gzip;q=0.5", true),
            ("br;q=1.0,gzip; q=0.1, *;q=0", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=much", false),
            ("identity", false),
            ("*", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accept.parse().unwrap())]);
            assert_eq!(is_accepted(&headers), accepted, "{accept}");
        }
        assert!(!is_accepted(&HeaderMap::new()));
    }

    #[test]
    fn what_is_long_becomes_short_and_is_the_same() {
        let text = "selvedge_requests_total{direction=\"inbound\"} 1\n".repeat(100);
        let short = encode(text.as_bytes()).unwrap();
        assert!(short.len() * 10 < text.len(), "{} of {} bytes", short.len(), text.len());
        let mut again = String::new();
        GzDecoder::new(&*short).read_to_string(&mut again).unwrap();
        assert_eq!(again, text);
        assert_eq!(encode(b"selvedge_xds_connected 1\n"), None);
    }
}
