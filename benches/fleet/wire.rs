//! As much of HTTP/2 (RFC 9113) and gRPC as a client with one discovery stream needs: cheap, so that thousands of them on
//! one processor hear of a change when it comes, and not when it is their turn.
//!
//! It opens its windows as wide as they go and sends less than the other end's allow.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The frame types and flags that are used (section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Bytes in front of the payload of a frame, and of a gRPC message.
const FRAME_HEAD: usize = 9;
const MESSAGE_HEAD: usize = 5;
/// Bytes of a payload that everybody takes (section 4.2).
const LONGEST: usize = 16 << 10;
const WIDEST: u32 = (1 << 31) - 1;
/// The window of a connection before it is opened further (section 6.9.2).
const NARROW: u32 = 65_535;
/// The stream of the one call.
const CALL: u32 = 1;

/// A call that is under way.
pub(crate) struct Call {
    stream: TlsStream<TcpStream>,
    /// What came and is not taken apart yet.
    frames: Vec<u8>,
    messages: Vec<u8>,
    /// What is to be sent.
    out: Vec<u8>,
}

impl Call {
    /// Begins a call of `path` over `stream`.
    pub(crate) fn new(stream: TlsStream<TcpStream>, authority: &str, path: &str) -> Self {
        let mut out = PREFACE.to_vec();
        // SETTINGS_INITIAL_WINDOW_SIZE
        let settings = [&[0, 4][..], &WIDEST.to_be_bytes()].concat();
        frame(&mut out, SETTINGS, 0, 0, &settings);
        frame(&mut out, WINDOW_UPDATE, 0, 0, &(WIDEST - NARROW).to_be_bytes());
        frame(&mut out, HEADERS, END_HEADERS, CALL, &header_block(authority, path));
        Self { stream, frames: Vec::new(), messages: Vec::new(), out }
    }

    /// Sends an encoded message, with the next wait for one.
    pub(crate) fn send(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
        for part in [&[0][..], &length, message].concat().chunks(LONGEST) {
            frame(&mut self.out, DATA, 0, CALL, part);
        }
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(message) = self.message() {
                return Ok(message);
            }
            if !self.out.is_empty() {
                self.stream.write_all(&self.out).await?;
                // What the kernel did not take yet would wait for the next time.
                self.stream.flush().await?;
                self.out.clear();
            }
            if self.stream.read_buf(&mut self.frames).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.take_apart()?;
        }
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        let length = self.messages.get(1..MESSAGE_HEAD)?;
        let end = MESSAGE_HEAD + u32::from_be_bytes(length.try_into().ok()?) as usize;
        let message = self.messages.get(MESSAGE_HEAD..end)?.to_vec();
        self.messages.drain(..end);
        Some(message)
    }

    fn take_apart(&mut self) -> io::Result<()> {
        let mut at = 0;
        while let Some((&[a, b, c, kind, flags, ..], rest)) = self.frames[at..].split_first_chunk::<FRAME_HEAD>() {
            let Some(payload) = rest.get(..u32::from_be_bytes([0, a, b, c]) as usize) else { break };
            match (kind, flags) {
                (DATA, 0) => self.messages.extend_from_slice(payload),
                (HEADERS, flags) if flags & END_STREAM == 0 => {}
                (SETTINGS, 0) => frame(&mut self.out, SETTINGS, ACK, 0, &[]),
                (PING, 0) => frame(&mut self.out, PING, ACK, 0, payload),
                (DATA | HEADERS | RST_STREAM | GOAWAY, _) => return Err(io::Error::other("the call has ended")),
                _ => {}
            }
            at += FRAME_HEAD + payload.len();
        }
        self.frames.drain(..at);
        Ok(())
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The fields of a call, with names of HPACK's static table (RFC 7541, appendix A) and values as they are.
fn header_block(authority: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x87]; // :method POST, :scheme https
    for (name, value) in
        [(&[0x01][..], authority), (&[0x04], path), (&[0x0f, 0x10], "application/grpc"), (b"\x00\x02te", "trailers")]
    {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        block.extend_from_slice(value.as_bytes());
    }
    block
}
