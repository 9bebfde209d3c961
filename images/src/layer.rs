//! Archives whose bytes follow from what is in them: fixed order, owner and times.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::program::Files;

/// The files as an archive, each folder before what is in it.
///
/// # Errors
/// A path that an archive cannot name.
pub fn archive(files: &Files) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    for (path, content) in files {
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
        for folder in above.into_iter().rev() {
            if folders.insert(folder.to_owned()) {
                append(&mut builder, EntryType::Directory, &folder.join(""), &[])?;
            }
        }
        append(&mut builder, EntryType::Regular, path, content)?;
    }
    builder.into_inner()
}

fn append(builder: &mut Builder<Vec<u8>>, kind: EntryType, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, path, content)
}

/// An archive compressed by gzip (RFC 1952), without the time and the system it was done on.
///
/// # Errors
/// None, for it is done in memory.
pub fn compressed(archive: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    encoder.write_all(archive)?;
    encoder.finish()
}

/// A path of an archive made of its parts.
pub(crate) fn path(parts: &[&str]) -> PathBuf {
    parts.iter().collect()
}
