//! Which database there is, and what both kinds have in common.

use std::{path::PathBuf, str::FromStr};

use tokio_postgres::config::{Host, SslMode};

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
