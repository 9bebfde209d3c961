//! What a demo leaves behind that was killed before it could tidy up, and what the next one does about it.
//!
//! A folder says who made it, so that it is removed only when it is proven to be a demo's of this user, on this machine
//! since it was started, and that demo is gone. A folder that cannot prove it stays.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

/// How the names of the demo's folders begin.
pub(super) const FOLDER: &str = "selvedge-demo-";
/// How the names of the folders of their databases begin.
pub(super) const DATABASE: &str = "selvedge-demo-database-";
/// The file in a demo's folder that says whose it is; the paths of folders that go with it follow, a line each.
const OWNER: &str = "owner";

/// Says in `folder` that this process owns it, and `with` too.
pub(super) fn claim(folder: &Path, with: Option<&Path>) -> std::io::Result<()> {
    let mut text = this_process().unwrap_or_default();
    text.push('\n');
    if let Some(with) = with {
        text.push_str(&with.to_string_lossy());
        text.push('\n');
    }
    fs::write(folder.join(OWNER), text)
}

/// Removes what demos that are gone have left in `temporary`. What cannot be removed stays.
pub(super) fn sweep(temporary: &Path) {
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let folder = entry.path();
        if !is_named(&folder, FOLDER) || !is_private(&folder) {
            continue;
        }
        let Ok(owner) = fs::read_to_string(folder.join(OWNER)) else { continue };
        let mut lines = owner.lines();
        if !lines.next().is_some_and(is_gone) {
            continue;
        }
        let databases = lines.map(PathBuf::from).filter(|with| is_named(with, DATABASE));
        for with in databases.filter(|with| with.parent() == Some(temporary) && is_folder(with)) {
            let _ = fs::remove_dir_all(with);
        }
        let _ = fs::remove_dir_all(&folder);
    }
}

fn is_named(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// A folder of this user that nobody else can write to.
fn is_private(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| {
        let alone = metadata.permissions().mode() & 0o077 == 0;
        metadata.is_dir() && metadata.uid() == geteuid().as_raw() && alone
    })
}

/// Boot, PID namespace, number and start of this process.
fn this_process() -> Option<String> {
    let pid = std::process::id();
    Some(format!("{} {pid} {}", place()?, started(pid)?))
}

/// Where process numbers mean what they mean here.
fn place() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.to_str()?))
}

/// When a process started, in ticks since the machine did; `None` when there is none of that number.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the name may hold anything, what follows it are fields from the third on.
    let fields = stat.rsplit_once(')')?.1;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Whether the process that wrote `owner` is known to be over.
fn is_gone(owner: &str) -> bool {
    let Some(process) = place().and_then(|place| owner.strip_prefix(&place)?.strip_prefix(' ')) else { return false };
    let mut numbers = process.split(' ');
    let (Some(Ok(pid)), Some(Ok(start))) = (numbers.next().map(str::parse), numbers.next().map(str::parse::<u64>))
    else {
        return false;
    };
    started(pid) != Some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(temporary: &Path, name: &str, owner: Option<&str>) -> PathBuf {
        let folder = temporary.join(name);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(folder.join("file"), "").unwrap();
        if let Some(owner) = owner {
            fs::write(folder.join(OWNER), owner).unwrap();
        }
        folder
    }

    #[test]
    fn only_what_is_proven_to_be_left_over_goes() {
        let temporary = tempfile::tempdir().unwrap();
        let at = temporary.path();
        let (place, own) = (place().unwrap(), this_process().unwrap());
        let (pid, start) = (std::process::id(), started(std::process::id()).unwrap());
        let database = folder(at, "selvedge-demo-database-1", None);
        let other = tempfile::Builder::new().prefix(DATABASE).tempdir().unwrap();
        let gone = [
            folder(at, "selvedge-demo-gone", Some(&format!("{place} 4194999 12345\n{}\n", database.display()))),
            folder(
                at,
                "selvedge-demo-reused",
                Some(&format!("{place} {pid} {}\n{}\n", start + 1, other.path().display())),
            ),
        ];
        let stays = [
            folder(at, "selvedge-demo-runs", Some(&format!("{own}\n"))),
            folder(at, "selvedge-demo-nobodys", None),
            folder(at, "selvedge-demo-elsewhere", Some("another-boot pid:[1] 4194999 12345\n")),
            folder(at, "selvedge-demo-garbage", Some(&format!("{place} x y\n"))),
            folder(at, "another-program", Some(&format!("{place} 4194999 12345\n"))),
        ];
        let shared = folder(at, "selvedge-demo-shared", Some(&format!("{place} 4194999 12345\n")));
        fs::set_permissions(&shared, PermissionsExt::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink(&stays[4], at.join("selvedge-demo-link")).unwrap();

        sweep(at);
        assert!(gone.iter().all(|folder| !folder.exists()) && !database.exists());
        assert!(stays.iter().all(|folder| folder.join("file").exists()), "{stays:?}");
        assert!(shared.exists() && at.join("selvedge-demo-link").exists());
        assert!(other.path().exists(), "a folder elsewhere is not the demo's to remove");
    }
}
