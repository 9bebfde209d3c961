//! The last good version of every object on disk, so that a restart forgets none.
//!
//! The file is a journal: a line that says what it is, a line with everything, and a line for each time something changed
//! after that. It is written anew when the changes outgrow the rest, so saving costs what changed. Guarantees: only its
//! owner can read it; a line is there whole or not at all, also after a power cut, and with two writers the file is one
//! of theirs. One that is missing, damaged or of another config directory is no failure: the store then begins with what
//! the sources say now, and the log says why. What is read back is checked like any document, so an object that this
//! version of the software refuses is not taken.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use selvedge_identity::file;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::in_force::{Entry, InForce};
use crate::{
    model::{self, Object, ObjectId},
    source::{Held, Origin, Provenance, files},
    validate::{self, Author, Verdict},
};

mod texts;

/// A larger file is neither written nor read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Of how many objects that are gone the generation is remembered.
const MAX_GONE: usize = 10_000;
/// How many bytes of changes may follow the line with everything, beside as many as that line has.
const MAX_CHANGES: u64 = 1024 * 1024;
/// The form of the file.
const VERSION: u32 = 2;

/// Where a store keeps what is in force.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    config_dir: PathBuf,
    /// A larger file is neither written nor read, in bytes.
    limit: u64,
    /// What the file has, when this wrote it.
    saved: Option<Saved>,
}

#[derive(Debug)]
struct Saved {
    in_force: InForce,
    /// Length of the file up to the end of the line with everything.
    whole: u64,
    file: State,
}

/// What a file is, as far as whoever writes to it can tell.
#[derive(Debug, PartialEq, Eq)]
struct State {
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds since the Unix epoch.
    written: (i64, i64),
}

/// What a memory had.
#[derive(Default)]
pub(super) struct Remembered {
    pub(super) in_force: InForce,
    /// The objects of those in force.
    pub(super) objects: Vec<Object>,
}

/// What lines say of objects so far, by id: the generation, and where what version of those comes from that are not gone.
type Recalled = BTreeMap<ObjectId, (u64, Option<(Origin, Box<RawValue>)>)>;

/// The first line of the journal: what the file is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    version: u32,
    /// The directory the files are of.
    config_dir: PathBuf,
}

/// Every other line: what changed.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    objects: Vec<Kept>,
    /// All origins that nobody could tell anything of, when they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<Vec<KeptHeld>>,
}

#[derive(Serialize, Deserialize)]
struct KeptHeld {
    source: String,
    origin: PathBuf,
    held: Held,
}

/// One object as it is now.
#[derive(Serialize, Deserialize)]
struct Kept {
    kind: String,
    namespace: String,
    name: String,
    generation: u64,
    /// What is in force; nothing of an object that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
}

#[derive(Serialize, Deserialize)]
struct Version {
    source: String,
    /// What the source calls where it comes from; of a file the path below the config directory.
    origin: PathBuf,
    document: Box<RawValue>,
}

impl Memory {
    /// The memory in `state_dir` of the objects that are read from `config_dir`.
    pub fn new(state_dir: &Path, config_dir: &Path) -> Self {
        let path = state_dir.join("last-good.json");
        Self { path, config_dir: config_dir.to_owned(), limit: MAX_BYTES, saved: None }
    }

