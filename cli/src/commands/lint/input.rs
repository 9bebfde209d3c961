//! What is to be checked: directories, files, and what comes in.

use std::{fs::File, io, path::Path};

use anyhow::{Context, anyhow};
use selvedge_control_plane::{
    diagnostic::{Diagnostic, Place, Severity},
    source::{Change, files},
};
use selvedge_policies::finding::Code;

/// All that is there.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Change>> {
    if path == Path::new("-") {
        return Ok(vec![files::one("stdin", io::stdin().lock()).context("reading what comes in")?]);
    }
    if path.is_dir() {
        return files::once(path).map_err(|reason| anyhow!("{reason}"));
    }
    let name = path.display().to_string();
    let read = File::open(path).and_then(|file| files::one(&name, file));
    Ok(vec![read.with_context(|| format!("reading {name}"))?])
}

/// What is odd about a directory of which so much was read.
pub(super) fn odd(path: &Path, read: &[Change]) -> Vec<Diagnostic> {
    if !path.is_dir() {
        return Vec::new();
    }
    let warning = |code, place: &Path, message: String| {
        Diagnostic::new(code, Severity::Warning, Place::file(&place.display().to_string()), message)
    };
    let misnamed = files::misnamed(path);
    let mut odd: Vec<Diagnostic> = Vec::new();
    for file in &misnamed {
        let meant = file.with_extension("");
        let meant = meant.file_name().unwrap_or_default().to_string_lossy();
        let message =
            format!("the file is passed over, since its name does not end as one of YAML: did you mean '{meant}'?");
        odd.push(warning(Code::MisnamedFile, file, message));
    }
    if read.is_empty() && misnamed.is_empty() {
        let message = "there is no file whose name ends with .yaml, .yml or .json: expected the directory of the mesh";
        odd.push(warning(Code::NothingRead, path, message.to_owned()));
    }
    odd
}
