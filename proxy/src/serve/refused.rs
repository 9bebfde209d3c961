//! What the HTTP library refuses by itself, in the words of the mesh. It says why in words only, or not at all; should they
//! change, the reason is a less exact one.

use std::error::Error as _;

use selvedge_policies::reason::Reason;

use crate::error::Error;

/// A head of HTTP/1 that never became an exchange, and with which its connection ends.
pub(super) fn head(error: &hyper::Error) -> Option<Error> {
    let said = error.to_string();
    let reason = match said.as_str() {
        _ if error.is_parse_too_large() => Reason::HeadersTooLarge,
        "invalid URI" => Reason::MalformedPath,
        "invalid content-length parsed" | "unexpected transfer-encoding parsed" => Reason::MalformedFraming,
        "invalid transfer-encoding parsed" => Reason::UnsupportedTransferCoding,
        _ if error.is_parse() => Reason::MalformedHeader,
        _ => return None,
    };
    Some(Error::new(reason, format!("what came is no head of HTTP/1: {said}")))
}

/// A request of HTTP/2 that never became an exchange.
pub(super) fn request(reason: Reason) -> Error {
    let detail = match reason {
        Reason::HeadersTooLarge => "the request has more than 64 KiB of fields",
        Reason::MalformedFraming => "a CONNECT request has no content",
        Reason::Overloaded => "the caller has as many streams open as it may",
        _ => "the head breaks the rules of HTTP/2 (RFC 9113 section 8): its stream was reset",
    };
    Error::new(reason, detail)
}

/// What made the HTTP/2 library end a connection: its code for a head that never ends is COMPRESSION_ERROR, for what is
/// more than anybody needs ENHANCE_YOUR_CALM, and any other stands for frames that break the protocol.
pub(super) fn connection(error: &hyper::Error) -> Option<Reason> {
    let http2 = error.source()?.downcast_ref::<h2::Error>().filter(|error| error.is_go_away() && error.is_library())?;
    match http2.reason()? {
        h2::Reason::NO_ERROR => None,
        h2::Reason::COMPRESSION_ERROR => Some(Reason::HeadersTooLarge),
        h2::Reason::ENHANCE_YOUR_CALM => Some(Reason::FrameFlood),
        _ => Some(Reason::MalformedFraming),
    }
}
