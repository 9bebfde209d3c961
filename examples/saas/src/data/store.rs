//! One small interface over both databases, which give the same answers.

use std::{fs, path::PathBuf};

use super::{database::Database, postgres::Postgres, seed::Seed, sqlite, sqlite::Sqlite};
use crate::{error::Error, proto};

/// The database.
pub(super) enum Store {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Store {
    /// Opens the database, SQLite in memory when none is named, creates what is missing in it, and fills it if it is
    /// empty. PostgreSQL may come up later.
    pub(super) async fn open(
        database: Option<Database>,
        password: Option<PathBuf>,
        seed: Option<Seed>,
    ) -> Result<Self, Error> {
        let file = match database {
            Some(Database::Postgres(mut config)) => {
                if let Some(path) = password {
                    let read = fs::read_to_string(&path).map_err(Error::io(format!("reading {}", path.display())));
                    config.password(read?.trim_end());
                }
                return Ok(Self::Postgres(Postgres::open(*config, seed)));
            }
            Some(Database::Sqlite(path)) => Some(path),
            None => None,
        };
        let sqlite = Sqlite::open(file)?;
        if let Some(seed) = seed {
            sqlite.call(move |db| sqlite::fill(db, &seed)).await?;
        }
        Ok(Self::Sqlite(sqlite))
    }

    /// The user, if there is one.
    pub(super) async fn user(&self, tenant: String, name: String) -> Result<Option<proto::GetUserReply>, Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.call(move |db| sqlite::user(db, &tenant, &name)).await,
            Self::Postgres(postgres) => postgres.user(&tenant, &name).await,
        }
    }

    /// The newest articles of a tenant, without bodies.
    pub(super) async fn articles(&self, tenant: String) -> Result<Vec<proto::Article>, Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.call(move |db| sqlite::articles(db, &tenant)).await,
            Self::Postgres(postgres) => postgres.articles(&tenant).await,
        }
    }

    /// One article, if there is one.
    pub(super) async fn article(&self, tenant: String, id: i64) -> Result<Option<proto::Article>, Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.call(move |db| sqlite::article(db, &tenant, id)).await,
            Self::Postgres(postgres) => postgres.article(&tenant, id).await,
        }
    }

    /// Stores an article.
    pub(super) async fn create_article(
        &self,
        tenant: String,
        title: String,
        body: String,
    ) -> Result<proto::Article, Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.call(move |db| sqlite::create_article(db, &tenant, &title, &body)).await,
            Self::Postgres(postgres) => postgres.create_article(&tenant, &title, &body).await,
        }
    }

    /// How often a tenant did what.
    pub(super) async fn usage(&self, tenant: String) -> Result<Vec<proto::Usage>, Error> {
        match self {
            Self::Sqlite(sqlite) => sqlite.call(move |db| sqlite::usage(db, &tenant)).await,
            Self::Postgres(postgres) => postgres.usage(&tenant).await,
        }
    }
}
