//! `data`: the only service that touches the database, over gRPC.

use std::path::PathBuf;

use aws_lc_rs::pbkdf2;
use tonic::{Request, Response, Status};

use crate::{
    error::Error,
    proto::{self, data_server},
};

mod database;
mod postgres;
mod seed;
mod sqlite;
mod store;

pub use database::Database;

use seed::Seed;
use store::Store;

/// What the service `data` is told at its start.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// What all services are told: where to listen, and who they are.
    #[command(flatten)]
    pub common: crate::Common,
    /// The database: a file for SQLite, or postgres://USER@HOST:PORT/DATABASE; SQLite in memory when absent.
    #[arg(long, env = "DATABASE", value_name = "PATH|URL")]
    pub database: Option<Database>,
    /// A file with the password for PostgreSQL, which keeps it off the command line.
    #[arg(long, env = "DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,
    /// Fill an empty database with the tenants, users and articles of the example.
    #[arg(long)]
    pub seed: bool,
}

/// How passwords are stored.
pub(crate) const PASSWORD_ALGORITHM: pbkdf2::Algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
/// Titles and bodies beyond this many bytes are refused.
const MAX_TEXT: usize = 32 << 10;

/// The service `data`, and its database.
pub(crate) struct Data {
    store: Store,
}

impl Data {
    /// Opens the database, and fills an empty one when the configuration says so.
    pub(crate) async fn open(config: &Config) -> Result<Self, Error> {
        let seed = config.seed.then(Seed::new).transpose()?;
        let (database, password) = (config.database.clone(), config.database_password_file.clone());
        Ok(Self { store: Store::open(database, password, seed).await? })
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
        if title.contains('\0') || body.contains('\0') {
            return Err(Error::Invalid("text must not contain NUL characters".into()).into());
        }
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