    /// What there is; nothing when it cannot be used.
    pub(super) fn load(&self) -> Remembered {
        let read = self.read().and_then(|bytes| self.remembered(&bytes));
        read.unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "the last good versions of objects are lost; what the files say now counts");
            Remembered::default()
        })
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match fs::File::open(&self.path) {
            Ok(file) => file.take(self.limit + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes),
            Err(error) => return Err(error),
        };
        self.bounded(bytes.len() as u64)?;
        Ok(bytes)
    }

    fn remembered(&self, bytes: &[u8]) -> io::Result<Remembered> {
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let Some(first) = lines.next() else { return Ok(Remembered::default()) };
        if let Ok(kept) = serde_json::from_slice::<texts::Kept>(first) {
            return Ok(if self.is_ours(&kept.config_dir) {
                kept.remembered(&self.config_dir)
            } else {
                Remembered::default()
            });
        }
        let Head { version, config_dir } = serde_json::from_slice(first)?;
        if version != VERSION {
            return Err(io::Error::other(format!("it is of form {version}, and {VERSION} is what this version reads")));
        }
        if !self.is_ours(&config_dir) {
            return Ok(Remembered::default());
        }
        let whole = lines.next().ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut kept = Recalled::new();
        let mut held = self.take(serde_json::from_slice(whole)?, &mut kept).unwrap_or_default();
        for line in lines {
            if !line.ends_with(b"\n") {
                tracing::warn!(path = %self.path.display(), "the last change was not saved whole; what the files say now counts for it");
                break;
            }
            held = self.take(serde_json::from_slice(line)?, &mut kept).unwrap_or(held);
        }
        Ok(recall(kept, held))
    }

    /// Takes what a line says over what the lines before it said.
    fn take(&self, line: Line, kept: &mut Recalled) -> Option<BTreeMap<Origin, Held>> {
        for object in line.objects {
            let Some(id) = id(&object.kind, &object.namespace, &object.name) else { continue };
            let version =
                object.version.map(|version| (self.origin(&version.source, &version.origin), version.document));
            kept.insert(id, (object.generation, version));
        }
        let held = line.held?.into_iter();
        Some(held.map(|kept| (self.origin(&kept.source, &kept.origin), kept.held)).collect())
    }

    fn is_ours(&self, config_dir: &Path) -> bool {
        let is_ours = config_dir == self.identity();
        if !is_ours {
            let of = config_dir.display();
            tracing::info!(%of, "the last good versions of objects are of another config directory and not used");
        }
        is_ours
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Saves what is in force: only what changed, where the file is still the one that this wrote.
    ///
    /// # Errors
    /// What is saved is still what was saved before. `FileTooLarge` when no other try can help.
    pub fn save(&mut self, in_force: &InForce) -> io::Result<()> {
        let before = self.saved.take().filter(|saved| saved.file.length < saved.whole * 2 + MAX_CHANGES);
        let whole = match before {
            Some(saved) => {
                let line = self.line(in_force, &saved.in_force)?;
                self.bounded(saved.file.length + line.len() as u64)
                    .and_then(|()| self.append(&line, &saved.file))
                    .map(|()| saved.whole)
            }
            None => self.write(in_force),
        };
        // Whatever is wrong with a change that cannot be appended, the whole may still be written.
        let whole = whole.or_else(|_| self.write(in_force))?;
        self.saved = Some(Saved { in_force: in_force.clone(), whole, file: State::of(&fs::metadata(&self.path)?) });
        Ok(())
    }

    /// Writes everything, and returns how long it is.
    fn write(&self, in_force: &InForce) -> io::Result<u64> {
        // Before anything is copied.
        self.bounded(in_force.objects.iter().map(|(_, entry)| entry.document.len() as u64).sum())?;
        let head = Head { version: VERSION, config_dir: self.identity() };
        let mut bytes = serde_json::to_vec(&head)?;
        bytes.push(b'\n');
        bytes.extend(self.line(in_force, &InForce::default())?);
        self.bounded(bytes.len() as u64)?;
        file::replace(&self.path, &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Adds a line in one piece to the file that `is` this.
    fn append(&self, line: &[u8], is: &State) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(&self.path)?;
        if State::of(&file.metadata()?) != *is {
            return Err(io::Error::other("somebody else wrote to it"));
        }
        file.write_all(line)?;
        file.sync_data()
    }

    /// The line that says what is not as `before`.
    fn line(&self, in_force: &InForce, before: &InForce) -> io::Result<Vec<u8>> {
        let kept = |id: &ObjectId, generation, version| Kept {
            kind: id.kind.to_owned(),
            namespace: id.namespace.to_string(),
            name: id.name.to_string(),
            generation,
            version,
        };
        let version = |entry: &Entry| -> serde_json::Result<Version> {
            let (source, origin) = (entry.origin.source.to_string(), self.relative(&entry.origin));
            Ok(Version { source, origin, document: RawValue::from_string(entry.document.to_string())? })
        };
        let mut objects = Vec::new();
        for (id, entry) in in_force.objects.since(&before.objects).0 {
            objects.push(kept(id, entry.generation, Some(version(entry)?)));
        }
        let gone = in_force.gone.since(&before.gone).0.into_iter().take(MAX_GONE);
        objects.extend(gone.map(|(id, generation)| kept(id, *generation, None)));
        let held = (in_force.held != before.held).then(|| {
            let held = in_force.held.iter();
            held.map(|(origin, held)| KeptHeld {
                source: origin.source.to_string(),
                origin: self.relative(origin),
                held: *held,
            })
            .collect()
        });
        let mut line = serde_json::to_vec(&Line { objects, held })?;
        line.push(b'\n');
        Ok(line)
    }

    /// Removes what was saved, so that no start believes it.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| file::sync_name(&self.path)),
        }
    }

    /// The config directory however it is spelt. Links are not followed: one that is swapped is still the same.
    fn identity(&self) -> PathBuf {
        std::path::absolute(&self.config_dir).unwrap_or_else(|_| self.config_dir.clone())
    }

    fn relative(&self, origin: &Origin) -> PathBuf {
        let name = Path::new(&*origin.name);
        let below = if &*origin.source == files::NAME { name.strip_prefix(&self.config_dir).ok() } else { None };
        below.unwrap_or(name).to_owned()
    }

    fn origin(&self, source: &str, origin: &Path) -> Origin {
        let name = if source == files::NAME { self.config_dir.join(origin) } else { origin.to_owned() };
        Origin { source: source.into(), name: name.display().to_string().into() }
    }

    fn bounded(&self, bytes: u64) -> io::Result<()> {
        let larger = || {
            let limit = self.limit / (1024 * 1024);
            io::Error::new(io::ErrorKind::FileTooLarge, format!("they are larger than {limit} MiB"))
        };
        (bytes <= self.limit).then_some(()).ok_or_else(larger)
    }
}

