//! A real PostgreSQL server with a fresh database, as a workload like the others.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{children::Children, files::Files, stage::Place};

/// `nobody`: the server refuses to run as root.
const NOBODY: u32 = 65534;
/// Debian keeps the server's programs out of the path.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Makes the database and becomes the server; `$0` to `$4` are the two programs, the folder, the address and the port.
/// Nothing here must survive a crash, so nothing waits for the disk. The mesh decides who may connect.
const SCRIPT: &str = r#"
    "$0" -D "$2/data" -U saas --auth=trust --no-sync --no-locale -E UTF8 >/dev/null &&
    printf 'host all all all trust\n' >"$2/data/pg_hba.conf" &&
    exec "$1" -D "$2/data" -h "$3" -p "$4" -c unix_socket_directories= -c fsync=off"#;

/// The user the server runs as, where it cannot be this one.
pub(super) fn user() -> Option<u32> {
    rustix::process::geteuid().is_root().then_some(NOBODY)
}

/// Starts the server at a place.
pub(super) fn start(place: &Place, files: &Files, children: &mut Children) -> anyhow::Result<()> {
    let (Some(listen), Some(folder)) = (place.app, files.database()) else { return Ok(()) };
    let programs = programs().context("--postgres needs initdb and postgres (Debian: apt install postgresql)")?;
    let command: [OsString; 8] = [
        "sh".into(),
        "-c".into(),
        SCRIPT.into(),
        programs.join("initdb").into(),
        programs.join("postgres").into(),
        folder.into(),
        listen.ip().to_string().into(),
        listen.port().to_string().into(),
    ];
    children.start_command(place.instance.name, place.namespace.as_deref(), user(), command.into())?;
    Ok(())
}

/// The folder with the server's programs.
fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let whole = |folder: &PathBuf| ["initdb", "postgres"].iter().all(|program| is_file(&folder.join(program)));
    env::split_paths(&path).chain(versions).find(whole)
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}
