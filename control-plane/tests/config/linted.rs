//! What `selvedge lint` says of texts.

use std::fs;

use selvedge_control_plane::{diagnostic::Diagnostic, store};

/// What is found in these files, by their paths in a folder.
pub(crate) fn linted(files: &[(&str, &str)]) -> Vec<Diagnostic> {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    store::lint(folder.path()).unwrap()
}
