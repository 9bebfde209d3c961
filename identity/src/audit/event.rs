//! What a line of the audit log says. The page `docs/audit.md` has every key.

use std::{borrow::Cow, net::IpAddr};

use selvedge_policies::reason::Reason;

use crate::line::Object;

/// What a line of the audit log tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// A request or connection was not let through.
    Denied,
    /// One was let through that a policy which only looks on would have refused.
    WouldBeDenied,
    /// A workload got a certificate.
    CertificateIssued,
    /// Somebody who asked for a certificate got none.
    CertificateRefused,
    /// A join token was made.
    TokenMade,
    /// Somebody who asked for a join token got none.
    TokenRefused,
    /// An object that was not there before is in force.
    ObjectAccepted,
    /// Another version of an object is in force.
    ObjectChanged,
    /// An object is not in force any more.
    ObjectRemoved,
}

impl Happening {
    /// Every happening, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Denied,
        Self::WouldBeDenied,
        Self::CertificateIssued,
        Self::CertificateRefused,
        Self::TokenMade,
        Self::TokenRefused,
        Self::ObjectAccepted,
        Self::ObjectChanged,
        Self::ObjectRemoved,
    ];

    /// The value of the key `event`.
    ///
    /// ```
    /// use selvedge_identity::audit::Happening;
    ///
    /// assert_eq!(Happening::ALL.map(Happening::name)[0], "denied");
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::WouldBeDenied => "would_be_denied",
            Self::CertificateIssued => "certificate_issued",
            Self::CertificateRefused => "certificate_refused",
            Self::TokenMade => "token_made",
            Self::TokenRefused => "token_refused",
            Self::ObjectAccepted => "object_accepted",
            Self::ObjectChanged => "object_changed",
            Self::ObjectRemoved => "object_removed",
        }
    }
}

/// One line. What is not known, or does not belong to what has happened, is empty and left out.
///
/// ```
/// use selvedge_identity::audit::{Event, Happening};
/// use selvedge_policies::reason::Reason;
///
/// let denied = Event {
///     subject: "spiffe://mesh.local/ns/shop/sa/web".into(),
///     object: "shop/api".into(),
///     reason: Some(Reason::PolicyDenied),
///     policy: "shop/no-deletes",
///     rule: Some(1),
///     ..Event::new("2026-12-01T00:00:00Z", "shop/api-1", Happening::Denied)
/// };
/// assert_eq!(
///     denied.line(7),
///     *br#"{"time":"2026-12-01T00:00:00Z","event":"denied","reporter":"shop/api-1","subject":"spiffe://mesh.local/ns/shop/sa/web","object":"shop/api","reason":"policy_denied","page":"docs/codes/policy_denied.md","policy":"shop/no-deletes","rule":"rules[1]","left_out":7}
/// "#
/// );
/// ```
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// When, as RFC 3339 has it.
    pub time: &'a str,
    /// What the line tells of, the key `event`.
    pub happening: Happening,
    /// Who writes this: the workload of a sidecar, `namespace/name`, or `control-plane`.
    pub reporter: &'a str,
    /// Who caused it: a proven SPIFFE ID, or the user who made or wrote what it is about.
    pub subject: Cow<'a, str>,
    /// The address that the subject came from.
    pub address: Option<IpAddr>,
    /// What it is about: the service called, the workload that asked, or the object.
    pub object: Cow<'a, str>,
    /// Why it was refused, or would have been.
    pub reason: Option<Reason>,
    /// The policy that decided, `namespace/name`.
    pub policy: &'a str,
    /// Which rule of it, from 0.
    pub rule: Option<u32>,
    /// More, in words for people.
    pub detail: &'a str,
    /// The call that was refused; empty for what is no call.
    pub call: Call<'a>,
    /// The certificate or token that was given or refused; empty for what is neither.
    pub grant: Grant<'a>,
    /// The version of an object; empty for what is none.
    pub version: Version<'a>,
}

/// How [`Event::subject`] names a user of the machine.
///
/// ```
/// assert_eq!(selvedge_identity::audit::user(1000), "uid 1000");
/// ```
pub fn user(uid: u32) -> String {
    format!("uid {uid}")
}

/// The call that was refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call<'a> {
    /// Side of the workload: `inbound` or `outbound`.
    pub direction: &'a str,
    /// The port that was called; 0 where none is known.
    pub port: u16,
    /// The method of a request; empty for a connection.
    pub method: &'a str,
    /// Canonical path without query.
    pub path: &'a str,
    /// The value of `x-request-id`; empty when there is none.
    pub request_id: &'a str,
}

/// What was given to somebody, or not.
#[derive(Clone, Debug, Default)]
pub struct Grant<'a> {
    /// By what it was asked for: `token`, `service_account`, `renewal`; of a token where it was made.
    pub way: &'a str,
    /// The serial number of the certificate.
    pub serial: &'a str,
    /// The end of what was given, as RFC 3339 has it.
    pub expires: Cow<'a, str>,
    /// The part of a join token that is no secret.
    pub token: &'a str,
    /// The identity that a token is good for.
    pub identity: Cow<'a, str>,
}

/// Which version of an object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Version<'a> {
    /// The generation in force; of one that was removed the last.
    pub generation: u64,
    /// Where it is written: a file and its line, or an object of a cluster.
    pub source: &'a str,
    /// `metadata.resourceVersion` in a cluster.
    pub resource_version: &'a str,
    /// What may pass that could not before.
    pub opens: &'a str,
    /// What may not pass any more.
    pub closes: &'a str,
}

impl<'a> Event<'a> {
    /// Of what only this much is known.
    pub fn new(time: &'a str, reporter: &'a str, happening: Happening) -> Self {
        Self {
            time,
            happening,
            reporter,
            subject: Cow::Borrowed(""),
            address: None,
            object: Cow::Borrowed(""),
            reason: None,
            policy: "",
            rule: None,
            detail: "",
            call: Call::default(),
            grant: Grant::default(),
            version: Version::default(),
        }
    }

    /// The line, with its end. `left_out` is how many like it were left out since the last.
    pub fn line(&self, left_out: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        let mut line = Object::open(&mut bytes);
        line.text("time", self.time).text("event", self.happening.name());
        line.text("reporter", self.reporter).text("subject", &self.subject);
        if let Some(address) = self.address {
            line.address("address", address);
        }
        line.text("object", &self.object);
        if let Some(reason) = self.reason {
            line.text("reason", reason.code()).text("page", reason.page());
        }
        line.text("policy", self.policy);
        if let Some(rule) = self.rule {
            line.plain("rule", format_args!("\"rules[{rule}]\""));
        }
        line.text("detail", self.detail);
        self.call.write(&mut line);
        self.grant.write(&mut line);
        self.version.write(&mut line);
        if left_out > 0 {
            line.plain("left_out", left_out);
        }
        line.close();
        bytes
    }
}

impl Call<'_> {
    fn write(&self, line: &mut Object<'_>) {
        line.text("direction", self.direction);
        if self.port > 0 {
            line.plain("port", self.port);
        }
        line.text("method", self.method).text("path", self.path).text("request_id", self.request_id);
    }
}

impl Grant<'_> {
    fn write(&self, line: &mut Object<'_>) {
        line.text("way", self.way).text("serial", self.serial).text("expires", &self.expires);
        line.text("token", self.token).text("identity", &self.identity);
    }
}

impl Version<'_> {
    fn write(&self, line: &mut Object<'_>) {
        if self.generation > 0 {
            line.plain("generation", self.generation);
        }
        line.text("source", self.source).text("resource_version", self.resource_version);
        line.text("opens", self.opens).text("closes", self.closes);
    }
}
