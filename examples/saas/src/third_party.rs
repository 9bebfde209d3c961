//! Somebody else's service, outside the mesh: takes webhooks and numbers them.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, StatusCode};

use crate::{
    api::{self, Api, Request, Response},
    context::Context,
    error::Error,
    integrations::{Notification, Receipt},
};

/// What the service `third-party` is told at its start.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// What all services are told: where to listen, and who they are.
    #[command(flatten)]
    pub common: crate::Common,
}

/// The service `third-party`, which counts the webhooks it took.
#[derive(Default)]
pub(crate) struct ThirdParty {
    taken: AtomicU64,
}

impl Api for ThirdParty {
    async fn answer(&self, _: Context, request: Request) -> Result<Response, Error> {
        if (request.method(), request.uri().path()) != (&Method::POST, "/hooks") {
            return Err(api::unknown(&request));
        }
        let _: Notification = api::body(&request)?;
        let id = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(api::json(StatusCode::OK, &Receipt { id }))
    }
}
