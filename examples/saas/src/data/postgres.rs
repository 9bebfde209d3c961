//! PostgreSQL over one connection, which pipelines: queries of concurrent requests are on the wire at once. A lost
//! connection is made again, with growing waits, and each call is one statement, so that it happens whole or not at all.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
    try_join,
};
use tokio_postgres::{Client, Config, NoTls, Row, Statement, error::SqlState, types::ToSql};

use super::{
    database::{PAGE, addresses, explain},
    seed::Seed,
};
use crate::{error::Error, proto};

/// For whoever comes first; others wait, because `IF NOT EXISTS` alone does not hold two at once apart.
const SCHEMA: &str = "
    SELECT pg_advisory_xact_lock(7370611);
    CREATE TABLE IF NOT EXISTS users (
        tenant TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT NOT NULL, email TEXT NOT NULL,
        password_hash BYTEA NOT NULL, salt BYTEA NOT NULL, iterations BIGINT NOT NULL,
        PRIMARY KEY (tenant, name)
    );
    CREATE TABLE IF NOT EXISTS articles (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        tenant TEXT NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS articles_of_tenant ON articles (tenant, id);
    CREATE TABLE IF NOT EXISTS usage (
        tenant TEXT NOT NULL, kind TEXT NOT NULL, count BIGINT NOT NULL, PRIMARY KEY (tenant, kind)
    );";
const USER: &str =
    "SELECT display_name, email, password_hash, salt, iterations FROM users WHERE tenant = $1 AND name = $2";
const ARTICLES: &str = "
    WITH counted AS (
        INSERT INTO usage VALUES ($1, 'list', 1) ON CONFLICT (tenant, kind) DO UPDATE SET count = usage.count + 1
    ) SELECT id, title, ''::text FROM articles WHERE tenant = $1 ORDER BY id DESC LIMIT $2";
const ARTICLE: &str = "
    WITH found AS (
        SELECT tenant, id, title, body FROM articles WHERE tenant = $1 AND id = $2
    ), counted AS (
        INSERT INTO usage SELECT tenant, 'read', 1 FROM found
        ON CONFLICT (tenant, kind) DO UPDATE SET count = usage.count + 1
    ) SELECT id, title, body FROM found";
const CREATE_ARTICLE: &str = "
    WITH counted AS (
        INSERT INTO usage VALUES ($1, 'write', 1) ON CONFLICT (tenant, kind) DO UPDATE SET count = usage.count + 1
    ) INSERT INTO articles (tenant, title, body) VALUES ($1, $2, $3) RETURNING id, title, body";
const USAGE: &str = "SELECT kind, count FROM usage WHERE tenant = $1 ORDER BY kind COLLATE \"C\"";

/// Making a connection and preparing the database must not take longer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A request waits this long for a connection and this long for its answer.
const PATIENCE: Duration = Duration::from_secs(3);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// A handle on the connection, which ends with it.
pub(super) struct Postgres {
    address: Arc<str>,
    session: watch::Receiver<Option<Arc<Session>>>,
}

/// A connection with its prepared statements.
struct Session {
    client: Client,
    user: Statement,
    articles: Statement,
    article: Statement,
    create_article: Statement,
    usage: Statement,
}

impl Postgres {
    /// Starts connecting, on the current runtime. Every new connection finds or makes the tables, and fills them with
    /// `seed` if they are empty.
    pub(super) fn open(mut config: Config, seed: Option<Seed>) -> Self {
        config.application_name("selvedge-saas").connect_timeout(CONNECT_LIMIT);
        config.keepalives_idle(Duration::from_secs(30)).tcp_user_timeout(CONNECT_LIMIT);
        let address: Arc<str> = addresses(&config).into();
        let (sender, session) = watch::channel(None);
        tokio::spawn(keep(config, seed, Arc::clone(&address), sender));
        Self { address, session }
    }

    /// The user, if there is one.
    pub(super) async fn user(&self, tenant: &str, name: &str) -> Result<Option<proto::GetUserReply>, Error> {
        self.query(|session| &session.user, &[&tenant, &name]).await?.first().map(user_of).transpose()
    }

    /// The newest articles of a tenant, without bodies.
    pub(super) async fn articles(&self, tenant: &str) -> Result<Vec<proto::Article>, Error> {
        self.query(|session| &session.articles, &[&tenant, &PAGE]).await?.iter().map(article_of).collect()
    }

    /// One article, if there is one.
    pub(super) async fn article(&self, tenant: &str, id: i64) -> Result<Option<proto::Article>, Error> {
        self.query(|session| &session.article, &[&tenant, &id]).await?.first().map(article_of).transpose()
    }

    /// Stores an article.
    pub(super) async fn create_article(&self, tenant: &str, title: &str, body: &str) -> Result<proto::Article, Error> {
        let rows = self.query(|session| &session.create_article, &[&tenant, &title, &body]).await?;
        rows.first().map(article_of).transpose()?.ok_or_else(|| self.away())
    }

    /// How often a tenant did what.
    pub(super) async fn usage(&self, tenant: &str) -> Result<Vec<proto::Usage>, Error> {
        self.query(|session| &session.usage, &[&tenant]).await?.iter().map(usage_of).collect()
    }

    /// Asks once: a statement that was on the wire may have happened, and only the caller knows whether it may again.
    async fn query(
        &self,
        statement: impl Fn(&Session) -> &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let mut sessions = self.session.clone();
        let ready = timeout(PATIENCE, sessions.wait_for(Option::is_some)).await;
        let session = ready.ok().and_then(|session| session.ok()?.clone()).ok_or_else(|| self.away())?;
        let asked = timeout(PATIENCE, session.client.query(statement(&session), parameters)).await;
        asked.map_err(|_| self.away())?.map_err(|error| match error.code() {
            Some(code) if *code == SqlState::CHARACTER_NOT_IN_REPERTOIRE => {
                Error::Invalid("text must not contain NUL characters".into())
            }
            Some(_) => Error::Postgres(error),
            None if error.is_closed() => self.away(),
            None => Error::Postgres(error),
        })
    }

    fn away(&self) -> Error {
        Error::DatabaseAway(self.address.to_string())
    }
}

/// Keeps a connection until nobody wants one any more.
async fn keep(config: Config, seed: Option<Seed>, address: Arc<str>, sessions: watch::Sender<Option<Arc<Session>>>) {
    let mut wait = FIRST_WAIT;
    while !sessions.is_closed() {
        match timeout(CONNECT_LIMIT, connect(&config, seed.as_ref())).await {
            Ok(Ok((session, connection))) => {
                wait = FIRST_WAIT;
                sessions.send_replace(Some(Arc::new(session)));
                tokio::select! {
                    _ = connection => tracing::warn!("PostgreSQL at {address} ended the connection; connecting again"),
                    () = sessions.closed() => return,
                }
                sessions.send_replace(None);
            }
            Ok(Err(error)) => tracing::warn!("no connection to PostgreSQL at {address}: {}", explain(&error)),
            Err(_) => tracing::warn!("PostgreSQL at {address} did not answer within {CONNECT_LIMIT:?}"),
        }
        sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn connect(config: &Config, seed: Option<&Seed>) -> Result<(Session, JoinHandle<()>), tokio_postgres::Error> {
    let (mut client, connection) = config.connect(NoTls).await?;
    // It ends when the client is dropped; why it ended is in the errors of the queries.
    let connection = tokio::spawn(async move { drop(connection.await) });
    prepare(&mut client, seed).await?;
    let (user, articles, article, create_article, usage) = try_join!(
        client.prepare(USER),
        client.prepare(ARTICLES),
        client.prepare(ARTICLE),
        client.prepare(CREATE_ARTICLE),
        client.prepare(USAGE),
    )?;
    Ok((Session { client, user, articles, article, create_article, usage }, connection))
}

/// Makes the tables that are missing, and fills them if they are empty.
async fn prepare(client: &mut Client, seed: Option<&Seed>) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(SCHEMA).await?;
    let filled: bool = transaction.query_one("SELECT EXISTS (SELECT FROM users)", &[]).await?.try_get(0)?;
    if let Some(seed) = seed.filter(|_| !filled) {
        for u in &seed.users {
            let iterations = i64::from(u.iterations);
            let row: [&(dyn ToSql + Sync); 7] = [
                &u.tenant,
                &u.name,
                &u.display_name,
                &u.email,
                &u.password_hash.as_slice(),
                &u.salt.as_slice(),
                &iterations,
            ];
            transaction.execute("INSERT INTO users VALUES ($1, $2, $3, $4, $5, $6, $7)", &row).await?;
        }
        let sql = "INSERT INTO articles (tenant, title, body) VALUES ($1, $2, $3)";
        for article in &seed.articles {
            transaction.execute(sql, &[&article.tenant, &article.title, &article.body]).await?;
        }
    }
    transaction.commit().await
}

fn user_of(row: &Row) -> Result<proto::GetUserReply, Error> {
    let iterations: i64 = row.try_get(4)?;
    Ok(proto::GetUserReply {
        display_name: row.try_get(0)?,
        email: row.try_get(1)?,
        password_hash: row.try_get(2)?,
        salt: row.try_get(3)?,
        iterations: u32::try_from(iterations).unwrap_or_default(),
    })
}

fn article_of(row: &Row) -> Result<proto::Article, Error> {
    Ok(proto::Article { id: row.try_get(0)?, title: row.try_get(1)?, body: row.try_get(2)? })
}

fn usage_of(row: &Row) -> Result<proto::Usage, Error> {
    let count: i64 = row.try_get(1)?;
    Ok(proto::Usage { kind: row.try_get(0)?, count: count.unsigned_abs() })
}
