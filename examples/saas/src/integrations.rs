//! `integrations`: tells the world outside. `POST /v1/notifications` calls a third party's webhook.

use http::{Method, StatusCode, uri::Authority};
use serde::{Deserialize, Serialize};

use crate::{
    api::{self, Api, Request, Response},
    client::JsonClient,
    context::Context,
    error::Error,
};

/// What the service `integrations` is told at its start.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// What all services are told: where to listen, and who they are.
    #[command(flatten)]
    pub common: crate::Common,
    /// Where the third party is.
    #[arg(long, env = "THIRD_PARTY_ADDR", value_name = "HOST:PORT")]
    pub third_party: Authority,
}

/// What happened, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notification {
    /// The name of the tenant whose article was shared.
    pub(crate) tenant: String,
    /// The number of the article that was shared.
    pub(crate) article: i64,
}

/// The third party's receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    /// The number that the third party gave to the notification, from 1.
    pub(crate) id: u64,
}

/// The service `integrations`: hands notifications to the third party.
pub(crate) struct Integrations {
    third_party: JsonClient,
}

impl Integrations {
    /// The service in front of the third party.
    pub(crate) fn new(config: &Config) -> Self {
        Self { third_party: JsonClient::new("third-party", &config.third_party) }
    }
}

impl Api for Integrations {
    async fn answer(&self, context: Context, request: Request) -> Result<Response, Error> {
        if (request.method(), request.uri().path()) != (&Method::POST, "/v1/notifications") {
            return Err(api::unknown(&request));
        }
        let notification: Notification = api::body(&request)?;
        let receipt: Receipt = self.third_party.post(&context, "/hooks", &notification).await?;
        Ok(api::json(StatusCode::CREATED, &receipt))
    }
}
