//! The span of a request: begun where its head is read, written into the head that goes on, and begun anew for each further
//! try.

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::{TRACEPARENT, b3, put, text};
use crate::telemetry::{Ids, Sampling, SpanRecord};

static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The flag of W3C Trace Context that says that a trace is recorded (section 3.2.2.5.1).
const SAMPLED: u8 = 1;
/// The flag that says that the id of the trace is by chance (W3C Trace Context Level 2 section 3.2.2.5.2).
const RANDOM: u8 = 2;
/// The longest `tracestate` that is kept with a span: what everybody has to pass on (section 3.3.1.5).
const STATE: usize = 512;

/// The span of a request that is not over, or of its latest try.
#[derive(Debug)]
pub(crate) struct Span {
    ids: Ids,
    /// `tracestate`, which stays as it is.
    state: Box<str>,
    b3: b3::Spoken,
    is_sampled: bool,
    /// Whether the head has a parent in the form of W3C, to which its `tracestate` belongs.
    is_w3c: bool,
    since: Instant,
    /// When the latest try was over, while there may be another.
    ended: Option<Instant>,
    /// Tries before this one.
    resent: u32,
}

impl Span {
    /// Begins the span of a request with this head. Whether it is recorded its caller says; where nobody has, `sampling` does.
    /// `None` where its caller does not record: then the head goes on as it came.
    pub(crate) fn begin(headers: &HeaderMap, sampling: Sampling) -> Option<Box<Self>> {
        let w3c = text(headers, &TRACEPARENT).filter(|_| is_single(headers)).and_then(traceparent);
        let (b3, said) = b3::heard(headers);
        let (parent, said, flags) = match w3c {
            Some((trace, span, flags)) => (Some((trace, span)), Some(flags & SAMPLED != 0), flags & RANDOM),
            None => (b3::ids(headers), said, 0),
        };
        if said == Some(false) {
            return None;
        }
        let trace = parent.map_or_else(|| fastrand::u128(1..), |(trace, _)| trace);
        let is_sampled = said.unwrap_or_else(|| sampling.takes(trace));
        if !is_sampled && parent.is_some() {
            return None;
        }
        let ids = Ids {
            trace,
            span: fastrand::u64(1..),
            parent: parent.map(|(_, span)| span),
            flags: flags | u8::from(is_sampled),
            remote: true,
        };
        let state = if w3c.is_some() && is_sampled { state(headers) } else { Box::default() };
        let (is_w3c, since) = (w3c.is_some(), Instant::now());
        Some(Box::new(Self { ids, state, b3, is_sampled, is_w3c, since, ended: None, resent: 0 }))
    }

    /// It as `traceparent` (W3C Trace Context section 3.2).
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        let Ids { trace, span, flags, .. } = &self.ids;
        HeaderValue::from_str(&format!("00-{trace:032x}-{span:016x}-{flags:02x}")).ok()
    }

    /// Writes it into the head that goes on: as W3C has it, and in the forms of B3 that the caller speaks.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.traceparent() {
            put(headers, &TRACEPARENT, value);
        }
        if !self.is_w3c {
            headers.remove(&TRACESTATE); // of a trace that nobody can name (section 3.3)
        }
        if self.is_sampled {
            self.b3.write(&self.ids, headers);
        }
    }

    /// Notes that the latest try is over, and that there may be another.
    pub(crate) fn pause(&mut self) {
        self.ended = Some(Instant::now());
    }

    /// Begins the span of another try. It has the parent of the first; where that has none, the first is it.
    pub(crate) fn again(&mut self) {
        if self.ids.parent.is_none() {
            self.ids.parent = Some(self.ids.span);
            self.ids.remote = false;
        }
        self.ids.span = fastrand::u64(1..);
        (self.since, self.ended) = (Instant::now(), None);
        self.resent += 1;
    }

    /// What is recorded of it, from its begin to the end of the try; `None` when it is not recorded.
    pub(crate) fn of_try(&self) -> Option<SpanRecord<'_>> {
        self.until(self.ended)
    }

    /// What is recorded of it, from its begin until now; `None` when it is not recorded.
    pub(crate) fn so_far(&self) -> Option<SpanRecord<'_>> {
        self.until(None)
    }

    fn until(&self, ended: Option<Instant>) -> Option<SpanRecord<'_>> {
        let Self { ids, state, since, resent, .. } = self;
        self.is_sampled.then_some(SpanRecord { ids: *ids, state, since: *since, ended, resent: *resent })
    }
}

/// Whether a head names one parent; one that names several names none (W3C Trace Context section 3.2).
fn is_single(headers: &HeaderMap) -> bool {
    headers.get_all(&TRACEPARENT).iter().nth(1).is_none()
}

/// Trace, span and flags of a `traceparent` (W3C Trace Context section 3.2); of later versions what this one knows of them.
fn traceparent(value: &str) -> Option<(u128, u64, u8)> {
    let is_known = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = value.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version, trace, span, flags].map(str::len);
    let more = version != "00" || parts.next().is_none();
    if lengths != [2, 32, 16, 2] || ![version, trace, span, flags].into_iter().all(is_known) || version == "ff" || !more
    {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
    Some((trace, span, u8::from_str_radix(flags, 16).ok()?))
}

