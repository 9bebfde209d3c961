//! What the service sends ahead, and nobody reads yet.

use std::iter::repeat_n;

use http::{HeaderMap, HeaderValue};
use http_body_util::Collected;

use super::*;

/// Content of a piece that is small.
const CRUMB: usize = 60;
/// Answers that are not read.
const UNREAD: usize = 20;

/// Content in pieces of these sizes, none of whose bytes is like the one before.
fn pieces(sizes: impl IntoIterator<Item = usize>) -> Vec<Bytes> {
    let mut bytes = (0..251).cycle();
    sizes.into_iter().map(|size| bytes.by_ref().take(size).collect()).collect()
}

/// More of them than the window of a stream takes.
fn crumbs() -> Vec<Bytes> {
    pieces(repeat_n(CRUMB, 2 * Windows::NEAR.stream as usize / CRUMB))
}

/// Gives an answer in these pieces, each a frame, as far as the caller takes them.
async fn answer(caller: &Caller, called: &mut Called, pieces: &[Bytes]) -> (Response<Content>, SendStream<Bytes>) {
    let answered = call(caller, Method::GET, Body::empty());
    let mut stream = called.next().await.1.send_response(status(200), false).unwrap();
    for piece in pieces {
        stream.send_data(piece.clone(), false).unwrap();
    }
    let answer = answered.await.unwrap().unwrap();
    all_is_said().await;
    (answer, stream)
}

/// The clock goes on when nobody has anything to do.
async fn all_is_said() {
    sleep(Duration::from_millis(1)).await;
}

async fn another_is_answered(caller: &Caller, called: &mut Called) {
    let answered = call(caller, Method::GET, Body::empty());
    called.next().await.1.send_response(status(204), true).unwrap();
    assert_eq!(answered.await.unwrap().unwrap().status(), 204);
}

async fn whole(answer: Response<Content>) -> Collected<Bytes> {
    answer.into_body().collect().await.unwrap()
}

#[test]
fn unread_answers_in_small_pieces_end_nobody_elses() {
    on_worker(async {
        let ((caller, mut called), crumbs) = (pair(100).await, crumbs());
        let mut unread = Vec::new();
        for _ in 0..UNREAD {
            unread.push(answer(&caller, &mut called, &crumbs).await);
        }
        another_is_answered(&caller, &mut called).await;
        for (answer, mut stream) in unread {
            let trailers = [(http::header::ETAG, HeaderValue::from_static("sum"))];
            stream.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
            let whole = whole(answer).await;
            assert_eq!(whole.trailers().unwrap()["etag"], "sum");
            assert!(whole.to_bytes() == crumbs.concat());
        }
        another_is_answered(&caller, &mut called).await;
    });
}

#[test]
fn what_still_comes_of_answers_that_were_given_up_ends_nobody_elses() {
    on_worker(async {
        let ((caller, mut called), crumbs) = (pair(100).await, crumbs());
        for _ in 0..5 * UNREAD {
            let (answer, mut stream) = answer(&caller, &mut called, &[]).await;
            crumbs.iter().for_each(|crumb| stream.send_data(crumb.clone(), false).unwrap());
            drop(answer);
            all_is_said().await;
        }
        another_is_answered(&caller, &mut called).await;
    });
}

#[test]
fn pieces_of_every_size_that_come_ahead_are_read_in_order() {
    on_worker(async {
        let (caller, mut called) = pair(100).await;
        let sizes = [1, 60, 1023, 1024, 2, 5000, 3, 1023, 1, 16_384, 900, 900, 4, 0, 2048, 7];
        let sent = pieces(sizes.into_iter().cycle().take(200));
        // In time, and all at once.
        for waits in [false, true] {
            let (answer, mut stream) = answer(&caller, &mut called, if waits { &sent } else { &[] }).await;
            let reading = spawn_local(whole(answer));
            if !waits {
                for piece in &sent {
                    stream.send_data(piece.clone(), false).unwrap();
                    all_is_said().await;
                }
            }
            stream.send_data("the end".into(), true).unwrap();
            let read = reading.await.unwrap().to_bytes();
            assert!(read == [&sent.concat()[..], b"the end"].concat(), "{} bytes, {waits}", read.len());
        }
    });
}

#[test]
fn a_last_piece_without_content_ends_what_was_gathered() {
    on_worker(async {
        let (caller, mut called) = pair(100).await;
        for last in ["", "."] {
            let (answer, mut stream) = answer(&caller, &mut called, &["a".into(), "b".into()]).await;
            stream.send_data(last.into(), true).unwrap();
            all_is_said().await;
            assert_eq!(whole(answer).await.to_bytes(), format!("ab{last}"));
        }
    });
}
