//! Sockets that never block, some with TLS. What is read comes at once; what is written is gathered, and goes out when the
//! round is over.

use std::{
    io::{self, Read as _, Write as _},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    io::Errno,
};
use socket2::{Domain, Type};

/// The most that is read at once.
const READ: usize = 64 << 10;
/// A socket with more than this to write is full.
const FULL: usize = 256 << 10;
/// Events of one round.
const EVENTS: usize = 256;
const BACKLOG: i32 = 4096;
/// What tells listeners from other sockets among the data of events.
const LISTENER: u64 = 1 << 32;

/// Names a socket for as long as it is open, and nothing afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) u32);

impl Token {
    fn new(index: usize, generation: u16) -> io::Result<Self> {
        let index = u16::try_from(index).map_err(|_| io::Error::other("too many sockets"))?;
        Ok(Self(u32::from(generation) << 16 | u32::from(index)))
    }

    fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// What happened.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    /// Somebody connects to the listener of this number.
    Accept(usize),
    /// There may be something to read.
    Readable(Token),
    /// The same, and the peer will send no more.
    Ended(Token),
}

/// One socket and what belongs to it, such as its `role`.
pub(crate) struct Socket<R> {
    pub(crate) role: R,
    stream: TcpStream,
    tls: Option<rustls::Connection>,
    /// What was read and could not be used yet.
    leftover: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    /// Whether it is among those that are flushed at the end of the round.
    waits: bool,
}

struct Slot<R> {
    generation: u16,
    socket: Option<Socket<R>>,
}

/// All sockets of the program.
pub(crate) struct Sockets<R> {
    epoll: OwnedFd,
    listeners: Vec<TcpListener>,
    slots: Vec<Slot<R>>,
    free: Vec<usize>,
    /// Those with something to write.
    waiting: Vec<Token>,
    events: Vec<epoll::Event>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl<R> Sockets<R> {
    /// Listens at `addresses`, which others may hold too.
    pub(crate) fn listen(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let listeners: Vec<_> = addresses.into_iter().map(listener).collect::<io::Result<_>>()?;
        for (number, listener) in (LISTENER..).zip(&listeners) {
            epoll::add(&epoll, listener, EventData::new_u64(number), EventFlags::IN)?;
        }
        let (plain, sealed, events) = (Vec::new(), Vec::new(), Vec::with_capacity(EVENTS));
        Ok(Self { epoll, listeners, slots: Vec::new(), free: Vec::new(), waiting: Vec::new(), events, plain, sealed })
    }

    /// Waits until something happens, or only looks whether something did.
    pub(crate) fn wait(&mut self, until_something_happens: bool) -> io::Result<Vec<Event>> {
        let timeout = if until_something_happens { None } else { Some(Timespec::default()) };
        self.events.clear();
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref())?;
        let events = mem::take(&mut self.events);
        let happened = events.iter().map(|event| self.event(*event)).collect();
        self.events = events;
        Ok(happened)
    }

    fn event(&mut self, event: epoll::Event) -> Event {
        let (data, flags) = (event.data.u64(), event.flags);
        if data & LISTENER != 0 {
            return Event::Accept((data & !LISTENER) as usize);
        }
        let token = Token(data as u32);
        if flags.contains(EventFlags::OUT) && self.get(token).is_some_and(|socket| socket.has_to_write()) {
            self.flush_later(token);
        }
        let over = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(over) { Event::Ended(token) } else { Event::Readable(token) }
    }

    /// The next connection to listener `number`.
    pub(crate) fn accept(&mut self, number: usize) -> io::Result<TcpStream> {
        Ok(self.listeners[number].accept()?.0)
    }

