//! Both halves of a connection against each other, over a pipe that cuts bytes anywhere and may end at any of them.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version};
use hyper::ext::ReasonPhrase;
use proptest::prelude::*;
use tokio::time::Instant;

use super::{wire::HEADER, *};

mod script;

type Held = Rc<RefCell<Stream>>;

/// A caller and whom it calls.
struct Pair {
    caller: Session,
    called: Session,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        Self { caller: Session::new(true, now), called: Session::new(false, now) }
    }

    /// Moves what each has said, in pieces of these sizes, until there is nothing to move.
    fn exchange(&mut self, cuts: &[usize]) {
        let mut cuts = cuts.iter().copied().cycle();
        loop {
            let moved = pass(&mut self.caller, &mut self.called, &mut cuts)
                + pass(&mut self.called, &mut self.caller, &mut cuts);
            if moved == 0 {
                return;
            }
        }
    }

    fn open(&mut self, ends: bool) -> Held {
        let headers = HeaderMap::new();
        self.caller.open(ends, |out| encode_request(out, &asked(&headers))).unwrap()
    }
}

fn pass(from: &mut Session, to: &mut Session, cuts: &mut impl Iterator<Item = usize>) -> usize {
    let waiting = from.output().len();
    while !from.output().is_empty() {
        let cut = cuts.next().unwrap_or(1).clamp(1, from.output().len());
        to.receive(&from.output()[..cut]).unwrap();
        from.written(cut);
    }
    waiting
}

fn asked(headers: &HeaderMap) -> Asked<'_> {
    Asked {
        method: &Method::POST,
        version: Version::HTTP_11,
        authority: "ledger.bank:8080",
        path_and_query: "/transfers?dry=1",
        headers,
        spelling: None,
        becomes: None,
    }
}

fn idle() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// All that can be read now, and how it goes on; `None` when it waits.
fn read(session: &mut Session, stream: &Held) -> (Vec<u8>, Option<Next>) {
    let mut all = Vec::new();
    loop {
        let next = stream.borrow_mut().poll_next(&idle());
        match next {
            Poll::Ready(Next::Content(content)) => {
                session.consumed(stream, content.len());
                all.extend_from_slice(&content);
            }
            Poll::Ready(next) => return (all, Some(next)),
            Poll::Pending => return (all, None),
        }
    }
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    let name = prop_oneof!["[a-z][a-z0-9-]{0,20}", Just("content-type".to_owned()), Just("set-cookie".to_owned())];
    let name = name.prop_filter("left out", |name| name != "host");
    proptest::collection::vec((name, "[ -~]{0,300}"), 0..20).prop_map(|fields| {
        let parsed = fields.into_iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(&value).unwrap())
        });
        let mut map = HeaderMap::new();
        parsed.for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    })
}

