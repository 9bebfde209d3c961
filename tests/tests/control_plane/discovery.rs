//! What a sidecar learns, keeps and is told again.

use std::sync::Arc;

use selvedge_decide::resources::Resources;
use selvedge_proxy::renew;
use selvedge_xds::kinds::{DESTINATION, ENDPOINTS};
use tempfile::TempDir;

use super::kit::{ControlPlane, Sidecar, WORKLOAD, canonical, eventually, generation, service, workload};

#[tokio::test]
async fn a_sidecar_learns_of_destinations_by_alias_and_of_their_changes() {
    let control_plane = ControlPlane::start().await;
    let state = TempDir::new().unwrap();
    let credentials = control_plane.join().await;
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(credentials));
    sidecar.want("10.0.0.1:80");
    sidecar.want("nothing.shop");
    sidecar.until("a stream", |r| r.connected).await;
    assert!(sidecar.handle.resources.borrow().aliases.is_empty(), "an incomplete snapshot answers nothing");

    control_plane.publish(|draft| {
        service(draft, "cart", 1, "10.0.0.1:80");
        workload(draft, WORKLOAD, "web");
    });
    let is_answered = |r: &Resources| r.aliases.contains_key("10.0.0.1:80") && r.absent.contains("nothing.shop");
    let resources = sidecar.until("both answers", |r| is_answered(r) && r.inbound.is_some()).await;
    assert_eq!(resources.aliases["10.0.0.1:80"].as_deref(), Some("shop/cart"));
    for name in ["none.shop", "10.0.0.9:80"] {
        sidecar.want(name);
        let known = sidecar.until("that it is nothing", |r| r.absent.contains(name)).await;
        assert_eq!(known.generation, resources.generation, "which makes no new configuration");
    }
    assert_eq!(resources.endpoints["shop/cart:80"].value.endpoints.len(), 1, "endpoints come with their destination");
    assert_eq!(resources.bundle.as_ref().unwrap().trust_domain, "mesh.local");

    control_plane.publish(|draft| service(draft, "cart", 2, "10.0.0.1:80"));
    sidecar.until("the update", |r| generation(r, "shop/cart") == Some(2)).await;
    control_plane.publish(|draft| service(draft, "late", 1, "nothing.shop"));
    sidecar.until("what was absent", |r| canonical(r, "nothing.shop") == Some("shop/late")).await;
    control_plane.publish(|draft| {
        draft.remove(DESTINATION, "shop/cart");
        draft.remove(ENDPOINTS, "shop/cart:80");
    });
    let resources = sidecar.until("the removal", |r| r.absent.contains("10.0.0.1:80")).await;
    assert!(!resources.destinations.contains_key("shop/cart") && !resources.endpoints.contains_key("shop/cart:80"));
}

#[tokio::test]
async fn a_sidecar_lives_without_a_control_plane_and_goes_on_with_the_next() {
    let control_plane = ControlPlane::start().await;
    control_plane.publish(|draft| {
        service(draft, "cart", 1, "cart.shop");
        workload(draft, WORKLOAD, "web");
    });
    let state = TempDir::new().unwrap();
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(control_plane.join().await));
    sidecar.want("cart.shop");
    sidecar.until("everything", |r| !r.destinations.is_empty() && r.inbound.is_some() && r.bundle.is_some()).await;
    eventually("the cache", async || std::fs::metadata(state.path().join("resources.pb")).ok()).await;

    let address = control_plane.address;
    let credentials = control_plane.join().await;
    let authority = control_plane.stop().await;
    let resources = sidecar.until("the loss", |r| !r.connected).await;
    assert_eq!(generation(&resources, "shop/cart"), Some(1), "what is known stays in force");
    drop(sidecar);

    let mut restarted = Sidecar::start(address.to_string(), state.path(), Some(credentials));
    let resources = Arc::clone(&restarted.handle.resources.borrow());
    assert_eq!(generation(&resources, "shop/cart"), Some(1), "the disk has it at once");
    assert_eq!(resources.aliases["cart.shop"].as_deref(), Some("shop/cart"));
    assert!(resources.inbound.is_some() && resources.bundle.is_some() && resources.endpoints.len() == 1);

    let control_plane = ControlPlane::start_in(authority, address).await;
    control_plane.publish(|draft| {
        service(draft, "cart", 2, "cart.shop");
        workload(draft, WORKLOAD, "web");
    });
    restarted.until("the next control plane", |r| r.connected && generation(r, "shop/cart") == Some(2)).await;
}

#[tokio::test]
async fn a_new_certificate_makes_a_new_stream_on_which_nothing_is_said_again() {
    let control_plane = ControlPlane::start().await;
    control_plane.publish(|draft| {
        service(draft, "cart", 1, "cart.shop");
        workload(draft, WORKLOAD, "web");
    });
    let state = TempDir::new().unwrap();
    let current = control_plane.join().await;
    let renewed = renew(&control_plane.address(), WORKLOAD, &current).await.unwrap();
    let mut sidecar = Sidecar::start(control_plane.address(), state.path(), Some(current));
    sidecar.want("cart.shop");
    sidecar.until("everything", |r| !r.destinations.is_empty() && r.inbound.is_some() && r.bundle.is_some()).await;
    let sent = async || {
        let metrics = control_plane.get("/metrics").await;
        let counters = metrics.lines().filter(|line| line.starts_with("selvedge_control_plane_responses_total"));
        counters.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = sent().await;
    let source = async || {
        let status: serde_json::Value = serde_json::from_str(&control_plane.get("/status").await).unwrap();
        let [only] = &status["sidecars"].as_array()?[..] else { return None };
        (only["acknowledged"]["Service shop/cart"] == 1).then(|| only["address"].clone())
    };
    let first = eventually("the first stream", source).await;
    sidecar.credentials.send_replace(Some(Arc::new(renewed)));
    let another = async || source().await.filter(|address| *address != first);
    eventually("the new stream alone, with what the sidecar has in force", another).await;
    control_plane.publish(|draft| service(draft, "other", 1, "other.shop"));
    sidecar.want("other.shop");
    let resources = sidecar.until("the new destination", |r| generation(r, "shop/other").is_some()).await;
    assert_eq!(generation(&resources, "shop/cart"), Some(1));
    let after = sent().await;
    assert_eq!(before.len(), 4, "{before:?}");
    for (before, after) in before.iter().zip(&after) {
        let more = after.contains("\"destination\"") || after.contains("\"endpoints\"");
        assert!(more || before == after, "{before} became {after}");
    }
}
