//! What the frames of the peer do: the rules of the wire are kept here, and whoever breaks them loses the connection.

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use tokio::time::Instant;

use super::Session;
use crate::{
    budget,
    frames::{
        Arrived, Broken, Code, End, MAX_STREAMS, MAX_TRAILERS, Stream,
        stream::Unread,
        wire::{Frame, HEADER, Kind},
    },
};

const NO_HEAD: Broken = Broken("content before the head of an answer");

impl Session {
    /// Takes what was read, however it is cut.
    ///
    /// # Errors
    /// The peer broke the rules; the connection is of no more use.
    pub(crate) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        self.heard = true;
        if !self.partial.is_empty() {
            bytes = self.complete(bytes)?;
        }
        while let Some((frame, payload)) = whole(bytes)? {
            self.take(frame, payload)?;
            bytes = &bytes[HEADER + payload.len()..];
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    /// Completes the frame whose start is kept; the rest of `bytes`.
    fn complete<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], Broken> {
        while let Some(missing) = missing(&self.partial)? {
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            self.partial.extend_from_slice(part);
            bytes = rest;
            if part.len() < missing {
                return Ok(bytes);
            }
        }
        let partial = std::mem::take(&mut self.partial);
        if let Some((frame, payload)) = whole(&partial)? {
            self.take(frame, payload)?;
        }
        Ok(bytes)
    }

