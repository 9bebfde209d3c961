//! The programs that have an image, and what they need to run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};

/// A program with an image of its own name.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of the file, and of the image.
    pub name: &'static str,
    /// User and group id that it runs as.
    pub user: u32,
    /// The longest that its archive may be, in bytes.
    pub limit: usize,
    /// It verifies servers outside the mesh, and so needs the public authorities.
    pub calls_outside: bool,
}

/// Bytes of a megabyte.
const MB: usize = 1_000_000;

/// Every program with an image.
pub const PROGRAMS: [Program; 4] = [
    Program { name: "selvedge-proxy", user: 1337, limit: 25 * MB, calls_outside: true },
    Program { name: "selvedge", user: 65532, limit: 50 * MB, calls_outside: false },
    // Only root may load rules; it has that one right and no other.
    Program { name: "selvedge-capture", user: 0, limit: 25 * MB, calls_outside: false },
    // The folders of a node are root's.
    Program { name: "selvedge-cni", user: 0, limit: 25 * MB, calls_outside: false },
];

/// Host names are read from the pod's own list before a server is asked, which is not what the C library does by itself.
const NAME_SERVICES: (&str, &str) = ("etc/nsswitch.conf", "hosts: files dns\n");

/// Who gets a program gets its license.
const LICENSE: (&str, &str) = ("LICENSE", include_str!("../../LICENSE"));

/// Where a sidecar looks for the public authorities, which is where Debian keeps them.
pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where machines keep them: Debian and what is like it, Red Hat and what is like it.
const AUTHORITIES_HERE: [&str; 2] = [AUTHORITIES, "/etc/pki/tls/certs/ca-bundle.crt"];

/// The files of an image, by their paths below its root.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What the program in `folder` needs to run: itself, the libraries it is linked to, where it is linked to any, how they
/// find names, and the public authorities, where it asks for them.
///
/// # Errors
/// A program, a library or a list of authorities that is not there, or a machine that cannot tell which libraries it needs.
pub fn files(folder: &Path, program: &Program) -> anyhow::Result<Files> {
    let path = folder.join(program.name);
    let read = |path: &Path| fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let mut files = Files::from([(PathBuf::from(program.name), read(&path)?)]);
    for library in libraries(&path)? {
        let inside = library.strip_prefix("/").unwrap_or(&library).to_owned();
        files.insert(inside, read(&library)?);
    }
    files.extend([NAME_SERVICES, LICENSE].map(|(name, content)| (name.into(), content.into())));
    if program.calls_outside {
        let here = AUTHORITIES_HERE.iter().map(Path::new).find(|path| path.is_file()).with_context(|| {
            format!(
                "{} needs the public certificate authorities, and none are in {}: install ca-certificates",
                program.name,
                AUTHORITIES_HERE.join(" or ")
            )
        })?;
        files.insert(AUTHORITIES.trim_start_matches('/').into(), read(here)?);
    }
    Ok(files)
}

/// The libraries that a program is linked to, the loader among them, where the loader of this machine finds them.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("ldd does not run")?;
    let (told, refused) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        // Then it is linked to nothing.
        ensure!(refused.contains("not a dynamic executable"), "ldd {}: {refused}", program.display());
        return Ok(Vec::new());
    }
    told.lines().filter_map(|line| library(line).transpose()).collect()
}

/// The file that a line of `ldd` names; none for what the kernel brings along.
fn library(line: &str) -> anyhow::Result<Option<PathBuf>> {
    let line = line.trim();
    if line.ends_with("not found") {
        bail!("a library is missing: {line}");
    }
    let found = line.split_once(" => ").map_or(line, |(_, found)| found);
    let path = found.split(" (").next().unwrap_or_default();
    Ok(path.starts_with('/').then(|| PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_as_ldd_tells_them() {
        for (line, file) in [
            ("\tlinux-vdso.so.1 (0x00007ffc)", None),
            ("\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)", Some("/lib/x86_64-linux-gnu/libc.so.6")),
            ("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)", Some("/lib64/ld-linux-x86-64.so.2")),
            ("\tstatically linked", None),
        ] {
            assert_eq!(library(line).unwrap(), file.map(PathBuf::from), "{line}");
        }
        assert!(library("\tlibodd.so.1 => not found").unwrap_err().to_string().contains("libodd"));
    }
}
