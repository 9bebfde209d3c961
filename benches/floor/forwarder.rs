//! Who gets what comes from whom: clients and the application speak HTTP, the halves frames.

use std::{
    collections::HashMap,
    io, mem,
    net::{SocketAddr, TcpStream},
};

use anyhow::Context;

use crate::{
    cutter::Cutter,
    frame,
    sockets::{Event, Sockets, Token},
    tls::Half,
};

/// What a socket is there for.
enum Role {
    /// A client of the calling half, or a connection of the called half to the application.
    Http {
        lane: usize,
        cutter: Cutter,
        /// Whose bytes these are; the client whom the application answers.
        client: Option<Token>,
    },
    /// The connection between the halves.
    Hop { lane: usize },
}

/// One version of HTTP, with a connection between the halves of its own.
struct Lane {
    next: SocketAddr,
    version: Version,
    hop: Option<Token>,
    /// Connections to the application that nobody uses.
    idle: Vec<Token>,
    /// The connection to the application of each client that uses one.
    used: HashMap<u32, Token>,
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

/// One half at work.
pub(crate) struct Forwarder {
    sockets: Sockets<Role>,
    lanes: Vec<Lane>,
    tls: Half,
    /// Those that were not read to the end.
    unread: Vec<Token>,
}

impl Forwarder {
    /// Listens at the first address of each lane, of which the first is for HTTP/1 and the second for HTTP/2, to go on at
    /// the other.
    pub(crate) fn new(tls: Half, lanes: impl Iterator<Item = (SocketAddr, SocketAddr)>) -> io::Result<Self> {
        let (listen, next): (Vec<_>, Vec<_>) = lanes.unzip();
        let versions = [Version::One, Version::Two].into_iter().zip(next);
        let lane = |(version, next)| Lane { next, version, hop: None, idle: Vec::new(), used: HashMap::new() };
        let lanes = versions.map(lane).collect();
        Ok(Self { sockets: Sockets::listen(listen)?, lanes, tls, unread: Vec::new() })
    }

    /// Forwards until the other half is gone.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        loop {
            let mut unread = mem::take(&mut self.unread);
            unread.dedup();
            let only_held = unread.iter().all(|token| self.is_held(*token));
            let events = self.sockets.wait(only_held)?;
            for token in unread {
                self.read(token)?;
            }
            for event in events {
                self.happened(event)?;
            }
            self.flush()?;
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        loop {
            let broken = self.sockets.flush();
            if broken.is_empty() {
                return Ok(());
            }
            broken.into_iter().try_for_each(|token| self.end(token))?;
        }
    }

