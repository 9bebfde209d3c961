//! A watched directory: what happens on disk is one change, however it happens.
//!
//! Every change here is one system call: between two of them a busy machine may let the quiet time pass.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use selvedge_control_plane::source::{
    Change, Changes, Reading,
    files::{self, Files, Known},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

/// Long enough for a busy machine; only a failing test waits that long.
const LONG: Duration = Duration::from_secs(30);

/// Watches a directory that is read again when an event says so, and hardly ever without one.
fn watch_events(dir: &Path) -> Changes {
    Files::new(dir, Known::new(), mpsc::channel(1).1).polled(Duration::from_secs(3600)).watch()
}

/// What a file says that has nothing but a number in it, or why it says nothing.
fn said(reading: &Reading) -> String {
    let Some(finding) = reading.findings.first() else { return String::new() };
    let quoted = finding.message.strip_prefix("expected a map of fields, found ");
    quoted.map_or_else(|| format!("{}: {}", finding.message, finding.hint), str::to_owned)
}

/// The steps up to and without the next `Complete`, as `+file text` and `-file`.
async fn next(changes: &mut Changes) -> Vec<String> {
    let mut steps = Vec::new();
    loop {
        match timeout(LONG, changes.recv()).await.expect("a change").expect("the source goes on") {
            Change::Complete => return steps,
            Change::Put(origin, reading) => {
                let file = Path::new(&*origin).file_name().unwrap().to_string_lossy().into_owned();
                steps.push(format!("+{file} {}", said(&reading)));
            }
            Change::Remove(origin) => {
                steps.push(format!("-{}", Path::new(&*origin).file_name().unwrap().to_string_lossy()));
            }
            Change::Confirmed(origin) => steps.push(format!("confirmed {origin}")),
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
    fs::write(dir.path().join("stays.yaml"), "1").unwrap();
    let mut changes = files::watch(dir.path());
    assert_eq!(next(&mut changes).await, ["+a.yaml 1", "+stays.yaml 1"]);
    let sub = tempfile::tempdir().unwrap();
    fs::write(sub.path().join("b.yml"), "2").unwrap();
    fs::rename(sub.path(), dir.path().join("sub")).unwrap();
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

/// Told at once is told before the quiet time is over, which no burst can be. A busy machine gets some tries, also
/// because it may look late for something else.
#[tokio::test]
async fn a_file_that_is_moved_to_its_place_is_told_at_once_unless_it_misses_an_object() {
    const QUIET: Duration = Duration::from_millis(50);
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (file, draft) = (dir.path().join("a.yaml"), elsewhere.path().join("draft"));
    let service = |name: &str, port: u16| {
        let head = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}");
        format!("{head}\nspec: {{ports: [{{port: {port}}}]}}\n---\n")
    };
    fs::write(&file, service("web", 1) + &service("api", 1)).unwrap();
    let mut changes = watch_events(dir.path());
    assert_eq!(next(&mut changes).await, ["+a.yaml "]);
    let mut told_after = async |text: String, is_moved: bool| {
        tokio::time::sleep(2 * QUIET).await;
        let written = if is_moved { &draft } else { &file };
        let began = Instant::now();
        fs::write(written, text).unwrap();
        if is_moved {
            fs::rename(&draft, &file).unwrap();
        }
        assert_eq!(next(&mut changes).await, ["+a.yaml "]);
        began.elapsed()
    };
    let mut ports = 2..100;
    let mut web = |why: &str| service("web", ports.next().unwrap_or_else(|| panic!("{why}")));
    while told_after(web("it is told at once") + &service("api", 1), true).await >= QUIET {}
    while told_after(web("it may be half written") + &service("api", 1), false).await < QUIET {}
    while told_after(web("the other one may be in a file that is saved next"), true).await < QUIET {
        told_after(web("") + &service("api", 1), false).await;
    }
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
    let steps = next(&mut changes).await;
    assert!(
        steps.len() == 1 && steps[0].starts_with("+a.yaml the file is empty"),
        "a file that stays empty is: {steps:?}"
    );
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

/// Whoever reads while links are swapped all the time sees one side or the other, never a part of each.
#[test]
fn a_link_that_is_swapped_while_it_is_read_is_never_seen_half_done() {
    let dir = tempfile::tempdir().unwrap();
    let inside = |name: &str| dir.path().join(name);
    for folder in ["..1", "..2"] {
        fs::create_dir(inside(folder)).unwrap();
        for file in 0..50 {
            fs::write(inside(folder).join(format!("{file}.yaml")), folder).unwrap();
        }
    }
    symlink("..1", inside("..data")).unwrap();
    (0..50).for_each(|file| symlink(format!("..data/{file}.yaml"), inside(&format!("{file}.yaml"))).unwrap());
    let is_read = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for folder in ["..2", "..1"].iter().cycle().take_while(|_| !is_read.load(Ordering::Relaxed)) {
                symlink(folder, inside("..data_tmp")).unwrap();
                fs::rename(inside("..data_tmp"), inside("..data")).unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let scans: Vec<_> = (0..300).map(|_| files::read(dir.path())).collect();
        is_read.store(true, Ordering::Relaxed);
        for scan in scans {
            let scan = scan.expect("there is time between two swaps");
            let texts: BTreeSet<_> = scan.values().cloned().collect();
            assert_eq!((scan.len(), texts.len()), (50, 1), "{texts:?}");
        }
    });
}

/// What `look` finds as the owner of `dir`, who is not root: to root, as which many build machines run their tests, no
/// permission applies.
fn as_its_owner<T: Send>(dir: &Path, look: impl FnOnce() -> T + Send) -> T {
    if !rustix::process::geteuid().is_root() {
        return look();
    }
    let owner = 12_345;
    chown(dir, Some(owner), Some(owner)).unwrap();
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let owner = rustix::process::Uid::from_raw(owner);
            // It holds for this thread, which ends with it.
            rustix::thread::set_thread_res_uid(owner, owner, owner).unwrap();
            look()
        });
        looking.join().unwrap()
    })
}