proptest! {
    #[test]
    fn a_head_arrives_as_it_was(
        headers in fields(),
        method in prop_oneof!["GET", "POST", "[A-Z]{1,10}"],
        path in "/[a-z0-9/;,=%._-]{0,200}",
        code in 100_u16..1000,
        reason in proptest::option::of("[A-Za-z ]{1,30}"),
        spelling in proptest::option::of("[A-Za-z,-]{1,60}"),
        becomes in proptest::option::of("[a-z/0-9]{0,20}"),
    ) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let spelling = spelling.map(|spelling| HeaderValue::from_str(&spelling).unwrap());
        let asked = Asked { method: &method, path_and_query: &path, spelling: spelling.as_ref(), ..asked(&headers) };
        let asked = Asked { becomes: becomes.as_deref().map(str::as_bytes), ..asked };
        let mut out = Vec::new();
        encode_request(&mut out, &asked);
        let (parts, told) = request(out.into()).unwrap();
        prop_assert_eq!((&parts.method, &parts.headers), (&method, &headers));
        prop_assert_eq!((parts.uri.authority().unwrap().as_str(), parts.uri.path()), (asked.authority, &*path));
        prop_assert_eq!((told.version, told.spelling), (Version::HTTP_11, spelling));
        prop_assert_eq!(told.becomes, becomes.map(Bytes::from));

        let (mut parts, ()) = Response::builder().status(code).body(()).unwrap().into_parts();
        parts.headers = headers;
        let phrase = |parts: &http::response::Parts| parts.extensions.get::<ReasonPhrase>().cloned();
        if let Some(reason) = reason {
            parts.extensions.insert(ReasonPhrase::try_from(reason).unwrap());
        }
        let mut out = Vec::new();
        encode_response(&mut out, &parts);
        let (read, _) = response(out.into()).unwrap();
        prop_assert_eq!(phrase(&read), phrase(&parts));
        prop_assert_eq!((read.status, read.headers), (parts.status, parts.headers));
    }

    #[test]
    fn what_is_no_head_is_refused_and_breaks_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        let _ = (request(bytes.clone()).is_ok(), response(bytes.clone()).is_ok(), trailers(bytes).is_ok());
    }

    #[test]
    fn bytes_of_a_stranger_break_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..4000), calls: bool) {
        let mut session = Session::new(calls, Instant::now());
        let _ = session.receive(&bytes);
        while session.arrived().is_some() {}
    }

    /// libFuzzer plays the same (`proxy/fuzz`), for longer and with an aim.
    #[test]
    fn whatever_is_done_and_said_what_is_kept_is_bounded_and_nobody_waits_in_vain(
        script in proptest::collection::vec(any::<u8>(), 0..3000),
    ) {
        script::play(&script);
    }

    /// What a peer says that is nearly right breaks nothing, and nothing grows beyond its bound.
    #[test]
    fn bytes_that_were_changed_break_nothing(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
        cuts in proptest::collection::vec(1_usize..5000, 1..6),
    ) {
        let mut pair = Pair::new();
        let streams = [pair.open(false), pair.open(true), pair.open(false)];
        let _ = pair.caller.send(&streams[0], &mut Bytes::from(vec![7; 20_000]), false, &idle());
        pair.caller.reset(&streams[2], Code::Cancelled);
        pair.caller.finish(&streams[0], Some(&HeaderMap::new()));
        pair.caller.leave();
        let mut bytes = pair.caller.output().to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            if pair.called.receive(piece).is_err() || after.is_empty() {
                break;
            }
            rest = after;
        }
        while let Some(arrived) = pair.called.arrived() {
            let _ = request(arrived.head).is_ok();
            prop_assert!(read(&mut pair.called, &arrived.stream).0.len() <= STREAM_WINDOW);
        }
    }

    /// Wherever the connection ends, each end knows of every stream that it is over, and has all that came before.
    #[test]
    fn a_connection_may_end_anywhere(at in 0_usize..40_000) {
        let mut pair = Pair::new();
        let streams = [pair.open(false), pair.open(true)];
        let mut content = Bytes::from(vec![7; 30_000]);
        let _ = pair.caller.send(&streams[0], &mut content, true, &idle());
        let bytes = pair.caller.output();
        pair.called.receive(&bytes[..at.min(bytes.len())]).unwrap();
        pair.called.cut(End::Lost);
        pair.caller.cut(End::Lost);
        for stream in &streams {
            prop_assert_eq!(stream.borrow_mut().poll_head(&idle()), Poll::Ready(Err(End::Lost)));
        }
        prop_assert!(pair.called.is_over() && pair.caller.is_closed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Requests and answers of all sizes come whole and in order, however the bytes between are cut.
    #[test]
    fn messages_come_whole_however_bytes_are_cut(
        sizes in proptest::collection::vec((0_usize..3 * STREAM_WINDOW / 2, 0_usize..200_000), 1..6),
        cuts in proptest::collection::vec(1_usize..70_000, 1..20),
    ) {
        let mut pair = Pair::new();
        let pattern: Bytes = (0..2 * STREAM_WINDOW).map(|at| (at * 7 + at / 251) as u8).collect();
        let content = |size: usize, salt: usize| pattern.slice(salt..salt + size);
        let mut calls: Vec<_> = sizes.iter().enumerate().map(|(salt, (up, _))| {
            (pair.open(*up == 0), content(*up, salt), Vec::new(), None, *up > 0)
        }).collect();
        let mut answers: Vec<(Held, Vec<u8>, Option<Bytes>)> = Vec::new();
        for _ in 0..10_000 {
            for (stream, left, ..) in &mut calls {
                if !left.is_empty() {
                    let _ = pair.caller.send(stream, left, true, &idle());
                }
            }
            pair.exchange(&cuts);
            while let Some(arrived) = pair.called.arrived() {
                request(arrived.head).unwrap();
                answers.push((arrived.stream, Vec::new(), None));
            }
            for (index, (stream, came, left)) in answers.iter_mut().enumerate() {
                let (more, next) = read(&mut pair.called, stream);
                came.extend(more);
                if matches!(next, Some(Next::Nothing)) && left.is_none() {
                    let body = content(sizes[index].1, index);
                    let (parts, ()) = Response::new(()).into_parts();
                    pair.called.answer(stream, body.is_empty(), |out| encode_response(out, &parts));
                    *left = Some(body);
                }
                if let Some(left) = left.as_mut().filter(|left| !left.is_empty()) {
                    let _ = pair.called.send(stream, left, true, &idle());
                }
            }
            pair.exchange(&cuts);
            let mut all = true;
            for (stream, _, came, end, _) in &mut calls {
                if stream.borrow_mut().poll_head(&idle()).is_ready() || end.is_some() {
                    *end = end.or(Some(()));
                    let (more, next) = read(&mut pair.caller, stream);
                    came.extend(more);
                    all &= matches!(next, Some(Next::Nothing));
                } else {
                    all = false;
                }
            }
            if all {
                break;
            }
        }
        for (index, (_, _, came, ..)) in calls.iter().enumerate() {
            prop_assert!(*came == content(sizes[index].1, index), "the answer of {index}");
            prop_assert!(answers[index].1 == content(sizes[index].0, index), "the request of {index}");
        }
        prop_assert!(!pair.caller.is_busy() && !pair.called.is_busy(), "nothing is left of them");
    }
}

#[test]
fn a_reader_that_pauses_holds_up_nobody_else_and_no_more_than_a_window() {
    let mut pair = Pair::new();
    let (slow, quick) = (pair.open(false), pair.open(false));
    let mut content = Bytes::from(vec![1; 2 * STREAM_WINDOW]);
    while pair.caller.send(&slow, &mut content, true, &idle()).is_pending() {
        if pair.caller.output().is_empty() {
            break;
        }
        pair.exchange(&[usize::MAX]);
    }
    assert_eq!(content.len(), STREAM_WINDOW, "its reader has read nothing");
    let mut other = Bytes::from(vec![2; 1000]);
    assert!(pair.caller.send(&quick, &mut other, true, &idle()).is_ready());
    pair.exchange(&[usize::MAX]);
    let slow_end = pair.called.arrived().unwrap().stream;
    let quick_end = pair.called.arrived().unwrap().stream;
    assert_eq!(read(&mut pair.called, &quick_end).0.len(), 1000);
    assert_eq!(read(&mut pair.called, &slow_end).0.len(), STREAM_WINDOW);
    pair.exchange(&[usize::MAX]);
    let mut rest = 0;
    while pair.caller.send(&slow, &mut content, true, &idle()).is_pending() {
        pair.exchange(&[usize::MAX]);
        rest += read(&mut pair.called, &slow_end).0.len();
    }
    pair.exchange(&[usize::MAX]);
    let (last, next) = read(&mut pair.called, &slow_end);
    assert!(rest + last.len() == STREAM_WINDOW && matches!(next, Some(Next::Nothing)));
}

#[test]
fn trailers_come_after_the_content() {
    let mut pair = Pair::new();
    let stream = pair.open(true);
    pair.exchange(&[3]);
    let answer = pair.called.arrived().unwrap().stream;
    let (parts, ()) = Response::new(()).into_parts();
    pair.called.answer(&answer, false, |out| encode_response(out, &parts));
    assert!(pair.called.send(&answer, &mut Bytes::from_static(b"hello"), false, &idle()).is_ready());
    let fields = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    pair.called.finish(&answer, Some(&fields));
    pair.exchange(&[1]);
    assert!(stream.borrow_mut().poll_head(&idle()).is_ready());
    let (content, next) = read(&mut pair.caller, &stream);
    let Some(Next::Trailers(came)) = next else { panic!("{next:?}") };
    assert_eq!((&*content, trailers(came).unwrap()), (&b"hello"[..], fields));
    assert!(!pair.caller.is_busy() && !pair.called.is_busy());
}

#[test]
fn trailers_that_nobody_reads_are_bounded_for_all_streams_together() {
    let mut pair = Pair::new();
    let fields =
        HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_bytes(&[b'x'; 60_000]).unwrap())]);
    let send = |pair: &mut Pair| {
        let stream = pair.open(false);
        pair.caller.finish(&stream, Some(&fields));
        pair.exchange(&[usize::MAX]);
        (stream, pair.called.arrived().unwrap().stream)
    };
    let all: Vec<_> = (0..100).map(|_| send(&mut pair)).collect();
    let refused = all.iter().filter(|(near, _)| near.borrow().ended_early() == Some(End::Reset(Code::TooLarge)));
    assert_eq!(100 - refused.count(), MAX_TRAILERS / 60_000);
    let (_, next) = read(&mut pair.called, &all[0].1);
    assert!(matches!(next, Some(Next::Trailers(_))), "{next:?}");
    assert_eq!(send(&mut pair).0.borrow().ended_early(), None, "what is read makes room");
    drop(all);
}

