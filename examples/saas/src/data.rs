//! `data`: the only service that touches the database, over gRPC.

use std::path::PathBuf;

use aws_lc_rs::pbkdf2;
use http::uri::Authority;
use tonic::{Request, Response, Status};

use crate::{
    error::Error,
    proto::{self, data_server},
};

mod postgres;
mod sqlite;
mod store;

use store::Store;

/// Settings.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Listening and identity.
    #[command(flatten)]
    pub common: crate::Common,
    /// The SQLite database; in memory when absent.
    #[arg(long, env = "DATA_FILE")]
    pub file: Option<PathBuf>,
    /// Keep the data in this PostgreSQL server instead.
    #[arg(long, env = "POSTGRES_ADDR", value_name = "HOST:PORT", conflicts_with = "file")]
    pub postgres: Option<Authority>,
    /// The role to log in as.
    #[arg(long, env = "POSTGRES_USER", default_value = "saas")]
    pub postgres_user: String,
    /// The database of the server.
    #[arg(long, env = "POSTGRES_DATABASE", default_value = "postgres")]
    pub postgres_database: String,
    /// The password of the role, if it needs one.
    #[arg(long, env = "POSTGRES_PASSWORD", hide_env_values = true)]
    pub postgres_password: Option<String>,
    /// Fill an empty database with the tenants, users and articles of the example.
    #[arg(long)]
    pub seed: bool,
}

/// How passwords are stored.
pub(crate) const PASSWORD_ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
/// Titles and bodies beyond this many bytes are refused.
const MAX_TEXT: usize = 32 << 10;

/// The service.
pub(crate) struct Data {
    store: Store,
}

impl Data {
    /// Opens the database.
    pub(crate) async fn open(config: &Config) -> Result<Self, Error> {
        let store = Store::open(config).await?;
        if config.seed {
            store.seed().await?;
        }
        Ok(Self { store })
    }
}

#[tonic::async_trait]
impl data_server::Data for Data {
    async fn get_user(&self, request: Request<proto::GetUserRequest>) -> Result<Response<proto::GetUserReply>, Status> {
        let proto::GetUserRequest { tenant, user } = request.into_inner();
        let missing = Error::NotFound(format!("user {user:?} of tenant {tenant:?}"));
        let found = self.store.user(tenant, user).await?;
        Ok(Response::new(found.ok_or(missing)?))
    }

    async fn list_articles(
        &self,
        request: Request<proto::ListArticlesRequest>,
    ) -> Result<Response<proto::ListArticlesReply>, Status> {
        let tenant = request.into_inner().tenant;
        let articles = self.store.articles(tenant).await?;
        Ok(Response::new(proto::ListArticlesReply { articles }))
    }

    async fn get_article(
        &self,
        request: Request<proto::GetArticleRequest>,
    ) -> Result<Response<proto::Article>, Status> {
        let proto::GetArticleRequest { tenant, id } = request.into_inner();
        let missing = Error::NotFound(format!("article {id} of tenant {tenant:?}"));
        let found = self.store.article(tenant, id).await?;
        Ok(Response::new(found.ok_or(missing)?))
    }

    async fn create_article(
        &self,
        request: Request<proto::CreateArticleRequest>,
    ) -> Result<Response<proto::Article>, Status> {
        let proto::CreateArticleRequest { tenant, title, body } = request.into_inner();
        if title.trim().is_empty() || title.len() + body.len() > MAX_TEXT {
            return Err(Error::Invalid(format!("an article needs a title and at most {MAX_TEXT} bytes")).into());
        }
        let article = self.store.create_article(tenant, title, body).await?;
        Ok(Response::new(article))
    }

    async fn usage(&self, request: Request<proto::UsageRequest>) -> Result<Response<proto::UsageReply>, Status> {
        let tenant = request.into_inner().tenant;
        let usage = self.store.usage(tenant).await?;
        Ok(Response::new(proto::UsageReply { usage }))
    }
}