#[tokio::test]
async fn a_folder_that_cannot_be_listed_is_named_and_hides_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), "1").unwrap();
    symlink("loop", dir.path().join("loop")).unwrap();
    let locked = dir.path().join("lost+found");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    let deep = (0..17).fold(dir.path().to_owned(), |path, _| path.join("d"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("b.yaml"), "2").unwrap();
    let scan = as_its_owner(dir.path(), || files::read(dir.path()).unwrap());
    let why = |path: &str| scan[&*dir.path().join(path).display().to_string()].clone().unwrap_err();
    assert_eq!(scan[&*dir.path().join("a.yaml").display().to_string()], Ok("1".into()));
    assert!(why("loop/").contains("cannot be listed") && why("loop/").contains("expected"), "{}", why("loop/"));
    let deepest = format!("{}/", ["d"; 17].join("/"));
    assert!(why(&deepest).contains("more than 16 folders deep"), "{}", why(&deepest));
    assert!(why("lost+found/").contains("cannot be listed"), "{}", why("lost+found/"));
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
}

/// A mode of 644 on a folder lets its user list it, and look at nothing in it.
#[test]
fn folders_in_a_folder_that_cannot_be_entered_are_named_and_not_taken_for_removed() {
    let dir = tempfile::tempdir().unwrap();
    let inside = |name: &str| dir.path().join(name);
    for folder in ["team", "odd.yaml"] {
        fs::create_dir(inside(folder)).unwrap();
        fs::write(inside(folder).join("a.yaml"), "1").unwrap();
    }
    fs::write(inside("b.yaml"), "2").unwrap();
    fs::write(inside("notes.txt"), "3").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let scan = as_its_owner(dir.path(), || files::read(dir.path()).unwrap());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let found: Vec<String> = scan.keys().map(|path| path[dir.path().as_os_str().len() + 1..].to_owned()).collect();
    assert_eq!(found, ["b.yaml", "odd.yaml/", "team/"]);
    assert!(scan.values().all(Result::is_err), "{scan:?}");
}

