//! Helpers for tests of policies: a clock to set, facts to build, and shares to compare.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::{
    context::Context,
    facts::{ConnectionFacts, Content, Identity, Moment, Peer, RequestFacts, Section},
    names,
    request::PolicySet,
};

/// A clock that moves only when told to.
///
/// ```
/// use std::time::Duration;
///
/// use selvedge_policies::testing::Clock;
///
/// let mut clock = Clock::default();
/// let before = clock.now();
/// assert_eq!(clock.advance(Duration::from_secs(2)).unix, before.unix + 2);
/// assert_eq!(clock.context().now, clock.now());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    now: Moment,
}

impl Default for Clock {
    /// One second after the origin, in November 2023.
    fn default() -> Self {
        Self { now: Moment { nanos: 1_000_000_000, unix: 1_700_000_000 } }
    }
}

impl Clock {
    /// The moment at which the clock stands.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// What a decision at this time is handed, with a chance that is the same in every run.
    pub fn context(&self) -> Context {
        Context::new(self.now, fastrand::Rng::with_seed(7))
    }

    /// Moves the time forward and returns it.
    pub fn advance(&mut self, by: Duration) -> Moment {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let before = self.now.nanos / 1_000_000_000;
        self.now.nanos = self.now.nanos.saturating_add(nanos);
        self.now.unix += self.now.nanos / 1_000_000_000 - before;
        self.now
    }
}

/// An owned request to take [`RequestFacts`] from: a `GET /` of the host `shop` at port 8080, without identity,
/// until told otherwise.
///
/// ```
/// use selvedge_policies::testing::Request;
///
/// let request = Request::new("POST", "/cart?id=7").from("shop/ui").address("10.0.0.9".parse().unwrap()).host("web.shop").port(80);
/// let request = request.fingerprint("00ff").sanitized(&selvedge_policies::request::PolicySet::new());
/// let request = request.header("x-tenant", "gold").route("shop/web/0").server_name("web.shop").body(b"{}").ambiguous();
/// let facts = request.facts();
/// assert_eq!((facts.path, facts.query, facts.host, facts.port), ("/cart", Some("id=7"), "web.shop", 80));
/// assert_eq!(&*facts.peer.identity.as_ref().unwrap().service_account, "ui");
/// assert_eq!(request.connection().server_name, Some("web.shop"));
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    peer: Peer,
    port: u16,
    method: Method,
    host: String,
    path: String,
    ambiguous: bool,
    query: Option<String>,
    headers: HeaderMap,
    route: String,
    server_name: Option<String>,
    body: Vec<u8>,
}

impl Request {
    /// A request; what cannot be a method is `GET`. A `?` ends the path.
    pub fn new(method: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self {
            peer: Peer { identity: None, fingerprint: None, address: IpAddr::from([127, 0, 0, 1]) },
            port: 8080,
            method: method.parse().unwrap_or(Method::GET),
            host: "shop".into(),
            path: path.into(),
            ambiguous: false,
            query,
            headers: HeaderMap::new(),
            route: String::new(),
            server_name: None,
            body: Vec::new(),
        }
    }

    /// From this service account of the trust domain `mesh.local`, written `namespace/name`. What is no service
    /// account leaves the caller without identity.
    #[must_use]
    pub fn from(mut self, account: &str) -> Self {
        let (namespace, name) = names::parts(account).unwrap_or(("default", account));
        self.peer.identity = Identity::new("mesh.local", namespace, name).ok().map(Arc::new);
        self
    }

    /// Proven with the certificate that has this SHA-256, in lower-case hex.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: &str) -> Self {
        self.peer.fingerprint = Some(fingerprint.into());
        self
    }

    /// The request as it comes from this network address.
    #[must_use]
    pub fn address(mut self, address: IpAddr) -> Self {
        self.peer.address = address;
        self
    }

    /// The request to this port of the workload.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The request for this host, lower case and without port.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    /// With a path of which policies say what becomes of it, because services read it in different ways.
    #[must_use]
    pub fn ambiguous(mut self) -> Self {
        self.ambiguous = true;
        self
    }

    /// With one more header line; what is no header line is left out.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            self.headers.append(name, value);
        }
        self
    }

    /// Of this route rule.
    #[must_use]
    pub fn route(mut self, route: &str) -> Self {
        self.route = route.into();
        self
    }

    /// Over TLS of the application's own, for this server name.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// The request with this content, all of which policies see.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// The request without what `policies` say that its caller may not send.
    #[must_use]
    pub fn sanitized(mut self, policies: &PolicySet) -> Self {
        policies.sanitize(Section::Header(&self.peer), &mut self.headers);
        self
    }

    /// The facts of the request.
    pub fn facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            peer: &self.peer,
            port: self.port,
            method: &self.method,
            host: &self.host,
            path: &self.path,
            ambiguous: self.ambiguous,
            query: self.query.as_deref(),
            headers: &self.headers,
            route: &self.route,
            body: Content { start: &self.body, is_whole: true },
        }
    }

    /// The facts of an opaque connection of the same caller to the same port.
    pub fn connection(&self) -> ConnectionFacts<'_> {
        let server_name = self.server_name.as_deref();
        ConnectionFacts { peer: &self.peer, port: self.port, server_name, earlier: None }
    }
}

/// How often each of `picks` occurs among `0..kinds`, as shares of all picks.
///
/// ```
/// use selvedge_policies::testing::{deviation, shares};
///
/// let shares = shares(2, [0, 0, 0, 1]);
/// assert_eq!(shares, [0.75, 0.25]);
/// assert_eq!(deviation(&shares, &[3, 1]), 0.0);
/// ```
pub fn shares(kinds: usize, picks: impl IntoIterator<Item = usize>) -> Vec<f64> {
    let mut counts = vec![0u32; kinds];
    for pick in picks {
        if let Some(count) = counts.get_mut(pick) {
            *count += 1;
        }
    }
    let all: u32 = counts.iter().sum();
    counts.iter().map(|count| f64::from(*count) / f64::from(all.max(1))).collect()
}

/// The largest difference between a share and the one expected of its weight.
///
/// ```
/// use selvedge_policies::testing::deviation;
///
/// assert_eq!(deviation(&[0.5, 0.5], &[3, 1]), 0.25);
/// ```
pub fn deviation(shares: &[f64], weights: &[u32]) -> f64 {
    let all: u32 = weights.iter().sum();
    let expected = weights.iter().map(|weight| f64::from(*weight) / f64::from(all.max(1)));
    shares.iter().zip(expected).map(|(share, expected)| (share - expected).abs()).fold(0.0, f64::max)
}
