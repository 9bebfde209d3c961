//! B3 propagation: the trace of a request in one field, `b3`, or in several, `x-b3-*`
//! (<https://github.com/openzipkin/b3-propagation>).

use http::{HeaderMap, HeaderName};

use super::{Ids, put, text};

// As in the parent module: text would have to be made a name for each request.
static B3: HeaderName = HeaderName::from_static("b3");
static TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
static SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
static PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// In which of its forms a caller speaks B3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spoken {
    single: bool,
    multi: bool,
    /// The caller wants to have the trace recorded, whatever the share is.
    debug: bool,
}

/// Trace and span, where a head names them.
pub(super) fn ids(headers: &HeaderMap) -> Option<(u128, u64)> {
    let (trace, span) = match text(headers, &B3) {
        Some(single) => {
            let mut parts = single.split('-');
            (parts.next()?, parts.next()?)
        }
        None => (text(headers, &TRACE)?, text(headers, &SPAN)?),
    };
    // Traces may have 64 bits, too.
    let is_long_enough = matches!(trace.len(), 16 | 32) && span.len() == 16;
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_long_enough || !is_hex(trace) || !is_hex(span) {
        return None;
    }
    let (trace, span) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
    (trace != 0 && span != 0).then_some((trace, span))
}

/// In which forms a head has B3, and whether its caller records the trace; `None` where that is left to others.
pub(super) fn heard(headers: &HeaderMap) -> (Spoken, Option<bool>) {
    let single = text(headers, &B3);
    let word = match single {
        Some(single) => single.split('-').nth(2).unwrap_or(if single.contains('-') { "" } else { single }),
        None => text(headers, &SAMPLED).unwrap_or_default(),
    };
    let debug = word == "d" || (single.is_none() && text(headers, &FLAGS) == Some("1"));
    let multi = [&TRACE, &SAMPLED, &FLAGS].iter().any(|name| headers.contains_key(*name));
    let sampled = match word {
        _ if debug => Some(true),
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    };
    (Spoken { single: single.is_some(), multi, debug }, sampled)
}

impl Spoken {
    /// Writes a span that is recorded in the forms that its caller speaks.
    pub(super) fn write(self, ids: &Ids, headers: &mut HeaderMap) {
        if !self.single && !self.multi {
            return;
        }
        // Who has 64 bits only would take more for another trace.
        let trace = if ids.trace >> 64 == 0 { format!("{:016x}", ids.trace) } else { format!("{:032x}", ids.trace) };
        let span = format!("{:016x}", ids.span);
        if self.single {
            put(headers, &B3, format!("{trace}-{span}-{}", if self.debug { "d" } else { "1" }));
        }
        if self.multi {
            put(headers, &TRACE, &trace);
            put(headers, &SPAN, &span);
            match ids.parent {
                Some(parent) => put(headers, &PARENT, format!("{parent:016x}")),
                None => drop(headers.remove(&PARENT)),
            }
            if !headers.contains_key(&FLAGS) {
                put(headers, &SAMPLED, "1");
            }
        }
    }
}