#[tokio::test]
async fn a_link_to_a_folder_that_leads_nowhere_any_more_is_named_as_a_folder() {
    let parent = tempfile::tempdir().unwrap();
    let inside = |name: &str| parent.path().join(name);
    fs::create_dir(inside("mesh")).unwrap();
    fs::create_dir(inside("mounted")).unwrap();
    fs::write(inside("mounted/a.yaml"), "1").unwrap();
    symlink(inside("mounted"), inside("mesh/team")).unwrap();
    let mut changes = files::watch(inside("mesh"));
    assert_eq!(next(&mut changes).await, ["+a.yaml 1"]);
    fs::rename(inside("mounted"), inside("away")).unwrap();
    let steps = next(&mut changes).await;
    assert!(steps.len() == 2 && steps[0].starts_with("+team the link leads nowhere"), "{steps:?}");
    assert!(steps[1].starts_with("+a.yaml its folder is gone"), "{steps:?}");
    fs::rename(inside("away"), inside("mounted")).unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 1", "-team"]);
    fs::remove_file(inside("mesh/team")).unwrap();
    let steps = next(&mut changes).await;
    assert!(steps.len() == 1 && steps[0].starts_with("+a.yaml its folder is gone"), "{steps:?}");
}

#[test]
fn the_case_of_a_files_ending_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.YAML", "b.Yml", "c.JSON", "d.TXT"] {
        fs::write(dir.path().join(name), "1").unwrap();
    }
    assert_eq!(files::read(dir.path()).unwrap().len(), 3);
}

#[tokio::test]
async fn a_directory_that_another_takes_the_place_of_is_watched_on() {
    let parent = tempfile::tempdir().unwrap();
    let inside = |name: &str| parent.path().join(name);
    for (folder, text) in [("mesh", "1"), ("new", "2")] {
        fs::create_dir(inside(folder)).unwrap();
        fs::write(inside(folder).join("a.yaml"), text).unwrap();
    }
    let mut changes = watch_events(&inside("mesh"));
    assert_eq!(next(&mut changes).await, ["+a.yaml 1"]);
    fs::rename(inside("mesh"), inside("old")).unwrap();
    fs::rename(inside("new"), inside("mesh")).unwrap();
    // Between the two the directory may have been seen gone.
    while next(&mut changes).await != ["+a.yaml 2"] {}
    fs::write(inside("mesh/a.yaml"), "3").unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 3"], "an event tells, for nothing is polled");
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
    assert_eq!(next(&mut changes).await, [""; 0], "that it is back is told, though it has what it had");
    fs::rename(&dir, parent.path().join("away")).unwrap();
    assert_eq!(next(&mut changes).await, steps);
    fs::write(parent.path().join("away/a.yaml"), "2").unwrap();
    fs::rename(parent.path().join("away"), &dir).unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 2"]);
}

#[tokio::test]
async fn a_directory_that_is_back_is_found_though_nothing_tells_of_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("mesh");
    let mut changes = watch_events(&dir);
    let steps = next(&mut changes).await;
    assert!(steps.len() == 1 && steps[0].contains("cannot be listed"), "{steps:?}");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.yaml"), "1").unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 1"]);
}

#[tokio::test]
async fn a_file_that_was_empty_and_is_back_can_be_deleted_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["a.yaml", "stays.yaml"] {
        fs::write(dir.path().join(file), "1").unwrap();
    }
    let mut changes = watch_events(dir.path());
    assert_eq!(next(&mut changes).await, ["+a.yaml 1", "+stays.yaml 1"]);
    fs::write(dir.path().join("a.yaml"), "").unwrap();
    let steps = next(&mut changes).await;
    assert!(steps.len() == 1 && steps[0].starts_with("+a.yaml the file is empty"), "{steps:?}");
    fs::write(dir.path().join("a.yaml"), "2").unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 2"]);
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(next(&mut changes).await, ["-a.yaml"]);
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

#[tokio::test]
async fn what_links_lead_to_is_watched_too() {
    let [dir, outside, elsewhere] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    fs::write(outside.path().join("a.yaml"), "1").unwrap();
    fs::write(elsewhere.path().join("c.txt"), "1").unwrap();
    symlink(outside.path(), dir.path().join("folder")).unwrap();
    symlink(elsewhere.path().join("c.txt"), dir.path().join("c.yaml")).unwrap();
    let mut changes = watch_events(dir.path());
    assert_eq!(next(&mut changes).await, ["+c.yaml 1", "+a.yaml 1"]);
    fs::write(outside.path().join("a.yaml"), "2").unwrap();
    assert_eq!(next(&mut changes).await, ["+a.yaml 2"], "an event tells, for nothing is polled");
    fs::write(elsewhere.path().join("c.txt"), "2").unwrap();
    assert_eq!(next(&mut changes).await, ["+c.yaml 2"]);
}
