//! The tenants, users and articles of the example, the same in every database.

use std::{io, num::NonZeroU32};

use aws_lc_rs::{pbkdf2, rand};

use super::PASSWORD_ALGORITHM;
use crate::{SEEDED_PASSWORD, SEEDED_TENANTS, SEEDED_USER, error::Error};

/// Few, so that the example starts fast; a real service takes 600 000 (OWASP).
const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
const TITLES: [&str; 3] = ["Welcome", "How we bill", "What changed this week"];

/// What an empty database is filled with.
pub(super) struct Seed {
    pub(super) users: Vec<User>,
    pub(super) articles: Vec<Article>,
}

/// A row of `users`.
pub(super) struct User {
    pub(super) tenant: &'static str,
    pub(super) name: &'static str,
    pub(super) display_name: &'static str,
    pub(super) email: String,
    pub(super) password_hash: [u8; 32],
    pub(super) salt: [u8; 16],
    pub(super) iterations: u32,
}

/// A row of `articles`.
pub(super) struct Article {
    pub(super) tenant: &'static str,
    pub(super) title: &'static str,
    pub(super) body: String,
}

impl Seed {
    /// One user and three articles for each tenant.
    pub(super) fn new() -> Result<Self, Error> {
        let article = |(tenant, title)| Article { tenant, title, body: format!("{title}: written for {tenant}.") };
        Ok(Self {
            users: SEEDED_TENANTS.into_iter().map(user).collect::<Result<_, _>>()?,
            articles: SEEDED_TENANTS.into_iter().flat_map(|t| TITLES.map(|title| (t, title))).map(article).collect(),
        })
    }
}

fn user(tenant: &'static str) -> Result<User, Error> {
    let (mut salt, mut password_hash) = ([0_u8; 16], [0_u8; 32]);
    rand::fill(&mut salt).map_err(io::Error::other).map_err(Error::io("making a salt"))?;
    pbkdf2::derive(PASSWORD_ALGORITHM, ITERATIONS, &salt, SEEDED_PASSWORD.as_bytes(), &mut password_hash);
    Ok(User {
        tenant,
        name: SEEDED_USER,
        display_name: "Ada Lovelace",
        email: format!("{SEEDED_USER}@{tenant}.example"),
        password_hash,
        salt,
        iterations: ITERATIONS.get(),
    })
}
