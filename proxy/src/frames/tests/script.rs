//! Anything that a connection of frames may be put through, as bytes: what its own end does, and what its peer says. Tests
//! make such bytes up at random, and libFuzzer (`proxy/fuzz`) looks for those that lead somewhere new.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version};
use tokio::time::Instant;

use crate::frames::{
    Asked, Broken, CONNECTION_WINDOW, Code, End, MAX_HEAD, Next, STREAM_WINDOW, Session, Stream, encode_request,
    encode_response, request, response, trailers,
};

/// Bytes that an end may keep beside the content and the heads of its streams: a frame that is not whole, and output, of
/// which more than a mebibyte stops the reading, with what a script itself says.
const BESIDE: usize = 4 * MAX_HEAD + (2 << 20);

/// What is sent as content, over and over: every byte depends on its place.
static PATTERN: [u8; (1 << 16) + PERIOD] = {
    let mut pattern = [0; (1 << 16) + PERIOD];
    let mut at = 0;
    while at < pattern.len() {
        pattern[at] = (at % PERIOD) as u8;
        at += 1;
    }
    pattern
};
const PERIOD: usize = 251;

/// Plays `bytes`: the first says which ends there are, the others are steps.
///
/// # Panics
/// A promise of the wire is broken.
pub(crate) fn play(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let mut steps = Steps(rest);
    match first % 3 {
        0 => against_a_stranger(&mut Side::new(true, false), &mut steps),
        1 => against_a_stranger(&mut Side::new(false, false), &mut steps),
        _ => between_two(&mut steps),
    }
}

/// What a script has left.
struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number below 65536, most often a small one.
    fn number(&mut self) -> Option<usize> {
        let small = self.byte()?;
        if small < 0xc0 {
            Some(small.into())
        } else {
            Some(usize::from(small & 0x3f) << 10 | usize::from(self.byte()?))
        }
    }
}

/// A stream with what its end has done on it.
struct Held {
    stream: Rc<RefCell<Stream>>,
    /// It may say no head any more.
    headed: bool,
    /// Nobody reads it any more.
    dropped: bool,
    /// Its reader was told that it is over.
    over: bool,
    sent: usize,
    read: usize,
}

/// One end, used as its driver, its requests and its answers use it.
struct Side {
    calls: bool,
    /// Its peer keeps to the rules, and so does it.
    honest: bool,
    session: Session,
    streams: Vec<Held>,
    pings: usize,
}