impl State {
    fn of(file: &fs::Metadata) -> Self {
        Self { inode: file.ino(), length: file.len(), written: (file.mtime(), file.mtime_nsec()) }
    }
}

/// The id, when the kind is still known.
fn id(kind: &str, namespace: &str, name: &str) -> Option<ObjectId> {
    let kind = model::kinds().find(|known| known.name == kind)?;
    Some(ObjectId::new(kind.name, namespace, name))
}

/// Checks what was kept like any document.
fn recall(kept: Recalled, held: BTreeMap<Origin, Held>) -> Remembered {
    let mut remembered = Remembered::default();
    for (id, (generation, version)) in kept {
        let Some((origin, document)) = version else {
            remembered.in_force.gone.insert(id, generation);
            continue;
        };
        // What a person wrote for this release says everything.
        let author = if &*origin.source == files::NAME { Author::Before } else { Author::Server };
        let (object, sound) =
            match serde_json::from_str(document.get()).map(|document| validate::check(&document, author).verdict) {
                Ok(Verdict::Sound(object)) => (object, true),
                Ok(Verdict::Wanting(object)) => (object, false),
                _ => continue,
            };
        let provenance = Provenance::Remembered(origin.name.clone());
        let document = document.get().into();
        remembered.add(object, Entry { origin, provenance, document, generation, sound });
    }
    remembered.in_force.held = Arc::new(held);
    remembered
}

impl Remembered {
    fn add(&mut self, object: Object, entry: Entry) {
        let object = Object { generation: entry.generation, ..object };
        self.in_force.objects.insert(object.id.clone(), Arc::new(entry));
        self.objects.push(object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Memory {
        pub(in crate::store) fn named(self, name: &str) -> Self {
            Self { path: self.path.with_file_name(name), ..self }
        }

        pub(in crate::store) fn limited_to(self, limit: u64) -> Self {
            Self { limit, ..self }
        }
    }

    /// What is in force, with so many objects of this name.
    fn in_force(name: &str, count: u64) -> InForce {
        let mut in_force = InForce::default();
        (0..count).for_each(|n| put(&mut in_force, &format!("{name}-{n}"), 1));
        in_force
    }

    fn put(in_force: &mut InForce, name: &str, generation: u64) {
        let document = format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}"}},"spec":{{"ports":[{{"port":{}}}]}}}}"#,
            generation + 79
        );
        let origin = Origin { source: files::NAME.into(), name: format!("mesh/{name}.yaml").into() };
        let provenance = Provenance::Remembered(origin.name.clone());
        let entry = Entry { origin, provenance, document: document.into(), generation, sound: true };
        in_force.objects.insert(ObjectId::new("Service", "default", name), Arc::new(entry));
    }

