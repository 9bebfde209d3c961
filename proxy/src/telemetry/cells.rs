//! What a worker counts in: plain numbers of its own thread.

use std::time::Duration;

/// Upper bounds of the request duration in seconds: those of OpenTelemetry's `http.server.request.duration`, and
/// three finer ones, because a neighbour in the mesh often answers within a millisecond, and two for what takes longer than most
/// wait.
pub(super) const DURATION_BOUNDS: Bounds = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
];

/// Upper bounds of the detection time in seconds.
pub(super) const DETECTION_BOUNDS: Bounds = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Upper bounds in seconds.
pub(super) type Bounds = [f64; BOUNDS];

/// Bounds of every histogram, so that all are of one type.
const BOUNDS: usize = 19;

/// Observations by size, and their sum in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// One more than there are bounds: the last holds what is above them all. Not cumulative.
    pub(super) counts: [u64; BOUNDS + 1],
    pub(super) sum: f64,
}

impl Histogram {
    pub(super) fn observe(&mut self, bounds: &Bounds, value: Duration) {
        let seconds = value.as_secs_f64();
        self.counts[bounds.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What is counted of the requests that share all labels.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RequestCell {
    pub(super) count: u64,
    pub(super) duration: Histogram,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    /// The last of them that is part of a trace which somebody records.
    pub(super) example: Option<Example>,
}

/// One request as an example of what a bucket counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Example {
    /// The id of its trace, in hex.
    pub(super) trace: [u8; 32],
    /// How long it took.
    pub(super) seconds: f64,
}

impl Example {
    /// The request with this `traceparent` (W3C Trace Context section 3.2), if its trace is recorded.
    pub(super) fn of(traceparent: &str, duration: Duration) -> Option<Self> {
        let fields: &[u8; 55] = traceparent.as_bytes().try_into().ok()?;
        let trace: [u8; 32] = fields[3..35].try_into().ok()?;
        let is_recorded = matches!(fields[54], b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f');
        let is_whole = fields[2] == b'-' && fields[35] == b'-' && trace.iter().all(u8::is_ascii_hexdigit);
        (is_recorded && is_whole).then_some(Self { trace, seconds: duration.as_secs_f64() })
    }
}

impl RequestCell {
    pub(super) fn add(&mut self, duration: Duration, bytes_received: u64, bytes_sent: u64) {
        self.count += 1;
        self.duration.observe(&DURATION_BOUNDS, duration);
        self.bytes_received += bytes_received;
        self.bytes_sent += bytes_sent;
    }
}
