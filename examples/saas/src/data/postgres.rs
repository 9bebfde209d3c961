//! A PostgreSQL server, over plain TCP: encryption and identity are the mesh's. One connection, on which requests are
//! pipelined; a lost one is made again by the next request.

use std::{sync::Arc, time::Duration};

use http::uri::Authority;
use tokio::{sync::Mutex, time::sleep};
use tokio_postgres::{Client, NoTls, Row, types::ToSql};

use super::{
    Config,
    store::{PAGE, Seed},
};
use crate::{SEEDED_USER, client::TIMEOUT, error::Error, proto};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS users (
        tenant TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT NOT NULL, email TEXT NOT NULL,
        password_hash BYTEA NOT NULL, salt BYTEA NOT NULL, iterations BIGINT NOT NULL,
        PRIMARY KEY (tenant, name)
    );
    CREATE TABLE IF NOT EXISTS articles (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant TEXT NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS articles_of_tenant ON articles (tenant, id);
    CREATE TABLE IF NOT EXISTS usage (
        tenant TEXT NOT NULL, kind TEXT NOT NULL, count BIGINT NOT NULL, PRIMARY KEY (tenant, kind)
    );";
/// At start the server, or the way to it, may come up later than this service.
const START_TRIES: u32 = 300;
const START_PAUSE: Duration = Duration::from_millis(100);

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A handle on the server.
pub(super) struct Postgres {
    config: tokio_postgres::Config,
    client: Mutex<Option<Arc<Client>>>,
}

impl Postgres {
    /// Connects, waiting for a server that is not up yet, and creates what is missing.
    pub(super) async fn open(server: &Authority, config: &Config) -> Result<Self, Error> {
        let mut settings = tokio_postgres::Config::new();
        settings.host(server.host()).port(server.port_u16().unwrap_or(5432)).connect_timeout(TIMEOUT);
        settings.user(&config.postgres_user).dbname(&config.postgres_database);
        if let Some(password) = &config.postgres_password {
            settings.password(password);
        }
        let store = Self { config: settings, client: Mutex::new(None) };
        let mut tries = 1;
        while let Err(error) = store.client().await {
            if tries == START_TRIES {
                return Err(error);
            }
            tries += 1;
            sleep(START_PAUSE).await;
        }
        store.client().await?.batch_execute(SCHEMA).await?;
        Ok(store)
    }

    pub(super) async fn seed(&self, seed: &Seed) -> Result<(), Error> {
        if self.one("SELECT count(*) FROM users", &[]).await?.get::<_, i64>(0) > 0 {
            return Ok(());
        }
        for (tenant, user) in &seed.users {
            let sql = "INSERT INTO users VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
            let (display_name, email, iterations) = (&user.display_name, &user.email, i64::from(user.iterations));
            let values: Parameters<'_> =
                &[tenant, &SEEDED_USER, display_name, email, &user.password_hash, &user.salt, &iterations];
            self.all(sql, values).await?;
        }
        for (tenant, title, body) in &seed.articles {
            self.all("INSERT INTO articles (tenant, title, body) VALUES ($1, $2, $3)", &[tenant, title, body]).await?;
        }
        Ok(())
    }

    pub(super) async fn user(&self, tenant: &str, name: &str) -> Result<Option<proto::GetUserReply>, Error> {
        let sql =
            "SELECT display_name, email, password_hash, salt, iterations FROM users WHERE tenant = $1 AND name = $2";
        let rows = self.all(sql, &[&tenant, &name]).await?;
        Ok(rows.first().map(|row| proto::GetUserReply {
            display_name: row.get(0),
            email: row.get(1),
            password_hash: row.get(2),
            salt: row.get(3),
            iterations: u32::try_from(row.get::<_, i64>(4)).unwrap_or_default(),
        }))
    }

    pub(super) async fn articles(&self, tenant: &str) -> Result<Vec<proto::Article>, Error> {
        let sql = "SELECT id, title, '' FROM articles WHERE tenant = $1 ORDER BY id DESC LIMIT $2";
        let values: Parameters<'_> = &[&tenant, &PAGE];
        let (articles, ()) = tokio::try_join!(self.all(sql, values), self.count(tenant, "list"))?;
        Ok(articles.iter().map(article_of).collect())
    }

    pub(super) async fn article(&self, tenant: &str, id: i64) -> Result<Option<proto::Article>, Error> {
        let sql = "SELECT id, title, body FROM articles WHERE tenant = $1 AND id = $2";
        let found = self.all(sql, &[&tenant, &id]).await?;
        if !found.is_empty() {
            self.count(tenant, "read").await?;
        }
        Ok(found.first().map(article_of))
    }

    pub(super) async fn create_article(&self, tenant: &str, title: &str, body: &str) -> Result<proto::Article, Error> {
        // One statement, so that the article and its count are stored together.
        let sql = "WITH counted AS (
                INSERT INTO usage AS known VALUES ($1, 'write', 1)
                ON CONFLICT (tenant, kind) DO UPDATE SET count = known.count + 1
            ) INSERT INTO articles (tenant, title, body) VALUES ($1, $2, $3) RETURNING id, title, body";
        self.one(sql, &[&tenant, &title, &body]).await.map(|row| article_of(&row))
    }

    pub(super) async fn usage(&self, tenant: &str) -> Result<Vec<proto::Usage>, Error> {
        let rows = self.all("SELECT kind, count FROM usage WHERE tenant = $1 ORDER BY kind", &[&tenant]).await?;
        let of = |row: &Row| proto::Usage { kind: row.get(0), count: row.get::<_, i64>(1).unsigned_abs() };
        Ok(rows.iter().map(of).collect())
    }

    async fn count(&self, tenant: &str, kind: &str) -> Result<(), Error> {
        let sql = "INSERT INTO usage AS known VALUES ($1, $2, 1)
            ON CONFLICT (tenant, kind) DO UPDATE SET count = known.count + 1";
        self.all(sql, &[&tenant, &kind]).await.map(drop)
    }

    async fn one(&self, sql: &str, values: Parameters<'_>) -> Result<Row, Error> {
        Ok(self.client().await?.query_one(sql, values).await?)
    }

    async fn all(&self, sql: &str, values: Parameters<'_>) -> Result<Vec<Row>, Error> {
        Ok(self.client().await?.query(sql, values).await?)
    }

    /// The connection, made again when it is lost.
    async fn client(&self) -> Result<Arc<Client>, Error> {
        let mut current = self.client.lock().await;
        if let Some(client) = current.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "the connection to PostgreSQL was lost");
            }
        });
        let client = Arc::new(client);
        *current = Some(Arc::clone(&client));
        Ok(client)
    }
}

fn article_of(row: &Row) -> proto::Article {
    proto::Article { id: row.get(0), title: row.get(1), body: row.get(2) }
}