    /// Takes in `stream`, which is connected.
    pub(crate) fn add(&mut self, stream: TcpStream, tls: Option<rustls::Connection>, role: R) -> io::Result<Token> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let index = self.free.pop().unwrap_or(self.slots.len());
        if index == self.slots.len() {
            self.slots.push(Slot { generation: 0, socket: None });
        }
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let token = Token::new(index, slot.generation)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(token.0.into()), flags)?;
        slot.socket =
            Some(Socket { role, stream, tls, leftover: Vec::new(), outgoing: Vec::new(), sent: 0, waits: false });
        // A client of TLS speaks first.
        self.flush_later(token);
        Ok(token)
    }

    /// The socket, when it is open.
    pub(crate) fn get(&mut self, token: Token) -> Option<&mut Socket<R>> {
        let slot = self.slots.get_mut(token.index())?;
        slot.socket.as_mut().filter(|_| u32::from(slot.generation) == token.0 >> 16)
    }

    /// Closes the socket, after what waits has been written as far as it can be. Returns its role.
    pub(crate) fn close(&mut self, token: Token) -> Option<R> {
        let _lost = self.get(token)?.flush(); // nobody is left to tell
        self.free.push(token.index());
        self.slots[token.index()].socket.take().map(|socket| socket.role)
    }

    /// What can be read from the socket, behind what was left over, and whether there may be more; `None` for nothing new.
    /// The bytes are to be given back to [`Self::keep`].
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) fn receive(&mut self, token: Token) -> io::Result<Option<(Vec<u8>, bool)>> {
        let (mut plain, mut sealed) = (mem::take(&mut self.plain), mem::take(&mut self.sealed));
        plain.clear();
        let received = self.get(token).map_or(Ok(None), |socket| socket.receive(&mut plain, &mut sealed));
        self.sealed = sealed;
        if self.get(token).is_some_and(|socket| socket.has_to_write()) {
            self.flush_later(token);
        }
        match received {
            Ok(Some(more)) => Ok(Some((plain, more))),
            Ok(None) => {
                self.plain = plain;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps of `bytes` what follows the first `used` for the next time.
    pub(crate) fn keep(&mut self, token: Token, bytes: Vec<u8>, used: usize) {
        if let Some(socket) = self.get(token) {
            socket.leftover.extend_from_slice(&bytes[used..]);
        }
        self.plain = bytes;
    }

    /// Writes `parts` at the end of the round, if the socket is open.
    pub(crate) fn send(&mut self, token: Token, parts: [&[u8]; 2]) {
        if let Some(socket) = self.get(token) {
            parts.into_iter().for_each(|part| socket.outgoing.extend_from_slice(part));
            self.flush_later(token);
        }
    }

    /// Ends the round: writes what waits. Returns the sockets that are no more.
    pub(crate) fn flush(&mut self) -> Vec<Token> {
        let mut waiting = mem::take(&mut self.waiting);
        waiting.retain(|token| {
            self.get(*token).is_some_and(|socket| {
                socket.waits = false;
                socket.flush().is_err()
            })
        });
        waiting
    }

    fn flush_later(&mut self, token: Token) {
        let Some(socket) = self.get(token) else { return };
        if !mem::replace(&mut socket.waits, true) {
            self.waiting.push(token);
        }
    }
}

impl<R> Socket<R> {
    /// Whether so much is to be written that no more should come.
    pub(crate) fn is_full(&self) -> bool {
        let blocked = self.tls.as_ref().is_some_and(|tls| tls.wants_write() && !tls.is_handshaking());
        blocked || self.outgoing.len() - self.sent > FULL
    }

    fn has_to_write(&self) -> bool {
        !self.outgoing.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Reads once into `plain`, by way of `sealed` with TLS; true when there may be more, `None` when there was nothing.
    fn receive(&mut self, plain: &mut Vec<u8>, sealed: &mut Vec<u8>) -> io::Result<Option<bool>> {
        plain.append(&mut self.leftover);
        let more = if let Some(tls) = &mut self.tls {
            sealed.clear();
            let more = read(&self.stream, sealed)?;
            open(tls, sealed, plain)?;
            more
        } else {
            read(&self.stream, plain)?
        };
        if more.is_none() {
            self.leftover.append(plain);
        }
        Ok(more)
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = match &mut self.tls {
            Some(tls) => {
                tls.writer().write_all(&self.outgoing)?;
                self.outgoing.clear();
                seal(tls, &self.stream)
            }
            None => self.flush_plain(),
        };
        written.or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) })
    }

    fn flush_plain(&mut self) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            self.sent += (&self.stream).write(&self.outgoing[self.sent..])?;
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(())
    }
}

/// Appends what can be read; true when that was as much as fits, `None` when there is nothing.
fn read(stream: &TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<bool>> {
    bytes.reserve(READ);
    let room = bytes.capacity() - bytes.len();
    match rustix::io::read(stream, spare_capacity(bytes)) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(Some(count == room)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Appends to `plain` what `sealed` holds.
fn open(tls: &mut rustls::Connection, mut sealed: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !sealed.is_empty() {
        tls.read_tls(&mut sealed)?;
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let end = plain.len();
        plain.resize(end + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plain[end..])?;
    }
    Ok(())
}

fn seal(tls: &mut rustls::Connection, mut stream: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut stream)?;
    }
    Ok(())
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
