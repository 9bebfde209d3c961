//! How a body ends that is not whole.

use std::{error::Error, io};

/// Errors while a body streams: words for the log, whatever wire it came on.
pub(crate) type BodyError = Box<dyn Error + Send + Sync>;

/// Whether what came is not framed as the content of a message is (RFC 9112 section 7.1), while whoever sent it is there.
pub(crate) fn is_malformed(error: &(dyn Error + 'static)) -> bool {
    let is_one = |error: &io::Error| matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref().is_some_and(is_one) {
            return true;
        }
        next = error.source();
    }
    false
}
