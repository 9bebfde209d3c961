//! Requests made up at random: from the words that the documents speak of, and a few others.

use selvedge_policies::testing;

/// One request, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The same for those that were made up alike.
    pub(crate) number: usize,
    /// The workload that calls; a plaintext caller outside the mesh when empty.
    pub(crate) from: &'static str,
    /// The service called, or the workload that is called without its caller's sidecar.
    pub(crate) to: &'static str,
    /// The port called.
    pub(crate) port: u16,
    /// Method.
    pub(crate) method: &'static str,
    /// Host.
    pub(crate) host: &'static str,
    /// Path and query.
    pub(crate) target: String,
    /// Header fields.
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    /// Over HTTP/2.
    pub(crate) http2: bool,
}

/// Who calls.
pub(crate) const CALLERS: [&str; 3] = ["shop/web-1", "shop/ui-1", "pay/desk-1"];
/// What is called through a sidecar.
pub(crate) const CALLED: [(&str, u16); 6] = [
    ("shop/api", 80),
    ("shop/api", 81),
    ("shop/next", 80),
    ("shop/empty", 80),
    ("pay/ledger", 80),
    ("shop/absent", 80),
];
/// What is called without one, in plaintext.
const STRAIGHT: [(&str, u16); 3] = [("shop/api-1", 8080), ("pay/ledger-1", 8080), ("pay/ledger-1", 9090)];

const METHODS: [&str; 7] = ["GET", "GET", "GET", "POST", "PUT", "DELETE", "OPTIONS"];
const HOSTS: [&str; 5] = ["api.shop", "api.shop", "a.example.com", "a.b.example.com", "example.com"];
const PATHS: [&str; 25] = [
    "/",
    "/api",
    "/api/",
    "/api/x",
    "/apis",
    "/admin",
    "/admin/x",
    "/administrator",
    "/public",
    "/public/x",
    "/item/7",
    "/item/77",
    "/item/x",
    "/split/x",
    "/split",
    "/nowhere",
    "/gone",
    "/marked",
    // As services read them in different ways, and what is no path.
    "/x/../admin",
    "/%61dmin/x",
    "/admin;a=b",
    "/public/%2e/x",
    "//api",
    "/public%3Fx",
    "*",
];
const QUERIES: [&str; 5] = ["", "", "", "?v=2", "?v=1&v=2"];
const HEADERS: [(&str, &str); 9] = [
    ("x-beta", "on"),
    ("x-beta", "v12"),
    ("x-beta", "off"),
    ("x-team", "red"),
    ("x-team", "blue"),
    ("x-mark", "route"),
    ("x-mark", "own"),
    ("x-caller", "admin"),
    ("x-forwarded-client-cert", "admin"),
];

/// How many requests are made up alike, so that weights and both versions of HTTP get their share of each.
const ALIKE: usize = 4;

/// So many requests in any order, the same for the same chance.
pub(crate) fn all(chance: &mut fastrand::Rng, count: usize) -> Vec<Case> {
    let made: Vec<Case> = (0..count / ALIKE).map(|number| one(chance, number)).collect();
    let mut all: Vec<Case> = made.iter().cycle().take(count).cloned().collect();
    chance.shuffle(&mut all);
    // The client has no way to say `*` in HTTP/2.
    all.iter_mut().for_each(|case| case.http2 = chance.bool() && case.target != "*");
    all
}

fn one(chance: &mut fastrand::Rng, number: usize) -> Case {
    let straight = chance.u8(..10) == 0;
    let (to, port) = match straight {
        true => STRAIGHT[chance.usize(..STRAIGHT.len())],
        // Most calls go where most is decided.
        false if chance.bool() => CALLED[0],
        false => CALLED[chance.usize(..CALLED.len())],
    };
    let pick = |chance: &mut fastrand::Rng, texts: &[&'static str]| texts[chance.usize(..texts.len())];
    let (path, query) = (pick(chance, &PATHS), pick(chance, &QUERIES));
    let target = if path == "*" { path.to_owned() } else { format!("{path}{query}") };
    let headers = (0..chance.usize(..3)).map(|_| HEADERS[chance.usize(..HEADERS.len())]).collect();
    Case {
        number,
        from: if straight { "" } else { pick(chance, &CALLERS) },
        to,
        port,
        method: pick(chance, &METHODS),
        host: pick(chance, &HOSTS),
        target,
        headers,
        http2: false,
    }
}

impl Case {
    /// The workload it goes straight to, past its caller's sidecar.
    pub(crate) fn straight_to(&self) -> Option<&'static str> {
        self.from.is_empty().then_some(self.to)
    }

    /// The facts of it.
    pub(crate) fn request(&self) -> testing::Request {
        let request = testing::Request::new(self.method, &self.target).host(self.host).port(self.port);
        self.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }
}