fn idle() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Side {
    fn new(calls: bool, honest: bool) -> Self {
        Self { calls, honest, session: Session::new(calls, Instant::now()), streams: Vec::new(), pings: 0 }
    }

    fn hold(&mut self, stream: Rc<RefCell<Stream>>, headed: bool) {
        self.streams.push(Held { stream, headed, dropped: false, over: false, sent: 0, read: 0 });
    }

    /// Does one thing that an end may do of its own accord.
    fn act(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        let what = steps.byte()?;
        let ends = what & 0x80 != 0;
        match what % 8 {
            0 if self.calls => self.open(ends, steps.number()?),
            0 => self.answer(ends, steps.number()?),
            1 => self.send(ends, steps.number()?, steps.number()?),
            2 => self.finish(ends, steps.number()?),
            3 => self.reset(steps.number()?, ends),
            4 => self.read(steps.number()?),
            5 => self.drop_reader(ends, steps.number()?),
            6 if self.pings < 100 => {
                self.pings += 1;
                self.session.ping();
            }
            6 => {}
            _ => match steps.byte()? % 8 {
                0 if self.calls => self.session.leave(),
                0 => self.session.go_away(),
                1 if !self.calls => self.session.refuse(),
                _ if !self.honest => self.session.written(self.session.output().len().min(1000)),
                _ => {}
            },
        }
        Some(())
    }

    fn pick(&mut self, which: usize) -> Option<&mut Held> {
        let count = self.streams.len();
        (count > 0).then(|| &mut self.streams[which % count])
    }

    fn open(&mut self, ends: bool, fields: usize) {
        let headers = some_fields(fields);
        let asked = Asked {
            method: &Method::POST,
            version: Version::HTTP_11,
            authority: "ledger.bank:8080",
            path_and_query: "/transfers?dry=1",
            headers: &headers,
            spelling: None,
            becomes: None,
        };
        if let Ok(stream) = self.session.open(ends, |out| encode_request(out, &asked)) {
            self.hold(stream, true);
        }
    }

    fn answer(&mut self, ends: bool, which: usize) {
        let Some(held) = self.pick(which).filter(|held| !held.headed) else { return };
        held.headed = true;
        let stream = Rc::clone(&held.stream);
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.headers = some_fields(which);
        self.session.answer(&stream, ends, |out| encode_response(out, &parts));
        if ends {
            self.session.answered(&stream);
        }
    }

    fn send(&mut self, ends: bool, which: usize, length: usize) {
        let Some(held) = self.pick(which).filter(|held| held.headed && !held.stream.borrow().is_over()) else { return };
        let (stream, at) = (Rc::clone(&held.stream), held.sent % PERIOD);
        let mut content = Bytes::from_static(&PATTERN).slice(at..at + length);
        if length > 0 {
            let _ = self.session.send(&stream, &mut content, ends, &idle());
        }
        if let Some(held) = self.pick(which) {
            held.sent += length - content.len();
        }
    }

    fn finish(&mut self, with_trailers: bool, which: usize) {
        let Some(held) = self.pick(which).filter(|held| held.headed) else { return };
        let stream = Rc::clone(&held.stream);
        let fields = some_fields(which);
        self.session.finish(&stream, with_trailers.then_some(&fields));
    }

    fn reset(&mut self, which: usize, done: bool) {
        let Some(held) = self.pick(which) else { return };
        let stream = Rc::clone(&held.stream);
        self.session.reset(&stream, if done { Code::Done } else { Code::Cancelled });
    }

    /// Reads what is there, as much of it as one piece.
    fn read(&mut self, which: usize) {
        let (calls, honest) = (self.calls, self.honest);
        let Some(held) = self.pick(which).filter(|held| !held.dropped && !held.over) else { return };
        let stream = Rc::clone(&held.stream);
        if calls && let Poll::Ready(Ok(head)) = stream.borrow_mut().poll_head(&idle()) {
            let _ = response(head).is_ok();
        }
        let next = stream.borrow_mut().poll_next(&idle());
        match next {
            Poll::Ready(Next::Content(content)) => {
                let is_right = |(at, byte): (usize, &u8)| usize::from(*byte) == (held.read + at) % PERIOD;
                assert!(!honest || content.iter().enumerate().all(is_right), "content after {} bytes", held.read);
                held.read += content.len();
                self.session.consumed(&stream, content.len());
            }
            Poll::Ready(Next::Trailers(fields)) => {
                let _ = trailers(fields).is_ok();
            }
            Poll::Ready(Next::Nothing | Next::Cut(_)) => held.over = true,
            Poll::Pending => {}
        }
    }

    fn drop_reader(&mut self, of_tunnel: bool, which: usize) {
        let calls = self.calls;
        let Some(held) = self.pick(which).filter(|held| !held.dropped) else { return };
        held.dropped = true;
        let stream = Rc::clone(&held.stream);
        self.session.ignore(&stream);
        match (of_tunnel, calls) {
            (true, _) => self.session.drop_tunnel(&stream),
            (false, true) => self.session.drop_answer(&stream),
            (false, false) => self.session.drop_request(&stream),
        }
    }

    /// Hears what a stranger says, in two parts, as its driver would have it read.
    fn hear(&mut self, said: &[u8], cut: usize) -> Result<(), Broken> {
        if self.session.is_stuffed() {
            self.session.written(self.session.output().len());
        }
        let (one, other) = said.split_at(cut % (said.len() + 1));
        let received = self.session.receive(one).and_then(|()| self.session.receive(other));
        self.take_arrived();
        self.check();
        received
    }

    /// Takes requests that came.
    fn take_arrived(&mut self) {
        while let Some(arrived) = self.session.arrived() {
            let _ = request(arrived.head).is_ok();
            self.hold(arrived.stream, false);
        }
    }

    /// What is kept is bounded, whatever the peer says.
    fn check(&self) {
        let held = self.session.held();
        let bound = CONNECTION_WINDOW + self.streams.len() * MAX_HEAD + BESIDE;
        assert!(held <= bound, "{held} bytes are kept for {} streams", self.streams.len());
        for held in &self.streams {
            let unread = held.stream.borrow().held();
            assert!(unread <= STREAM_WINDOW + 2 * MAX_HEAD, "{unread} bytes lie unread on one stream");
        }
    }

    /// After its end nothing waits.
    fn ends(&mut self, end: End) {
        self.session.cut(end);
        assert!(self.session.is_over() && self.session.is_closed());
        for held in &self.streams {
            let mut stream = held.stream.borrow_mut();
            loop {
                match stream.poll_next(&idle()) {
                    Poll::Ready(Next::Content(_) | Next::Trailers(_)) => {}
                    Poll::Ready(Next::Nothing | Next::Cut(_)) => break,
                    Poll::Pending => panic!("somebody waits for a connection that has ended"),
                }
            }
        }
    }
}

