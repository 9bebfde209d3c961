//! The attacks, as bytes: over HTTP/2, and as the frames of two sidecars.

use selvedge_tests::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, HEADERS, PING, POST, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame,
};

/// What one round of an attack sends, after so many rounds on the same connection.
pub(crate) type Round = fn(u32) -> Vec<u8>;

/// An attack.
#[derive(Clone, Copy)]
pub(crate) struct Attack {
    /// What it is called.
    pub(crate) name: &'static str,
    /// As HTTP/2.
    pub(crate) http2: Option<Round>,
    /// As frames.
    pub(crate) frames: Option<Round>,
    /// The attacker reads what it is told.
    pub(crate) reads: bool,
    /// Rounds on one connection.
    pub(crate) rounds: u32,
    /// A workload holds up its own requests with it, and nobody else's.
    pub(crate) hurts_itself: bool,
}

const fn attack(name: &'static str, http2: Option<Round>, frames: Option<Round>) -> Attack {
    Attack { name, http2, frames, reads: true, rounds: u32::MAX >> 2, hurts_itself: false }
}

/// The same, so many times on each connection.
const fn times(rounds: u32, attack: Attack) -> Attack {
    Attack { rounds, ..attack }
}

/// The same, with which a workload holds up itself.
const fn hurting_itself(attack: Attack) -> Attack {
    Attack { hurts_itself: true, ..attack }
}

/// The same of somebody who reads nothing.
const fn unread(attack: Attack) -> Attack {
    Attack { reads: false, ..attack }
}

/// Every attack.
pub(crate) const ATTACKS: &[Attack] = &[
    attack("reset at once", Some(|n| [get(n), reset(n)].concat()), Some(|n| [ask(n), cut(n)].concat())),
    attack("upload reset at once", Some(|n| [post(n), reset(n)].concat()), Some(|n| [begin(n), cut(n)].concat())),
    attack("reset later", Some(|n| later(n, get, reset)), Some(|n| later(n, ask, cut))),
    attack("settings", Some(|_| frame(SETTINGS, 0, 0, &[])), None),
    attack("pings", Some(|_| frame(PING, 0, 0, b"8 octets")), Some(|_| plain(5, 0, &[]))),
    attack("no kind of frame", Some(|_| frame(0xfa, 0, 0, b"?")), Some(|_| plain(0x60, 0, b"?"))),
    attack("priorities", Some(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])), None),
    attack("credit", Some(|_| update(0, 1)), Some(|n| [begin(n), credit(n, 1)].concat())),
    attack("no credit", Some(|n| [post(n), update(id(n), 0)].concat()), Some(|n| [begin(n), credit(n, 0)].concat())),
    hurting_itself(attack(
        "too much credit",
        Some(|n| [post(n), update(id(n), 0x7fff_ffff)].concat()),
        Some(|n| [begin(n), credit(n, u32::MAX)].concat()),
    )),
    hurting_itself(attack("dependent on itself", Some(|n| [post(n), priority(id(n), id(n))].concat()), None)),
    attack(
        "content after the end",
        Some(|n| [get(n), frame(DATA, 0, id(n), b"more")].concat()),
        Some(|n| [ask(n), plain(0, n + 1, b"more")].concat()),
    ),
    attack(
        "empty content",
        Some(|n| first(n, &post(0), &frame(DATA, 0, 1, &[]))),
        Some(|n| first(n, &begin(0), &plain(0, 1, &[]))),
    ),
    hurting_itself(attack(
        "content in crumbs",
        Some(|n| first(n, &post(0), &frame(DATA, 0, 1, b"."))),
        Some(|n| first(n, &begin(0), &plain(0, 1, b"."))),
    )),
    attack("endless head", Some(|n| first(n, &frame(HEADERS, 0, 1, GET), &frame(CONTINUATION, 0, 1, b""))), None),
    times(500, attack("endless requests", Some(post), Some(begin))),
    times(500, attack("large heads", Some(bomb), Some(heavy))),
    // So many fill what an application may send ahead on a connection.
    hurting_itself(times(
        64,
        unread(attack("unread answers", Some(|n| first(n, &window(u32::MAX >> 1), &big(n))), Some(large))),
    )),
    hurting_itself(times(64, attack("answers without credit", Some(|n| first(n, &window(0), &big(n))), Some(large)))),
];

/// `start` in the first round, before what every round sends.
fn first(n: u32, start: &[u8], each: &[u8]) -> Vec<u8> {
    if n == 0 { [start, each].concat() } else { each.to_vec() }
}

/// Opens a stream, and resets the one that was opened thirty rounds before.
fn later(n: u32, open: Round, reset: Round) -> Vec<u8> {
    let earlier = n.checked_sub(30).map(reset).unwrap_or_default();
    [open(n), earlier].concat()
}

// HTTP/2.

pub(crate) const fn id(n: u32) -> u32 {
    2 * n + 1
}

fn update(stream: u32, credit: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &credit.to_be_bytes())
}

fn priority(stream: u32, of: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&of.to_be_bytes()[..], &[16]].concat())
}

/// Settings by which so much of each answer may come.
pub(crate) fn window(bytes: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat())
}

pub(crate) fn get(n: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, id(n), GET)
}

fn post(n: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, id(n), POST)
}

pub(crate) fn reset(n: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, id(n), &[0, 0, 0, 8])
}

/// A field of 3 900 bytes that is named once, and then by one byte for each time.
fn bomb(n: u32) -> Vec<u8> {
    let field = [&b"\x40\x01x\x7f\xbd\x1d"[..], &[b'x'; 3900]].concat();
    let fields = [POST, if n == 0 { &field } else { &[0xbe] }, &[0xbe; 13]].concat();
    frame(HEADERS, END_HEADERS, id(n), &fields)
}

/// `GET /events/1000000`: 60 MB, as they are read.
pub(crate) fn big(n: u32) -> Vec<u8> {
    let fields = [&b"\x82\x86\x04\x0f/events/1000000"[..], b"\x01\x08api.shop"].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, id(n), &fields)
}

// Frames between sidecars: a length, a kind, a stream, the payload.

const ENDS: u8 = 0x80;

fn plain(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload of 24 bits").to_be_bytes();
    [&length[1..], &[kind], &stream.to_be_bytes(), payload].concat()
}

fn ask(n: u32) -> Vec<u8> {
    plain(1 | ENDS, n + 1, b"\x02\x01\x08api.shop\x01/")
}

fn begin(n: u32) -> Vec<u8> {
    plain(1, n + 1, b"\x02\x02\x08api.shop\x01/")
}

fn cut(n: u32) -> Vec<u8> {
    plain(3, n + 1, &[2])
}

fn credit(n: u32, bytes: u32) -> Vec<u8> {
    plain(4, n + 1, &bytes.to_be_bytes())
}

/// A head of some 55 KiB, which is not packed.
fn heavy(n: u32) -> Vec<u8> {
    let field = [&b"\x00\x01x\xbc\x1e"[..], &[b'x'; 3900]].concat();
    plain(1, n + 1, &[&b"\x02\x02\x08api.shop\x01/"[..], &field.repeat(14)].concat())
}

/// `GET /events/1000000`, too.
fn large(n: u32) -> Vec<u8> {
    plain(1 | ENDS, n + 1, b"\x02\x01\x08api.shop\x0f/events/1000000")
}
