use std::{cell::Cell, future::pending};

use super::*;

async fn there() -> bool {
    false
}

fn inbound() -> Heading {
    Heading::Inbound { forward: ([127, 0, 0, 1], 80).into(), port: 80 }
}

fn outbound() -> Heading {
    Heading::Outbound { destination: "a/b".into(), port: 80, original: None }
}

#[tokio::test(start_paused = true)]
async fn the_applications_calls_go_on_until_the_last_is_over() {
    let (phases, receiver) = watch::channel(Phase::Serving);
    let open = Arc::new(Open::default());
    open.opened(&outbound());
    let draining = tokio::spawn({
        let (open, phases) = (open.clone(), phases.clone());
        async move { drain(&phases, &open, Duration::from_secs(30), there, async {}).await }
    });
    let mut view = Drain::new(receiver.clone());
    view.begun(&inbound(), &Pace::default(), true).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(*receiver.borrow() < Phase::Closing, "the application still has a connection");
    open.closed(&outbound(), false);
    draining.await.unwrap();
    assert_eq!(*receiver.borrow(), Phase::Closing);
}

#[tokio::test(start_paused = true)]
async fn the_applications_connection_finishes_when_it_is_left_idle() {
    let (_phases, receiver) = watch::channel(Phase::Draining);
    let (mut view, pace, began) = (Drain::new(receiver), Pace::default(), Instant::now());
    let calls = async {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let turn = pace.begin();
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(turn);
        }
    };
    let heading = outbound();
    tokio::join!(calls, view.begun(&heading, &pace, true));
    let idle = began.elapsed().as_secs() - 4 * 21;
    assert!((1..=3).contains(&idle), "{idle} s after the last call");
}

#[tokio::test(start_paused = true)]
async fn callers_that_hear_of_nothing_are_turned_away_after_a_third_of_the_deadline() {
    let (phases, receiver) = watch::channel(Phase::Serving);
    let open = Arc::new(Open::default());
    open.opened(&inbound());
    let began = Instant::now();
    let callers = async {
        Drain::new(receiver.clone()).shut(true, || false).await;
        assert_eq!(began.elapsed().as_secs(), 10);
        open.closed(&inbound(), false);
    };
    tokio::join!(drain(&phases, &open, Duration::from_secs(30), there, async {}), callers);
    assert!(began.elapsed().as_secs() < 12, "nothing is in flight any more");
}