    fn happened(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Accept(lane) => self.accept(lane),
            Event::Readable(token) => self.read(token),
            Event::Ended(token) => {
                self.read(token)?;
                self.unread.push(token);
                Ok(())
            }
        }
    }

    fn accept(&mut self, lane: usize) -> anyhow::Result<()> {
        let stream = self.sockets.accept(lane)?;
        if let Half::Called(_) = self.tls {
            self.add_hop(lane, stream)?;
            return Ok(());
        }
        let cutter = match self.lanes[lane].version {
            Version::One => Cutter::Requests(0),
            Version::Two => Cutter::Http2Client,
        };
        let token = self.sockets.add(stream, None, Role::Http { lane, cutter, client: None })?;
        if let Some(Role::Http { client, .. }) = self.sockets.get(token).map(|socket| &mut socket.role) {
            *client = Some(token);
        }
        Ok(())
    }

    fn add_hop(&mut self, lane: usize, stream: TcpStream) -> anyhow::Result<Token> {
        let hop = self.sockets.add(stream, Some(self.tls.connection()?), Role::Hop { lane })?;
        self.lanes[lane].hop = Some(hop);
        Ok(hop)
    }

    /// Whether to read from this socket would give more to one that is full.
    fn is_held(&mut self, token: Token) -> bool {
        let Some(Role::Http { lane, .. }) = self.sockets.get(token).map(|socket| &socket.role) else { return false };
        let hop = self.lanes[*lane].hop;
        hop.and_then(|hop| self.sockets.get(hop)).is_some_and(|hop| hop.is_full())
    }

    fn read(&mut self, token: Token) -> anyhow::Result<()> {
        if self.is_held(token) {
            self.unread.push(token);
            return Ok(());
        }
        match self.forward(token) {
            Ok(true) => self.unread.push(token),
            Ok(false) => {}
            Err(_) => self.end(token)?,
        }
        Ok(())
    }

    /// Reads and passes on; true when there may be more.
    fn forward(&mut self, token: Token) -> anyhow::Result<bool> {
        let Some((bytes, more)) = self.sockets.receive(token)? else { return Ok(false) };
        let mut used = 0;
        while let Some(length) = self.forward_first(token, &bytes[used..])? {
            used += length;
        }
        self.sockets.keep(token, bytes, used);
        Ok(more)
    }

    /// Passes on the first piece of `bytes`, and says how long it was; `None` when it is not whole.
    fn forward_first(&mut self, token: Token, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        let Some(socket) = self.sockets.get(token) else { return Ok(None) };
        let (lane, client, piece) = match &mut socket.role {
            Role::Hop { lane } => {
                let lane = *lane;
                let Some((client, carried)) = frame::first(bytes) else { return Ok(None) };
                self.deliver(lane, client, carried)?;
                return Ok(Some(frame::HEAD + carried.len()));
            }
            Role::Http { lane, cutter, client } => {
                let Some(piece) = cutter.next(bytes)? else { return Ok(None) };
                (*lane, client.context("bytes that nobody asked for")?, piece)
            }
        };
        let hop = self.hop(lane)?;
        self.sockets.send(hop, [&frame::head(piece.length, client.0), &bytes[..piece.length]]);
        if piece.ends {
            self.release(lane, client);
        }
        Ok(Some(piece.length))
    }

    /// The connection to the other half.
    fn hop(&mut self, lane: usize) -> anyhow::Result<Token> {
        if let Some(hop) = self.lanes[lane].hop {
            return Ok(hop);
        }
        let stream = TcpStream::connect(self.lanes[lane].next)?;
        self.add_hop(lane, stream)
    }

    /// Gives `client`, or the application on its behalf, what the other half sent; nothing means that it is gone there.
    fn deliver(&mut self, lane: usize, client: u32, bytes: &[u8]) -> anyhow::Result<()> {
        let to = match &self.tls {
            Half::Calling(..) => Some(Token(client)),
            Half::Called(_) if bytes.is_empty() => self.lanes[lane].used.remove(&client),
            Half::Called(_) => Some(self.application(lane, client)?),
        };
        match to {
            Some(to) if bytes.is_empty() => _ = self.sockets.close(to),
            Some(to) => self.sockets.send(to, [bytes, &[]]),
            None => {}
        }
        Ok(())
    }

    /// The connection to the application that `client` uses, or one that it uses from now on.
    fn application(&mut self, lane: usize, client: u32) -> anyhow::Result<Token> {
        let Lane { next, version, idle, used, .. } = &mut self.lanes[lane];
        if let Some(token) = used.get(&client) {
            return Ok(*token);
        }
        let client = Token(client);
        while let Some(token) = idle.pop() {
            if let Some(Role::Http { client: whose, .. }) = self.sockets.get(token).map(|socket| &mut socket.role) {
                *whose = Some(client);
                used.insert(client.0, token);
                return Ok(token);
            }
        }
        let cutter = match version {
            Version::One => Cutter::Answers(0),
            Version::Two => Cutter::Http2,
        };
        let role = Role::Http { lane, cutter, client: Some(client) };
        let token = self.sockets.add(TcpStream::connect(*next)?, None, role)?;
        used.insert(client.0, token);
        Ok(token)
    }

    /// The answer to `client` is whole: its connection to the application is for everybody again.
    fn release(&mut self, lane: usize, client: Token) {
        let Lane { idle, used, .. } = &mut self.lanes[lane];
        let Some(token) = used.remove(&client.0) else { return };
        if let Some(Role::Http { client, .. }) = self.sockets.get(token).map(|socket| &mut socket.role) {
            *client = None;
        }
        idle.push(token);
    }

    /// Closes a socket that is of no use any more, and tells the other half.
    ///
    /// # Errors
    /// It was the connection to the other half.
    fn end(&mut self, token: Token) -> anyhow::Result<()> {
        match self.sockets.close(token) {
            Some(Role::Hop { .. }) => anyhow::bail!("the other half has gone"),
            Some(Role::Http { lane, client: Some(client), .. }) => {
                self.lanes[lane].used.remove(&client.0);
                if let Some(hop) = self.lanes[lane].hop {
                    self.sockets.send(hop, [&frame::head(0, client.0), &[]]);
                }
            }
            Some(Role::Http { client: None, .. }) | None => {}
        }
        Ok(())
    }
}
