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
//! | `ca-cross-T.pem` | signs since T or did, in a certificate of the authority before it |
//!
//! T is in seconds since the Unix epoch. Guarantees: both waits last as long as a certificate, so whoever holds a valid
//! one when the new authority begins to sign got it, with the bundle, after the announcement; and when the old
//! authority leaves the bundle no certificate of it is valid any more. As long as a certificate is as long as the longest
//! lifetime that the signing authority was run with (`longest-lifetime`), and a step that cannot be undone waits by the
//! clock as well as by the time that really passes, so a clock that jumps ahead for a while costs nothing.
//!
//! The last kind outlives a rotation: it leads whoever knows nothing but an authority of long ago to the one that signs,
//! one step for each rotation.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use selvedge_identity::file;
use selvedge_policies::facts::Moment;
use serde::Serialize;

use super::{
    IdentityError,
    ca::{self, Ca},
    failed,
};

/// The file of the authority that signs.
pub(super) const SIGNING: &str = "ca.pem";
const REQUESTED: &str = "ca-next.pem";
/// How the files of crosses begin.
const CROSS: &str = "ca-cross-";
/// How many rotations back an authority still leads to the one that signs; verifiers take no longer chains than a few.
const CROSSES: usize = 4;
/// The longest lifetime, in seconds, that the authority that signs was run with.
const LONGEST: &str = "longest-lifetime";
/// How long a step has to be due that was found due: who has just started cannot tell a clock that jumped. With
/// certificates that live shorter than a day, the same part of their life.
const SETTLE: Duration = Duration::from_secs(3600);
/// A certificate that is being signed while a step is taken may still carry what was true before it.
const UNDER_WAY: u64 = 2;

/// The part an authority plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "role", content = "at", rename_all = "camelCase")]
pub enum Role {
    /// It signs every certificate that is issued now.
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
    /// What leads from authorities before to the one that signs, the newest first.
    pub(super) crosses: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Reads them, or founds the first one.
    pub(super) fn open(state_dir: &Path, trust_domain: &str, now: u64) -> Result<Self, IdentityError> {
        let path = state_dir.join(SIGNING);
        if !is_founded(state_dir) {
            file::create_dir(state_dir).map_err(|source| failed("creating", state_dir, source))?;
            Ca::found(&path, trust_domain, now)?;
        }
        let signing = Ca::read(&path, trust_domain, now)?;
        let mut others = Vec::new();
        for (path, role) in files(state_dir)? {
            others.push((ca::read_certificate(&path, trust_domain, now)?, role));
        }
        let mut crosses = Vec::new();
        for (_, path) in cross_files(state_dir)?.iter().rev().take(CROSSES) {
            match ca::read_certificate(path, trust_domain, now) {
                Ok(cross) => crosses.push(cross),
                // Without it, as when it has expired, only pods of long ago have to be created anew.
                Err(error) => tracing::warn!(%error, "an authority of the past leads to the present one no more"),
            }
        }
        Ok(Self { signing, others, crosses })
    }