/// When it turns callers away that come without end, whose application is there or `gone`; and when it ends.
async fn turned_away_and_ended(gone: bool) -> (u64, u64) {
    let (phases, receiver) = watch::channel(Phase::Serving);
    let (open, began) = (Open::default(), Instant::now());
    open.opened(&inbound());
    let callers = async {
        Drain::new(receiver.clone()).shut(true, || false).await;
        let turned_away = began.elapsed().as_secs();
        open.closed(&inbound(), false);
        turned_away
    };
    let draining = drain(&phases, &open, Duration::from_secs(30), async || gone, pending());
    let (turned_away, ()) = tokio::join!(callers, draining);
    (turned_away, began.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn an_application_that_takes_connections_is_called_until_the_deadline() {
    assert_eq!(turned_away_and_ended(false).await, (30, 30), "and nothing is waited for after that");
    assert_eq!(turned_away_and_ended(true).await, (2, 4), "nobody would answer");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_drain() {
    let (phases, _receiver) = watch::channel(Phase::Serving);
    let open = Arc::new(Open::default());
    open.opened(&inbound());
    let began = Instant::now();
    drain(&phases, &open, Duration::from_secs(5), there, pending()).await;
    assert_eq!(began.elapsed().as_secs(), 6, "with the second that calls have to close in order");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_tells_callers_once_they_could_have_heard_and_leaves_the_applications_calls_alone() {
    let (phases, receiver) = watch::channel(Phase::Serving);
    let (open, began, hearing) = (Open::default(), Instant::now(), Duration::from_secs(5));
    leave(&phases, &open, hearing).await;
    assert!(began.elapsed().is_zero() && *receiver.borrow() == Phase::Told, "nobody has called");

    let (phases, receiver) = watch::channel(Phase::Serving);
    open.note_call();
    let caller = async {
        Drain::new(receiver.clone()).begun(&inbound(), &Pace::default(), true).await;
        assert_eq!(began.elapsed().as_secs(), 5);
    };
    tokio::join!(leave(&phases, &open, hearing), caller);
    assert!(!Drain::new(receiver.clone()).has_begun(&outbound()));
    let (heading, pace) = (outbound(), Pace::default());
    let mut view = Drain::new(receiver.clone());
    let own = tokio::time::timeout(Duration::from_secs(600), view.begun(&heading, &pace, true)).await;
    assert!(own.is_err(), "the application's connections go on, idle ones too");

    phases.send_replace(Phase::Gone);
    leave(&phases, &open, hearing).await;
    assert_eq!(*receiver.borrow(), Phase::Gone, "who has left long ago does not come back");
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_whose_application_is_gone_stays_for_what_is_in_flight_only() {
    let phases = watch::Sender::new(Phase::Serving);
    let (open, began) = (Open::default(), Instant::now());
    follow(&phases, &open, Duration::from_secs(30)).await;
    assert!(began.elapsed() < Duration::from_millis(200), "nothing was in flight: {:?}", began.elapsed());

    let (phases, receiver) = watch::channel(Phase::Serving);
    let (heading, pace, began) = (outbound(), Pace::default(), Instant::now());
    open.opened(&heading);
    let last_call = async {
        Drain::new(receiver.clone()).begun(&heading, &pace, true).await;
        assert!(began.elapsed().is_zero(), "the application asks nothing more");
        tokio::time::sleep(Duration::from_secs(7)).await;
        open.closed(&heading, false);
    };
    tokio::join!(follow(&phases, &open, Duration::from_secs(30)), last_call);
    assert_eq!(began.elapsed().as_secs(), 7);

    let (phases, began) = (watch::Sender::new(Phase::Serving), Instant::now());
    open.opened(&heading);
    follow(&phases, &open, Duration::from_secs(30)).await;
    assert_eq!(began.elapsed().as_secs(), 31, "the deadline ends this, too");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_replaced_takes_nothing_new_but_what_nobody_else_would() {
    let (phases, receiver) = watch::channel(Phase::Serving);
    let (open, pace, began) = (Open::default(), Pace::default(), Instant::now());
    open.opened(&outbound());
    let view = || Drain::new(receiver.clone());
    let meanwhile = async {
        view().shut(true, || false).await;
        view().shut(false, || false).await;
        view().begun(&inbound(), &pace, true).await;
        view().begun(&outbound(), &pace, true).await;
        assert!(began.elapsed().is_zero() && view().has_begun(&outbound()));
        for heading in [inbound(), outbound()] {
            let before = Instant::now();
            view().begun(&heading, &pace, false).await;
            assert_eq!(before.elapsed(), IDLE, "it may be asked something at this moment");
        }
        let (mut kept, mut opaque) = (view(), view());
        tokio::join!(kept.shut(false, || true), opaque.passed());
        assert_eq!(began.elapsed().as_secs(), 30);
        open.closed(&outbound(), false);
    };
    tokio::join!(give_way(&phases, &open, Duration::from_secs(30)), meanwhile);
    assert!(began.elapsed() < Duration::from_secs(31), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_comes_is_served_until_all_are_gone_that_were_there_when_a_next_process_is_to_follow() {
    let (phases, receiver) = watch::channel(Phase::Serving);
    let (open, began) = (Open::default(), Instant::now());
    let early = open.opened(&inbound());
    let view = || Drain::new(receiver.clone());
    let meanwhile = async {
        view().begun(&outbound(), &Pace::default(), true).await;
        assert!(began.elapsed().is_zero() && view().has_begun(&outbound()), "all are told");
        tokio::time::sleep(Duration::from_secs(7)).await;
        let late = open.opened(&inbound());
        assert_eq!((early, late), (false, true));
        assert_eq!(*receiver.borrow(), Phase::Restarting, "new connections are taken");
        open.closed(&inbound(), early);
        view().shut(true, || false).await;
        view().shut(false, || false).await;
        assert_eq!(began.elapsed().as_secs(), 7);
        tokio::time::sleep(Duration::from_secs(2)).await;
        open.closed(&inbound(), late);
    };
    tokio::join!(restart(&phases, &open, Duration::from_secs(30), there), meanwhile);
    assert_eq!(began.elapsed().as_secs(), 9, "what came late is finished, too");

    for gone in [false, true] {
        let (phases, began) = (watch::Sender::new(Phase::Serving), Instant::now());
        let open = Open::default();
        open.opened(&inbound());
        let (ended, shut) = tokio::join!(
            async {
                restart(&phases, &open, Duration::from_secs(5), async || gone).await;
                began.elapsed().as_secs()
            },
            async {
                Drain::new(phases.subscribe()).shut(true, || false).await;
                began.elapsed().as_secs()
            }
        );
        assert_eq!((ended, shut), (6, if gone { 2 } else { 5 }), "it has a deadline, and calls nobody who is gone");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_open_at_the_deadline_have_a_second_to_close_in_order() {
    let (phases, receiver) = watch::channel(Phase::Serving);
    let (open, began) = (Open::default(), Instant::now());
    open.opened(&outbound());
    let last_call = async {
        Drain::new(receiver.clone()).passed().await;
        assert_eq!(began.elapsed().as_secs(), 5);
        tokio::time::sleep(Duration::from_millis(700)).await;
        open.closed(&outbound(), false);
    };
    let draining = async {
        drain(&phases, &open, Duration::from_secs(5), there, pending()).await;
        assert_eq!(open.all(), 0, "the process ended before the call");
    };
    tokio::join!(draining, last_call);
    assert!(began.elapsed() < Duration::from_secs(6), "and it waits no longer: {:?}", began.elapsed());
}

/// Seconds that a drain takes when nothing is in flight and the application goes, or is said to be done, after so many.
async fn idle_drain(gone: Option<u64>, done: Option<u64>) -> u64 {
    let (phases, receiver) = watch::channel(Phase::Serving);
    let began = Instant::now();
    let after = |seconds: Option<u64>| seconds.is_some_and(|seconds| began.elapsed().as_secs() >= seconds);
    let done = async {
        match done {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => pending().await,
        }
    };
    drain(&phases, &Open::default(), Duration::from_secs(30), async || after(gone), done).await;
    assert_eq!(*receiver.borrow(), Phase::Closing);
    began.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn it_ends_soon_where_nothing_is_in_flight_whether_or_not_the_application_goes_on() {
    assert_eq!(idle_drain(None, None).await, 2, "the application goes on");
    assert_eq!(idle_drain(Some(1), None).await, 2, "it is gone");
    assert_eq!(idle_drain(None, Some(1)).await, 1, "it is said to be done");
    assert_eq!(idle_drain(None, Some(0)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_application_that_closed_its_listener_may_say_its_last_words() {
    let (phases, receiver) = watch::channel(Phase::Serving);
    let (open, over) = (Open::default(), Cell::new(false));
    let last_words = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(*receiver.borrow() < Phase::Closing && !over.get());
        open.opened(&outbound());
        tokio::time::sleep(Duration::from_secs(5)).await;
        open.closed(&outbound(), false);
        assert!(*receiver.borrow() < Phase::Closing && !over.get());
    };
    let draining = async {
        drain(&phases, &open, Duration::from_secs(30), async || true, pending()).await;
        over.set(true);
    };
    let began = Instant::now();
    tokio::join!(draining, last_words);
    assert!((8..=10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}