fn some_fields(number: usize) -> HeaderMap {
    let value = HeaderValue::from_static("a value of some length");
    let names = ["content-type", "x-request-id", "grpc-status", "set-cookie"].map(HeaderName::from_static);
    names.iter().cycle().take(number % 20).map(|name| (name.clone(), value.clone())).collect()
}

/// One end, and a peer that says anything: frames of any kind, one of them many times, and bytes that are none.
fn against_a_stranger(end: &mut Side, steps: &mut Steps<'_>) {
    while let Some(step) = steps.byte() {
        let (said, times) = match step % 4 {
            0 | 1 if end.act(steps).is_some() => continue,
            0 | 1 => break,
            2 => (frame(steps), 1 << (step >> 5)),
            _ => (raw(steps), 1),
        };
        let Some(said) = said else { break };
        for _ in 0..times {
            if let Err(broken) = end.hear(&said, step.into()) {
                return end.ends(End::Broken(broken.0));
            }
        }
    }
    end.ends(End::Lost);
}

/// A frame with a header that is right, and any payload.
fn frame(steps: &mut Steps<'_>) -> Option<Vec<u8>> {
    let (kind, stream, length) = (steps.byte()?, steps.byte()? % 16, steps.number()?);
    let [_, a, b, c] = u32::try_from(length).unwrap_or_default().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, 0, 0, 0, stream];
    match kind & 0x7f {
        // Heads and credit are small, and their content counts.
        1 | 2 | 4 if length < 256 => bytes.extend((0..length).map(|_| steps.byte().unwrap_or_default())),
        _ => bytes.extend_from_slice(&PATTERN[..length]),
    }
    Some(bytes)
}

fn raw(steps: &mut Steps<'_>) -> Option<Vec<u8>> {
    let length = steps.number()?.min(64).min(steps.0.len());
    let (bytes, rest) = steps.0.split_at(length);
    steps.0 = rest;
    Some(bytes.to_vec())
}

/// Two ends that keep to the rules: whatever they do, neither takes the other for a peer that breaks them, and content comes
/// as it was sent.
fn between_two(steps: &mut Steps<'_>) {
    let (mut caller, mut called) = (Side::new(true, true), Side::new(false, true));
    while let Some(step) = steps.byte() {
        let moved = match step % 4 {
            0 => caller.act(steps),
            1 => called.act(steps),
            2 => steps.number().map(|bytes| pass(&mut caller, &mut called, bytes)),
            _ => steps.number().map(|bytes| pass(&mut called, &mut caller, bytes)),
        };
        if moved.is_none() {
            break;
        }
        caller.check();
        called.check();
    }
    while !caller.session.output().is_empty() || !called.session.output().is_empty() {
        pass(&mut caller, &mut called, usize::MAX);
        pass(&mut called, &mut caller, usize::MAX);
    }
    caller.ends(End::Lost);
    called.ends(End::Lost);
}

/// Moves up to so many bytes that one end has said.
fn pass(from: &mut Side, to: &mut Side, bytes: usize) {
    let bytes = bytes.min(from.session.output().len());
    let said = from.session.output()[..bytes].to_vec();
    from.session.written(bytes);
    let received = to.session.receive(&said);
    assert_eq!(received, Ok(()), "who keeps to the rules is taken for one who breaks them");
    to.take_arrived();
}
