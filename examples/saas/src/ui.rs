//! `ui`: what people see. Renders a tenant's page from `auth`, `content` and `reports`, and shares articles
//! through `integrations`. Two versions exist, for canaries; every answer names its version in `x-ui-version`.
//!
//! `POST /login`, `GET /t/{tenant}`, `POST /t/{tenant}/articles/{id}/share`.

use http::{HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use crate::{
    api::{self, Api, Request, Response},
    client::{self, JsonClient},
    content::Article,
    context::Context,
    error::Error,
    integrations::{Notification, Receipt},
    proto::{self, auth_client::AuthClient},
    reports::Report,
};

mod page;

/// Which version of the interface answered.
pub const VERSION: HeaderName = HeaderName::from_static("x-ui-version");

/// A version of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// Articles first.
    V1,
    /// Usage first.
    V2,
}

impl Version {
    const fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// What the service `ui` is told at its start.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// What all services are told: where to listen, and who they are.
    #[command(flatten)]
    pub common: crate::Common,
    /// Where the service `auth` is called.
    #[arg(long, env = "AUTH_ADDR", value_name = "HOST:PORT")]
    pub auth: Authority,
    /// Where the service `content` is called.
    #[arg(long, env = "CONTENT_ADDR", value_name = "HOST:PORT")]
    pub content: Authority,
    /// Where the service `reports` is called.
    #[arg(long, env = "REPORTS_ADDR", value_name = "HOST:PORT")]
    pub reports: Authority,
    /// Where the service `integrations` is called.
    #[arg(long, env = "INTEGRATIONS_ADDR", value_name = "HOST:PORT")]
    pub integrations: Authority,
    /// Which version to be.
    #[arg(long, env = "UI_VERSION", value_enum, default_value = "v1")]
    pub ui_version: Version,
}

#[derive(Deserialize)]
struct Credentials {
    tenant: String,
    user: String,
    password: String,
}

/// The answer to sharing an article.
#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Shared {
    /// The world knows.
    Delivered { receipt: u64 },
    /// `integrations` takes no more at the moment.
    Deferred { retry_after: u64 },
}

/// The service `ui` in one of its versions, and the services it asks.
pub(crate) struct Ui {
    auth: AuthClient<Channel>,
    content: JsonClient,
    reports: JsonClient,
    integrations: JsonClient,
    version: Version,
}

impl Ui {
    /// The service over the others.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            auth: AuthClient::new(client::channel(&config.auth)?),
            content: JsonClient::new("content", &config.content),
            reports: JsonClient::new("reports", &config.reports),
            integrations: JsonClient::new("integrations", &config.integrations),
            version: config.ui_version,
        })
    }

    async fn route(&self, context: &Context, request: &Request) -> Result<Response, Error> {
        match (request.method(), &*api::segments(request)) {
            (&Method::POST, ["login"]) => self.login(context, request).await,
            (&Method::GET, ["t", tenant]) => {
                let user = self.user(context, request, tenant).await?;
                self.page(context, tenant, &user).await
            }
            (&Method::POST, ["t", tenant, "articles", id, "share"]) => {
                self.user(context, request, tenant).await?;
                self.share(context, tenant, id).await
            }
            _ => Err(api::unknown(request)),
        }
    }

    async fn login(&self, context: &Context, request: &Request) -> Result<Response, Error> {
        let Credentials { tenant, user, password } = api::body(request)?;
        let message = proto::LoginRequest { tenant, user, password };
        let reply = self.auth.clone().login(context.request(message)).await;
        let proto::LoginReply { token, expires_in } = reply.map_err(|s| Error::rpc("auth", s))?.into_inner();
        let mut response = api::json(StatusCode::OK, &serde_json::json!({ "token": token, "expires_in": expires_in }));
        let cookie = format!("session={token}; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age={expires_in}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        Ok(response)
    }

    /// Whose session the request carries; only the tenant's own users get further.
    async fn user(&self, context: &Context, request: &Request, tenant: &str) -> Result<String, Error> {
        let token = token(request).ok_or(Error::Unauthenticated)?.to_owned();
        let reply = self.auth.clone().verify(context.request(proto::VerifyRequest { token })).await;
        let session = reply.map_err(|status| Error::rpc("auth", status))?.into_inner();
        if session.tenant == tenant { Ok(session.user) } else { Err(Error::Unauthenticated) }
    }

    async fn page(&self, context: &Context, tenant: &str, user: &str) -> Result<Response, Error> {
        let (articles, usage) = (format!("/v1/tenants/{tenant}/articles"), format!("/v1/tenants/{tenant}/usage"));
        let (articles, report) = tokio::join!(
            self.content.get::<Vec<Article>>(context, &articles),
            self.reports.get::<Report>(context, &usage)
        );
        let html = page::render(self.version, tenant, user, &articles?, report.ok().as_ref());
        Ok(api::with_type(StatusCode::OK, "text/html; charset=utf-8", html))
    }

    async fn share(&self, context: &Context, tenant: &str, id: &str) -> Result<Response, Error> {
        let article = id.parse().map_err(|_| Error::NotFound(format!("article {id:?}")))?;
        let notification = Notification { tenant: tenant.to_owned(), article };
        match self.integrations.post::<Receipt>(context, "/v1/notifications", &notification).await {
            Ok(Receipt { id }) => Ok(api::json(StatusCode::CREATED, &Shared::Delivered { receipt: id })),
            Err(Error::Refused { status: StatusCode::TOO_MANY_REQUESTS, retry_after, .. }) => {
                let shared = Shared::Deferred { retry_after: retry_after.unwrap_or(1) };
                Ok(api::json(StatusCode::ACCEPTED, &shared))
            }
            Err(error) => Err(error),
        }
    }
}

/// The session token: a bearer token (RFC 6750) or the cookie that `/login` set.
fn token(request: &Request) -> Option<&str> {
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let cookie = || text(header::COOKIE)?.split("; ").find_map(|cookie| cookie.strip_prefix("session="));
    bearer.or_else(cookie)
}

impl Api for Ui {
    async fn answer(&self, context: Context, request: Request) -> Result<Response, Error> {
        let mut response = self.route(&context, &request).await?;
        response.headers_mut().insert(VERSION, HeaderValue::from_static(self.version.name()));
        Ok(response)
    }
}