    fn generations(memory: &Memory) -> Vec<(String, u64)> {
        let loaded = memory.load();
        let mut all: Vec<_> =
            loaded.objects.iter().map(|object| (object.id.name.to_string(), object.generation)).collect();
        all.sort();
        all
    }

    /// Two control planes on one state directory are a mistake, and no reason to lose what both remember.
    #[test]
    fn two_writers_of_one_state_directory_leave_one_whole_file_and_no_draft() {
        let state = tempfile::tempdir().unwrap();
        let memory = |name: &str| Memory::new(state.path(), Path::new(name));
        std::thread::scope(|scope| {
            for name in ["one", "two"] {
                let mut memory = memory(name);
                scope.spawn(move || {
                    let mut all = in_force(name, 500);
                    (1..50).for_each(|n| {
                        put(&mut all, &format!("{name}-0"), n);
                        memory.save(&all).unwrap();
                    });
                });
            }
        });
        let found: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(found, ["last-good.json"]);
        memory("one").remembered(&memory("one").read().unwrap()).unwrap();
    }

    #[test]
    fn a_change_costs_its_own_length_and_a_change_that_was_cut_is_the_only_one_that_is_lost() {
        let state = tempfile::tempdir().unwrap();
        let mut memory = Memory::new(state.path(), Path::new("mesh"));
        let mut all = in_force("s", 200);
        memory.save(&all).unwrap();
        let length = |memory: &Memory| fs::metadata(memory.path()).unwrap().len();
        let whole = length(&memory);
        put(&mut all, "s-7", 2);
        memory.save(&all).unwrap();
        let one = length(&memory) - whole;
        assert!((100..400).contains(&one), "{one} bytes of {whole}");
        put(&mut all, "s-7", 3);
        all.objects.remove(&ObjectId::new("Service", "default", "s-8"));
        all.gone.insert(ObjectId::new("Service", "default", "s-8"), 5);
        memory.save(&all).unwrap();
        let expected = |seven: u64, eight: bool| {
            let mut all: Vec<_> = (0..200).map(|n| (format!("s-{n}"), if n == 7 { seven } else { 1 })).collect();
            all.retain(|(name, _)| eight || name != "s-8");
            all.sort();
            all
        };
        assert_eq!(generations(&memory), expected(3, false));
        assert_eq!(memory.load().in_force.generation(&ObjectId::new("Service", "default", "s-8")), 5);
        let bytes = fs::read(memory.path()).unwrap();
        fs::write(memory.path(), &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(generations(&memory), expected(2, true), "a power cut takes the change that was being saved");
        let middle = usize::try_from(whole).unwrap() / 2;
        for damaged in [&bytes[..middle], &[&bytes[..middle], b"\xff", &bytes[middle + 1..]].concat()] {
            fs::write(memory.path(), damaged).unwrap();
            assert_eq!(generations(&memory), [], "what is damaged otherwise is not believed");
        }
        memory.save(&all).unwrap();
        assert_eq!(generations(&memory), expected(3, false), "a file that is another's by now is written anew");
    }

    #[test]
    fn what_is_forgotten_is_gone_whether_or_not_it_was_there_and_what_cannot_be_is_said() {
        let state = tempfile::tempdir().unwrap();
        let mut memory = Memory::new(state.path(), Path::new("mesh"));
        memory.save(&in_force("s", 1)).unwrap();
        for _ in 0..2 {
            memory.forget().unwrap();
            assert!(!memory.path().exists());
        }
        fs::create_dir(memory.path()).unwrap();
        memory.forget().unwrap_err();
    }

    #[test]
    fn changes_do_not_pile_up() {
        let state = tempfile::tempdir().unwrap();
        let mut memory = Memory::new(state.path(), Path::new("mesh"));
        let mut all = in_force("s", 3000);
        let longest = (1..100).map(|generation| {
            (0..300).for_each(|n| put(&mut all, &format!("s-{n}"), generation));
            memory.save(&all).unwrap();
            fs::metadata(memory.path()).unwrap().len()
        });
        let longest = longest.max().unwrap();
        assert!((MAX_CHANGES * 2..MAX_CHANGES * 4).contains(&longest), "{longest}");
        assert_eq!(generations(&memory)[1], ("s-1".to_owned(), 99));
    }
}
