//! SQLite on a thread of its own: calls queue up for the one connection, and no async task ever waits on a disk.

use std::{path::PathBuf, sync::mpsc};

use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use tokio::sync::oneshot;

use super::{database::PAGE, seed::Seed};
use crate::{error::Error, proto};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS users (
        tenant TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT NOT NULL, email TEXT NOT NULL,
        password_hash BLOB NOT NULL, salt BLOB NOT NULL, iterations INTEGER NOT NULL,
        PRIMARY KEY (tenant, name)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS articles (
        id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS articles_of_tenant ON articles (tenant, id);
    CREATE TABLE IF NOT EXISTS usage (
        tenant TEXT NOT NULL, kind TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (tenant, kind)
    ) STRICT;";

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle on the database thread; the thread ends with the last handle.
pub(super) struct Sqlite {
    jobs: mpsc::Sender<Job>,
}

impl Sqlite {
    /// Opens `file` (in memory when absent) and creates what is missing in it.
    pub(super) fn open(file: Option<PathBuf>) -> std::result::Result<Self, Error> {
        let mut connection = match file {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        connection.execute_batch(SCHEMA)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("sqlite".into())
            .spawn(move || queue.into_iter().for_each(|job| job(&mut connection)))
            .map_err(Error::io("starting the database thread"))?;
        Ok(Self { jobs })
    }

    /// Runs `job` on the database thread.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |connection| drop(sender.send(job(connection))));
        self.jobs.send(job).map_err(|_| Error::Stopping)?;
        Ok(receiver.await.map_err(|_| Error::Stopping)??)
    }
}

/// Fills the database unless it has users already.
pub(super) fn fill(db: &mut Connection, seed: &Seed) -> Result<()> {
    let filled: bool = db.query_row("SELECT EXISTS (SELECT 1 FROM users)", [], |row| row.get(0))?;
    if filled {
        return Ok(());
    }
    let transaction = db.transaction()?;
    for u in &seed.users {
        let row = params![u.tenant, u.name, u.display_name, u.email, u.password_hash, u.salt, u.iterations];
        transaction.execute("INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?)", row)?;
    }
    for article in &seed.articles {
        let sql = "INSERT INTO articles (tenant, title, body) VALUES (?, ?, ?)";
        transaction.execute(sql, params![article.tenant, article.title, article.body])?;
    }
    transaction.commit()
}

/// The user, if there is one.
pub(super) fn user(db: &mut Connection, tenant: &str, name: &str) -> Result<Option<proto::GetUserReply>> {
    let sql = "SELECT display_name, email, password_hash, salt, iterations FROM users WHERE tenant = ? AND name = ?";
    db.prepare_cached(sql)?
        .query_row([tenant, name], |row| {
            Ok(proto::GetUserReply {
                display_name: row.get(0)?,
                email: row.get(1)?,
                password_hash: row.get(2)?,
                salt: row.get(3)?,
                iterations: row.get(4)?,
            })
        })
        .optional()
}

/// The newest articles of a tenant, without bodies.
pub(super) fn articles(db: &mut Connection, tenant: &str) -> Result<Vec<proto::Article>> {
    count(db, tenant, "list")?;
    let sql = "SELECT id, title, '' FROM articles WHERE tenant = ? ORDER BY id DESC LIMIT ?";
    db.prepare_cached(sql)?.query_map(params![tenant, PAGE], article_of)?.collect()
}

/// One article, if there is one.
pub(super) fn article(db: &mut Connection, tenant: &str, id: i64) -> Result<Option<proto::Article>> {
    let sql = "SELECT id, title, body FROM articles WHERE tenant = ? AND id = ?";
    let found = db.prepare_cached(sql)?.query_row(params![tenant, id], article_of).optional()?;
    if found.is_some() {
        count(db, tenant, "read")?;
    }
    Ok(found)
}

/// Stores an article.
pub(super) fn create_article(db: &mut Connection, tenant: &str, title: &str, body: &str) -> Result<proto::Article> {
    let transaction = db.transaction()?;
    let sql = "INSERT INTO articles (tenant, title, body) VALUES (?, ?, ?) RETURNING id, title, body";
    let article = transaction.prepare_cached(sql)?.query_row([tenant, title, body], article_of)?;
    count(&transaction, tenant, "write")?;
    transaction.commit()?;
    Ok(article)
}

/// How often a tenant did what.
pub(super) fn usage(db: &mut Connection, tenant: &str) -> Result<Vec<proto::Usage>> {
    let sql = "SELECT kind, count FROM usage WHERE tenant = ? ORDER BY kind";
    let of = |row: &Row<'_>| Ok(proto::Usage { kind: row.get(0)?, count: row.get::<_, i64>(1)?.unsigned_abs() });
    db.prepare_cached(sql)?.query_map([tenant], of)?.collect()
}

fn count(db: &Connection, tenant: &str, kind: &str) -> Result<()> {
    let sql = "INSERT INTO usage VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1";
    db.prepare_cached(sql)?.execute([tenant, kind]).map(drop)
}

fn article_of(row: &Row<'_>) -> Result<proto::Article> {
    Ok(proto::Article { id: row.get(0)?, title: row.get(1)?, body: row.get(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tenants_see_only_their_own_articles_and_usage() {
        let store = Sqlite::open(None).expect("a database in memory");
        let article = store.call(|db| create_article(db, "acme", "Plans", "secret")).await.expect("stored");
        let id = article.id;
        assert_eq!(store.call(move |db| super::article(db, "globex", id)).await.expect("read"), None);
        assert_eq!(store.call(move |db| super::article(db, "acme", id)).await.expect("read"), Some(article));
        assert_eq!(store.call(|db| usage(db, "globex")).await.expect("counted"), []);
        let kinds: Vec<_> =
            store.call(|db| usage(db, "acme")).await.expect("counted").into_iter().map(|u| (u.kind, u.count)).collect();
        assert_eq!(kinds, [("read".to_owned(), 1), ("write".to_owned(), 1)]);
    }

    #[tokio::test]
    async fn what_was_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Some(folder.path().join("saas.db"));
        let store = Sqlite::open(file.clone()).expect("a new database");
        store.call(|db| create_article(db, "acme", "Kept", "")).await.expect("stored");
        drop(store);
        let again = Sqlite::open(file).expect("the old database");
        assert_eq!(again.call(|db| articles(db, "acme")).await.expect("listed").len(), 1);
    }
}
