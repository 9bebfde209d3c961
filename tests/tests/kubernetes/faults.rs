//! What the control plane does while the API server misbehaves.

use std::time::Duration;

use selvedge_control_plane::source::kubernetes::Pace;
use selvedge_tests::api_server::{ApiServer, Watching};

use super::{Fed, POLICIES, QUICK, deny, has, problems};

#[tokio::test]
async fn a_server_whose_watches_come_to_nothing_is_asked_at_intervals_and_policies_still_come() {
    for watching in [Watching::AtOnce, Watching::Expired, Watching::Forbidden] {
        let mut servers = ApiServer::each();
        while let Some(server) = servers.next().await {
            server.put(deny("shop", "nobody")).await;
            server.relay().end_watches(watching);
            let pace =
                Pace { first_pause: Duration::from_millis(100), longest_pause: Duration::from_millis(400), ..QUICK };
            let mut fed = Fed::at_pace(&server, pace).await;
            fed.until("it is in force", |fed| has(fed, "AuthorizationPolicy", "nobody")).await;
            let looking = tokio::time::sleep(Duration::from_secs(2));
            tokio::select! {
                () = looking => {}
                () = fed.until("nothing more", |_| false) => {}
            }
            // After 0.08 s, 0.24 s, 0.56 s, and then at most every 0.32 s.
            let (lists, watches) = (server.relay().lists(POLICIES), server.relay().watches(POLICIES));
            assert!((2..=9).contains(&watches), "{watching:?}: {watches} watches in 2 s");
            assert!(lists <= 9, "{watching:?}: {lists} lists in 2 s");
            assert!(has(&fed, "AuthorizationPolicy", "nobody"));
            server.relay().end_watches(Watching::InTime);
            server.put(deny("shop", "anybody")).await;
            fed.until("another one comes", |fed| has(fed, "AuthorizationPolicy", "anybody")).await;
            fed.until("nothing is wrong any more", |fed| problems(fed).is_empty()).await;
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_api_server_is_told_until_its_watches_go_on() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        server.relay().fail(Some(503));
        server.relay().cut();
        fed.until("it is told", |fed| !problems(fed).is_empty()).await;
        server.relay().fail(None);
        fed.until("it is told no longer", |fed| problems(fed).is_empty()).await;
        assert_eq!(server.relay().lists(POLICIES), 1, "nothing was lost that a list would have to find");
    }
}

#[tokio::test]
async fn a_list_that_is_never_answered_is_told_and_tried_again() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(deny("shop", "nobody")).await;
        server.relay().hang(Some(POLICIES));
        let mut fed = Fed::at_pace(&server, Pace { answer: Duration::from_millis(300), ..QUICK }).await;
        fed.until("it is told", |fed| {
            let unanswered = "the API server does not tell of AuthorizationPolicy: no answer within 300ms";
            problems(fed) == [unanswered]
        })
        .await;
        server.relay().hang(None);
        fed.until("it is in force", |fed| has(fed, "AuthorizationPolicy", "nobody") && problems(fed).is_empty()).await;
        assert!(fed.report.complete);
    }
}

#[tokio::test]
async fn a_slow_and_stammering_server_that_asks_for_patience_tells_the_same_in_the_end() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(deny("shop", "stays")).await;
        server.put(deny("shop", "goes")).await;
        server.relay().delay_lists(Duration::from_millis(300));
        server.relay().repeat_events();
        server.relay().fail(Some(429));
        let mut fed = Fed::new(&server).await;
        fed.until("it is told", |fed| problems(fed).iter().any(|problem| problem.contains("it answers 429"))).await;
        server.relay().fail(None);
        fed.until("both are in force", |fed| has(fed, "AuthorizationPolicy", "goes") && fed.report.complete).await;
        server.delete("AuthorizationPolicy", "shop", "goes").await;
        server.put(deny("shop", "comes")).await;
        fed.until("one goes and one comes", |fed| {
            has(fed, "AuthorizationPolicy", "comes") && !has(fed, "AuthorizationPolicy", "goes")
        })
        .await;
        assert!(has(&fed, "AuthorizationPolicy", "stays"));
        fed.until("nothing is wrong any more", |fed| problems(fed).is_empty()).await;
    }
}
