//! A PostgreSQL of one's own, in a folder, for as long as somebody runs it: where its programs are, and the command
//! that makes its files and serves them. It listens on one address only, asks for a password, and has no Unix socket.

use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;

use crate::error::Error;

/// Where Debian's packages keep the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// `nobody`, and its group, on every usual Linux.
const NOBODY: u32 = 65534;
/// Makes the files unless they are there, and becomes the server; `$0` to `$4` are the two programs, the folder, the
/// address and the port. The files go with the folder, so nothing waits for the disk.
const SCRIPT: &str = r#"
    if ! [ -d "$2/data" ]; then
        "$0" -D "$2/data" -U saas --auth=scram-sha-256 --pwfile="$2/password" --no-sync --no-locale -E UTF8 >/dev/null &&
        printf 'host all all all scram-sha-256\n' >"$2/data/pg_hba.conf" || exit
    fi
    exec "$1" -D "$2/data" -h "$3" -p "$4" -F -c unix_socket_directories= -c dynamic_shared_memory_type=mmap"#;

/// Programs that were found.
#[derive(Clone, Debug)]
pub struct Installed {
    programs: PathBuf,
    /// PostgreSQL refuses to run as root; `None` without root.
    user: Option<u32>,
}

impl Installed {
    /// Finds `initdb` and `postgres` on the `PATH` or where Debian keeps them, the newest version first.
    ///
    /// # Errors
    /// What is missing, in words for people.
    pub fn find() -> Result<Self, String> {
        let path = env::var_os("PATH").unwrap_or_default();
        let complete = |folder: &PathBuf| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
        let found = env::split_paths(&path).chain(versions()).find(complete);
        let programs = found.ok_or_else(|| {
            format!("PostgreSQL is not installed: initdb and postgres are neither on the PATH nor below {VERSIONS}")
        })?;
        Ok(Self { programs, user: user()? })
    }

    /// The folder with the programs.
    pub fn programs(&self) -> &Path {
        &self.programs
    }
}

/// A folder for one PostgreSQL, and what runs in it.
#[derive(Clone, Debug)]
pub struct LocalPostgres {
    installed: Installed,
    folder: PathBuf,
}

impl LocalPostgres {
    /// Makes an existing empty folder ready, and a password.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn prepare(installed: &Installed, folder: &Path) -> Result<Self, Error> {
        let database = Self { installed: installed.clone(), folder: folder.to_owned() };
        let failed = || Error::io(format!("making {}", folder.display()));
        let password = database.password_file();
        fs::set_permissions(folder, PermissionsExt::from_mode(0o700)).map_err(failed())?;
        fs::write(&password, random()?).map_err(failed())?;
        fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).map_err(failed())?;
        if let Some(user) = installed.user {
            for path in [folder, &password] {
                chown(path, Some(user), Some(user)).map_err(failed())?;
            }
        }
        Ok(database)
    }

    /// The user and group to run the command as, where it cannot be this one.
    pub fn user(&self) -> Option<u32> {
        self.installed.user
    }

    /// The command that serves the database at `address`, in the foreground. SIGINT ends it at once and cleanly.
    pub fn command(&self, address: SocketAddr) -> Vec<OsString> {
        vec![
            "sh".into(),
            "-c".into(),
            SCRIPT.into(),
            self.installed.programs.join("initdb").into(),
            self.installed.programs.join("postgres").into(),
            self.folder.clone().into(),
            address.ip().to_string().into(),
            address.port().to_string().into(),
        ]
    }

    /// The file with the password of [`url`]'s user.
    pub fn password_file(&self) -> PathBuf {
        self.folder.join("password")
    }
}

/// What `data --database` takes to reach the database at `address`, which may be that of a sidecar.
pub fn url(address: SocketAddr) -> String {
    format!("postgres://saas@{address}/postgres")
}

/// The folders of all versions, newest first.
fn versions() -> Vec<PathBuf> {
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let mut folders: Vec<PathBuf> = fs::read_dir(VERSIONS).into_iter().flatten().flatten().map(|e| e.path()).collect();
    folders.sort_by_key(|path| std::cmp::Reverse(number(path)));
    folders.into_iter().map(|folder| folder.join("bin")).collect()
}

/// Whom to run as: ourselves, unless we are root.
fn user() -> Result<Option<u32>, String> {
    let own = fs::metadata("/proc/self").map_err(|e| format!("PostgreSQL needs /proc to be mounted here: {e}"))?;
    if own.uid() != 0 {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if has_user(&passwd, NOBODY) {
        return Ok(Some(NOBODY));
    }
    Err(format!("PostgreSQL refuses to run as root, and /etc/passwd has no user {NOBODY} (nobody) to run it as"))
}

fn has_user(passwd: &str, wanted: u32) -> bool {
    passwd.lines().any(|line| line.split(':').nth(2).is_some_and(|user| user.parse() == Ok(wanted)))
}

/// 128 random bits in hexadecimal.
fn random() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    rand::fill(&mut bytes).map_err(std::io::Error::other).map_err(Error::io("making a password"))?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
        assert!(has_user(passwd, NOBODY));
        assert!(!has_user(passwd, 6553));
    }

    #[test]
    fn nobody_else_can_read_what_is_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let installed = Installed { programs: "/usr/bin".into(), user: None };
        let database = LocalPostgres::prepare(&installed, folder.path()).expect("prepared");
        let mode = |path: &Path| fs::metadata(path).expect("made").mode() & 0o777;
        assert_eq!((mode(folder.path()), mode(&database.password_file())), (0o700, 0o600));
    }
}
