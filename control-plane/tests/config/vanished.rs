//! Configuration that vanishes: what may be an accident takes nothing away, whatever time passes and however often the
//! control plane is restarted; what is certainly meant takes effect at once and is told.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use selvedge_control_plane::{
    snapshot::{self, Snapshot},
    source::{
        Confirm,
        files::{DELETED_AFTER, Files},
    },
    store::{self, Memory, Report, Reports, Store},
};
use selvedge_xds::kinds::DESTINATION;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep,
};

/// Longer than the source takes to notice anything, by the paused clock.
const NOTICED: Duration = Duration::from_secs(12);
/// No time opens anything.
const LONG: Duration = Duration::from_secs(900);

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n")
}

/// A directory with files in two folders, and a state that outlives control planes.
struct Folders {
    parent: TempDir,
}

impl Folders {
    fn new() -> Self {
        let folders = Self { parent: TempDir::new().unwrap() };
        fs::create_dir_all(folders.mesh("team")).unwrap();
        for file in ["a.yaml", "b.yaml", "c.yaml", "team/d.yaml"] {
            folders.write(file);
        }
        folders
    }

    fn mesh(&self, name: &str) -> PathBuf {
        self.parent.path().join("mesh").join(name)
    }

    fn away(&self) -> PathBuf {
        self.parent.path().join("away")
    }

    /// Writes the file with its service, by rename.
    fn write(&self, file: &str) {
        let name = Path::new(file).file_stem().unwrap().to_str().unwrap();
        fs::write(self.parent.path().join("draft"), service(name)).unwrap();
        fs::rename(self.parent.path().join("draft"), self.mesh(file)).unwrap();
    }

    fn empty(&self, file: &str) {
        fs::write(self.mesh(file), "").unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.mesh(file)).unwrap();
    }
}

/// A control plane without its listeners.
struct Brain {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: watch::Receiver<Arc<Reports>>,
    confirms: mpsc::Sender<Confirm>,
    /// Ends with the value.
    _tasks: JoinSet<()>,
}

