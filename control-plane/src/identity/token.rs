//! Join tokens: `sv1.<id>.<secret>.<sha256 of the CA's certificate>`, all hex.
//!
//! Guarantees: the disk holds a hash of the secret only; a token is redeemed for one key, also by processes that try
//! at the same time (who makes the `used` file decides); the owner of that key may ask again until the token expires,
//! so that a lost answer does not lock a workload out; an expired or misused token stays worthless. The last part of a
//! token lets the workload recognise the control plane before it knows any authority.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{constant_time, digest, rand};
use selvedge_identity::file;
use selvedge_policies::facts::Identity;
use serde::{Deserialize, Serialize};

use super::{IdentityError, failed};

const VERSION: &str = "sv1";
const DIRECTORY: &str = "tokens";
/// Extension of the file beside a token's record that holds the hash of the key it was used for.
const USED: &str = "used";
const UNKNOWN: &str = "it is unknown or was used already";

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The identity its bearer gets.
    pub identity: Identity,
    /// `namespace/name` of the only workload that may use it; any workload when absent.
    pub workload: Option<String>,
    /// When it becomes worthless, seconds since the Unix epoch.
    pub expires: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Record {
    secret_sha256: String,
    identity: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    expires: u64,
}

/// A token that is good, and not used up yet for another key than the one it will be redeemed for.
#[derive(Debug)]
pub(super) struct Good {
    used: PathBuf,
    identity: String,
}

/// The tokens of one state directory.
#[derive(Debug)]
pub(super) struct Tokens {
    directory: PathBuf,
}

impl Tokens {
    pub(super) fn open(state_dir: &Path) -> Result<Self, IdentityError> {
        let directory = file::subdirectory(state_dir, DIRECTORY);
        let directory = directory.map_err(|source| failed("creating", &state_dir.join(DIRECTORY), source))?;
        Ok(Self { directory })
    }

    /// Makes a token for `grant` that pins `ca`.
    pub(super) fn create(&self, grant: &Grant, ca: &[u8]) -> Result<String, IdentityError> {
        let (id, secret) = (random_hex::<8>()?, random_hex::<32>()?);
        let record = Record {
            secret_sha256: sha256_hex(secret.as_bytes()),
            identity: grant.identity.to_string(),
            workload: grant.workload.clone(),
            expires: grant.expires,
        };
        let path = self.path(&id);
        let json = serde_json::to_vec(&record).map_err(|e| failed("writing", &path, e.into()))?;
        file::create(&path, &json).map_err(|source| failed("writing", &path, source))?;
        Ok(format!("{VERSION}.{id}.{secret}.{}", sha256_hex(ca)))
    }

    /// Looks whether a token is good for `workload`, without using it up.
    pub(super) fn look(&self, token: &str, workload: &str, now: u64) -> Result<Good, IdentityError> {
        let refused = |why| Err(IdentityError::Token(why));
        let Some((id, secret)) = parse(token) else {
            return refused("it is not a token of the form sv1.ID.SECRET.PIN");
        };
        let path = self.path(id);
        let Some(record) = self.read(&path)? else { return refused(UNKNOWN) };
        let proof = sha256_hex(secret.as_bytes());
        if constant_time::verify_slices_are_equal(proof.as_bytes(), record.secret_sha256.as_bytes()).is_err() {
            return refused(UNKNOWN);
        }
        if now >= record.expires {
            return refused("it has expired");
        }
        if record.workload.as_deref().is_some_and(|only| only != workload) {
            return refused("it is for another workload");
        }
        Ok(Good { used: path.with_extension(USED), identity: record.identity })
    }

    /// Uses a token up for `key` and returns the identity it grants.
    pub(super) fn redeem(&self, token: &Good, key: &[u8]) -> Result<Identity, IdentityError> {
        let key = sha256_hex(key);
        let created = file::create(&token.used, key.as_bytes());
        if created.map_err(|source| failed("writing", &token.used, source))? || holds(&token.used, &key)? {
            return token.identity.parse().map_err(IdentityError::Name);
        }
        Err(IdentityError::Token(UNKNOWN))
    }

    /// Removes the tokens that have expired, and what a crash left of others. Returns what is in the way of that; it
    /// does not keep other files from being removed.
    pub(super) fn sweep(&self, now: u64) -> Vec<IdentityError> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) => return vec![failed("listing", &self.directory, e)],
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let records = paths.filter(|path| path.extension() == Some("json".as_ref()));
        let mut problems: Vec<_> = records.filter_map(|path| self.sweep_one(&path, now).err()).collect();
        problems.extend(file::sweep(&self.directory, now).err().map(|e| failed("sweeping", &self.directory, e)));
        problems
    }

    fn sweep_one(&self, path: &Path, now: u64) -> Result<(), IdentityError> {
        if self.read(path)?.is_some_and(|record| now >= record.expires) {
            // The record goes first: without it the token is worthless.
            remove(path)?;
            remove(&path.with_extension(USED))?;
        }
        Ok(())
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    fn read(&self, path: &Path) -> Result<Option<Record>, IdentityError> {
        let json = match fs::read(path) {
            Ok(json) => json,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::TokenFile { path: path.to_owned(), source }),
        };
        let record = serde_json::from_slice(&json);
        record.map(Some).map_err(|e| IdentityError::TokenFile { path: path.to_owned(), source: e.into() })
    }
}

fn holds(path: &Path, content: &str) -> Result<bool, IdentityError> {
    let found = fs::read_to_string(path).map_err(|e| failed("reading", path, e))?;
    Ok(found == content)
}

fn remove(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("removing", path, e)),
        _ => Ok(()),
    }
}

/// Id and secret of a token. Only hex passes, so an id cannot leave the directory.
fn parse(token: &str) -> Option<(&str, &str)> {
    let mut parts = token.trim().split('.');
    let (Some(VERSION), Some(id), Some(secret), Some(_pin), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let is_hex = |text: &str, bytes: usize| text.len() == 2 * bytes && text.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hex(id, 8) && is_hex(secret, 32)).then_some((id, secret))
}

/// The part of a token that is no secret; empty for what is none.
pub fn token_id(token: &str) -> &str {
    parse(token).map_or("", |(id, _)| id)
}

fn random_hex<const BYTES: usize>() -> Result<String, IdentityError> {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes).map_err(|_| IdentityError::Request("no randomness to be had".to_owned()))?;
    Ok(hex(&bytes))
}

/// SHA-256 in hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
