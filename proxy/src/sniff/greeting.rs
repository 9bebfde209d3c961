//! What a service says before its caller does.
//!
//! Most servers of HTTP/2 send their SETTINGS as soon as they are connected (RFC 9113 section 3.4). It tells what they
//! speak, and changes nothing: the caller still has the first word. Taken for a greeting of opaque bytes it would carry
//! the requests of callers that connect ahead of time past every check for requests.

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::UNFINISHED;

const TYPE_SETTINGS: u8 = 4;
/// Bytes of one setting (RFC 9113 section 6.5.1).
const SETTING: usize = 6;
/// The longest frame before anything else was agreed on (RFC 9113 section 4.2).
const FRAME_MAX: usize = 16_384;

/// What the first bytes of a service are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Nothing, or too few bytes to tell.
    NeedMore,
    /// It has said that it says nothing.
    End,
    /// The SETTINGS of an HTTP/2 server.
    Http2,
    /// Anything else: a protocol in which the server speaks first.
    Opaque,
}

/// Reads a service's first bytes into `bytes`. [`Greeting::End`] when it ends the connection without a word, [`Greeting::NeedMore`] when it breaks it off. None
/// is lost when it is dropped.
pub(crate) async fn read<T: AsyncRead + Unpin>(service: &mut T, bytes: &mut BytesMut) -> Greeting {
    match service.read_buf(bytes).await {
        Ok(1..) => {}
        Ok(_) => return Greeting::End,
        Err(_) => return Greeting::NeedMore,
    }
    let rest = async {
        while classify(bytes) == Greeting::NeedMore && matches!(service.read_buf(bytes).await, Ok(1..)) {}
        classify(bytes)
    };
    match timeout(UNFINISHED, rest).await {
        Ok(Greeting::Http2) => Greeting::Http2,
        _ => Greeting::Opaque,
    }
}

/// A frame header (RFC 9113 section 4.1) of SETTINGS that acknowledges nothing; other flags are to be ignored.
fn classify(bytes: &[u8]) -> Greeting {
    let fits = |at: usize, byte: u8| match at {
        0 => byte == 0, // or it is longer than any frame may be
        3 => byte == TYPE_SETTINGS,
        4 => byte & 1 == 0,
        5 => byte & 0x7f == 0,
        6..=8 => byte == 0,
        _ => true,
    };
    let length = |length: &[u8]| length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let header = &bytes[..bytes.len().min(9)];
    let known = header.get(..3).map(length);
    if header.iter().enumerate().any(|(at, byte)| !fits(at, *byte))
        || known.is_some_and(|known| known > FRAME_MAX || known % SETTING != 0)
    {
        return Greeting::Opaque;
    }
    if header.len() == 9 { Greeting::Http2 } else { Greeting::NeedMore }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_told_from_the_greetings_of_other_protocols() {
        for (bytes, expected) in [
            (&b"\0\0\0\x04\0\0\0\0\0"[..], Greeting::Http2), // no settings
            (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", Greeting::Http2), // nginx
            (b"\0\0\x06\x04\0\x80\0\0\0", Greeting::Http2),  // the reserved bit is to be ignored
            (b"\0\0\0\x04\x01\0\0\0\0", Greeting::Opaque),   // an acknowledgement comes later
            (b"\0\0\x07\x04\0\0\0\0\0", Greeting::Opaque),   // half a setting
            (b"\x04\0\x02\x04\0\0\0\0\0", Greeting::Opaque), // too long
            (b"\0\0\x06\x04\0\0\0\0\x01", Greeting::Opaque), // of a stream
            (b"\0\0\x08\x06\0\0\0\0\0", Greeting::Opaque),   // PING
            (b"\x4a\0\0\0\x0a8.0.36\0", Greeting::Opaque),   // MySQL
            (b"220 mail ready\r\n", Greeting::Opaque),       // SMTP
            (b"SSH-2.0-OpenSSH_9.2\r\n", Greeting::Opaque),  // SSH
            (b"RFB 003.008\n", Greeting::Opaque),            // VNC
        ] {
            let trickled =
                (1..=bytes.len()).map(|end| classify(&bytes[..end])).find(|found| *found != Greeting::NeedMore);
            assert_eq!((classify(bytes), trickled), (expected, Some(expected)), "{}", bytes.escape_ascii());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_greeting_is_no_settings() {
        for closes in [true, false] {
            let (mut near, mut far) = tokio::io::duplex(64);
            tokio::io::AsyncWriteExt::write_all(&mut far, b"\0\0\0\x04").await.unwrap();
            let _open = (!closes).then_some(far);
            let mut bytes = BytesMut::new();
            assert_eq!(read(&mut near, &mut bytes).await, Greeting::Opaque);
            assert_eq!(&bytes[..], b"\0\0\0\x04", "its bytes are kept");
        }
    }
}