impl Brain {
    async fn start(folders: &Folders) -> Self {
        let (state, mesh) = (folders.parent.path(), folders.mesh(""));
        let (confirms, confirmed) = mpsc::channel(1);
        let store = Store::new("mesh.local").remember(&Memory::new(state, &mesh));
        let sources = vec![Files::new(&mesh, store.known(), confirmed).source()];
        let (snapshot_sender, snapshots) = snapshot::channel();
        let (report_sender, reports) = watch::channel(Arc::default());
        let (saves, newest) = watch::channel(Arc::default());
        let (_authority, roots) = watch::channel(Vec::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(store::keep(Memory::new(state, &mesh), newest));
        tasks
            .spawn(async move { drop(store::run(store, sources, roots, snapshot_sender, report_sender, saves).await) });
        sleep(NOTICED).await;
        Self { snapshots, reports, confirms, _tasks: tasks }
    }

    /// The services in force, as one word.
    fn in_force(&self) -> String {
        let snapshot = self.snapshots.borrow();
        let mut names: Vec<&str> =
            snapshot.resources(DESTINATION).filter_map(|found| found.name.strip_prefix("default/")).collect();
        names.sort_unstable();
        if names.is_empty() {
            // What is held before anything could be read is told to nobody yet.
            return self.report().objects.iter().map(|object| object.name.as_str()).collect();
        }
        names.concat()
    }

    async fn confirm(&self, path: &Path) -> usize {
        let (done, confirmed) = oneshot::channel();
        self.confirms.send(Confirm { paths: vec![path.to_owned()], done }).await.unwrap();
        let confirmed = confirmed.await.unwrap().len();
        sleep(NOTICED).await;
        confirmed
    }

    fn report(&self) -> Report {
        self.reports.borrow().report()
    }

    fn findings(&self) -> Vec<String> {
        self.report().findings.iter().map(ToString::to_string).collect()
    }
}

/// A way to vanish: what it is called, what happens, what to confirm, and what is in force when that is done.
type Way = (&'static str, fn(&Folders), &'static str, &'static str);

const ACCIDENTS: [Way; 19] = [
    ("an empty file", |f| f.empty("a.yaml"), "a.yaml", "bcd"),
    ("a blank line", |f| fs::write(f.mesh("a.yaml"), "\n").unwrap(), "a.yaml", "bcd"),
    ("a document marker", |f| fs::write(f.mesh("a.yaml"), "---\n").unwrap(), "a.yaml", "bcd"),
    ("a byte order mark", |f| fs::write(f.mesh("a.yaml"), "\u{feff}").unwrap(), "a.yaml", "bcd"),
    (
        "markers, blanks and a directive",
        |f| fs::write(f.mesh("a.yaml"), "%YAML 1.2\n---\r\n \t\n...\n").unwrap(),
        "a.yaml",
        "bcd",
    ),
    ("a folder with a blank file only", |f| fs::write(f.mesh("team/d.yaml"), "\n").unwrap(), "team/d.yaml", "abc"),
    ("a file that is no text", |f| fs::write(f.mesh("a.yaml"), [0xff]).unwrap(), "a.yaml", "bcd"),
    (
        "a link that leads nowhere",
        |f| {
            symlink("nowhere", f.mesh(".link")).unwrap();
            fs::rename(f.mesh(".link"), f.mesh("a.yaml")).unwrap();
        },
        "a.yaml",
        "bcd",
    ),
    ("two empty files", |f| ["a.yaml", "b.yaml"].map(|file| f.empty(file)).into_iter().collect(), "", "cd"),
    ("a folder that is gone", |f| fs::rename(f.mesh("team"), f.away()).unwrap(), "team", "abc"),
    ("a folder without files", |f| f.remove("team/d.yaml"), "team/", "abc"),
    ("a folder with an empty file only", |f| f.empty("team/d.yaml"), "team/d.yaml", "abc"),
    (
        "a folder that others take the place of",
        |f| {
            fs::rename(f.mesh("team"), f.away()).unwrap();
            fs::create_dir(f.mesh("team")).unwrap();
        },
        "team",
        "abc",
    ),
    (
        "a file where a folder was",
        |f| {
            fs::rename(f.mesh("team"), f.away()).unwrap();
            fs::write(f.mesh("team"), "").unwrap();
        },
        "team",
        "abc",
    ),
    (
        "a link to a folder in place of one, that leads nowhere",
        |f| {
            fs::rename(f.mesh("team"), f.away()).unwrap();
            symlink("nowhere", f.mesh("team")).unwrap();
        },
        "team",
        "abc",
    ),
    (
        "a folder that goes round in circles",
        |f| {
            fs::rename(f.mesh("team"), f.away()).unwrap();
            symlink("team", f.mesh("team")).unwrap();
        },
        "team",
        "abc",
    ),
    ("a directory that is gone", |f| fs::rename(f.mesh(""), f.away()).unwrap(), "", ""),
    (
        "an empty directory",
        |f| {
            fs::rename(f.mesh(""), f.away()).unwrap();
            fs::create_dir(f.mesh("")).unwrap();
        },
        "",
        "",
    ),
    (
        "a directory of empty files",
        |f| {
            for file in ["a.yaml", "b.yaml", "c.yaml", "team/d.yaml"] {
                f.empty(file);
            }
        },
        "",
        "",
    ),
];

#[tokio::test(start_paused = true)]
async fn what_may_be_an_accident_is_held_through_time_and_restarts_until_it_is_confirmed() {
    for (what, happen, path, confirmed) in ACCIDENTS {
        for is_down in [false, true] {
            let folders = Folders::new();
            let mut brain = Brain::start(&folders).await;
            assert_eq!(brain.in_force(), "abcd");
            if is_down {
                drop(brain);
                happen(&folders);
                brain = Brain::start(&folders).await;
            } else {
                happen(&folders);
            }
            for round in 0..3 {
                sleep(LONG).await;
                assert_eq!(brain.in_force(), "abcd", "{what}, down {is_down}, round {round}: {:?}", brain.findings());
                let findings = brain.findings();
                assert!(findings.iter().any(|finding| finding.contains("`selvedge confirm ")), "{what}: {findings:?}");
                drop(brain);
                brain = Brain::start(&folders).await;
            }
            assert_eq!(brain.confirm(&folders.parent.path().join("elsewhere")).await, 0, "{what}");
            assert_eq!(brain.in_force(), "abcd", "{what}");
            assert!(brain.confirm(&folders.mesh(path)).await > 0, "{what}, down {is_down}");
            assert_eq!(brain.in_force(), confirmed, "{what}, down {is_down}: {:?}", brain.findings());
            drop(brain);
            let brain = Brain::start(&folders).await;
            assert_eq!(brain.in_force(), confirmed, "{what}: what is confirmed stays so after a restart");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_takes_what_it_names_and_nothing_that_could_not_be_looked_at() {
    let whole = ACCIDENTS.iter().filter(|(.., confirmed)| confirmed.is_empty());
    for (what, happen, ..) in whole {
        for restart in [false, true] {
            let folders = Folders::new();
            let mut brain = Brain::start(&folders).await;
            happen(&folders);
            sleep(NOTICED).await;
            for (file, left) in [("a.yaml", "bcd"), ("team", "bc")] {
                if restart {
                    drop(brain);
                    brain = Brain::start(&folders).await;
                }
                assert_eq!(brain.confirm(&folders.mesh(file)).await, 1, "{what}, restart {restart}: {file}");
                sleep(LONG).await;
                assert_eq!(brain.in_force(), left, "{what}, restart {restart}: {:?}", brain.findings());
            }
            drop(brain);
            let brain = Brain::start(&folders).await;
            assert_eq!(brain.in_force(), "bc", "{what}, restart {restart}: also after one more");
            assert_eq!(brain.report().complete, folders.mesh("").exists(), "{what}: nobody is told half a mesh");
            for file in ["a.yaml", "b.yaml", "c.yaml", "team/d.yaml"] {
                fs::create_dir_all(folders.mesh("team")).unwrap();
                folders.write(file);
            }
            sleep(NOTICED).await;
            assert_eq!((brain.in_force(), brain.findings()), ("abcd".into(), Vec::new()), "{what}, restart {restart}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_comes_back_is_in_force_as_before_and_nothing_is_to_be_confirmed() {
    let folders = Folders::new();
    let brain = Brain::start(&folders).await;
    fs::rename(folders.mesh(""), folders.away()).unwrap();
    sleep(NOTICED).await;
    fs::create_dir_all(folders.mesh("team")).unwrap();
    sleep(LONG).await;
    assert_eq!(brain.in_force(), "abcd", "an empty list after an error is none");
    for (file, missing) in [("b.yaml", 3), ("team/d.yaml", 2), ("a.yaml", 1), ("c.yaml", 0)] {
        folders.write(file);
        sleep(LONG).await;
        assert_eq!(brain.in_force(), "abcd", "a copy takes as long as it takes: {file}");
        let stale = brain.report().objects.iter().filter(|object| !object.current).count();
        assert_eq!(stale, missing, "{file}");
    }
    assert_eq!((brain.findings(), brain.confirm(&folders.mesh("")).await), (Vec::new(), 0));
}

/// A way to vanish, the files that are there again before the control plane is, and those that follow.
type Half = (&'static str, fn(&Folders), &'static [&'static str], &'static [&'static str]);

const HALVES: [Half; 7] = [
    ("a directory that is gone", |f| fs::rename(f.mesh(""), f.away()).unwrap(), &["a.yaml", "team/d.yaml"], &REST),
    (
        "a directory that cannot be listed",
        |f| {
            fs::rename(f.mesh(""), f.away()).unwrap();
            symlink("mesh", f.parent.path().join("mesh")).unwrap();
        },
        &["a.yaml", "team/d.yaml"],
        &REST,
    ),
    (
        "an empty directory",
        |f| {
            fs::rename(f.mesh(""), f.away()).unwrap();
            fs::create_dir(f.mesh("")).unwrap();
        },
        &["a.yaml", "team/d.yaml"],
        &REST,
    ),
    ("a folder that is gone", |f| fs::rename(f.mesh("team"), f.away()).unwrap(), &["team/d.yaml"], &["team/e.yaml"]),
    (
        "a folder that cannot be listed",
        |f| {
            fs::rename(f.mesh("team"), f.away()).unwrap();
            symlink("team", f.mesh("team")).unwrap();
        },
        &["team/d.yaml"],
        &["team/e.yaml"],
    ),
    (
        "a folder without files",
        |f| ["team/d.yaml", "team/e.yaml"].iter().for_each(|file| f.remove(file)),
        &["team/d.yaml"],
        &["team/e.yaml"],
    ),
    (
        "a directory that is gone and back but for its folder",
        |f| fs::rename(f.mesh(""), f.away()).unwrap(),
        &["a.yaml"],
        &ALL,
    ),
];
const REST: [&str; 3] = ["b.yaml", "c.yaml", "team/e.yaml"];
const ALL: [&str; 4] = ["b.yaml", "c.yaml", "team/d.yaml", "team/e.yaml"];

#[tokio::test(start_paused = true)]
async fn what_vanished_and_is_half_back_when_the_control_plane_starts_lacks_nothing_until_it_is_whole() {
    for (what, happen, first, then) in HALVES {
        let folders = Folders::new();
        folders.write("team/e.yaml");
        let brain = Brain::start(&folders).await;
        assert_eq!(brain.in_force(), "abcde");
        happen(&folders);
        sleep(NOTICED).await;
        drop(brain);
        for path in [folders.parent.path().join("mesh"), folders.mesh("team")] {
            if path.is_symlink() {
                fs::remove_file(path).unwrap();
            }
        }
        for file in first {
            fs::create_dir_all(folders.mesh(file).parent().unwrap()).unwrap();
            folders.write(file);
        }
        for round in 0..2 {
            let brain = Brain::start(&folders).await;
            sleep(LONG).await;
            assert_eq!(brain.in_force(), "abcde", "{what}, round {round}: {:?}", brain.findings());
            assert!(brain.findings().iter().any(|finding| finding.contains("`selvedge confirm ")), "{what}");
        }
        let brain = Brain::start(&folders).await;
        for file in then {
            fs::create_dir_all(folders.mesh(file).parent().unwrap()).unwrap();
            folders.write(file);
        }
        sleep(NOTICED).await;
        assert_eq!((brain.in_force(), brain.findings()), ("abcde".into(), Vec::new()), "{what}");
        drop(brain);
        folders.remove("b.yaml");
        assert_eq!(Brain::start(&folders).await.in_force(), "acde", "{what}: what is whole again is taken at its word");
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_was_away_and_is_as_it_was_is_taken_at_its_word_after_a_restart() {
    let folders = Folders::new();
    let brain = Brain::start(&folders).await;
    fs::rename(folders.mesh(""), folders.away()).unwrap();
    sleep(NOTICED).await;
    assert_eq!(brain.findings().len(), 1);
    fs::rename(folders.away(), folders.mesh("")).unwrap();
    sleep(NOTICED).await;
    assert_eq!((brain.in_force(), brain.findings()), ("abcd".into(), Vec::new()));
    drop(brain);
    folders.remove("b.yaml");
    assert_eq!(Brain::start(&folders).await.in_force(), "acd");
}

#[tokio::test(start_paused = true)]
async fn a_single_empty_file_that_is_removed_where_others_stay_is_deleted_a_minute_later() {
    for restart in [false, true] {
        let folders = Folders::new();
        let mut brain = Brain::start(&folders).await;
        folders.empty("a.yaml");
        sleep(NOTICED).await;
        if restart {
            drop(brain);
            folders.remove("a.yaml");
            brain = Brain::start(&folders).await;
        } else {
            folders.remove("a.yaml");
            sleep(NOTICED).await;
        }
        sleep(DELETED_AFTER - 2 * NOTICED).await;
        assert_eq!(brain.in_force(), "abcd", "restarted {restart}");
        sleep(2 * NOTICED).await;
        assert_eq!(brain.in_force(), "bcd", "restarted {restart}: {:?}", brain.findings());
    }
    let folders = Folders::new();
    let brain = Brain::start(&folders).await;
    for file in ["a.yaml", "b.yaml"] {
        folders.empty(file);
        sleep(NOTICED).await;
        folders.remove(file);
        sleep(NOTICED).await;
    }
    sleep(LONG).await;
    assert_eq!(brain.in_force(), "abcd", "two are no single file");
    let folders = Folders::new();
    let brain = Brain::start(&folders).await;
    folders.empty("team/d.yaml");
    sleep(NOTICED).await;
    folders.remove("team/d.yaml");
    sleep(LONG).await;
    assert_eq!(brain.in_force(), "abcd", "a folder without files may be an accident");
}

const DENY: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: deny}\n\
                    spec: {targetRef: {name: b}, action: DENY, rules: [{}]}\n";
const STRICT: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: strict, namespace: default}\n\
                      spec: {defaultPosture: deny}\n";
const TELLS: &str = "apiVersion: selvedge.dev/v1alpha1\nkind: MeshPolicy\nmetadata: {name: tells, namespace: default}\n\
                     spec: {callerIdentity: {headers: {x-caller: SET}}}\n";

#[tokio::test(start_paused = true)]
async fn what_is_meant_goes_at_once_and_a_finding_says_what_is_open_until_it_is_confirmed_or_back() {
    let comment = |folders: &Folders| fs::write(folders.mesh("p.yaml"), "# later\n").unwrap();
    let below = |folders: &Folders| fs::write(folders.mesh("p.yaml"), "\u{feff}---\n\n  # later\n").unwrap();
    let ways = [
        ("removed", (|f| f.remove("p.yaml")) as fn(&Folders)),
        ("commented out", comment),
        ("commented out below a marker", below),
    ];
    for (what, happen) in ways {
        for (policy, open) in [
            (DENY, "no AuthorizationPolicy names Service default/b any more, and its default posture is allow"),
            (STRICT, "what it covered has mTLS mode STRICT and default posture allow now:"),
            (TELLS, "posture allow now; nobody sets callerIdentity.headers.x-caller any more"),
        ] {
            let folders = Folders::new();
            fs::write(folders.mesh("p.yaml"), policy).unwrap();
            let brain = Brain::start(&folders).await;
            assert_eq!(brain.findings(), [""; 0]);
            happen(&folders);
            sleep(NOTICED).await;
            assert_eq!(brain.report().objects.len(), 4, "{what}");
            let findings = brain.findings();
            assert!(findings.len() == 1 && findings[0].contains(open), "{what}: {findings:?}");
            assert!(findings[0].contains("p.yaml: warning:") && findings[0].contains("is removed with its file"));
            fs::write(folders.mesh("p.yaml"), policy).unwrap();
            sleep(NOTICED).await;
            assert_eq!(brain.findings(), [""; 0], "{what}: it is back");
            happen(&folders);
            sleep(NOTICED).await;
            assert_eq!((brain.findings().len(), brain.confirm(&folders.mesh("p.yaml")).await), (1, 1), "{what}");
            assert_eq!((brain.findings(), brain.in_force()), (Vec::new(), "abcd".to_owned()), "{what}");
        }
    }
}
