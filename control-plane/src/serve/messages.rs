//! The messages of a discovery stream, as gRPC frames them: a byte that says whether it is compressed, its length, itself.
//!
//! Guarantees: one that comes is no longer than [`MAX_MESSAGE`]; nothing is held of a stream that has said all it began to say,
//! and what is held of others is accounted for.

use std::fmt::Display;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Body;
use prost::Message;
use selvedge_xds::server::Response;
use tonic::Status;

/// Largest message; a sidecar's first one has a thousand names.
const MAX_MESSAGE: usize = 2 << 20;
/// Bytes in front of a message.
const HEAD: usize = 5;

/// The messages that come in a body.
#[derive(Debug)]
pub(super) struct Incoming<B> {
    body: B,
    /// What came of messages that are not whole, or not asked for yet.
    rest: BytesMut,
    /// So many bytes of it are accounted for.
    counted: usize,
}

impl<B: Body<Data = Bytes> + Unpin> Incoming<B>
where
    B::Error: Display,
{
    pub(super) fn new(body: B) -> Self {
        Self { body, rest: BytesMut::new(), counted: 0 }
    }

    /// The next message; nothing when the stream is over. What has come stays when this is given up and called again.
    /// `account` is told how many bytes of messages that are not whole are held, whenever they are others.
    ///
    /// # Errors
    /// No message comes any more: the stream broke, what came is none, or `account` refuses to hold more.
    pub(super) async fn next<M: Message + Default>(
        &mut self,
        mut account: impl FnMut(usize) -> Result<(), Status>,
    ) -> Result<Option<M>, Status> {
        loop {
            let message = self.whole()?;
            if self.counted != self.rest.len() {
                self.counted = self.rest.len();
                account(self.counted)?;
            }
            if message.is_some() {
                return Ok(message);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| self.rest.extend_from_slice(data)),
                Some(Err(error)) => return Err(Status::unavailable(error.to_string())),
                None if self.rest.is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("the stream ended within a message")),
            }
        }
    }

    fn whole<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some(([compressed, length @ ..], rest)) = self.rest.split_first_chunk::<HEAD>() else { return Ok(None) };
        if *compressed != 0 {
            return Err(Status::unimplemented("compressed messages are not taken"));
        }
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_MESSAGE {
            let message = format!("a message has {length} bytes, and {MAX_MESSAGE} are the limit");
            return Err(Status::out_of_range(message));
        }
        let Some(message) = rest.get(..length) else { return Ok(None) };
        let message = M::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.rest.advance(HEAD + length);
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        }
        Ok(Some(message))
    }
}

/// A response as it goes to the transport.
pub(super) fn framed(response: &Response) -> Bytes {
    let length = response.encoded_len();
    let mut framed = BytesMut::with_capacity(HEAD + length);
    framed.put_u8(0);
    // One of four gigabytes would not have been made: responses are closed long before.
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    response.encode(&mut framed);
    framed.freeze()
}

/// What ends a stream.
pub(super) fn end(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // A status is always one of a few words of ours.
    let _written = status.add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use selvedge_xds::proto::discovery::DeltaDiscoveryRequest;
    use tonic::Code;

    use super::*;

    async fn read(pieces: Vec<Vec<u8>>) -> (Vec<String>, Option<Code>, usize) {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
        let mut incoming = Incoming::new(StreamBody::new(tokio_stream::iter(frames)));
        let mut read = Vec::new();
        loop {
            match incoming.next::<DeltaDiscoveryRequest>(|_| Ok(())).await {
                Ok(Some(message)) => read.push(message.type_url),
                Ok(None) => return (read, None, incoming.rest.capacity()),
                Err(status) => return (read, Some(status.code()), 0),
            }
        }
    }

    fn said(type_url: &str) -> Vec<u8> {
        let message = DeltaDiscoveryRequest { type_url: type_url.into(), ..Default::default() }.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &length, &message].concat()
    }

    #[tokio::test]
    async fn messages_are_the_same_in_whatever_pieces_they_come_and_nothing_is_held_after_them() {
        let all = [said("one"), said(""), said(&"x".repeat(300))].concat();
        let expected = (vec!["one".to_owned(), String::new(), "x".repeat(300)], None, 0);
        for size in [1, 4, 5, 7, 100, all.len()] {
            assert_eq!(read(all.chunks(size).map(<[u8]>::to_vec).collect()).await, expected, "{size} bytes at a time");
        }
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_stream() {
        let too_long = [&[0][..], &u32::try_from(MAX_MESSAGE + 1).unwrap().to_be_bytes()].concat();
        let broken = said("one")[..6].to_vec();
        for (bytes, code) in [
            (too_long, Code::OutOfRange),
            (vec![1, 0, 0, 0, 0], Code::Unimplemented),
            (broken, Code::InvalidArgument),
            (vec![0, 0, 0, 0, 1, 0xff], Code::InvalidArgument),
        ] {
            let (read, ended, _) = read(vec![said("first"), bytes]).await;
            assert_eq!((read.len(), ended), (1, Some(code)));
        }
    }

    #[tokio::test]
    async fn what_is_held_of_a_message_that_is_not_whole_is_accounted_for() {
        let (one, mut accounted) = (said("a message"), Vec::new());
        let pieces = [one[..7].to_vec(), one[7..9].to_vec(), [&one[9..], &one[..3]].concat()];
        let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
        let mut incoming = Incoming::new(StreamBody::new(tokio_stream::iter(frames)));
        let message = incoming.next::<DeltaDiscoveryRequest>(|held| {
            accounted.push(held);
            Ok(())
        });
        message.await.unwrap().unwrap();
        assert_eq!(accounted, [7, 9, 3]);

        let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from(one[..7].to_vec())))];
        let mut incoming = Incoming::new(StreamBody::new(tokio_stream::iter(frames)));
        let refused = incoming.next::<DeltaDiscoveryRequest>(|_| Err(Status::resource_exhausted("too much")));
        assert_eq!(refused.await.unwrap_err().code(), Code::ResourceExhausted);
    }

    #[test]
    fn the_end_of_a_stream_says_why() {
        let end = end(&Status::unavailable("it is over"));
        assert_eq!(
            (&end["grpc-status"], &end["grpc-message"]),
            (&"14".parse().unwrap(), &"it%20is%20over".parse().unwrap())
        );
    }
}
