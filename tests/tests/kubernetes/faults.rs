//! What the control plane does while the API server misbehaves.

use std::time::Duration;

use selvedge_control_plane::source::kubernetes::Pace;
use selvedge_tests::{
    api_server::{ApiServer, Watching},
    wait,
};

use serde_json::json;
use tokio::time::Instant;

use super::{Fed, POLICIES, QUICK, deny, has, pod, problems};

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
            let asked = || (server.relay().lists(POLICIES), server.relay().watches(POLICIES));
            let (before, began) = (asked(), Instant::now());
            let looking = async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                wait::until_true("it is watched again", async || asked().1 >= before.1 + 2).await;
            };
            tokio::select! {
                () = looking => {}
                () = fed.until("nothing more", |_| false) => {}
            }
            // After 0.08 s, 0.24 s, 0.56 s, and then at most every 0.32 s.
            let (lists, watches) = (asked().0 - before.0, asked().1 - before.1);
            let most = 3 + began.elapsed().as_millis() / 320;
            assert!(watches as u128 <= most, "{watching:?}: {watches} watches, {most} at most");
            assert!(lists as u128 <= most, "{watching:?}: {lists} lists, {most} at most");
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

#[tokio::test]
async fn an_event_that_breaks_off_is_told_again() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(deny("shop", "goes")).await;
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        server.relay().end_watches(Watching::Within);
        server.relay().cut();
        server.put(deny("shop", "comes")).await;
        server.delete("AuthorizationPolicy", "shop", "goes").await;
        let watches = server.relay().watches(POLICIES);
        let breaking_off = async {
            while server.relay().watches(POLICIES) < watches + 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = breaking_off => {}
            () = fed.until("nothing more", |_| false) => {}
        }
        assert!(has(&fed, "AuthorizationPolicy", "goes") && !has(&fed, "AuthorizationPolicy", "comes"));
        server.relay().end_watches(Watching::InTime);
        fed.until("one comes and one goes", |fed| {
            has(fed, "AuthorizationPolicy", "comes") && !has(fed, "AuthorizationPolicy", "goes")
        })
        .await;
        assert_eq!(server.relay().lists(POLICIES), 1, "nothing was lost that a list would have to find");
    }
}

#[tokio::test]
async fn what_a_watch_cannot_say_in_any_form_that_can_be_read_a_list_says() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        server.put(deny("shop", "goes")).await;
        let mut fed = Fed::new(&server).await;
        fed.until("it is complete", |fed| fed.report.complete).await;
        server.relay().end_watches(Watching::Garbled);
        server.relay().cut();
        server.put(deny("shop", "comes")).await;
        server.delete("AuthorizationPolicy", "shop", "goes").await;
        fed.until("one comes and one goes", |fed| {
            has(fed, "AuthorizationPolicy", "comes") && !has(fed, "AuthorizationPolicy", "goes")
        })
        .await;
        server.relay().end_watches(Watching::InTime);
        fed.until("nothing is wrong any more", |fed| problems(fed).is_empty()).await;
    }
}

#[tokio::test]
async fn a_kind_that_is_refused_keeps_what_it_had_and_the_others_go_on() {
    for status in [403, 429, 500] {
        let mut servers = ApiServer::each();
        while let Some(server) = servers.next().await {
            server.put(deny("shop", "stays")).await;
            let mut fed = Fed::new(&server).await;
            fed.until("it is complete", |fed| fed.report.complete).await;
            server.relay().refuse(POLICIES, Some(status));
            server.relay().cut();
            server.put(deny("shop", "comes")).await;
            server.put(pod("shop", "web-1", "10.1.0.5", true)).await;
            fed.until("a pod comes", |fed| has(fed, "Workload", "web-1")).await;
            fed.until("it is told what is refused, and nothing else is", |fed| {
                matches!(problems(fed)[..], [problem] if problem.contains(POLICIES) || problem.contains("AuthorizationPolicy"))
            })
            .await;
            assert!(
                has(&fed, "AuthorizationPolicy", "stays") && !has(&fed, "AuthorizationPolicy", "comes"),
                "{status}"
            );
            server.relay().refuse(POLICIES, None);
            fed.until("it is not refused any more", |fed| {
                has(fed, "AuthorizationPolicy", "comes") && problems(fed).is_empty()
            })
            .await;
            assert!(has(&fed, "AuthorizationPolicy", "stays"));
        }
    }
}

