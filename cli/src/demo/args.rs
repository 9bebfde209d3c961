//! What the demo is asked for on the command line.

use clap::{Args, ValueEnum};
use selvedge_policies::duration::Span;
use selvedge_saas::local_postgres::Installed;

/// The arguments of `selvedge demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End after this time, such as 20s; on Ctrl-C when absent.
    #[arg(long)]
    pub(super) duration: Option<Span>,
    /// What to print.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: Output,
    /// Requests a second of the load generator.
    #[arg(long, default_value_t = 50.0, value_parser = positive)]
    pub(super) rate: f64,
    /// Put each service into a network namespace and capture its connections there (needs root).
    #[arg(long)]
    pub(super) transparent: bool,
    /// What data keeps its state in.
    #[arg(long, value_enum, default_value = "sqlite")]
    pub(super) database: Database,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Database {
    /// A file.
    Sqlite,
    /// A PostgreSQL server of the demo's own, reached through the mesh (needs initdb and postgres installed).
    Postgres,
    /// PostgreSQL where it is installed, SQLite elsewhere.
    Auto,
}

impl Database {
    /// The PostgreSQL to use; `None` for SQLite.
    pub(super) fn postgres(self) -> anyhow::Result<Option<Installed>> {
        match (self, Installed::find()) {
            (Self::Sqlite, _) => Ok(None),
            (Self::Postgres, found) => found.map(Some).map_err(anyhow::Error::msg),
            (Self::Auto, Ok(found)) => {
                eprintln!("selvedge demo: the database is PostgreSQL, from {}", found.programs().display());
                Ok(Some(found))
            }
            (Self::Auto, Err(reason)) => {
                eprintln!("selvedge demo: the database is SQLite, because {reason}");
                Ok(None)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// A live table on a terminal, lines elsewhere.
    Text,
    /// One JSON object at the end.
    Json,
}

fn positive(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("'{text}' is not a number"))?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("expected a number above 0".into()) }
}
