//! Which authorities a mesh has, and how one follows another while everything runs.
//!
//! The names of the files are the whole state, and every step is one new file, one rename or one removal:
//!
//! | file | the authority in it |
//! |---|---|
//! | `ca.pem` | signs |
//! | `ca-next.pem` | was asked for and is announced by the control plane as soon as it sees it |
//! | `ca-next-T.pem` | is in the trust bundle, and signs from T on |
//! | `ca-old-T.pem` | signs no more, and is in the trust bundle until T; without its key |
//!
//! T is in seconds since the Unix epoch. Guarantees: both waits last as long as a certificate, so whoever holds a valid
//! one when the new authority begins to sign got it, with the bundle, after the announcement; and when the old
//! authority leaves the bundle no certificate of it is valid any more.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::{
    IdentityError,
    ca::{self, Ca},
    private_file,
};

const SIGNING: &str = "ca.pem";
const REQUESTED: &str = "ca-next.pem";
/// A certificate that is being signed while a step is taken may still carry what was true before it.
const UNDER_WAY: u64 = 2;

/// The part an authority plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "role", content = "at", rename_all = "camelCase")]
pub enum Role {
    /// Signs certificates.
    Signs,
    /// Was asked for; not in the trust bundle yet.
    Requested,
    /// In the trust bundle; signs from this time on, in seconds since the Unix epoch.
    SignsFrom(u64),
    /// Signs no more; in the trust bundle until this time, in seconds since the Unix epoch.
    TrustedUntil(u64),
}

/// The authorities of one mesh.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) signing: Ca,
    /// All but the one that signs.
    pub(super) others: Vec<(CertificateDer<'static>, Role)>,
}

impl Authorities {
    /// Reads them, or founds the first one.
    pub(super) fn open(state_dir: &Path, trust_domain: &str, now: u64) -> Result<Self, IdentityError> {
        let path = state_dir.join(SIGNING);
        if !is_founded(state_dir) {
            private_file::create_dir(state_dir)?;
            Ca::found(&path, trust_domain, now)?;
        }
        let signing = Ca::read(&path, trust_domain, now)?;
        let mut others = Vec::new();
        for (path, role) in files(state_dir)? {
            others.push((ca::read_certificate(&path, trust_domain, now)?, role));
        }
        Ok(Self { signing, others })
    }

    /// Whether the directory still holds what was read.
    pub(super) fn are_current(&self, state_dir: &Path) -> Result<bool, IdentityError> {
        let found = files(state_dir)?;
        Ok(found.iter().map(|(_, role)| role).eq(self.others.iter().map(|(_, role)| role)))
    }

    /// The trust bundle, with the authority that signs first.
    pub(super) fn roots(&self) -> Vec<CertificateDer<'static>> {
        let mut roots = vec![self.signing.certificate().clone()];
        for (certificate, _) in self.others.iter().filter(|(_, role)| *role != Role::Requested) {
            if !roots.contains(certificate) {
                roots.push(certificate.clone());
            }
        }
        roots
    }
}

/// Whether there is an authority that signs, or may be: one that cannot be looked at is not founded again.
pub(super) fn is_founded(state_dir: &Path) -> bool {
    state_dir.join(SIGNING).try_exists().unwrap_or(true)
}

/// Asks for a new authority.
pub(super) fn request(state_dir: &Path, trust_domain: &str, now: u64) -> Result<(), IdentityError> {
    if !files(state_dir)?.is_empty() || !Ca::found(&state_dir.join(REQUESTED), trust_domain, now)? {
        return Err(IdentityError::Rotating);
    }
    Ok(())
}

