//! `content`: a tenant's articles, HTTP/1 and JSON in front of `data`.
//!
//! `GET /v1/tenants/{tenant}/articles`, `GET .../articles/{id}`, `POST .../articles`.

use http::{Method, StatusCode, uri::Authority};
use serde::{Deserialize, Serialize};
use tonic::{Response as RpcResponse, Status, transport::Channel};

use crate::{
    api::{self, Api, Request, Response},
    client,
    context::Context,
    error::Error,
    faults::Faults,
    proto::{self, data_client::DataClient},
};

/// What the service `content` is told at its start.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// What all services are told: where to listen, and who they are.
    #[command(flatten)]
    pub common: crate::Common,
    /// Where the service `data` is called.
    #[arg(long, env = "DATA_ADDR", value_name = "HOST:PORT")]
    pub data: Authority,
    /// Faults that are planted, for the mesh to hide or explain.
    #[command(flatten)]
    pub faults: Faults,
}

/// One article as JSON; lists leave the body out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Article {
    /// Its number, which no other article of any tenant has.
    pub(crate) id: i64,
    /// One line of text, as it was written.
    pub(crate) title: String,
    /// The text below the title; empty in lists, where JSON leaves it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) body: String,
}

#[derive(Deserialize)]
struct NewArticle {
    title: String,
    body: String,
}

impl From<proto::Article> for Article {
    fn from(proto::Article { id, title, body }: proto::Article) -> Self {
        Self { id, title, body }
    }
}

/// The service `content`: articles as JSON, with the faults planted for the mesh.
pub(crate) struct Content {
    data: DataClient<Channel>,
    faults: Faults,
}

impl Content {
    /// The service over `data`.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self { data: DataClient::new(client::channel(&config.data)?), faults: config.faults.clone() })
    }

    async fn list(&self, context: &Context, tenant: String) -> Result<Response, Error> {
        let message = proto::ListArticlesRequest { tenant };
        let reply = answered(self.data.clone().list_articles(context.request(message)).await)?;
        let articles: Vec<_> = reply.articles.into_iter().map(Article::from).collect();
        Ok(api::json(StatusCode::OK, &articles))
    }

    async fn read(&self, context: &Context, tenant: String, id: &str) -> Result<Response, Error> {
        let id = id.parse().map_err(|_| Error::NotFound(format!("article {id:?}")))?;
        let message = proto::GetArticleRequest { tenant, id };
        let article = answered(self.data.clone().get_article(context.request(message)).await)?;
        Ok(api::json(StatusCode::OK, &Article::from(article)))
    }

    async fn create(&self, context: &Context, tenant: String, request: &Request) -> Result<Response, Error> {
        let NewArticle { title, body } = api::body(request)?;
        let message = proto::CreateArticleRequest { tenant, title, body };
        let article = answered(self.data.clone().create_article(context.request(message)).await)?;
        Ok(api::json(StatusCode::CREATED, &Article::from(article)))
    }
}

fn answered<T>(reply: Result<RpcResponse<T>, Status>) -> Result<T, Error> {
    reply.map(RpcResponse::into_inner).map_err(|status| Error::rpc("data", status))
}

impl Api for Content {
    async fn answer(&self, context: Context, request: Request) -> Result<Response, Error> {
        self.faults.suffer().await?;
        match (request.method(), &*api::segments(&request)) {
            (&Method::GET, ["v1", "tenants", tenant, "articles"]) => self.list(&context, (*tenant).into()).await,
            (&Method::GET, ["v1", "tenants", tenant, "articles", id]) => {
                self.read(&context, (*tenant).into(), id).await
            }
            (&Method::POST, ["v1", "tenants", tenant, "articles"]) => {
                self.create(&context, (*tenant).into(), &request).await
            }
            _ => Err(api::unknown(&request)),
        }
    }
}
