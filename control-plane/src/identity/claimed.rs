//! What a token of a service account says of itself, before anybody is asked whether that is true: a JSON Web Token
//! (RFC 7519) with the claims that Kubernetes writes into those it projects.
//!
//! Nothing is proven here. Whoever makes a token up has to name a pod that is there, with its uid, before it costs the API
//! server anything.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

/// Whom tokens are for that are sent to us (`audience` of the projected volume).
pub(super) const AUDIENCE: &str = "selvedge";
/// How far the clock of who issued the token may be from ours, in seconds.
const SKEW: u64 = 300;

/// What a token says of its bearer.
#[derive(Clone, Debug)]
pub(super) struct Bearer {
    /// The name of the user, which of a service account has its namespace.
    pub(super) user: String,
    /// The name of the pod that it was made for, if it is of one.
    pub(super) pod: Option<String>,
    /// What tells that pod from others of its name.
    pub(super) uid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audiences,
    exp: Option<u64>,
    #[serde(default)]
    sub: String,
    #[serde(default, rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

/// One or several (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

#[derive(Default, Deserialize)]
struct Kubernetes {
    pod: Option<Pod>,
}

#[derive(Deserialize)]
struct Pod {
    name: String,
    uid: String,
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audiences {
    fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(all) => all.iter().any(|one| one == audience),
        }
    }
}

/// Whose token it says to be at this second of Unix time.
///
/// # Errors
/// Why the API server would not take it.
pub(super) fn read(token: &str, now: u64) -> Result<Bearer, String> {
    let claims = claims(token).ok_or("it is no token of a service account")?;
    if !claims.aud.contains(AUDIENCE) {
        return Err(format!("it is not for the audience '{AUDIENCE}'"));
    }
    if claims.exp.is_some_and(|end| end.saturating_add(SKEW) < now) {
        return Err("it has expired".to_owned());
    }
    let (pod, uid) = claims.kubernetes.pod.map(|pod| (pod.name, pod.uid)).unzip();
    Ok(Bearer { user: claims.sub, pod, uid })
}

/// The claims of a token in compact serialization (RFC 7515 section 7.1) that somebody may have signed.
fn claims(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let decoded = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    let is_whole = parts.next().is_none() && !signature.is_empty() && decoded(signature).is_some();
    serde_json::from_slice::<serde::de::IgnoredAny>(&decoded(header)?).ok()?;
    serde_json::from_slice(&decoded(claims)?).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn token(claims: &Value) -> String {
        let part = |part: &str| BASE64_URL_SAFE_NO_PAD.encode(part);
        format!("{}.{}.{}", part(r#"{"alg":"RS256","kid":"a"}"#), part(&claims.to_string()), part("signature"))
    }

    /// What Kubernetes 1.36 writes.
    fn projected() -> Value {
        json!({
            "aud": [AUDIENCE], "exp": NOW + 3600, "iat": NOW, "iss": "https://kubernetes.default.svc.cluster.local",
            "jti": "80b0c1a7-5d10-4b3a-a2bf-0b8f5c86a4cf", "nbf": NOW, "sub": "system:serviceaccount:shop:web",
            "kubernetes.io": {
                "namespace": "shop", "node": { "name": "node-1", "uid": "3" },
                "pod": { "name": "web-1", "uid": "1" }, "serviceaccount": { "name": "web", "uid": "2" },
            },
        })
    }

    #[test]
    fn a_projected_token_says_whose_it_is() {
        let bearer = read(&token(&projected()), NOW).unwrap();
        assert_eq!(bearer.user, "system:serviceaccount:shop:web");
        assert_eq!((bearer.pod.as_deref(), bearer.uid.as_deref()), (Some("web-1"), Some("1")));
        let mut one = projected();
        one["aud"] = json!(AUDIENCE);
        read(&token(&one), NOW).unwrap();
        one["kubernetes.io"] = json!({ "namespace": "shop" });
        assert_eq!(read(&token(&one), NOW).unwrap().pod, None, "one of a Secret is of no pod");
    }

    #[test]
    fn what_the_api_server_would_refuse_is_refused_with_the_reason() {
        let whole = token(&projected());
        let (mut other, mut none, mut negative) = (projected(), projected(), projected());
        other["aud"] = json!(["https://kubernetes.default.svc"]);
        none.as_object_mut().unwrap().remove("aud");
        negative["exp"] = json!(-1);
        for (token, why) in [
            (token(&other), "not for the audience 'selvedge'"),
            (token(&none), "not for the audience"),
            (token(&negative), "no token"),
            (token(&json!("text")), "no token"),
            (String::new(), "no token"),
            ("a.b.c".to_owned(), "no token"),
            (whole.rsplit_once('.').unwrap().0.to_owned(), "no token"),
            (format!("{whole}.more"), "no token"),
            (format!("{}.", whole.rsplit_once('.').unwrap().0), "no token"),
            (format!("{whole}="), "no token"),
        ] {
            let refused = read(&token, NOW).unwrap_err();
            assert!(refused.contains(why), "{token}: {refused}");
        }
    }

    #[test]
    fn a_token_ends_when_no_clock_may_say_otherwise() {
        let token = token(&projected());
        read(&token, NOW + 3600 + SKEW).unwrap();
        assert_eq!(read(&token, NOW + 3601 + SKEW).unwrap_err(), "it has expired");
    }
}
