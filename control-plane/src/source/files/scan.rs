//! Reads a directory once: every YAML file below it, by path.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Files by path, each with its text or why it has none.
pub type Scan = BTreeMap<Arc<str>, Result<Arc<str>, Arc<str>>>;

/// A larger file is refused: no document of the mesh is that long, and reading it would stop everything else.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Folders below the directory are followed this deep.
const MAX_DEPTH: usize = 16;

/// Reads the directory on a thread that may wait for the disk.
pub(super) async fn read_blocking(dir: PathBuf) -> Result<Scan, Arc<str>> {
    match tokio::task::spawn_blocking(move || read(&dir)).await {
        Ok(scan) => scan,
        Err(_) => Err("reading it failed; please report this defect".into()),
    }
}

/// Reads every `.yaml`, `.yml` and `.json` file below `dir`, also through symbolic links. Hidden files and folders
/// (`.name`) and editors' copies (`name~`) are passed over.
///
/// # Errors
/// Why the directory, or a folder below it, cannot be listed.
pub fn read(dir: &Path) -> Result<Scan, Arc<str>> {
    let mut walk = Walk { found: Scan::new(), visited: BTreeSet::new() };
    walk.folder(dir, 0)?;
    Ok(walk.found)
}

struct Walk {
    found: Scan,
    visited: BTreeSet<PathBuf>,
}

impl Walk {
    fn folder(&mut self, dir: &Path, depth: usize) -> Result<(), Arc<str>> {
        let cannot =
            |error: std::io::Error| -> Arc<str> { format!("{} cannot be listed: {error}", dir.display()).into() };
        let real = dir.canonicalize().map_err(cannot)?;
        if depth > MAX_DEPTH || !self.visited.insert(real) {
            return Ok(());
        }
        for entry in fs::read_dir(dir).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            if is_hidden(&path) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(what) if what.is_dir() => match self.folder(&path, depth + 1) {
                    Err(_) if !path.exists() => {}
                    result => result?,
                },
                Ok(what) if what.is_file() && is_yaml(&path) => self.file(&path),
                Err(error) if is_yaml(&path) && path.is_symlink() => {
                    let why = format!("the link leads nowhere: {error}");
                    self.found.insert(name(&path), Err(why.into()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) {
        let text = match read_text(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => Err(format!("the file cannot be read: {error}").into()),
            Ok(text) => text,
        };
        self.found.insert(name(path), text);
    }
}

fn read_text(path: &Path) -> std::io::Result<Result<Arc<str>, Arc<str>>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES / (1024 * 1024);
        return Ok(Err(format!("the file is larger than {limit} MiB: split it into several").into()));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(error) => Err(format!("the file is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()).into()),
    })
}

fn name(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| {
        let name = name.to_string_lossy();
        name.starts_with(['.', '#']) || name.ends_with('~')
    })
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}
