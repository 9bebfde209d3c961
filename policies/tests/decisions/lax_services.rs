//! No service, however lax it reads paths, is reached past a policy: generated targets against services that each read in
//! a way of their own. `SEED` repeats a run; there are 100 000, and with `SELVEDGE_ATTACK` three million.

use selvedge_policies::{
    matching::canonical::{Reading, read},
    policy::{Needs, Posture},
    settings::{AmbiguousPaths, Onward},
    testing::{Clock, Request},
};
use serde_json::json;

use crate::{Target, attach};

/// What targets are made of.
const PIECES: [&str; 45] = [
    "/",
    "/",
    "/",
    "//",
    "admin",
    "ADMIN",
    "Admin",
    "%61dmin",
    "adm%69N",
    "users",
    ".",
    "..",
    "%2e",
    "%2E%2e",
    ".%2e",
    ";",
    ";x=1",
    "%3B",
    "..;",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    "%00",
    "%0d%0a",
    "%25",
    "%2561",
    "%",
    "%zz",
    "%3f",
    "%3F",
    "%23",
    "20",
    "@scope",
    "%40scope",
    "secret",
    "private",
    "caf%C3%A9",
    "CAF%C3%89",
    "café",
    "%E9",
    "public",
    "x",
    "%20",
    "%20",
];

/// What is closed, and what is open where only that is.
const CLOSED: [&str; 5] = ["/admin", "/admin/*", "/@scope/secret", "*/private", "/caf%C3%A9/*"];
const OPEN: [&str; 4] = ["/public", "/public/*", "/x/users", "*20"];

fn is_closed(path: &str) -> bool {
    matches!(path, "/admin" | "/@scope/secret")
        || ["/admin/", "/café/"].iter().any(|start| path.starts_with(start))
        || path.ends_with("/private")
}

fn is_open(path: &str) -> bool {
    matches!(path, "/public" | "/x/users") || path.starts_with("/public/") || path.ends_with("20")
}

/// What a service makes of a path that it is sent.
type Reads = fn(&str) -> String;

/// Services by how they read paths.
const SERVICES: [(&str, Reads); 6] = [
    ("decodes", decoded),
    ("strips parameters, decodes and resolves", |path| resolved(&decoded(&without_parameters(path)))),
    ("decodes, strips parameters and resolves", |path| resolved(&without_parameters(&decoded(path)))),
    ("merges slashes, and backslashes are some", |path| {
        let slashed = decoded(path).replace('\\', "/");
        let merged: Vec<&str> = slashed.split('/').filter(|segment| !segment.is_empty()).collect();
        resolved(&format!("/{}{}", merged.join("/"), if slashed.ends_with('/') { "/" } else { "" }).replace("//", "/"))
    }),
    ("does not mind case", |path| decoded(path).to_lowercase()),
    ("decodes and then looks for a query or fragment", |path| {
        let decoded = decoded(path);
        decoded.split(['?', '#']).next().unwrap_or_default().to_owned()
    }),
];

fn decoded(path: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), path.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn without_parameters(path: &str) -> String {
    let bare = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    bare.collect::<Vec<_>>().join("/")
}

fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Some pieces after another, or what is closed in another spelling.
fn target(chance: &mut fastrand::Rng) -> String {
    let pieces = |chance: &mut fastrand::Rng, most| -> String {
        (0..chance.usize(0..=most)).map(|_| PIECES[chance.usize(..PIECES.len())]).collect()
    };
    if chance.bool() {
        return format!("/{}", pieces(chance, 8));
    }
    let plain = ["/admin", "/admin/users", "/@scope/secret", "/x/private", "/public/x", "/x/users"];
    let mut spelt = String::new();
    for letter in plain[chance.usize(..plain.len())].chars() {
        match chance.u8(..12) {
            0 => spelt.push_str(&format!("%{:02x}", u32::from(letter))),
            1 => spelt.push(letter.to_ascii_uppercase()),
            2 => spelt.push_str(&format!("%{:02X}", u32::from(letter.to_ascii_uppercase()))),
            3 => spelt.push_str(&format!("{letter}{}", PIECES[chance.usize(..PIECES.len())])),
            _ => spelt.push(letter),
        }
    }
    spelt + &pieces(chance, 1)
}

fn policies(action: &str, paths: &[&str]) -> Target {
    let spec = json!({ "action": action, "rules": [{ "to": [{ "paths": paths }] }] });
    Target::new(&[attach("AuthorizationPolicy", "shop/paths", spec)], Posture::Allow)
}

#[test]
fn no_lax_service_is_reached_past_a_policy() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let is_long = std::env::var_os("SELVEDGE_ATTACK").is_some_and(|value| !value.is_empty());
    let count: u32 = if is_long { 3_000_000 } else { 100_000 };
    println!("SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let (deny, allow) = (policies("DENY", &CLOSED), policies("ALLOW", &OPEN));
    let now = Clock::default().now();
    let (mut passed, mut wrong) = ([0; 2], Vec::new());
    for _ in 0..count {
        let target = target(&mut chance);
        let Reading { canonical, ambiguity } = read(&target);
        for word in [AmbiguousPaths::Refuse, AmbiguousPaths::Rewrite] {
            let sent = match word.onward(ambiguity) {
                Onward::AsSent => &*target,
                Onward::Canonical => &canonical,
                Onward::Refused(_) => continue,
            };
            let request = Request::new("GET", &canonical);
            let lets_pass = [&deny, &allow].map(|policies| policies.refusal(&request, now).is_none());
            passed.iter_mut().zip(lets_pass).for_each(|(passed, lets_pass)| *passed += u32::from(lets_pass));
            for (service, reads) in SERVICES {
                let read = reads(sent);
                if (lets_pass[0] && is_closed(&read)) || (lets_pass[1] && !is_open(&read)) {
                    wrong.push(format!("{target} ({word:?}) passes as {canonical} and is {read} where one {service}"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} reach past, such as\n  {}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n  ")
    );
    println!("{count} targets, of which a DENY lets pass {} and an ALLOW {}", passed[0], passed[1]);
    assert!(passed.iter().all(|passed| *passed > count / 500), "too few pass to say anything: {passed:?} of {count}");
}

#[test]
fn only_rules_on_paths_that_refuse_look_at_paths() {
    let needs = |kind: &str, spec| Target::new(&[attach(kind, "shop/any", spec)], Posture::Allow).0.needs();
    let rule =
        |action: &str, operation: &serde_json::Value| json!({ "action": action, "rules": [{ "to": [operation] }] });
    let limit =
        |operation: serde_json::Value| json!({ "limits": [{ "requests": 1, "per": "1s", "match": [operation] }] });
    for (looks, operation) in [(true, json!({ "paths": ["/x"] })), (false, json!({ "methods": ["GET"] }))] {
        for (kind, spec, looks) in [
            ("AuthorizationPolicy", rule("DENY", &operation), looks),
            ("AuthorizationPolicy", rule("ALLOW", &operation), looks),
            ("AuthorizationPolicy", rule("AUDIT", &operation), false),
            ("RateLimit", limit(operation), looks),
        ] {
            assert!(matches!(needs(kind, spec.clone()), Needs { paths, .. } if paths == looks), "{kind} {spec}");
        }
    }
}
