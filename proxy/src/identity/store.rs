//! Credentials on disk: one JSON file of PEM texts, so that key, certificate and authorities change together.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use selvedge_identity::{file, svid::Leaf};
use serde::{Deserialize, Serialize};

use super::IdentityError;
use crate::credentials::{Credentials, Svid};

const FILE: &str = "credentials.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Stored {
    key: String,
    chain: Vec<String>,
    roots: Vec<String>,
}

pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// What is stored, valid or not; `None` when nothing is.
pub(super) fn load(state_dir: &Path) -> Result<Option<Credentials>, IdentityError> {
    let path = path(state_dir);
    let json = match fs::read(&path) {
        Ok(json) => json,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::File { action: "reading", path, source }),
    };
    parse(&json).map(Some).map_err(|problem| IdentityError::Damaged { path, problem })
}

/// Puts `credentials` in place of what is stored.
pub(super) fn save(state_dir: &Path, credentials: &Credentials) -> Result<(), IdentityError> {
    let text = |certificates: &[CertificateDer<'_>]| certificates.iter().map(|c| BASE64_STANDARD.encode(c)).collect();
    let stored = Stored {
        key: BASE64_STANDARD.encode(credentials.svid.key.secret_der()),
        chain: text(&credentials.svid.chain),
        roots: text(&credentials.roots),
    };
    let path = path(state_dir);
    let json = serde_json::to_vec(&stored).map_err(io::Error::from);
    let written = json.and_then(|json| file::create_dir(state_dir).and_then(|()| file::replace(&path, &json)));
    written.map_err(|source| IdentityError::File { action: "writing", path, source })
}

fn parse(json: &[u8]) -> Result<Credentials, String> {
    let stored: Stored = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let der = |text: &String| BASE64_STANDARD.decode(text).map_err(|e| e.to_string());
    let certificates = |texts: &[String]| {
        texts.iter().map(|text| der(text).map(CertificateDer::from)).collect::<Result<Vec<_>, String>>()
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der(&stored.key)?));
    assemble(key, certificates(&stored.chain)?, certificates(&stored.roots)?)
}

/// Credentials of their parts; the facts are read from the leaf.
pub(super) fn assemble(
    key: PrivateKeyDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
) -> Result<Credentials, String> {
    let first = chain.first().ok_or("the certificate chain is empty")?;
    let Leaf { identity, not_before, not_after } = Leaf::from_der(first).map_err(|e| e.to_string())?;
    if roots.is_empty() {
        return Err("there are no certificate authorities".to_owned());
    }
    let svid = Svid { identity, chain, key, not_before, not_after };
    Ok(Credentials { svid: Arc::new(svid), roots: roots.into() })
}