/// The lines of `tracestate` as one; nothing where it is too long.
fn state(headers: &HeaderMap) -> Box<str> {
    let lines: Vec<&str> = headers.get_all(&TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let state = lines.join(",");
    if state.len() <= STATE { state.into() } else { Box::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::trace::tests::fields;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    fn always() -> Sampling {
        Sampling::of(1.0)
    }

    /// The head that goes on.
    fn written(headers: &[(&'static str, &str)], sampling: Sampling) -> HeaderMap {
        let mut head = fields(headers);
        if let Some(span) = Span::begin(&head, sampling) {
            span.write(&mut head);
        }
        head
    }

    #[test]
    fn a_recorded_parent_gets_a_child_and_keeps_its_state() {
        let w3c = format!("00-{TRACE}-{PARENT}-01");
        let mut head = fields(&[("traceparent", &w3c), ("tracestate", "a=1")]);
        let mut span = Span::begin(&head, Sampling::of(0.0)).expect("its caller records it");
        span.write(&mut head);
        let first = text(&head, &TRACEPARENT).unwrap().to_owned();
        assert!(
            first.starts_with(&format!("00-{TRACE}-")) && first.ends_with("-01") && !first.contains(PARENT),
            "{first}"
        );
        assert_eq!(text(&head, &TRACESTATE), Some("a=1"));
        let record = span.so_far().unwrap();
        assert_eq!((record.ids.parent, record.state), (u64::from_str_radix(PARENT, 16).ok(), "a=1"));
        span.again();
        span.write(&mut head);
        assert_ne!(text(&head, &TRACEPARENT), Some(&*first));
        let again = span.so_far().unwrap();
        assert_eq!((again.ids.trace, again.ids.parent, again.resent), (record_trace(), Some(parent()), 1));
    }

    fn record_trace() -> u128 {
        u128::from_str_radix(TRACE, 16).unwrap()
    }

    fn parent() -> u64 {
        u64::from_str_radix(PARENT, 16).unwrap()
    }

    #[test]
    fn whoever_does_not_record_is_let_be() {
        let w3c = format!("00-{TRACE}-{PARENT}-00");
        let single = format!("{TRACE}-{PARENT}-0");
        for head in [
            &[("traceparent", &*w3c), ("b3", "1")][..],
            &[("b3", &*single)],
            &[("b3", "0")],
            &[("x-b3-traceid", TRACE), ("x-b3-spanid", PARENT), ("x-b3-sampled", "0")],
            &[("x-b3-sampled", "false")],
        ] {
            assert_eq!(written(head, always()), fields(head), "{head:?}");
        }
        let undecided = [("b3", &*format!("{TRACE}-{PARENT}"))];
        assert_eq!(written(&undecided, Sampling::of(0.0)), fields(&undecided));
    }

    #[test]
    fn a_trace_that_begins_here_is_recorded_by_its_share_and_says_so() {
        for (sampling, flags) in [(always(), "-01"), (Sampling::of(0.0), "-00")] {
            for broken in ["", "00-0-0-01", &format!("00-{TRACE}-{PARENT}-01-more"), &format!("ff-{TRACE}-{PARENT}-01")]
            {
                let head = written(&[("traceparent", broken), ("tracestate", "of=another")], sampling);
                let said = text(&head, &TRACEPARENT).unwrap();
                assert!(said.len() == 55 && said.ends_with(flags) && !said.contains(TRACE), "{broken}: {said}");
                assert_eq!(text(&head, &TRACESTATE), None, "{broken}");
            }
        }
        let mut root = Span::begin(&HeaderMap::new(), always()).unwrap();
        let first = root.so_far().unwrap().ids;
        root.again();
        assert_eq!((first.parent, root.so_far().unwrap().ids.parent), (None, Some(first.span)), "one root");
    }

    #[test]
    fn b3_is_answered_in_the_form_it_came() {
        let single = written(&[("b3", &format!("{TRACE}-{PARENT}-d"))], Sampling::of(0.0));
        let said = text(&single, &HeaderName::from_static("b3")).unwrap();
        assert!(said.starts_with(&format!("{TRACE}-")) && said.ends_with("-d") && !said.contains(PARENT), "{said}");
        assert!(text(&single, &TRACEPARENT).is_some_and(|w3c| w3c.starts_with(&format!("00-{TRACE}"))));

        let short = &TRACE[16..];
        let multi = written(&[("x-b3-traceid", short), ("x-b3-spanid", PARENT), ("x-b3-sampled", "1")], always());
        let said = |name| text(&multi, &HeaderName::from_static(name));
        assert_eq!((said("x-b3-traceid"), said("x-b3-parentspanid")), (Some(short), Some(PARENT)));
        assert!(said("x-b3-spanid").is_some_and(|span| span.len() == 16 && span != PARENT));
        assert_eq!((said("x-b3-sampled"), said("b3")), (Some("1"), None));

        let asked = written(&[("x-b3-flags", "1")], Sampling::of(0.0));
        assert!(asked.contains_key("x-b3-traceid") && !asked.contains_key("x-b3-sampled"), "{asked:?}");
    }
}
