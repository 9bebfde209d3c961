//! One small interface over both databases, which give the same answers.

use std::{fs, path::PathBuf, str::FromStr};

use tokio_postgres::config::{Host, SslMode};

use super::{postgres::Postgres, seed::Seed, sqlite, sqlite::Sqlite};
use crate::{error::Error, proto};

/// A list shows this many articles.
pub(super) const PAGE: i64 = 20;

/// Which database, from `PATH` or `postgres://USER@HOST:PORT/DATABASE`.
#[derive(Clone, Debug)]
pub enum Database {
    /// SQLite in this file.
    Sqlite(PathBuf),
    /// PostgreSQL there, without TLS: encryption is what the mesh is for.
    Postgres(Box<tokio_postgres::Config>),
}

impl FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, _)) = text.split_once("://") else { return Ok(Self::Sqlite(text.into())) };
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(format!("{scheme} is no database here; give a path or postgres://USER@HOST:PORT/DATABASE"));
        }
        let config: tokio_postgres::Config = text.parse().map_err(|error| explain(&error))?;
        if config.get_hosts().is_empty() {
            return Err("the host is missing: postgres://USER@HOST:PORT/DATABASE".into());
        }
        if config.get_ssl_mode() == SslMode::Require {
            return Err("no TLS to PostgreSQL from here: let a sidecar encrypt, and leave sslmode out".into());
        }
        Ok(Self::Postgres(Box::new(config)))
    }
}

/// What PostgreSQL's client says, with its reason.
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    let reason = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", reason.unwrap_or_default())
}

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

/// The addresses of a PostgreSQL, for messages.
pub(super) fn addresses(config: &tokio_postgres::Config) -> String {
    let port = |number: usize| config.get_ports().get(number).or(config.get_ports().first()).copied().unwrap_or(5432);
    let host = |(number, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(number)),
        Host::Unix(path) => path.display().to_string(),
    };
    config.get_hosts().iter().enumerate().map(host).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_path_or_an_address() {
        assert!(matches!("saas.db".parse(), Ok(Database::Sqlite(path)) if path.as_os_str() == "saas.db"));
        let parsed = "postgres://ada:secret@[::1]:6000/saas".parse().expect("an address");
        let Database::Postgres(config) = &parsed else { panic!("not PostgreSQL: {parsed:?}") };
        assert_eq!((config.get_user(), config.get_dbname()), (Some("ada"), Some("saas")));
        assert_eq!(addresses(config), "::1:6000");
        assert!(!format!("{parsed:?}").contains("secret"), "a password is not for logs: {parsed:?}");
    }

    #[test]
    fn what_is_neither_is_refused_with_what_to_do() {
        for (text, advice) in [
            ("mysql://db/saas", "mysql is no database here; give a path or postgres://"),
            ("postgres:///saas", "the host is missing"),
            ("postgres://db:port/saas", "invalid"),
            ("postgres://db/saas?sslmode=require", "let a sidecar encrypt"),
        ] {
            let error = text.parse::<Database>().expect_err(text);
            assert!(error.contains(advice), "{text}: {error}");
        }
    }
}
