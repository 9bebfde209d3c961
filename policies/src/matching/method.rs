//! HTTP methods, as users write them.

use http::Method;

use crate::suggest::suggest;

const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

/// Reads a method (RFC 9110 section 9.1). The error says what was expected.
pub(crate) fn parse(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    if upper != text && KNOWN.contains(&&*upper) {
        return Err(format!("'{text}' matches no request, methods are case-sensitive: did you mean '{upper}'?"));
    }
    text.parse().map_err(|_| format!("'{text}' is not an HTTP method{}", suggest(text, KNOWN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(parse("GET"), Ok(Method::GET));
        assert!(parse("PURGE").is_ok());
        assert!(parse("get").unwrap_err().contains("'GET'"));
        assert!(parse("GE T").unwrap_err().contains("'GET'"));
    }
}
