//! Descriptors passed to another process over a Unix socket that keeps messages apart (`SCM_RIGHTS` and `SOCK_SEQPACKET` or
//! `SOCK_DGRAM`, unix(7)), each message with a text.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::retry_on_intr,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};

/// Descriptors that one message carries at most; the kernel takes 253.
pub(crate) const MOST: usize = 64;
/// The longest text that is read.
const TEXT: usize = 64 * 1024;

/// Sends `text`, and with it at most [`MOST`] descriptors.
///
/// # Errors
/// The other end is gone, or takes no message of this length.
pub(crate) fn send(socket: impl AsFd, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = descriptors.is_empty()
        || descriptors.len() <= MOST && control.push(SendAncillaryMessage::ScmRights(descriptors));
    if !fits {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more descriptors than fit into a message"));
    }
    retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Waits for a message: its text, and the descriptors that came with it.
///
/// # Errors
/// `UnexpectedEof` when the other end is gone; a message that does not fit.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = vec![0; TEXT];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        retry_on_intr(|| recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let passed = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = passed.flatten().collect();
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    text.truncate(received.bytes);
    Ok((text, descriptors))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn a_listener_is_passed_with_its_queue() {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        caller.write_all(b"hello").unwrap();
        send(&ours, b"one", &[listener.as_fd()]).unwrap();
        send(&ours, b"two", &[]).unwrap();
        drop((listener, ours));
        let (text, mut passed) = receive(&theirs).unwrap();
        assert_eq!((&text[..], passed.len()), (&b"one"[..], 1));
        let (_, peer) = TcpListener::from(passed.remove(0)).accept().unwrap();
        assert_eq!(peer, caller.local_addr().unwrap());
        assert_eq!(receive(&theirs).unwrap().0, b"two");
        assert_eq!(receive(&theirs).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let many = [ours.as_fd(); MOST + 1];
        assert_eq!(send(&ours, b"many", &many).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        send(&ours, &vec![b'a'; TEXT + 1], &many[..MOST]).unwrap();
        assert_eq!(receive(&theirs).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