#[test]
fn an_answer_that_is_whole_stays_so_when_the_rest_of_its_request_is_not_needed() {
    let mut pair = Pair::new();
    let stream = pair.open(false);
    pair.exchange(&[usize::MAX]);
    let answer = pair.called.arrived().unwrap().stream;
    let (parts, ()) = Response::new(()).into_parts();
    pair.called.answer(&answer, true, |out| encode_response(out, &parts));
    pair.called.reset(&answer, Code::Done);
    pair.exchange(&[usize::MAX]);
    assert!(matches!(stream.borrow_mut().poll_head(&idle()), Poll::Ready(Ok(_))));
    assert!(stream.borrow().is_over(), "nobody sends the rest");
    assert!(matches!(read(&mut pair.caller, &stream).1, Some(Next::Nothing)));
    assert!(!pair.caller.is_busy() && !pair.called.is_busy());
}

#[test]
fn an_answer_needs_a_head_and_one_only() {
    for (what, said) in [("content", 0x80_u8), ("trailers", 0x82)] {
        let mut pair = Pair::new();
        let stream = pair.open(true);
        let bytes = [0, 0, 0, said, 0, 0, 0, 1];
        assert!(pair.caller.receive(&bytes).is_err(), "{what} without a head");
        pair.caller.cut(End::Broken("what it did"));
        assert!(matches!(stream.borrow_mut().poll_head(&idle()), Poll::Ready(Err(_))), "nobody waits for more");
    }
    let mut pair = Pair::new();
    let stream = pair.open(true);
    let head = [0, 0, 3, 1, 0, 0, 0, 1, 0, 200, 0];
    pair.caller.receive(&head).unwrap();
    assert!(stream.borrow_mut().poll_head(&idle()).is_ready());
    assert!(pair.caller.receive(&head).is_err(), "a second one");
}