/// The double alone: a real server goes back to a backup only with its etcd, which all tests share.
#[tokio::test]
async fn a_server_that_was_restored_from_a_backup_is_listed_anew_at_once() {
    let server = ApiServer::double().await;
    server.put(deny("shop", "before")).await;
    server.put(deny("shop", "deleted-since")).await;
    let backup = server.only_double().back_up();
    server.delete("AuthorizationPolicy", "shop", "deleted-since").await;
    server.put(deny("shop", "made-since")).await;
    for _ in 0..20 {
        server.tick().await;
    }
    let mut fed = Fed::new(&server).await;
    fed.until("it is complete", |fed| fed.report.complete && has(fed, "AuthorizationPolicy", "made-since")).await;
    server.only_double().restore(backup);
    server.relay().cut();
    fed.until("what the backup has is in force, and nothing else", |fed| {
        let all = ["before", "deleted-since", "made-since"].map(|name| has(fed, "AuthorizationPolicy", name));
        all == [true, true, false]
    })
    .await;
    server.put(deny("shop", "after")).await;
    fed.until("and what comes after it", |fed| has(fed, "AuthorizationPolicy", "after") && problems(fed).is_empty())
        .await;
}

#[tokio::test]
async fn an_object_as_large_as_a_server_takes_is_read_and_costs_no_other() {
    let mut servers = ApiServer::each();
    while let Some(server) = servers.next().await {
        let large = |name: &str| {
            let paths: Vec<String> =
                (0..20_000).map(|n| format!("/{name}/{n:05}/which-is-a-long-path-in-the-end")).collect();
            let mut large = deny("shop", name);
            large["spec"]["rules"] = json!([{ "to": [{ "paths": paths }] }]);
            large
        };
        assert!(large("listed").to_string().len() > 900 * 1024);
        server.put(large("listed")).await;
        server.put(deny("shop", "small")).await;
        let mut fed = Fed::new(&server).await;
        fed.until("both are in force", |fed| {
            fed.report.complete && has(fed, "AuthorizationPolicy", "listed") && has(fed, "AuthorizationPolicy", "small")
        })
        .await;
        server.put(large("watched")).await;
        server.put(deny("shop", "last")).await;
        fed.until("so is what comes", |fed| {
            has(fed, "AuthorizationPolicy", "watched") && has(fed, "AuthorizationPolicy", "last")
        })
        .await;
        assert_eq!(problems(&fed), [""; 0]);
    }
}

/// The double alone: a real server sends its bookmarks about once a minute, and forgets by the clock.
#[tokio::test]
async fn bookmarks_alone_keep_a_watch_going_past_what_is_forgotten() {
    let server = ApiServer::double().await;
    let mut fed = Fed::new(&server).await;
    fed.until("it is complete", |fed| fed.report.complete).await;
    // A bookmark may still be on its way when its version is forgotten, but hardly every time.
    for attempt in 0..20 {
        let lists = server.relay().lists(POLICIES);
        server.tick().await;
        server.put(pod("shop", "web-1", &format!("10.1.0.{attempt}"), true)).await;
        let bookmark = tokio::time::sleep(Duration::from_millis(50));
        tokio::select! {
            () = bookmark => {}
            () = fed.until("nothing more", |_| false) => {}
        }
        server.only_double().compact();
        server.relay().cut();
        let name = format!("comes-{attempt}");
        server.put(deny("shop", &name)).await;
        fed.until("it goes on", |fed| has(fed, "AuthorizationPolicy", &name) && problems(fed).is_empty()).await;
        if server.relay().lists(POLICIES) == lists {
            return;
        }
    }
    panic!("the version of the watch never moved on with the bookmarks");
}
