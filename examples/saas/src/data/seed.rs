//! The tenants, users and articles of the example.

use std::num::NonZeroU32;

use aws_lc_rs::{pbkdf2, rand};
use rusqlite::{Connection, Result, params};

use super::PASSWORD_ALGORITHM;
use crate::{SEEDED_PASSWORD, SEEDED_TENANTS, SEEDED_USER};

/// Few, so that the example starts fast; a real service takes 600 000 (OWASP).
const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
const TITLES: [&str; 3] = ["Welcome", "How we bill", "What changed this week"];

/// Fills the database unless it has users already.
pub(super) fn seed(db: &mut Connection) -> Result<()> {
    let users: i64 = db.query_row("SELECT count(*) FROM users", [], |row| row.get(0))?;
    if users > 0 {
        return Ok(());
    }
    let transaction = db.transaction()?;
    for tenant in SEEDED_TENANTS {
        add_user(&transaction, tenant)?;
        for title in TITLES {
            let body = format!("{title}: written for {tenant}.");
            transaction
                .execute("INSERT INTO articles (tenant, title, body) VALUES (?, ?, ?)", params![tenant, title, body])?;
        }
    }
    transaction.commit()
}

fn add_user(db: &Connection, tenant: &str) -> Result<()> {
    let (mut salt, mut hash) = ([0_u8; 16], [0_u8; 32]);
    rand::fill(&mut salt).map_err(|_| rusqlite::Error::UnwindingPanic)?;
    pbkdf2::derive(PASSWORD_ALGORITHM, ITERATIONS, &salt, SEEDED_PASSWORD.as_bytes(), &mut hash);
    let email = format!("{SEEDED_USER}@{tenant}.example");
    db.execute(
        "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![tenant, SEEDED_USER, "Ada Lovelace", email, hash, salt, ITERATIONS.get()],
    )
    .map(drop)
}