/// Takes the steps that are due. `lifetime` is that of the certificates issued.
pub(super) fn advance(state_dir: &Path, trust_domain: &str, lifetime: Duration, now: u64) -> Result<(), IdentityError> {
    let then = now + lifetime.as_secs() + UNDER_WAY;
    for (path, role) in files(state_dir)? {
        match role {
            Role::Requested => {
                Ca::read(&path, trust_domain, now)?;
                rename(&path, &state_dir.join(format!("ca-next-{then}.pem")))?;
            }
            Role::SignsFrom(due) if due <= now => {
                Ca::read(&path, trust_domain, now)?;
                let signing = state_dir.join(SIGNING);
                let old = ca::certificate_pem(&signing)?;
                private_file::create(&state_dir.join(format!("ca-old-{then}.pem")), old.as_bytes())?;
                rename(&path, &signing)?;
            }
            Role::TrustedUntil(due) if due <= now => {
                fs::remove_file(&path).map_err(|source| failed("removing", &path, source))?;
            }
            Role::Signs | Role::SignsFrom(_) | Role::TrustedUntil(_) => {}
        }
    }
    Ok(())
}

/// The files of the authorities that do not sign, in order of their names.
fn files(state_dir: &Path) -> Result<Vec<(PathBuf, Role)>, IdentityError> {
    let unlisted = |source| failed("listing", state_dir, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(state_dir).map_err(unlisted)? {
        let entry = entry.map_err(unlisted)?;
        if let Some(role) = entry.file_name().to_str().and_then(role) {
            files.push((entry.path(), role));
        }
    }
    files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

fn role(name: &str) -> Option<Role> {
    if name == REQUESTED {
        return Some(Role::Requested);
    }
    let name = name.strip_suffix(".pem")?;
    let time = |prefix| name.strip_prefix(prefix).and_then(|time| time.parse().ok());
    time("ca-next-").map(Role::SignsFrom).or_else(|| time("ca-old-").map(Role::TrustedUntil))
}

fn rename(from: &Path, to: &Path) -> Result<(), IdentityError> {
    fs::rename(from, to).map_err(|source| failed("renaming", from, source))
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> IdentityError {
    IdentityError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;
    use crate::identity::Authority;

    const NOW: u64 = 1_800_000_000;
    const LIFE: u64 = 1000;

    fn open(directory: &TempDir, now: u64) -> Authority {
        Authority::open(directory.path(), "mesh.local", Duration::from_secs(LIFE), now).unwrap()
    }

    fn roles(authority: &Authority) -> Vec<Role> {
        authority.describe().into_iter().map(|found| found.role).collect()
    }

    #[test]
    fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_after() {
        let directory = TempDir::new().unwrap();
        let authority = open(&directory, NOW);
        let first = authority.roots();
        open(&directory, NOW).rotate(NOW).unwrap();
        assert_eq!(roles(&open(&directory, NOW)), [Role::Signs, Role::Requested]);
        assert_eq!(authority.roots(), first, "nothing changes until the control plane takes the step");

        authority.advance(NOW).unwrap();
        let signs = NOW + LIFE + UNDER_WAY;
        assert_eq!(roles(&authority), [Role::Signs, Role::SignsFrom(signs)]);
        let both = authority.roots();
        assert_eq!((both.len(), &both[0]), (2, &first[0]));
        authority.advance(signs - 1).unwrap();
        assert_eq!(authority.roots(), both);

        authority.advance(signs).unwrap();
        let dropped = signs + LIFE + UNDER_WAY;
        assert_eq!(roles(&authority), [Role::Signs, Role::TrustedUntil(dropped)]);
        assert_eq!(authority.roots(), [both[1].clone(), both[0].clone()]);
        let kept = fs::read_to_string(directory.path().join(format!("ca-old-{dropped}.pem"))).unwrap();
        assert!(!kept.contains("PRIVATE"), "a key that signs no more is not kept");

        authority.advance(dropped).unwrap();
        assert_eq!((roles(&authority), authority.roots()), (vec![Role::Signs], vec![both[1].clone()]));
        assert_eq!(open(&directory, dropped).roots(), authority.roots(), "a restart finds the same");
    }

    #[test]
    fn one_rotation_at_a_time() {
        let directory = TempDir::new().unwrap();
        let authority = open(&directory, NOW);
        let mut now = NOW;
        authority.rotate(now).unwrap();
        for _ in 0..3 {
            let refused = authority.rotate(now).unwrap_err();
            assert!(matches!(refused, IdentityError::Rotating), "{refused}");
            authority.advance(now).unwrap();
            now += LIFE + UNDER_WAY;
        }
        authority.rotate(now).unwrap();
    }

    #[test]
    fn a_step_that_was_cut_short_is_taken_again() {
        let directory = TempDir::new().unwrap();
        let authority = open(&directory, NOW);
        authority.rotate(NOW).unwrap();
        authority.advance(NOW).unwrap();
        let both = authority.roots();
        let pem = ca::certificate_pem(&directory.path().join(SIGNING)).unwrap();
        fs::write(directory.path().join(format!("ca-old-{}.pem", NOW + 2 * LIFE)), pem).unwrap();
        let restarted = open(&directory, NOW);
        assert_eq!(restarted.roots(), both, "the authority that signs is trusted once");
        restarted.advance(NOW + LIFE + UNDER_WAY).unwrap();
        assert_eq!(restarted.roots(), [both[1].clone(), both[0].clone()]);
        restarted.advance(NOW + 3 * LIFE).unwrap();
        assert_eq!(restarted.roots(), both[1..]);
    }

    #[test]
    fn a_damaged_successor_changes_nothing() {
        let directory = TempDir::new().unwrap();
        let authority = open(&directory, NOW);
        let roots = authority.roots();
        private_file::create(&directory.path().join(REQUESTED), b"junk").unwrap();
        let refused = authority.advance(NOW).unwrap_err();
        assert!(matches!(&refused, IdentityError::Damaged { path, .. } if path.ends_with(REQUESTED)), "{refused}");
        assert_eq!(authority.roots(), roots);
    }

    #[test]
    fn control_planes_on_one_directory_go_together() {
        let directory = TempDir::new().unwrap();
        let (one, other) = (open(&directory, NOW), open(&directory, NOW));
        one.rotate(NOW).unwrap();
        for now in [NOW, NOW + LIFE + UNDER_WAY, NOW + 2 * (LIFE + UNDER_WAY)] {
            one.advance(now).unwrap();
            other.advance(now).unwrap();
            assert_eq!(other.describe(), one.describe());
        }
        assert_eq!(roles(&other), [Role::Signs]);
    }

    /// What a sidecar knows since its last renewal.
    struct Holder {
        roots: Vec<CertificateDer<'static>>,
        issuer: CertificateDer<'static>,
        end: i64,
    }

    /// Sidecars that hear of the bundle only when they renew, some of them at the last moment.
    #[test]
    fn whoever_holds_a_valid_certificate_trusts_and_is_trusted_by_all_others() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let directory = TempDir::new().unwrap();
        let authority = open(&directory, NOW);
        let renew = |now| {
            let key = KeyPair::generate().unwrap();
            let csr = CertificateParams::default().serialize_request(&key).unwrap();
            let identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
            let issued = authority.renew(identity, csr.der(), now).unwrap();
            let roots = authority.roots();
            Holder { issuer: roots[0].clone(), roots, end: issued.not_after }
        };
        let mut holders: Vec<Holder> = (0..8).map(|_| renew(NOW)).collect();
        for step in 0..120 {
            let now = NOW + step * LIFE / 20;
            if step == 10 {
                authority.rotate(now).unwrap();
            }
            authority.advance(now).unwrap();
            for holder in &mut holders {
                let left = holder.end - i64::try_from(now).unwrap();
                if left <= i64::try_from(LIFE / 20).unwrap() || random.u64(..10) == 0 {
                    *holder = renew(now);
                }
            }
            for holder in &holders {
                assert!(holders.iter().all(|peer| holder.roots.contains(&peer.issuer)), "at step {step}");
            }
        }
        assert_eq!(roles(&authority), [Role::Signs], "the rotation came to its end");
    }
}