    fn take(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Broken> {
        self.admit(frame)?;
        match frame.kind {
            Kind::Head if self.calls => self.take_answer(frame, payload),
            Kind::Head => self.take_request(frame, payload),
            Kind::Data => self.take_content(frame, payload),
            Kind::Trailers => self.take_trailers(frame, payload),
            Kind::Reset => {
                if let Some(stream) = self.streams.remove(&frame.stream) {
                    let code = payload.first().map_or(Code::BrokenOff, |code| Code::of(*code));
                    self.end(&stream, code);
                }
                Ok(())
            }
            Kind::Credit => self.take_credit(frame.stream, payload),
            Kind::Ping => {
                self.say(Kind::Pong, 0, &[]);
                Ok(())
            }
            Kind::GoAway => {
                self.told_to_leave = true;
                self.leave();
                Ok(())
            }
            Kind::Last => {
                self.peer_left = true;
                self.wake_driver();
                Ok(())
            }
            Kind::Unknown if frame.ends => self.take_trailers(frame, &[]),
            Kind::Pong | Kind::Unknown => Ok(()),
        }
    }

    /// Books a frame that costs its sender less than its receiver.
    fn admit(&mut self, frame: Frame) -> Result<(), Broken> {
        self.book(match frame.kind {
            Kind::Head | Kind::Trailers => return Ok(()),
            Kind::Data if frame.length > 0 || frame.ends => return Ok(()),
            Kind::Reset => budget::Kind::Reset,
            Kind::Credit => budget::Kind::WindowUpdate,
            Kind::Ping => budget::Kind::Ping,
            _ => budget::Kind::Other,
        })
    }

    fn book(&mut self, kind: budget::Kind) -> Result<(), Broken> {
        if self.account.received(kind, Instant::now) { Ok(()) } else { Err(Broken::FLOOD) }
    }

    fn take_request(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Broken> {
        if frame.stream <= self.newest {
            return Err(Broken("a stream is opened twice"));
        }
        if self.peer_left {
            return Err(Broken("a stream is opened after the last one"));
        }
        self.newest = frame.stream;
        self.account.stream_opened();
        if self.streams.len() >= MAX_STREAMS || self.refuses || self.end.is_some() {
            self.say(Kind::Reset, frame.stream, &[Code::Refused as u8]);
            return self.book(budget::Kind::Reset);
        }
        let mut stream = Stream::new(frame.stream);
        stream.ended = frame.ends;
        let stream = Rc::new(RefCell::new(stream));
        self.streams.insert(frame.stream, Rc::clone(&stream));
        self.arrived.push_back(Arrived { stream, head: Bytes::copy_from_slice(payload) });
        Ok(())
    }

    fn take_answer(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Broken> {
        let Some(stream) = self.find(frame.stream)? else { return Ok(()) };
        let mut stream = stream.borrow_mut();
        if stream.answered || stream.ended {
            return Err(Broken("a request is answered twice"));
        }
        stream.answered = true;
        stream.head = Some(Bytes::copy_from_slice(payload));
        self.said_all(&mut stream, frame.ends);
        Ok(())
    }

    fn take_content(&mut self, frame: Frame, content: &[u8]) -> Result<(), Broken> {
        self.flow.came(content.len())?;
        let Some(stream) = self.find(frame.stream)? else {
            self.discarded(content.len());
            return if content.is_empty() { self.book(budget::Kind::Other) } else { Ok(()) };
        };
        let mut stream = stream.borrow_mut();
        if self.calls && !stream.answered {
            return Err(NO_HEAD);
        }
        stream.came(content.len())?;
        if stream.ended {
            return Err(Broken("content after its end"));
        }
        if stream.ignored {
            self.discarded(content.len());
        } else if !content.is_empty() {
            stream.push(content);
        }
        self.said_all(&mut stream, frame.ends);
        Ok(())
    }

    fn take_trailers(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Broken> {
        let Some(stream) = self.find(frame.stream)? else { return self.book(budget::Kind::Other) };
        let mut stream = stream.borrow_mut();
        if self.calls && !stream.answered {
            return Err(NO_HEAD);
        }
        if stream.ended {
            return Err(Broken("trailers after the end"));
        }
        if !stream.ignored && !payload.is_empty() {
            if self.trailers.get() + payload.len() > MAX_TRAILERS {
                self.give_up(&mut stream, Code::TooLarge);
                return Ok(());
            }
            stream.trailers = Some(Unread::new(Bytes::copy_from_slice(payload), &self.trailers));
        }
        self.said_all(&mut stream, true);
        Ok(())
    }

    fn take_credit(&mut self, stream: u32, payload: &[u8]) -> Result<(), Broken> {
        let credit = payload.first_chunk().ok_or(Broken("a credit of nothing"))?;
        let credit = u32::from_be_bytes(*credit) as usize;
        if credit == 0 {
            return Err(Broken("a credit of nothing"));
        }
        if stream == 0 {
            self.flow.grant(credit)?;
            self.wake_next();
        } else if let Some(stream) = self.find(stream)? {
            let mut stream = stream.borrow_mut();
            stream.window.grant(credit)?;
            stream.wake_writer();
        }
        Ok(())
    }

    /// The stream of a frame; `None` for one that is over.
    fn find(&self, id: u32) -> Result<Option<Rc<RefCell<Stream>>>, Broken> {
        if id == 0 || id > self.newest {
            return Err(Broken("a frame of a stream that nobody has opened"));
        }
        Ok(self.streams.get(&id).cloned())
    }

    /// The peer has said something on a stream, and perhaps all.
    fn said_all(&mut self, stream: &mut Stream, ended: bool) {
        stream.ended = ended;
        stream.wake_reader();
        self.settle(stream);
    }

    /// The peer gave a stream up. An answer that is whole stays so.
    fn end(&mut self, stream: &RefCell<Stream>, code: Code) {
        let mut stream = stream.borrow_mut();
        if stream.ended && code == Code::Done {
            stream.finished = true;
            stream.wake_writer();
        } else {
            stream.cut(End::Reset(code));
        }
        drop(stream);
        self.wake_next();
        self.wake_driver();
    }
}

/// The frame that `bytes` begin with, when it is whole.
fn whole(bytes: &[u8]) -> Result<Option<(Frame, &[u8])>, Broken> {
    let Some(frame) = Frame::parse(bytes) else { return Ok(None) };
    if frame.length > frame.kind.limit() {
        return Err(Broken("a frame that is too long"));
    }
    Ok(bytes.get(HEADER..HEADER + frame.length).map(|payload| (frame, payload)))
}

/// Bytes that the frame which `partial` begins lacks: first of its header, then of its payload.
fn missing(partial: &[u8]) -> Result<Option<usize>, Broken> {
    let Some(frame) = Frame::parse(partial) else { return Ok(Some(HEADER - partial.len())) };
    if frame.length > frame.kind.limit() {
        return Err(Broken("a frame that is too long"));
    }
    let missing = HEADER + frame.length - partial.len();
    Ok((missing > 0).then_some(missing))
}
