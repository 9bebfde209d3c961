//! What `data` keeps, in one of two databases: SQLite in this process, or a PostgreSQL server.

use std::num::NonZeroU32;

use aws_lc_rs::{pbkdf2, rand};

use super::{Config, PASSWORD_ALGORITHM, postgres::Postgres, sqlite::Sqlite};
use crate::{SEEDED_PASSWORD, SEEDED_TENANTS, SEEDED_USER, error::Error, proto};

/// Few, so that the example starts fast; a real service takes 600 000 (OWASP).
const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
const TITLES: [&str; 3] = ["Welcome", "How we bill", "What changed this week"];
/// A list shows this many articles.
pub(super) const PAGE: i64 = 20;

/// The database.
pub(super) enum Store {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

/// What an empty database is filled with.
pub(super) struct Seed {
    /// Tenant and user.
    pub(super) users: Vec<(String, proto::GetUserReply)>,
    /// Tenant, title and body.
    pub(super) articles: Vec<(String, String, String)>,
}

impl Store {
    /// Opens the database and creates what is missing in it.
    pub(super) async fn open(config: &Config) -> Result<Self, Error> {
        match &config.postgres {
            Some(server) => Ok(Self::Postgres(Box::new(Postgres::open(server, config).await?))),
            None => Ok(Self::Sqlite(Sqlite::open(config.file.clone())?)),
        }
    }

    /// Fills the database unless it has users already.
    pub(super) async fn seed(&self) -> Result<(), Error> {
        let seed = Seed::new()?;
        match self {
            Self::Sqlite(db) => db.call(move |db| super::sqlite::seed(db, &seed)).await,
            Self::Postgres(db) => db.seed(&seed).await,
        }
    }

    /// The user, if there is one.
    pub(super) async fn user(&self, tenant: String, name: String) -> Result<Option<proto::GetUserReply>, Error> {
        match self {
            Self::Sqlite(db) => db.call(move |db| super::sqlite::user(db, &tenant, &name)).await,
            Self::Postgres(db) => db.user(&tenant, &name).await,
        }
    }

    /// The newest articles of a tenant, without bodies.
    pub(super) async fn articles(&self, tenant: String) -> Result<Vec<proto::Article>, Error> {
        match self {
            Self::Sqlite(db) => db.call(move |db| super::sqlite::articles(db, &tenant)).await,
            Self::Postgres(db) => db.articles(&tenant).await,
        }
    }

    /// One article, if there is one.
    pub(super) async fn article(&self, tenant: String, id: i64) -> Result<Option<proto::Article>, Error> {
        match self {
            Self::Sqlite(db) => db.call(move |db| super::sqlite::article(db, &tenant, id)).await,
            Self::Postgres(db) => db.article(&tenant, id).await,
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
            Self::Sqlite(db) => db.call(move |db| super::sqlite::create_article(db, &tenant, &title, &body)).await,
            Self::Postgres(db) => db.create_article(&tenant, &title, &body).await,
        }
    }

    /// How often a tenant did what.
    pub(super) async fn usage(&self, tenant: String) -> Result<Vec<proto::Usage>, Error> {
        match self {
            Self::Sqlite(db) => db.call(move |db| super::sqlite::usage(db, &tenant)).await,
            Self::Postgres(db) => db.usage(&tenant).await,
        }
    }
}

impl Seed {
    /// The tenants, users and articles of the example.
    fn new() -> Result<Self, Error> {
        let (mut users, mut articles) = (Vec::new(), Vec::new());
        for tenant in SEEDED_TENANTS {
            users.push((tenant.to_owned(), user(tenant)?));
            let article =
                |title: &str| (tenant.to_owned(), title.to_owned(), format!("{title}: written for {tenant}."));
            articles.extend(TITLES.map(article));
        }
        Ok(Self { users, articles })
    }
}

fn user(tenant: &str) -> Result<proto::GetUserReply, Error> {
    let (mut salt, mut hash) = ([0_u8; 16], [0_u8; 32]);
    rand::fill(&mut salt).map_err(|_| Error::Invalid("the system gives no random bytes".into()))?;
    pbkdf2::derive(PASSWORD_ALGORITHM, ITERATIONS, &salt, SEEDED_PASSWORD.as_bytes(), &mut hash);
    Ok(proto::GetUserReply {
        display_name: "Ada Lovelace".into(),
        email: format!("{SEEDED_USER}@{tenant}.example"),
        password_hash: hash.into(),
        salt: salt.into(),
        iterations: ITERATIONS.get(),
    })
}
