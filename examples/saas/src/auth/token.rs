//! Session tokens: `base64url(JSON).base64url(HMAC-SHA256)`. A token that was changed in any bit, or is older than
//! it says, is no session.

use aws_lc_rs::{hmac, rand};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) tenant: String,
    pub(super) user: String,
    /// Seconds since 1970.
    pub(super) expires: u64,
}

/// Signs and verifies.
pub(super) struct Signer {
    key: hmac::Key,
}

impl Signer {
    /// A signer with the given key (base64), or with a fresh one.
    pub(super) fn new(key: Option<&str>) -> Result<Self, Error> {
        let bytes = match key {
            Some(text) => BASE64_STANDARD.decode(text).unwrap_or_default(),
            None => fresh_key()?,
        };
        if bytes.len() < 32 {
            return Err(Error::Invalid("the session key is not base64 of at least 32 bytes".into()));
        }
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// The token of a session.
    pub(super) fn sign(&self, session: &Session) -> String {
        let claims = serde_json::json!(session).to_string();
        let tag = hmac::sign(&self.key, claims.as_bytes());
        format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims), BASE64_URL_SAFE_NO_PAD.encode(tag))
    }

    /// The session of a token, unless it is forged or over at `now` (seconds since 1970).
    pub(super) fn verify(&self, token: &str, now: u64) -> Option<Session> {
        let (claims, tag) = token.split_once('.')?;
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
        hmac::verify(&self.key, &claims, &BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        serde_json::from_slice::<Session>(&claims).ok().filter(|session| now < session.expires)
    }
}

fn fresh_key() -> Result<Vec<u8>, Error> {
    let mut key = vec![0; 32];
    rand::fill(&mut key).map_err(|_| Error::Invalid("the system gives no random bytes".into()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_expires_and_only_with_its_key() {
        let signer = Signer::new(None).expect("a key");
        let session = Session { tenant: "acme".into(), user: "ada".into(), expires: 100 };
        let token = signer.sign(&session);
        assert_eq!(signer.verify(&token, 99), Some(session));
        assert_eq!(signer.verify(&token, 100), None);
        assert_eq!(Signer::new(None).expect("a key").verify(&token, 99), None);
    }

    #[test]
    fn forged_tokens_are_no_session() {
        let signer = Signer::new(None).expect("a key");
        let token = signer.sign(&Session { tenant: "acme".into(), user: "ada".into(), expires: 100 });
        let (_, tag) = token.split_once('.').expect("two parts");
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"tenant":"globex","user":"ada","expires":100}"#);
        for forged in ["", ".", "a.b", &format!("{claims}.{tag}"), &token[..token.len() - 2]] {
            assert_eq!(signer.verify(forged, 0), None, "{forged}");
        }
    }

    #[test]
    fn short_keys_are_refused() {
        assert!(Signer::new(Some("c2hvcnQ=")).is_err());
    }
}
