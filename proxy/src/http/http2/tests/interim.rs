//! What the service announces before its answer (1xx, RFC 9110 section 15.2).

use super::*;

/// An announcement of some hundred bytes.
fn hint() -> Response<()> {
    let hint = Response::builder().status(StatusCode::EARLY_HINTS).header("link", "</style.css>; rel=preload");
    hint.body(()).unwrap()
}

#[test]
fn an_answer_may_be_announced_and_comes() {
    on_worker(async {
        let (caller, mut called) = pair(100).await;
        let answered = call(&caller, Method::GET, Body::empty());
        let mut service = called.next().await.1;
        for _ in 0..100 {
            service.send_informational(hint()).unwrap();
        }
        service.send_response(status(200), true).unwrap();
        assert_eq!(answered.await.unwrap().unwrap().status(), 200);
    });
}

#[test]
fn who_announces_for_ever_is_given_up_and_nobody_else() {
    on_worker(async {
        let (caller, mut called) = pair(100).await;
        let answered = call(&caller, Method::GET, Body::empty());
        let mut service = called.next().await.1;
        // As long as it is taken.
        while !answered.is_finished() && service.send_informational(hint()).is_ok() {
            yield_now().await;
        }
        let failed = answered.await.unwrap().unwrap_err();
        assert!(
            matches!(&failed, Failed::Ended(error) if error.reason() == Some(Reason::PROTOCOL_ERROR)),
            "{failed:?}"
        );
        let answered = call(&caller, Method::GET, Body::empty());
        called.next().await.1.send_response(status(204), true).unwrap();
        assert_eq!(answered.await.unwrap().unwrap().status(), 204);
    });
}