#[test]
fn a_request_is_read_on_after_its_answer_for_as_long_as_somebody_reads() {
    let mut pair = Pair::new();
    let stream = pair.open(false);
    pair.exchange(&[usize::MAX]);
    let came = pair.called.arrived().unwrap().stream;
    let (parts, ()) = Response::new(()).into_parts();
    pair.called.answer(&came, true, |out| encode_response(out, &parts));
    pair.called.answered(&came);
    assert!(pair.caller.send(&stream, &mut Bytes::from_static(b"more"), false, &idle()).is_ready());
    pair.exchange(&[usize::MAX]);
    assert_eq!(read(&mut pair.called, &came).0, b"more");
    pair.called.ignore(&came);
    pair.called.drop_request(&came);
    pair.exchange(&[usize::MAX]);
    assert!(stream.borrow().is_over() && !pair.caller.is_busy() && !pair.called.is_busy());
}

#[test]
fn what_is_written_is_forgotten_though_more_always_waits() {
    let mut pair = Pair::new();
    let streams: Vec<_> = (0..8).map(|_| pair.open(false)).collect();
    let mut left: Vec<_> = streams.iter().map(|_| Bytes::from(vec![0; 900_000])).collect();
    for turn in 0..2_000 {
        for (stream, left) in streams.iter().zip(&mut left).filter(|(_, left)| !left.is_empty()) {
            let _ = pair.caller.send(stream, left, false, &idle());
        }
        let some = 1_000.min(pair.caller.output().len());
        pair.called.receive(&pair.caller.output()[..some]).unwrap();
        pair.caller.written(some);
        assert!(pair.caller.output().len() <= BACKLOG + SLICE + HEADER, "turn {turn}");
        assert!(pair.caller.held() <= 5 * BACKLOG, "turn {turn}: {} bytes", pair.caller.held());
    }
}

