//! The head of an answer as it goes on: what its parser lets through, and another would read otherwise or not write.

use http::{
    HeaderMap, HeaderValue, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    response,
};

/// Bytes of the fields of an answer, as HTTP/2 counts them (RFC 9113 section 6.5.2).
const MAX_FIELD_BYTES: usize = 64 * 1024;
/// What a field counts beside its name and value.
const FIELD: usize = 32;

/// Makes the head of an answer one that every next hop reads the same way.
///
/// # Errors
/// What is wrong with it, for people.
pub(crate) fn canonical(parts: &mut response::Parts) -> Result<(), &'static str> {
    let bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum();
    if bytes > MAX_FIELD_BYTES {
        return Err("the answer has more than 64 KiB of fields");
    }
    if parts.headers.contains_key(TRANSFER_ENCODING) {
        coding(parts.version, &parts.headers)?;
        parts.headers.remove(CONTENT_LENGTH);
    }
    if parts.status == StatusCode::NO_CONTENT {
        // It says nothing there (RFC 9110 section 8.6).
        parts.headers.remove(CONTENT_LENGTH);
    }
    length(&mut parts.headers)
}

/// The only coding is `chunked`: of another the content would go on as if it were none (RFC 9112 section 6.1).
fn coding(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked =
        codings.next().is_some_and(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    match is_chunked && codings.next().is_none() {
        _ if version == Version::HTTP_10 => Err("the answer has a transfer coding, which HTTP/1.0 does not know"),
        true => Ok(()),
        false => Err("the transfer coding of the answer is not 'chunked'"),
    }
}

/// One length, in one spelling; the same one said again is left out (RFC 9110 section 8.6).
fn length(headers: &mut HeaderMap) -> Result<(), &'static str> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(()) };
    let digits = first.as_bytes();
    let is_plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && !digits.starts_with(b"0");
    if values.next().is_none() && ((is_plain && digits.len() < 20) || digits == b"0") {
        return Ok(());
    }
    let mut lengths =
        headers.get_all(CONTENT_LENGTH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let first = lengths.next().and_then(number);
    match first.filter(|_| lengths.all(|other| number(other) == first)) {
        Some(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Ok(())
        }
        None => Err("the answer says more than one length, or what is none"),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = Some(text.trim_ascii()).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    /// The fields that frame an answer with these, where it may go on.
    fn framed(status: u16, fields: &[(&str, &str)]) -> Result<Vec<String>, &'static str> {
        let response =
            fields.iter().fold(Response::builder().status(status), |head, (name, value)| head.header(*name, *value));
        let (mut parts, ()) = response.body(()).unwrap().into_parts();
        canonical(&mut parts)?;
        let fields = parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        Ok(fields.collect())
    }

    #[test]
    fn there_is_one_way_to_tell_where_an_answer_ends() {
        let length = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
            framed(200, &fields).map(|fields| fields.join(", "))
        };
        for (values, told) in [
            (&["0"][..], "content-length: 0"),
            (&["2"], "content-length: 2"),
            (&["2, 2"], "content-length: 2"),
            (&["2", "2"], "content-length: 2"),
            (&["010"], "content-length: 10"),
            (&["18446744073709551615"], "content-length: 18446744073709551615"),
        ] {
            assert_eq!(length(values).as_deref(), Ok(told), "{values:?}");
        }
        for values in
            [&["2, 3"][..], &["2", "3"], &["+2"], &["-1"], &["0x2"], &[""], &["2,"], &["18446744073709551616"]]
        {
            assert!(length(values).is_err(), "{values:?}");
        }
        assert_eq!(framed(204, &[("content-length", "5")]), Ok(vec![]));
        assert_eq!(framed(304, &[("content-length", "5")]), Ok(vec!["content-length: 5".to_owned()]));
    }

    #[test]
    fn a_transfer_coding_is_chunked_or_nothing() {
        assert!(framed(200, &[("transfer-encoding", "Chunked ")]).is_ok());
        let fields = framed(200, &[("transfer-encoding", "chunked"), ("content-length", "5")]);
        assert_eq!(fields, Ok(vec!["transfer-encoding: chunked".to_owned()]), "the coding counts");
        for coding in ["gzip", "gzip, chunked", "xchunked", "chunked, chunked", "identity"] {
            assert!(framed(200, &[("transfer-encoding", coding)]).is_err(), "{coding}");
        }
        assert!(framed(200, &[("transfer-encoding", "chunked"), ("transfer-encoding", "identity")]).is_err());
    }

    #[test]
    fn fields_have_an_end() {
        let long = "x".repeat(1024);
        let fields: Vec<_> = std::iter::repeat_n(("x-a", long.as_str()), 70).collect();
        assert!(framed(200, &fields[..60]).is_ok());
        assert!(framed(200, &fields).is_err());
    }
}
