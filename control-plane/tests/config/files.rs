//! A watched directory: what happens on disk is one change, however it happens.

use std::{fs, io::Write, os::unix::fs::symlink, path::Path, time::Duration};

use selvedge_control_plane::source::{Change, Changes, files};
use tokio::time::timeout;

/// Long enough for a busy machine; only a failing test waits that long.
const LONG: Duration = Duration::from_secs(30);

/// The steps up to and without the next `Complete`, as `+file text` and `-file`.
async fn next(changes: &mut Changes) -> Vec<String> {
    let mut steps = Vec::new();
    loop {
        match timeout(LONG, changes.recv()).await.expect("a change").expect("the source goes on") {
            Change::Complete => return steps,
            Change::Put(document) => {
                let file = Path::new(&*document.origin).file_name().unwrap().to_string_lossy().into_owned();
                steps.push(format!("+{file} {}", document.text.unwrap_or_else(|why| why)));
            }
            Change::Remove(origin) => {
                steps.push(format!("-{}", Path::new(&*origin).file_name().unwrap().to_string_lossy()));
            }
            Change::Unavailable { reason, .. } => steps.push(format!("!{reason}")),
        }
    }
}

#[tokio::test]
async fn files_come_change_and_go() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), "1").unwrap();
    fs::write(dir.path().join("notes.txt"), "x").unwrap();
    fs::write(dir.path().join(".a.yaml.swp"), "x").unwrap();
    fs::write(dir.path().join(".#a.yaml"), "x").unwrap();
    let mut changes = files::watch(dir.path());
    assert_eq!(next(&mut changes).await, ["+a.yaml 1"]);
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/b.yml"), "2").unwrap();
    assert_eq!(next(&mut changes).await, ["+b.yml 2"]);
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(next(&mut changes).await, ["-a.yaml"]);
}

#[tokio::test]
async fn an_atomic_save_is_one_change() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, "1").unwrap();
    let mut changes = files::watch(dir.path());
    assert_eq!(next(&mut changes).await, ["+a.yaml 1"]);
    fs::write(dir.path().join("a.yaml~"), "1").unwrap();
    fs::write(dir.path().join(".a.tmp.yaml"), "2").unwrap();
    fs::rename(dir.path().join(".a.tmp.yaml"), &file).unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 2"]);
}

#[tokio::test]
async fn a_file_that_is_written_slowly_is_never_seen_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, "1").unwrap();
    let mut changes = files::watch(dir.path());
    assert_eq!(next(&mut changes).await, ["+a.yaml 1"]);
    let mut file = fs::File::create(&path).unwrap();
    // The gap is longer than the quiet time after which a burst is over, and far shorter than the grace of an
    // emptied file.
    tokio::time::sleep(Duration::from_millis(150)).await;
    file.write_all(b"2").unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 2"]);
    fs::write(&path, "").unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml "], "a file that stays empty is empty");
}

#[tokio::test]
async fn a_swapped_link_is_one_change() {
    let dir = tempfile::tempdir().unwrap();
    let inside = |name: &str| dir.path().join(name);
    fs::create_dir(inside("..1")).unwrap();
    fs::create_dir(inside("..2")).unwrap();
    for (folder, text) in [("..1", "1"), ("..2", "2")] {
        fs::write(inside(folder).join("a.yaml"), text).unwrap();
        fs::write(inside(folder).join("b.yaml"), text).unwrap();
    }
    symlink("..1", inside("..data")).unwrap();
    symlink("..data/a.yaml", inside("a.yaml")).unwrap();
    symlink("..data/b.yaml", inside("b.yaml")).unwrap();
    let mut changes = files::watch(dir.path());
    assert_eq!(next(&mut changes).await, ["+a.yaml 1", "+b.yaml 1"]);
    symlink("..2", inside("..data_tmp")).unwrap();
    fs::rename(inside("..data_tmp"), inside("..data")).unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 2", "+b.yaml 2"]);
}

#[tokio::test]
async fn a_directory_that_goes_away_is_unavailable_and_not_empty() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("mesh");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.yaml"), "1").unwrap();
    let mut changes = files::watch(&dir);
    assert_eq!(next(&mut changes).await, ["+a.yaml 1"]);
    fs::rename(&dir, parent.path().join("away")).unwrap();
    let steps = next(&mut changes).await;
    assert!(steps.len() == 1 && steps[0].contains("cannot be listed"), "{steps:?}");
    fs::rename(parent.path().join("away"), &dir).unwrap();
    fs::write(dir.join("a.yaml"), "2").unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 2"]);
}

#[tokio::test]
async fn files_that_cannot_be_text_say_why() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), [b'a', 0xff]).unwrap();
    fs::write(dir.path().join("b.yaml"), vec![b' '; usize::try_from(files::MAX_FILE_BYTES).unwrap() + 1]).unwrap();
    symlink("nowhere", dir.path().join("c.yaml")).unwrap();
    symlink(dir.path(), dir.path().join("loop")).unwrap();
    let steps = next(&mut files::watch(dir.path())).await;
    assert_eq!(steps.len(), 3, "{steps:?}");
    assert!(steps[0].contains("not UTF-8 from byte 1"), "{steps:?}");
    assert!(steps[1].contains("larger than 4 MiB"), "{steps:?}");
    assert!(steps[2].contains("leads nowhere"), "{steps:?}");
}
