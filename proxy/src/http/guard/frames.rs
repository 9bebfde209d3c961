//! Finds frame headers (RFC 9113 section 4.1) in a stream of bytes, however it is cut.

use crate::budget::Kind;

/// Length of the client's connection preface.
const PREFACE: usize = 24;
const HEADER: usize = 9;

/// The kind that a type of frame has.
const fn kind(code: u8) -> Kind {
    match code {
        0 => Kind::Data,
        1 => Kind::Headers,
        2 => Kind::Priority,
        3 => Kind::Reset,
        4 => Kind::Settings,
        6 => Kind::Ping,
        8 => Kind::WindowUpdate,
        9 => Kind::Continuation,
        _ => Kind::Other,
    }
}

/// What has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// The header of a frame.
    Frame(Frame),
    /// The code for which a stream was reset, behind the header that said so (RFC 9113 section 6.4).
    Reset { stream: u32, code: u32 },
}

/// What a frame header says that the guard goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) stream: u32,
    pub(super) length: usize,
}

/// The position in a stream of frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes until the next frame header.
    skip: usize,
    header: [u8; HEADER],
    have: usize,
    /// What the bytes until the next frame header are.
    within: Option<Kind>,
    settings: Settings,
    reset: Reset,
}

/// Reads why a stream is reset (RFC 9113 section 6.4).
#[derive(Debug, Default)]
struct Reset {
    stream: u32,
    code: u32,
    have: usize,
}

impl Reset {
    /// What it tells, when these bytes are its last.
    fn pass(&mut self, bytes: &[u8]) -> Option<Passed> {
        let before = self.have;
        for byte in bytes.iter().take(size_of::<u32>() - before) {
            self.code = self.code << 8 | u32::from(*byte);
            self.have += 1;
        }
        let is_told = before < self.have && self.have == size_of::<u32>();
        is_told.then_some(Passed::Reset { stream: self.stream, code: self.code })
    }
}

/// Reads the settings of a frame (RFC 9113 section 6.5.1).
#[derive(Debug, Default)]
struct Settings {
    entry: [u8; 6],
    have: usize,
    max_streams: Option<u32>,
}

impl Settings {
    const MAX_CONCURRENT_STREAMS: u16 = 3;

    fn pass(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.entry[self.have] = *byte;
            self.have += 1;
            if self.have == self.entry.len() {
                self.have = 0;
                let [a, b, value @ ..] = self.entry;
                if u16::from_be_bytes([a, b]) == Self::MAX_CONCURRENT_STREAMS {
                    self.max_streams = Some(u32::from_be_bytes(value));
                }
            }
        }
    }
}

impl Frames {
    /// Begins where a client begins.
    pub(super) fn after_preface() -> Self {
        Self { skip: PREFACE, ..Self::default() }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// How many streams the sender takes, when it has said so.
    pub(super) const fn max_streams(&self) -> Option<u32> {
        self.settings.max_streams
    }

    /// Passes over `bytes` and calls `each` for every frame header and code completed in them, until it says `false`.
    pub(super) fn pass(&mut self, mut bytes: &[u8], mut each: impl FnMut(Passed) -> bool) -> bool {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            match self.within {
                Some(Kind::Settings) => self.settings.pass(&bytes[..skipped]),
                Some(Kind::Reset) if self.reset.pass(&bytes[..skipped]).is_some_and(|told| !each(told)) => {
                    return false;
                }
                _ => {}
            }
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < HEADER {
                return true;
            }
            let [a, b, c, kind, _, stream @ ..] = self.header;
            self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
            self.have = 0;
            let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
            let kind = self::kind(kind);
            self.within = Some(kind);
            self.settings.have = 0;
            self.reset = Reset { stream, ..Reset::default() };
            if !each(Passed::Frame(Frame { kind, stream, length: self.skip })) {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(parts: &[&[u8]]) -> Vec<Frame> {
        let mut frames = Frames::after_preface();
        let mut seen = Vec::new();
        for part in parts {
            frames.pass(part, |passed| {
                seen.extend(if let Passed::Frame(frame) = passed { Some(frame) } else { None });
                true
            });
        }
        seen
    }

    fn stream_of(frames: &[(u8, u8, u32)]) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, len, stream) in frames {
            bytes.extend([0, 0, *len, *kind, 0]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(std::iter::repeat_n(0xff, usize::from(*len)));
        }
        bytes
    }

    #[test]
    fn headers_are_found_between_payloads() {
        let bytes = stream_of(&[(4, 0, 0), (1, 30, 1), (0, 255, 1), (6, 8, 0)]);
        let kinds: Vec<Kind> = seen(&[&bytes]).into_iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [Kind::Settings, Kind::Headers, Kind::Data, Kind::Ping]);
    }

    #[test]
    fn the_number_of_streams_is_read_however_the_bytes_are_cut() {
        let mut bytes = vec![0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 7];
        bytes.extend([0, 0, 6, 0, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0, 9]); // DATA that looks like settings
        for cut in 1..bytes.len() {
            let mut frames = Frames::default();
            bytes.chunks(cut).for_each(|part| _ = frames.pass(part, |_| true));
            assert_eq!(frames.max_streams(), Some(7), "cut every {cut} bytes");
        }
    }

    #[test]
    fn why_streams_are_reset_is_read_however_the_bytes_are_cut() {
        let reset = |(stream, code): (u8, u8)| vec![0, 0, 4, 3, 0, 0, 0, 0, stream, 0, 0, 0, code];
        let wanted = [(1, 0), (3, 1), (5, 7), (7, 8)];
        let bytes: Vec<u8> = wanted.into_iter().flat_map(reset).collect();
        for cut in 1..=bytes.len() {
            let (mut frames, mut read) = (Frames::default(), Vec::new());
            let mut note = |passed| {
                read.extend(if let Passed::Reset { stream, code } = passed { Some((stream, code)) } else { None });
                true
            };
            bytes.chunks(cut).for_each(|part| _ = frames.pass(part, &mut note));
            assert_eq!(read, wanted.map(|(stream, code)| (u32::from(stream), u32::from(code))), "every {cut} bytes");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0u32..9), 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let bytes = stream_of(&frames);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let whole = seen(&[&bytes]);
            prop_assert_eq!(whole.len(), frames.len());
            prop_assert_eq!(seen(&parts), whole);
        }
    }
}
