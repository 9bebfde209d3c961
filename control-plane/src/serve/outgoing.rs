//! The responses of one discovery stream on their way to the transport.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use selvedge_xds::proto::discovery::DeltaDiscoveryResponse;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use super::shares::Room;

/// A response, or the end of the stream, with the room it takes.
pub(super) type Message = (Result<DeltaDiscoveryResponse, Status>, Option<Room>);

/// Hands responses to the transport, which asks for the next when it has got rid of the last; until then the last one
/// takes its room. An acknowledgement would not tell: it can be sent without having read anything.
#[derive(Debug)]
pub(crate) struct Outgoing {
    queue: mpsc::Receiver<Message>,
    under_way: Option<Room>,
}

impl Outgoing {
    pub(super) fn new(queue: mpsc::Receiver<Message>) -> Self {
        Self { queue, under_way: None }
    }
}

impl Stream for Outgoing {
    type Item = Result<DeltaDiscoveryResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.under_way = None;
        let Some((response, room)) = ready!(self.queue.poll_recv(cx)) else { return Poll::Ready(None) };
        self.under_way = room;
        Poll::Ready(Some(response))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::timeout;
    use tokio_stream::StreamExt;

    use super::*;
    use crate::serve::shares::Shares;

    #[tokio::test(start_paused = true)]
    async fn a_response_takes_room_until_the_transport_asks_for_the_next() {
        let identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
        let held = Arc::new(Shares::default().enter(&identity).await.unwrap()).stream().unwrap();
        let (sender, queue) = mpsc::channel(64);
        for _ in 0..64 {
            let response = Ok(DeltaDiscoveryResponse::default());
            sender.send((response, Some(held.room().await))).await.unwrap();
        }
        let has_room = async || timeout(Duration::from_secs(1), held.room()).await.is_ok();
        let mut outgoing = Outgoing::new(queue);
        assert!(!has_room().await, "all of it is under way");
        outgoing.next().await.unwrap().unwrap();
        assert!(!has_room().await, "the transport has it, nobody has read it");
        outgoing.next().await.unwrap().unwrap();
        assert!(has_room().await);
    }
}