#[test]
fn streams_take_turns() {
    let mut pair = Pair::new();
    let (long, short) = (pair.open(false), pair.open(false));
    let mut much = Bytes::from(vec![0; STREAM_WINDOW]);
    let mut little = Bytes::from(vec![0; 3 * SLICE]);
    while pair.caller.output().len() < BACKLOG {
        assert!(pair.caller.send(&long, &mut much, true, &idle()).is_pending());
    }
    assert!(pair.caller.send(&short, &mut little, true, &idle()).is_pending());
    let mut turns = 0;
    while !little.is_empty() {
        pair.exchange(&[usize::MAX]);
        let _ = pair.caller.send(&long, &mut much, true, &idle()); // always first
        let _ = pair.caller.send(&short, &mut little, true, &idle());
        turns += 1;
    }
    assert!(turns <= 3 && much.len() > STREAM_WINDOW / 2, "{turns}, {}", much.len());
}

#[test]
fn what_came_before_a_reset_can_be_read() {
    let mut pair = Pair::new();
    let stream = pair.open(false);
    assert!(pair.caller.send(&stream, &mut Bytes::from_static(b"half"), false, &idle()).is_ready());
    pair.caller.reset(&stream, Code::BrokenOff);
    pair.exchange(&[1]);
    let came = pair.called.arrived().unwrap().stream;
    let (content, next) = read(&mut pair.called, &came);
    assert!(content == b"half" && matches!(next, Some(Next::Cut(End::Reset(Code::BrokenOff)))));
}

#[test]
fn whoever_is_asked_to_go_finishes_what_it_has_begun() {
    let mut pair = Pair::new();
    let stream = pair.open(true);
    pair.called.go_away();
    pair.exchange(&[usize::MAX]);
    assert!(pair.caller.is_closed() && !pair.called.is_over());
    assert_eq!(pair.caller.open(true, |_| {}).unwrap_err(), Code::Refused);
    let answer = pair.called.arrived().unwrap().stream;
    let (parts, ()) = Response::new(()).into_parts();
    pair.called.answer(&answer, true, |out| encode_response(out, &parts));
    pair.exchange(&[usize::MAX]);
    assert!(matches!(stream.borrow_mut().poll_head(&idle()), Poll::Ready(Ok(_))));
    assert!(pair.caller.is_over() && pair.called.is_over());
}

#[test]
fn what_a_peer_may_make_this_end_keep_is_bounded() {
    let frame = |kind: u8, stream: u32, length: usize| {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        bytes.push(kind);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(HEADER + length, 0);
        bytes
    };
    let session = || Session::new(false, Instant::now());
    let refused = |bytes: &[u8]| session().receive(bytes).unwrap_err();
    assert_eq!(refused(&frame(1, 1, MAX_HEAD + 1)), Broken("a frame that is too long"));
    assert_eq!(refused(&frame(1, 1, MAX_HEAD + 1)[..HEADER]), Broken("a frame that is too long"));
    assert_eq!(refused(&frame(0, 1, 10)), Broken("a frame of a stream that nobody has opened"));
    let twice = [frame(1, 1, 10), frame(1, 1, 10)].concat();
    assert_eq!(refused(&twice), Broken("a stream is opened twice"));

    let mut flooded = session();
    flooded.receive(&frame(1, 1, 10)).unwrap();
    let piece = frame(0, 1, 16_000);
    let taken = (0..100).take_while(|_| flooded.receive(&piece).is_ok()).count();
    assert!(taken * 16_000 <= STREAM_WINDOW, "{taken}");

    let mut crowded = session();
    for id in 1..=MAX_STREAMS as u32 {
        crowded.receive(&frame(1, id, 10)).unwrap();
    }
    assert!(crowded.output().is_empty());
    crowded.receive(&frame(1, MAX_STREAMS as u32 + 1, 10)).unwrap();
    assert_eq!(crowded.output()[3], 3, "it is refused, and may be repeated");

    for kind in [4, 5, 9, 0] {
        let mut flooded = session();
        flooded.receive(&frame(1, 1, 10)).unwrap();
        let payload = if kind == 4 { [frame(4, 1, 4)].concat() } else { frame(kind, 1, 0) };
        let taken = (0..100_000).take_while(|_| flooded.receive(&payload).is_ok()).count();
        assert!(taken < 20_000, "{taken} frames of kind {kind}");
    }
}
