//! Who is who: the built-in certificate authority, what proves a workload that has no certificate yet, and the
//! certificates issued.
//!
//! Guarantees: the CA's key never leaves a file only its owner can read, or the Secret of a [`cluster`] that keeps it; a certificate names the identity its caller
//! was authenticated as, whatever the request asked for; a join token is worth a certificate
//! for one key.

mod admission;
mod ca;
mod claimed;
pub mod cluster;
mod fields;
mod issue;
mod review;
mod rotation;
mod token;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use selvedge_identity::file;
use selvedge_policies::facts::{Identity, IdentityError as BadIdentity, Moment};
use serde::Serialize;
use tokio::sync::watch;

pub use self::{
    admission::{Admission, Closed},
    issue::{Issued, KeyedCertificate},
    review::{ReviewError, Reviewer},
    rotation::{Role, Sightings},
    token::{Grant, token_id},
};
use self::{rotation::Authorities, token::Tokens};

/// Lifetime of a workload's certificate.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Namespace and service account of the control plane's own identity.
pub const OWN_NAME: (&str, &str) = ("selvedge-system", "control-plane");

/// What can go wrong with the state directory, a token or a signing request.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{action} {path} failed; check that the state directory exists and is yours")]
    File {
        /// What was tried, as a word such as `reading` or `writing`.
        action: &'static str,
        /// The file that it was tried with.
        path: PathBuf,
        /// What the system says of it.
        #[source]
        source: io::Error,
    },
    /// Others than the owner can read the CA's key.
    #[error("{path} holds the CA's key and has mode {mode:04o}; it must be 0600 (chmod 600 {path})")]
    Exposed {
        /// The file with the key.
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
    },
    /// The CA's file is not what was written there.
    #[error(
        "{path} is damaged: {problem}; restore it from a backup, or remove it (without ca.pem a new CA is founded, and every workload must join again)"
    )]
    Damaged {
        /// The file of the authority that was read.
        path: PathBuf,
        /// What of its content cannot be understood.
        problem: String,
    },
    /// The state directory belongs to another mesh.
    #[error(
        "the CA in {path} is for trust domain '{found}', not '{expected}'; use another state directory or --trust-domain {found}"
    )]
    OtherTrustDomain {
        /// The file of the authority that was read.
        path: PathBuf,
        /// The trust domain that the certificate of the CA names.
        found: String,
        /// The trust domain that was asked for.
        expected: String,
    },
    /// The record of a join token cannot be read.
    #[error(
        "the join token in {path} cannot be read; remove the file, or give it to the user the control plane runs as (chown)"
    )]
    TokenFile {
        /// The file with what is kept of the token.
        path: PathBuf,
        /// What the system says of it.
        #[source]
        source: io::Error,
    },
    /// A new CA was asked for while another one is being introduced or dropped.
    #[error("a rotation of the CA is under way already; see how far it is with `selvedge ca show`")]
    Rotating,
    /// A trust domain, namespace or name is malformed.
    #[error("no identity can be made of this name")]
    Name(#[source] BadIdentity),
    /// A join token is not one of ours, is used up, or has expired.
    #[error("the join token was refused: {0}; create a new one with `selvedge token create`")]
    Token(&'static str),
    /// A token was asked for with the control plane's own identity.
    #[error("the identity {}/{} is the control plane's own; no workload can have it", OWN_NAME.0, OWN_NAME.1)]
    Reserved,
    /// A signing request is malformed or not signed by its own key.
    #[error("the certificate signing request was refused: {0}")]
    Request(String),
    /// Key generation or signing failed.
    #[error("the certificate could not be made")]
    Signing(#[source] rcgen::Error),
}

/// An authority, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Described {
    /// SHA-256 of its certificate, in hex; the last part of a join token is the same.
    pub fingerprint: String,
    /// The part it plays at this moment of a rotation.
    #[serde(flatten)]
    pub role: Role,
    /// End of its validity, seconds since the Unix epoch.
    pub not_after: i64,
}

/// The certificate authority of one mesh, with its join tokens.
#[derive(Debug)]
pub struct Authority {
    authorities: watch::Sender<Arc<Authorities>>,
    tokens: Tokens,
    state_dir: PathBuf,
    trust_domain: String,
    lifetime: Duration,
}

impl Authority {
    /// Opens the authority in `state_dir`, or founds it where there is none yet. `now` is in seconds since the Unix
    /// epoch, here and below; `lifetime` is that of the certificates issued.
    pub fn open(state_dir: &Path, trust_domain: &str, lifetime: Duration, now: u64) -> Result<Self, IdentityError> {
        let (namespace, name) = OWN_NAME;
        Identity::new(trust_domain, namespace, name).map_err(IdentityError::Name)?;
        let (authorities, _) = watch::channel(Arc::new(Authorities::open(state_dir, trust_domain, now)?));
        let tokens = Tokens::open(state_dir)?;
        let (state_dir, trust_domain) = (state_dir.to_owned(), trust_domain.to_owned());
        Ok(Self { authorities, tokens, state_dir, trust_domain, lifetime })
    }

    /// Whether there is an authority in `state_dir`.
    pub fn is_founded(state_dir: &Path) -> bool {
        rotation::is_founded(state_dir)
    }

    /// The trust domain this authority speaks for.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The certificates of every authority that sidecars have to trust now, DER.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.current().roots()
    }

    /// The certificates of [`Authority::roots`] as one PEM text.
    pub fn roots_pem(&self) -> String {
        self.roots().iter().map(ca::pem).collect()
    }

    /// Ticks when the authority that signs, or the trust bundle, changes.
    pub fn changes(&self) -> watch::Receiver<impl Sized + use<>> {
        self.authorities.subscribe()
    }

    /// The authorities there are, the one that signs first.
    pub fn describe(&self) -> Vec<Described> {
        let current = self.current();
        let signing = (current.signing.certificate(), Role::Signs);
        let others = current.others.iter().map(|(certificate, role)| (certificate, *role));
        let describe = |(certificate, role): (&CertificateDer<'_>, Role)| Described {
            fingerprint: token::sha256_hex(certificate),
            role,
            not_after: ca::not_after(certificate),
        };
        std::iter::once(signing).chain(others).map(describe).collect()
    }

    /// Asks the control plane on this state directory for a new CA. It is announced to all sidecars first, signs after
    /// one lifetime of a certificate, and the CA before it is dropped after another.
    pub fn rotate(&self, now: u64) -> Result<(), IdentityError> {
        rotation::request(&self.state_dir, &self.trust_domain, now)
    }

    /// Notes in the state directory how long the certificates of this authority live, which is to be done before the
    /// first is issued: a rotation waits for the longest ever promised.
    pub fn promise_lifetime(&self) -> Result<(), IdentityError> {
        rotation::promise(&self.state_dir, self.lifetime)
    }

    /// Takes the steps of a rotation that are due, and follows those another control plane on this directory took.
    /// `sightings` are those of the calls before.
    pub fn advance(&self, sightings: &mut Sightings, now: Moment) -> Result<(), IdentityError> {
        rotation::advance(&self.state_dir, &self.trust_domain, self.lifetime, sightings, now)?;
        if !self.current().are_current(&self.state_dir)? {
            let authorities = Authorities::open(&self.state_dir, &self.trust_domain, now.unix)?;
            self.authorities.send_replace(Arc::new(authorities));
        }
        Ok(())
    }

    /// Takes what is in the state directory now, where that is not what it was.
    pub fn reload(&self, now: u64) -> Result<(), IdentityError> {
        let authorities = Authorities::open(&self.state_dir, &self.trust_domain, now)?;
        if !self.current().is_same(&authorities) {
            self.authorities.send_replace(Arc::new(authorities));
        }
        Ok(())
    }

    /// Puts a new authority in the place of all in `state_dir`; nobody who trusts only those believes it. Those, and those
    /// in `trusted` (PEM), are trusted by whoever joins from now on as long as their certificates may be valid.
    pub fn replace(state_dir: &Path, trust_domain: &str, trusted: &str, now: u64) -> Result<(), IdentityError> {
        let trusted: Vec<_> = CertificateDer::pem_slice_iter(trusted.as_bytes()).filter_map(Result::ok).collect();
        rotation::replace(state_dir, trust_domain, &trusted, LEAF_LIFETIME, now)
    }

    fn current(&self) -> Arc<Authorities> {
        Arc::clone(&self.authorities.borrow())
    }

    /// Writes a join token for `grant` and returns it. The token pins the CA that signs now. No token stands for the
    /// control plane itself: whoever had that identity could tell sidecars anything.
    pub fn create_token(&self, grant: &Grant) -> Result<String, IdentityError> {
        if (&*grant.identity.namespace, &*grant.identity.service_account) == OWN_NAME {
            return Err(IdentityError::Reserved);
        }
        self.tokens.create(grant, self.current().signing.certificate())
    }

    /// Signs the key of a workload that has no certificate yet. The token is used up by this for any other key; a
    /// malformed `csr` does not use it up. Without a good token nothing is computed.
    pub fn join(&self, token: &str, workload: &str, csr: &[u8], now: u64) -> Result<Issued, IdentityError> {
        let token = self.tokens.look(token, workload, now)?;
        let request = issue::verified_key(csr)?;
        let identity = self.tokens.redeem(&token, request.public_key.der_bytes())?;
        issue::leaf(&self.current().signing, request, identity, self.lifetime, now)
    }

    /// Signs the key of a pod that proved the service account `identity` and has no certificate yet.
    pub fn join_pod(&self, identity: Identity, csr: &[u8], now: u64) -> Result<Issued, IdentityError> {
        if (&*identity.namespace, &*identity.service_account) == OWN_NAME {
            return Err(IdentityError::Reserved);
        }
        self.renew(identity, csr, now)
    }

    /// Signs a new key for a workload that proved `identity` with its current certificate.
    pub fn renew(&self, identity: Identity, csr: &[u8], now: u64) -> Result<Issued, IdentityError> {
        issue::leaf(&self.current().signing, issue::verified_key(csr)?, identity, self.lifetime, now)
    }

    /// A certificate for the control plane itself. Its chain ends with the CA's certificate, because a joining
    /// workload may know nothing but that certificate's hash; and what else a pod may know, an authority of before a
    /// rotation, leads to it.
    pub fn own(&self, now: u64) -> Result<KeyedCertificate, IdentityError> {
        let (namespace, name) = OWN_NAME;
        let identity = Identity::new(&self.trust_domain, namespace, name).map_err(IdentityError::Name)?;
        let current = self.current();
        issue::keyed(&current.signing, &current.crosses, identity, self.lifetime, now)
    }

    /// A certificate for a server of the control plane that is known by a DNS name, such as a webhook. It stands for no
    /// workload.
    pub fn serving(&self, name: &str, now: u64) -> Result<KeyedCertificate, IdentityError> {
        issue::serving(&self.current().signing, name, self.lifetime, now)
    }

    /// Removes tokens that have expired and what a crash left of unfinished files. Returns what was in the way.
    pub fn sweep(&self, now: u64) -> Vec<IdentityError> {
        let mut problems = self.tokens.sweep(now);
        if let Err(source) = file::sweep(&self.state_dir, now) {
            problems.push(failed("sweeping", &self.state_dir, source));
        }
        problems
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{self, Write},
        os::unix::fs::PermissionsExt,
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use base64::{Engine, prelude::BASE64_STANDARD};
    use rcgen::{
        BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
        PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, SanType,
    };
    use selvedge_identity::svid::Leaf;
    use tempfile::TempDir;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn open(directory: &Path) -> Result<Authority, IdentityError> {
        Authority::open(directory, "mesh.local", LEAF_LIFETIME, NOW)
    }

    fn state() -> (TempDir, Authority) {
        let directory = TempDir::new().unwrap();
        let authority = open(directory.path()).unwrap();
        (directory, authority)
    }

    fn grant() -> Grant {
        let identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
        Grant { identity, workload: None, expires: NOW + 60 }
    }

    fn csr(params: CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn an_authority_is_founded_once_and_private() {
        let (directory, authority) = state();
        let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca.pem"), mode("tokens")), (0o600, 0o700));
        assert_eq!(open(directory.path()).unwrap().roots(), authority.roots());
        assert!(!format!("{authority:?}").contains("PRIVATE"));
    }

    #[test]
    fn no_token_makes_a_workload_the_control_plane() {
        let (_directory, authority) = state();
        let (namespace, name) = OWN_NAME;
        let identity = Identity::new("mesh.local", namespace, name).unwrap();
        let refused = authority.create_token(&Grant { identity, ..grant() }).unwrap_err();
        assert!(matches!(refused, IdentityError::Reserved), "{refused}");
    }

    #[test]
    fn of_many_founders_at_once_one_wins_and_all_agree() {
        let directory = TempDir::new().unwrap();
        let roots = thread::scope(|scope| {
            let founders: Vec<_> = (0..8).map(|_| scope.spawn(|| open(directory.path()).unwrap().roots())).collect();
            founders.into_iter().map(|founder| founder.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(roots.iter().all(|root| *root == roots[0]));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (directory, _) = state();
        let file = directory.path().join("ca.pem");
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let refused = open(directory.path()).unwrap_err();
            assert!(matches!(&refused, IdentityError::Exposed { mode: found, .. } if *found == mode), "{refused}");
            assert!(refused.to_string().contains("chmod 600"), "{refused}");
        }
    }

    #[test]
    fn a_damaged_authority_is_refused_with_what_is_wrong() {
        let (directory, _) = state();
        let (other, _) = state();
        let read = |directory: &TempDir| fs::read_to_string(directory.path().join("ca.pem")).unwrap();
        let split = |text: &str| {
            let at = text.find("-----BEGIN CERTIFICATE").unwrap();
            (text[..at].to_owned(), text[at..].to_owned())
        };
        let ((key, certificate), (_, other_certificate)) = (split(&read(&directory)), split(&read(&other)));
        let cases = [
            (String::new(), "no usable private key"),
            ("junk".to_owned(), "no usable private key"),
            (certificate, "no usable private key"),
            (key.clone(), "no certificate"),
            (format!("{key}{other_certificate}"), "does not belong"),
        ];
        for (content, expected) in cases {
            fs::write(directory.path().join("ca.pem"), &content).unwrap();
            let refused = open(directory.path()).unwrap_err();
            assert!(
                matches!(&refused, IdentityError::Damaged { problem, .. } if problem.contains(expected)),
                "{refused}"
            );
        }
    }

    #[test]
    fn an_authority_of_another_mesh_or_time_is_refused() {
        let (directory, _) = state();
        let other = Authority::open(directory.path(), "other.local", LEAF_LIFETIME, NOW).unwrap_err();
        assert!(matches!(&other, IdentityError::OtherTrustDomain { found, .. } if found == "mesh.local"), "{other}");
        let late = Authority::open(directory.path(), "mesh.local", LEAF_LIFETIME, NOW * 2).unwrap_err();
        assert!(matches!(late, IdentityError::Damaged { .. }), "{late}");
        let nowhere = TempDir::new().unwrap();
        let malformed = Authority::open(nowhere.path(), "Mesh.Local", LEAF_LIFETIME, NOW).unwrap_err();
        assert!(matches!(malformed, IdentityError::Name(_)), "{malformed}");
    }

    #[test]
    fn a_certificate_is_what_the_caller_proved_and_nothing_the_request_asked_for() {
        let (_directory, authority) = state();
        let mut greedy = CertificateParams::new(vec!["web.shop".to_owned()]).unwrap();
        let admin = "spiffe://mesh.local/ns/shop/sa/admin".to_owned();
        greedy.subject_alt_names.push(SanType::URI(admin.try_into().unwrap()));
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let token = authority.create_token(&grant()).unwrap();
        let issued = authority.join(&token, "shop/web-1", &csr(greedy), NOW).unwrap();
        let leaf = Leaf::from_der(&issued.chain[0]).unwrap();
        assert_eq!(leaf.identity, grant().identity);
        let now = i64::try_from(NOW).unwrap();
        assert_eq!((leaf.not_before, leaf.not_after), (now - 30, now + 24 * 3600));
        assert_eq!((issued.not_before, issued.not_after), (leaf.not_before, leaf.not_after));
        assert!(!issued.chain[0].windows(8).any(|bytes| bytes == b"web.shop"));

        let again = authority.renew(leaf.identity, &csr(CertificateParams::default()), NOW).unwrap();
        let serial = |der: &[u8]| {
            use x509_parser::prelude::FromDer;
            x509_parser::certificate::X509Certificate::from_der(der).unwrap().1.raw_serial().to_vec()
        };
        assert_ne!(serial(&issued.chain[0]), serial(&again.chain[0]));
    }

    #[test]
    fn bad_requests_are_refused_and_do_not_use_the_token_up() {
        let (_directory, authority) = state();
        let good = csr(CertificateParams::default());
        let token = authority.create_token(&grant()).unwrap();
        let mut forged = good.clone();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        for bad in [Vec::new(), b"junk".to_vec(), good[..good.len() / 2].to_vec(), forged, vec![0x30; 1 << 20]] {
            let refused = authority.join(&token, "shop/web-1", &bad, NOW).unwrap_err();
            assert!(matches!(refused, IdentityError::Request(_)), "{refused}");
            let nobody = authority.join("sv1.junk", "shop/web-1", &bad, NOW).unwrap_err();
            assert!(matches!(nobody, IdentityError::Token(_)), "the token is looked at first: {nobody}");
        }
        authority.join(&token, "shop/web-1", &good, NOW).unwrap();
    }

    #[test]
    fn only_keys_of_the_named_kinds_are_signed() {
        let (_directory, authority) = state();
        let token = authority.create_token(&grant()).unwrap();
        let request = |algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
        };
        // The reader of requests knows no signature of P-521.
        for (other, why) in [(&PKCS_RSA_SHA256, "its key is not P-256"), (&PKCS_ECDSA_P521_SHA512, "signature")] {
            let request = request(other);
            let joined = authority.join(&token, "shop/web-1", &request, NOW).map(drop);
            for refused in [joined, authority.renew(grant().identity, &request, NOW).map(drop)] {
                assert!(matches!(&refused, Err(IdentityError::Request(told)) if told.contains(why)), "{refused:?}");
            }
        }
        for strong in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            authority.renew(grant().identity, &request(strong), NOW).unwrap();
        }
        authority.join(&token, "shop/web-1", &request(&PKCS_ECDSA_P256_SHA256), NOW).unwrap();
    }

    /// Made by `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-384 -sha256 -nodes -subj / -outform DER`, and with
    /// P-256 and SHA-384.
    const OF_TWO_KINDS: [&str; 2] = [
        "MIH3MH8CAQAwADB2MBAGByqGSM49AgEGBSuBBAAiA2IABHVh/J1l/+A9VEewQejGCILFcj1HQqfGTQlhzpCZ5iUMb3laSizJ/Py3\
                /WLL0nStTqW8RY9alPnQUGYYs3Fh6BcqcH9tcHJSBhBpfrct7c5/klJd1pFvzPwvDvyRvcryVKAAMAoGCCqGSM49BAMCA2gAMGUC\
                MBZf4IuHHgNdJpE8AFfklxp8pFisrycvpgIG7Oyp01pf1RTDmITt+o7CMYlCdUYDIgIxAMKKsa9wCW9nbsQP3LAdFStj+ZeVhDWy\
                bWhVLeVQx49q1uPmm2mMQlZryVJh34IMTA==",
        "MIG6MGICAQAwADBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFmIXHP34OiQ6A0UNqUkV0dAiDrBrJ1NqQo/linTRr9akQQLYXoN\
                PODq+w59QF6JSwbx7AY8ZeD7uoYDuf8jtQugADAKBggqhkjOPQQDAwNIADBFAiEAqbCiPWeQGIrLWJA5AfThWBJMphbOg/UkaQ/H\
                R1SMHAYCIFnEsERqpK1Lvv3MG1jF3SGYAvXxO2UyT5gu+AqPLKcH",
    ];

    #[test]
    fn a_key_with_a_signature_of_another_kind_is_refused_before_the_token_is_spent() {
        let (_directory, authority) = state();
        let token = authority.create_token(&grant()).unwrap();
        for request in OF_TWO_KINDS {
            let request = BASE64_STANDARD.decode(request).unwrap();
            let refused = authority.join(&token, "shop/web-1", &request, NOW).unwrap_err();
            assert!(refused.to_string().contains("another kind"), "{refused}");
        }
        authority.join(&token, "shop/web-1", &csr(CertificateParams::default()), NOW).unwrap();
    }

    #[test]
    fn a_token_is_redeemed_once_whoever_tries_at_once() {
        let (directory, authority) = state();
        let token = authority.create_token(&grant()).unwrap();
        let redeemed = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let process = open(directory.path()).unwrap();
                    let joined = process.join(&token, "shop/web-1", &csr(CertificateParams::default()), NOW);
                    redeemed.fetch_add(usize::from(joined.is_ok()), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(redeemed.into_inner(), 1);
    }

    #[test]
    fn a_lost_answer_can_be_asked_for_again_with_the_same_key_only() {
        let (_directory, authority) = state();
        let token = authority.create_token(&grant()).unwrap();
        let request = csr(CertificateParams::default());
        for _ in 0..2 {
            authority.join(&token, "shop/web-1", &request, NOW).unwrap();
        }
        assert!(authority.join(&token, "shop/web-1", &csr(CertificateParams::default()), NOW).is_err());
        assert!(authority.join(&token, "shop/web-1", &request, NOW + 60).is_err(), "it has expired");
    }

    #[test]
    fn a_token_is_good_for_its_time_and_workload_only() {
        let (directory, authority) = state();
        let request = csr(CertificateParams::default());
        let join = |token: &str, workload, now| authority.join(token, workload, &request, now).map(|i| i.identity);
        let bound = authority.create_token(&Grant { workload: Some("shop/web-1".into()), ..grant() }).unwrap();
        let says = |refused: Result<Identity, IdentityError>, why: &str| {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        };
        says(join(&bound, "shop/web-2", NOW), "another workload");
        says(join(&bound, "shop/web-1", NOW + 60), "expired");
        let parts: Vec<&str> = bound.split('.').collect();
        let wrong = format!("sv1.{}.{}.{}", parts[1], "0".repeat(64), parts[3]);
        says(join(&wrong, "shop/web-1", NOW), "unknown");
        for malformed in ["", "sv1", "sv2.a.b.c", "sv1.../../../x.b.c", &bound[..bound.len() - 70]] {
            says(join(malformed, "shop/web-1", NOW), "form");
        }
        let stored: String = fs::read_dir(directory.path().join("tokens"))
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        assert!(!stored.is_empty() && !stored.contains(parts[2]), "the secret is not on the disk");
        assert_eq!(join(&bound, "shop/web-1", NOW + 59).unwrap(), grant().identity);
    }

    #[test]
    fn expired_tokens_are_swept_and_others_stay() {
        let (directory, authority) = state();
        let token = authority.create_token(&grant()).unwrap();
        authority.join(&token, "shop/web-1", &csr(CertificateParams::default()), NOW).unwrap();
        authority.create_token(&Grant { expires: NOW + 1000, ..grant() }).unwrap();
        let count = || fs::read_dir(directory.path().join("tokens")).unwrap().count();
        assert_eq!(count(), 3);
        assert!(authority.sweep(NOW + 60).is_empty());
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_bad_file_is_named_and_does_not_keep_others_from_being_swept() {
        let (directory, authority) = state();
        let tokens = directory.path().join("tokens");
        for n in 0..20 {
            authority.create_token(&grant()).unwrap();
            fs::write(tokens.join(format!("{n:016x}.json")), "junk").unwrap();
        }
        let problems = authority.sweep(NOW + 60);
        assert_eq!((problems.len(), fs::read_dir(&tokens).unwrap().count()), (20, 20));
        let said = problems[0].to_string();
        assert!(said.contains(".json") && said.contains("remove the file"), "{said}");
    }

    #[test]
    fn what_a_crash_left_is_swept_once_nobody_can_be_writing_it() {
        let (directory, authority) = state();
        let drafts = [directory.path().join("ca.draft-0123456789abcdef"), directory.path().join("tokens/1.draft-1")];
        drafts.iter().for_each(|draft| fs::write(draft, "key").unwrap());
        let written = std::os::unix::fs::MetadataExt::mtime(&fs::metadata(&drafts[0]).unwrap());
        let written = u64::try_from(written).unwrap();
        authority.sweep(written + 60);
        assert!(drafts.iter().all(|draft| draft.exists()), "somebody may be writing them");
        authority.sweep(written + 2 * 3600);
        assert!(!drafts.iter().any(|draft| draft.exists()));
        assert!(directory.path().join("ca.pem").exists());
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_state_directory() {
        let directory = TempDir::new().unwrap();
        if std::os::unix::fs::chown(directory.path(), Some(12345), Some(12345)).is_err() {
            // Past the capture of the test harness, so that a run that passes shows it.
            let name = "what_root_makes_belongs_to_the_owner_of_the_state_directory";
            let _ = writeln!(io::stderr(), "skipped: {name}: only root can give a directory away");
            return;
        }
        let authority = open(directory.path()).unwrap();
        let token = authority.create_token(&grant()).unwrap();
        authority.join(&token, "shop/web-1", &csr(CertificateParams::default()), NOW).unwrap();
        let tokens = directory.path().join("tokens");
        let files = fs::read_dir(&tokens).unwrap().map(|entry| entry.unwrap().path());
        let made: Vec<PathBuf> = files.chain([tokens.clone(), directory.path().join("ca.pem")]).collect();
        let owner = |path: &PathBuf| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
        assert_eq!((made.len(), made.iter().all(|path| owner(path) == 12345)), (4, true), "{made:?}");
    }

    #[test]
    fn the_control_planes_chain_ends_with_the_authority() {
        let (_directory, authority) = state();
        let own = authority.own(NOW).unwrap();
        assert_eq!(own.chain.last(), authority.roots().first());
        let identity = Leaf::from_der(&own.chain[0]).unwrap().identity;
        assert_eq!(identity.to_string(), "spiffe://mesh.local/ns/selvedge-system/sa/control-plane");
    }
}
