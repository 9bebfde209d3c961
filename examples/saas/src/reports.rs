//! `reports`: what a tenant used, HTTP and JSON in front of `data`. `GET /v1/tenants/{tenant}/usage`.
//!
//! It also asks `auth` whom to send the report to. That is personal data which a report does not need: the policy
//! of the example denies the call, and the report says so instead of failing.

use std::collections::BTreeMap;

use http::{Method, StatusCode, uri::Authority};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use crate::{
    SEEDED_USER,
    api::{self, Api, Request, Response},
    client,
    context::Context,
    error::Error,
    proto::{self, auth_client::AuthClient, data_client::DataClient},
};

/// What the service `reports` is told at its start.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// What all services are told: where to listen, and who they are.
    #[command(flatten)]
    pub common: crate::Common,
    /// Where the service `data` is called.
    #[arg(long, env = "DATA_ADDR", value_name = "HOST:PORT")]
    pub data: Authority,
    /// Where the service `auth` is called.
    #[arg(long, env = "AUTH_ADDR", value_name = "HOST:PORT")]
    pub auth: Authority,
}

/// A report as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// How often the tenant did what.
    pub(crate) usage: BTreeMap<String, u64>,
    /// Whom the report goes to, or why that is not known.
    pub(crate) recipient: String,
}

/// The service `reports`: adds up what a tenant used.
pub(crate) struct Reports {
    data: DataClient<Channel>,
    auth: AuthClient<Channel>,
}

impl Reports {
    /// The service over `data` and `auth`.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let (data, auth) = (client::channel(&config.data)?, client::channel(&config.auth)?);
        Ok(Self { data: DataClient::new(data), auth: AuthClient::new(auth) })
    }

    async fn usage(&self, context: &Context, tenant: String) -> Result<BTreeMap<String, u64>, Error> {
        let reply = self.data.clone().usage(context.request(proto::UsageRequest { tenant })).await;
        let usage = reply.map_err(|status| Error::rpc("data", status))?.into_inner().usage;
        Ok(usage.into_iter().map(|proto::Usage { kind, count }| (kind, count)).collect())
    }

    async fn recipient(&self, context: &Context, tenant: String) -> Result<String, Error> {
        let message = proto::ProfileRequest { tenant, user: SEEDED_USER.into() };
        let reply = self.auth.clone().profile(context.request(message)).await;
        Ok(reply.map_err(|status| Error::rpc("auth", status))?.into_inner().email)
    }
}

impl Api for Reports {
    async fn answer(&self, context: Context, request: Request) -> Result<Response, Error> {
        let (&Method::GET, ["v1", "tenants", tenant, "usage"]) = (request.method(), &*api::segments(&request)) else {
            return Err(api::unknown(&request));
        };
        let (usage, recipient) =
            tokio::join!(self.usage(&context, (*tenant).into()), self.recipient(&context, (*tenant).into()));
        let recipient = recipient.unwrap_or_else(|error| format!("unknown: {error}"));
        Ok(api::json(StatusCode::OK, &Report { usage: usage?, recipient }))
    }
}
