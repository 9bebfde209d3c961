//! The time before there is an authority: nothing is served to sidecars, who go on with what they have, and whoever asks is
//! told why.

use std::{net::SocketAddr, sync::Arc};

use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{LOOK, bind, finding};
use crate::{
    Error,
    admin::{self, Pages, Scope},
    identity::cluster::Keeper,
    settings::Settings,
    telemetry::Telemetry,
};

/// Waits until `keeper` finds an authority to work with.
///
/// # Errors
/// A port that cannot be had.
pub(super) async fn authority(settings: &Settings, keeper: &mut Keeper) -> Result<(), Error> {
    let Err(mut why) = keeper.begin().await else { return Ok(()) };
    let (reason, current) = watch::channel(why.clone());
    // They end with this, and the ports are free again.
    let mut serving = JoinSet::new();
    let (_stop, stop) = watch::channel(false);
    let pages = Arc::new(pages(settings, current)?);
    for (address, scope) in ports(settings) {
        let (listener, _) = bind("health", address).await?;
        serving.spawn(admin::serve(listener, Arc::clone(&pages), scope, stop.clone()));
    }
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tracing::error!("nothing is served to sidecars: {why}");
    loop {
        ticks.tick().await;
        match keeper.begin().await {
            Ok(()) => break,
            Err(now) if now == why => {}
            Err(now) => {
                tracing::error!("nothing is served to sidecars: {now}");
                reason.send_replace(now.clone());
                why = now;
            }
        }
    }
    serving.shutdown().await;
    Ok(())
}

fn ports(settings: &Settings) -> impl Iterator<Item = (SocketAddr, Scope)> {
    let health = settings.health.map(|address| (address, Scope::Health));
    [(settings.admin, Scope::Admin)].into_iter().chain(health)
}

fn pages(settings: &Settings, why: watch::Receiver<String>) -> Result<Pages, Error> {
    let (trust_domain, reason) = (settings.trust_domain.clone(), why.clone());
    let status = move || {
        json!({
            "trustDomain": trust_domain,
            "authorities": [],
            "complete": false,
            "objects": [],
            "findings": [finding(&reason.borrow())],
            "sidecars": [],
        })
    };
    Ok(Pages {
        telemetry: Telemetry::new()?,
        unready: Box::new(move || Some(why.borrow().clone())),
        closed: Box::new(|| None),
        status: Box::new(status),
        confirms: mpsc::channel(1).0,
    })
}