    /// Whether `other` is the same in every part.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let of = |authorities: &Self| authorities.signing.certificate().clone();
        of(self) == of(other) && self.others == other.others && self.crosses == other.crosses
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

/// The files of the authorities, by name.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Whether a file of that name belongs to the authorities.
pub(super) fn is_ours(name: &str) -> bool {
    [SIGNING, LONGEST].contains(&name) || role(name).is_some() || time(name, CROSS).is_some()
}

/// All files of the authorities.
pub(super) fn pack(state_dir: &Path) -> Result<Files, IdentityError> {
    if !state_dir.is_dir() {
        return Ok(Files::new());
    }
    let read = |name: String| {
        let path = state_dir.join(&name);
        let content = fs::read(&path).map_err(|source| failed("reading", &path, source))?;
        Ok((name, content))
    };
    names(state_dir)?.into_iter().filter(|name| is_ours(name)).map(read).collect()
}

/// Puts `files` in the place of all files of the authorities.
pub(super) fn unpack(state_dir: &Path, files: &Files) -> Result<(), IdentityError> {
    file::create_dir(state_dir).map_err(|source| failed("creating", state_dir, source))?;
    for (name, content) in files.iter().filter(|(name, _)| is_ours(name)) {
        let path = state_dir.join(name);
        file::replace(&path, content).map_err(|source| failed("writing", &path, source))?;
    }
    for name in names(state_dir)?.iter().filter(|name| is_ours(name) && !files.contains_key(*name)) {
        remove(&state_dir.join(name))?;
    }
    Ok(())
}

/// Founds an authority where there is none, and notes the lifetime of its certificates.
pub(super) fn found(state_dir: &Path, trust_domain: &str, lifetime: Duration, now: u64) -> Result<(), IdentityError> {
    Authorities::open(state_dir, trust_domain, now)?;
    promise(state_dir, lifetime)
}

/// Puts a new authority in the place of all that there are. Those in `trusted`, and the one that signs, stay in the trust
/// bundle as long as certificates of theirs may be valid, `lifetime` unless a longer one was promised.
pub(super) fn replace(
    state_dir: &Path,
    trust_domain: &str,
    trusted: &[CertificateDer<'_>],
    lifetime: Duration,
    now: u64,
) -> Result<(), IdentityError> {
    file::create_dir(state_dir).map_err(|source| failed("creating", state_dir, source))?;
    let signing = state_dir.join(SIGNING);
    let signed = ca::read_certificate(&signing, trust_domain, now).ok();
    let until = now + longest(state_dir).ok().flatten().unwrap_or(lifetime).max(lifetime).as_secs() + UNDER_WAY;
    for name in names(state_dir)?.iter().filter(|name| role(name).is_some() || time(name, CROSS).is_some()) {
        remove(&state_dir.join(name))?;
    }
    for (until, old) in (until..).zip(signed.iter().chain(trusted.iter().filter(|old| Some(*old) != signed.as_ref()))) {
        let path = state_dir.join(format!("ca-old-{until}.pem"));
        file::create(&path, ca::pem(old).as_bytes()).map_err(|source| failed("writing", &path, source))?;
        // What is of another mesh, or has expired, is no help to anybody.
        if ca::read_certificate(&path, trust_domain, now).is_err() {
            remove(&path)?;
        }
    }
    let next = state_dir.join(REQUESTED);
    Ca::found(&next, trust_domain, now)?;
    rename(&next, &signing)
}

fn remove(path: &Path) -> Result<(), IdentityError> {
    fs::remove_file(path).map_err(|source| failed("removing", path, source))
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

/// When a process saw the files of a rotation first.
#[derive(Debug, Default)]
pub struct Sightings(HashMap<PathBuf, Moment>);

impl Sightings {
    /// Sees `files`, and forgets those that are gone.
    fn see(&mut self, files: Vec<(PathBuf, Role)>, now: Moment) {
        let before = std::mem::take(&mut self.0);
        let first = |path: &PathBuf| before.get(path).copied().unwrap_or(now);
        self.0 = files.into_iter().map(|(path, _)| (path.clone(), first(&path))).collect();
    }

    /// Whether it is time for what is to happen to `path` at `due`: the clock says so, and as much time has passed since
    /// it was seen first as the clock had it wait then, within `waits`. No step waits longer than the longer of these: a
    /// clock that had it wait for years was not set yet.
    fn is_due(&self, path: &Path, due: u64, waits: &RangeInclusive<Duration>, now: Moment) -> bool {
        let first = self.0.get(path).unwrap_or(&now);
        let wait = Duration::from_secs(due.saturating_sub(first.unix)).min(*waits.end()).max(*waits.start());
        now.unix >= due && Duration::from_nanos(now.nanos.saturating_sub(first.nanos)) >= wait
    }
}

/// Notes that certificates of this lifetime are issued.
pub(super) fn promise(state_dir: &Path, lifetime: Duration) -> Result<(), IdentityError> {
    if longest(state_dir)?.is_none_or(|longest| longest < lifetime) { note(state_dir, lifetime) } else { Ok(()) }
}

fn note(state_dir: &Path, lifetime: Duration) -> Result<(), IdentityError> {
    let path = state_dir.join(LONGEST);
    file::replace(&path, lifetime.as_secs().to_string().as_bytes()).map_err(|source| failed("writing", &path, source))
}

fn longest(state_dir: &Path) -> Result<Option<Duration>, IdentityError> {
    let path = state_dir.join(LONGEST);
    let seconds = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no number")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => Err(e),
    };
    seconds.map(|seconds| Some(Duration::from_secs(seconds))).map_err(|source| failed("reading", &path, source))
}

/// Takes the steps that are due. `lifetime` is that of the certificates issued now.
pub(super) fn advance(
    state_dir: &Path,
    trust_domain: &str,
    lifetime: Duration,
    sightings: &mut Sightings,
    now: Moment,
) -> Result<(), IdentityError> {
    promise(state_dir, lifetime)?;
    let longest = longest(state_dir)?.unwrap_or(lifetime);
    let wait = longest.as_secs() + UNDER_WAY;
    let waits = SETTLE.min(lifetime / 24)..=Duration::from_secs(wait);
    let then = now.unix + wait;
    for (path, role) in files(state_dir)? {
        match role {
            Role::Requested => {
                Ca::read(&path, trust_domain, now.unix)?;
                rename(&path, &state_dir.join(format!("ca-next-{then}.pem")))?;
            }
            Role::SignsFrom(due) if sightings.is_due(&path, due, &waits, now) => {
                let signing = state_dir.join(SIGNING);
                cross(state_dir, trust_domain, &path, due, now.unix)?;
                let old = ca::certificate_pem(&signing)?;
                let trusted = state_dir.join(format!("ca-old-{then}.pem"));
                file::create(&trusted, old.as_bytes()).map_err(|source| failed("writing", &trusted, source))?;
                rename(&path, &signing)?;
                note(state_dir, lifetime)?;
            }
            Role::TrustedUntil(due) if sightings.is_due(&path, due, &waits, now) => {
                let removed = fs::remove_file(&path).and_then(|()| file::sync_name(&path));
                removed.map_err(|source| failed("removing", &path, source))?;
            }
            Role::Signs | Role::SignsFrom(_) | Role::TrustedUntil(_) => {}
        }
    }
    sightings.see(files(state_dir)?, now);
    Ok(())
}

/// Lets the authority that signs vouch for the next one, at `path`, before its key is gone; forgets what is too long ago.
fn cross(state_dir: &Path, trust_domain: &str, path: &Path, due: u64, now: u64) -> Result<(), IdentityError> {
    let next = Ca::read(path, trust_domain, now)?;
    let signing = Ca::read(&state_dir.join(SIGNING), trust_domain, now)?;
    let crossed = state_dir.join(format!("{CROSS}{due}.pem"));
    let pem = next.certified_by(&signing, trust_domain, now)?;
    file::create(&crossed, pem.as_bytes()).map_err(|source| failed("writing", &crossed, source))?;
    for (_, old) in cross_files(state_dir)?.iter().rev().skip(CROSSES) {
        remove(old)?;
    }
    Ok(())
}

/// The files of the authorities in certificates of others, each with its time, in order of time.
fn cross_files(state_dir: &Path) -> Result<Vec<(u64, PathBuf)>, IdentityError> {
    let crosses = names(state_dir)?.into_iter();
    let mut crosses: Vec<_> = crosses.filter_map(|name| Some((time(&name, CROSS)?, state_dir.join(name)))).collect();
    crosses.sort_unstable();
    Ok(crosses)
}

/// The files of the authorities that do not sign, in order of their names.
fn files(state_dir: &Path) -> Result<Vec<(PathBuf, Role)>, IdentityError> {
    let found = names(state_dir)?.into_iter();
    let mut files: Vec<_> = found.filter_map(|name| Some((state_dir.join(&name), role(&name)?))).collect();
    files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

/// The names of everything in the directory.
fn names(state_dir: &Path) -> Result<Vec<String>, IdentityError> {
    let list = || fs::read_dir(state_dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    let names = list().map_err(|source| failed("listing", state_dir, source))?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn role(name: &str) -> Option<Role> {
    if name == REQUESTED {
        return Some(Role::Requested);
    }
    time(name, "ca-next-").map(Role::SignsFrom).or_else(|| time(name, "ca-old-").map(Role::TrustedUntil))
}

/// The time in the name of a file, behind `prefix`.
fn time(name: &str, prefix: &str) -> Option<u64> {
    name.strip_suffix(".pem")?.strip_prefix(prefix)?.parse().ok()
}

fn rename(from: &Path, to: &Path) -> Result<(), IdentityError> {
    fs::rename(from, to).and_then(|()| file::sync_name(to)).map_err(|source| failed("renaming", from, source))
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

    /// A control plane that runs since it was opened.
    struct Running(Authority, Sightings);

    impl Running {
        fn open(directory: &TempDir, now: u64) -> Self {
            Self(open(directory, now), Sightings::default())
        }

        fn advance(&mut self, now: u64) -> Result<(), IdentityError> {
            self.advance_at(now, now)
        }

        /// At `real` time, while the clock shows `shown`.
        fn advance_at(&mut self, real: u64, shown: u64) -> Result<(), IdentityError> {
            self.0.advance(&mut self.1, Moment { nanos: (real - NOW) * 1_000_000_000, unix: shown })
        }
    }

    impl std::ops::Deref for Running {
        type Target = Authority;

        fn deref(&self) -> &Authority {
            &self.0
        }
    }

    fn roles(authority: &Authority) -> Vec<Role> {
        authority.describe().into_iter().map(|found| found.role).collect()
    }

    #[test]
    fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_after() {
        let directory = TempDir::new().unwrap();
        let mut authority = Running::open(&directory, NOW);
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
    fn whoever_knows_only_an_authority_of_long_ago_is_led_to_the_one_that_signs() {
        let directory = TempDir::new().unwrap();
        let mut authority = Running::open(&directory, NOW);
        let mut now = NOW;
        let mut past = vec![authority.roots()[0].clone()];
        for _ in 0..CROSSES + 1 {
            authority.rotate(now).unwrap();
            for _ in 0..3 {
                authority.advance(now).unwrap();
                now += LIFE + UNDER_WAY;
            }
            past.push(authority.roots()[0].clone());
        }
        let chain = authority.own(now).unwrap().chain;
        assert_eq!(chain.last(), past.last(), "what a join token pins comes last");
        assert_eq!(chain.len(), 1 + CROSSES + 1);
        let believes = |root: &CertificateDer<'static>| {
            let anchor = webpki::anchor_from_trusted_cert(root).unwrap();
            let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
            let at = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now));
            let usage = webpki::KeyUsage::server_auth();
            let algorithms = webpki::ALL_VERIFICATION_ALGS;
            leaf.verify_for_usage(algorithms, &[anchor], &chain[1..], at, usage, None, None).is_ok()
        };
        let believed: Vec<bool> = past.iter().map(believes).collect();
        assert_eq!(believed, [[false].as_slice(), &[true; CROSSES + 1]].concat(), "one rotation too many is too many");
        let restarted = open(&directory, now).own(now).unwrap().chain;
        assert_eq!(restarted[1..], chain[1..], "a restart leads them the same way");
    }

    #[test]
    fn one_rotation_at_a_time() {
        let directory = TempDir::new().unwrap();
        let mut authority = Running::open(&directory, NOW);
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
        let mut authority = Running::open(&directory, NOW);
        authority.rotate(NOW).unwrap();
        authority.advance(NOW).unwrap();
        let both = authority.roots();
        let pem = ca::certificate_pem(&directory.path().join(SIGNING)).unwrap();
        fs::write(directory.path().join(format!("ca-old-{}.pem", NOW + 2 * LIFE)), pem).unwrap();
        let mut restarted = Running::open(&directory, NOW);
        restarted.advance(NOW).unwrap();
        assert_eq!(restarted.roots(), both, "the authority that signs is trusted once");
        restarted.advance(NOW + LIFE + UNDER_WAY).unwrap();
        assert_eq!(restarted.roots(), [both[1].clone(), both[0].clone()]);
        restarted.advance(NOW + 3 * LIFE).unwrap();
        assert_eq!(restarted.roots(), both[1..]);
    }

    #[test]
    fn a_clock_that_jumps_ahead_for_a_while_takes_no_step() {
        let directory = TempDir::new().unwrap();
        let mut authority = Running::open(&directory, NOW);
        authority.rotate(NOW).unwrap();
        authority.advance(NOW).unwrap();
        let jump = 5 * LIFE;
        let (signs, dropped) = (NOW + LIFE + UNDER_WAY, NOW + 2 * (LIFE + UNDER_WAY));
        for now in [NOW + 10, signs - 1] {
            authority.advance_at(now, now + jump).unwrap();
            assert_eq!(roles(&authority), [Role::Signs, Role::SignsFrom(signs)]);
        }
        authority.advance(signs).unwrap();
        for now in [signs + 10, dropped - 1] {
            authority.advance_at(now, now + jump).unwrap();
            assert_eq!(roles(&authority), [Role::Signs, Role::TrustedUntil(dropped)], "live certificates need it");
        }
        // Who has just started cannot tell, and gives the clock some time to come back.
        let mut restarted = Running::open(&directory, signs);
        for now in [signs, signs + LIFE / 24 - 1] {
            restarted.advance_at(now, now + jump).unwrap();
            assert_eq!(roles(&restarted).len(), 2);
        }
        restarted.advance(signs + LIFE / 2).unwrap();
        assert_eq!(roles(&restarted).len(), 2, "it came back");
        restarted.advance(dropped).unwrap();
        assert_eq!(roles(&restarted), [Role::Signs]);
    }

    #[test]
    fn a_clock_that_is_set_after_the_start_delays_a_step_by_no_more_than_a_lifetime() {
        let directory = TempDir::new().unwrap();
        let mut authority = Running::open(&directory, NOW);
        authority.rotate(NOW).unwrap();
        authority.advance(NOW).unwrap();
        let signs = NOW + LIFE + UNDER_WAY;
        let mut restarted = Running::open(&directory, NOW);
        restarted.advance_at(NOW, 10).unwrap();
        restarted.advance(signs - 1).unwrap();
        assert_eq!(roles(&restarted), [Role::Signs, Role::SignsFrom(signs)]);
        restarted.advance(signs).unwrap();
        assert_eq!(roles(&restarted), [Role::Signs, Role::TrustedUntil(signs + LIFE + UNDER_WAY)]);
    }

    #[test]
    fn a_rotation_waits_for_the_longest_lifetime_the_signing_authority_was_run_with() {
        let directory = TempDir::new().unwrap();
        open(&directory, NOW).promise_lifetime().unwrap();
        let short = Duration::from_secs(LIFE / 10);
        let shorter = Authority::open(directory.path(), "mesh.local", short, NOW).unwrap();
        shorter.promise_lifetime().unwrap();
        let mut shorter = Running(shorter, Sightings::default());
        shorter.rotate(NOW).unwrap();
        shorter.advance(NOW).unwrap();
        let signs = NOW + LIFE + UNDER_WAY;
        assert_eq!(roles(&shorter), [Role::Signs, Role::SignsFrom(signs)], "some know nothing of it for so long");
        shorter.advance(signs).unwrap();
        let dropped = signs + LIFE + UNDER_WAY;
        assert_eq!(roles(&shorter), [Role::Signs, Role::TrustedUntil(dropped)]);
        shorter.advance(dropped).unwrap();
        shorter.rotate(dropped).unwrap();
        shorter.advance(dropped).unwrap();
        assert_eq!(
            roles(&shorter)[1],
            Role::SignsFrom(dropped + LIFE / 10 + UNDER_WAY),
            "this one issued short ones only"
        );
    }

    #[test]
    fn a_damaged_successor_changes_nothing() {
        let directory = TempDir::new().unwrap();
        let mut authority = Running::open(&directory, NOW);
        let roots = authority.roots();
        file::create(&directory.path().join(REQUESTED), b"junk").unwrap();
        let refused = authority.advance(NOW).unwrap_err();
        assert!(matches!(&refused, IdentityError::Damaged { path, .. } if path.ends_with(REQUESTED)), "{refused}");
        assert_eq!(authority.roots(), roots);
    }

    #[test]
    fn control_planes_on_one_directory_go_together() {
        let directory = TempDir::new().unwrap();
        let (mut one, mut other) = (Running::open(&directory, NOW), Running::open(&directory, NOW));
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
        let mut authority = Running::open(&directory, NOW);
        let renew = |authority: &Authority, now| {
            let key = KeyPair::generate().unwrap();
            let csr = CertificateParams::default().serialize_request(&key).unwrap();
            let identity = "spiffe://mesh.local/ns/shop/sa/web".parse().unwrap();
            let issued = authority.renew(identity, csr.der(), now).unwrap();
            let roots = authority.roots();
            Holder { issuer: roots[0].clone(), roots, end: issued.not_after }
        };
        let mut holders: Vec<Holder> = (0..8).map(|_| renew(&authority, NOW)).collect();
        for step in 0..120 {
            let now = NOW + step * LIFE / 20;
            if step == 10 {
                authority.rotate(now).unwrap();
            }
            authority.advance(now).unwrap();
            for holder in &mut holders {
                let left = holder.end - i64::try_from(now).unwrap();
                if left <= i64::try_from(LIFE / 20).unwrap() || random.u64(..10) == 0 {
                    *holder = renew(&authority, now);
                }
            }
            for holder in &holders {
                assert!(holders.iter().all(|peer| holder.roots.contains(&peer.issuer)), "at step {step}");
            }
        }
        assert_eq!(roles(&authority), [Role::Signs], "the rotation came to its end");
    }
}
