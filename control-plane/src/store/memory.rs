//! The last good version of every object on disk, so that a restart forgets none.
//!
//! Guarantees: the file is there whole or not at all, also after a power cut or with two writers, and only its owner can
//! read it. One that is missing, damaged or
//! of another config directory is no failure: the store then begins with what the files say now. What is read back is
//! checked like any document, so an object that this version of the software refuses is not taken.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use selvedge_identity::file;
use serde::{Deserialize, Serialize};

use crate::{
    model::{self, Model, ObjectId},
    source::{Document, Held},
    validate::{self, Candidate, Written},
};

/// A larger file is neither written nor read.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Of how many objects that are gone the generation is remembered.
const MAX_GONE: usize = 10_000;

/// Where a store keeps what is in force.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    config_dir: PathBuf,
    /// A larger file is neither written nor read, in bytes.
    limit: u64,
}

/// What is in force, to be saved. It shares its texts with the store.
#[derive(Debug, Default)]
pub struct InForce {
    /// The texts that objects in force were read from.
    pub(super) texts: Vec<SharedText>,
    /// The last generations of objects that are gone.
    pub(super) gone: Vec<(ObjectId, u64)>,
    /// The files that nobody can tell the content of.
    pub(super) held: Vec<(Arc<str>, Held)>,
}

/// One text of a file, and the objects in force that were read from it, with their generations.
#[derive(Debug)]
pub(super) struct SharedText {
    file: Arc<str>,
    text: Arc<str>,
    objects: Vec<(ObjectId, u64)>,
}

impl InForce {
    pub(super) fn of(
        model: &Model,
        written: &HashMap<ObjectId, Written>,
        generations: &HashMap<ObjectId, u64>,
        held: Vec<(Arc<str>, Held)>,
    ) -> Self {
        let mut texts: BTreeMap<(&str, *const u8), SharedText> = BTreeMap::new();
        for object in model.objects() {
            let Some(written) = written.get(&object.id) else { continue };
            let (file, text) = (written.file(), written.text());
            let new = || SharedText { file: file.clone(), text: text.clone(), objects: Vec::new() };
            let source = texts.entry((file, text.as_ptr())).or_insert_with(new);
            source.objects.push((object.id.clone(), object.generation));
        }
        let gone = generations.iter().filter(|(id, _)| model.get(id).is_none()).take(MAX_GONE);
        let gone = gone.map(|(id, generation)| (id.clone(), *generation)).collect();
        Self { texts: texts.into_values().collect(), gone, held }
    }
}

/// What a memory had.
#[derive(Default)]
pub(super) struct Remembered {
    /// Every object that was in force, with its generation.
    pub(super) in_force: Vec<(Candidate, u64)>,
    /// The last generations of objects that are gone.
    pub(super) gone: Vec<(ObjectId, u64)>,
    /// The files that nobody could tell the content of.
    pub(super) held: Vec<(Arc<str>, Held)>,
}

/// What is on the disk.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    /// The directory the files are of.
    config_dir: PathBuf,
    /// The texts that objects in force were read from.
    texts: Vec<Text>,
    /// The last generations of objects that are gone.
    gone: Vec<Counted>,
    /// The files that nobody could tell the content of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    held: BTreeMap<PathBuf, Held>,
}

/// One text of a file; the newest of that file, or an earlier one that is the last good one for some objects.
#[derive(Serialize, Deserialize)]
struct Text {
    /// Path below the config directory.
    file: PathBuf,
    text: String,
    objects: Vec<Counted>,
}

#[derive(Serialize, Deserialize)]
struct Counted {
    kind: String,
    namespace: String,
    name: String,
    generation: u64,
}

impl Memory {
    /// The memory in `state_dir` of the objects that are read from `config_dir`.
    pub fn new(state_dir: &Path, config_dir: &Path) -> Self {
        Self { path: state_dir.join("last-good.json"), config_dir: config_dir.to_owned(), limit: MAX_BYTES }
    }

    /// What there is; nothing when it cannot be used.
    pub(super) fn load(&self) -> Remembered {
        let kept = self.read().unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "the last good versions of objects are lost; what the files say now counts");
            Kept::default()
        });
        if kept.config_dir != self.identity() {
            if !kept.texts.is_empty() {
                let of = kept.config_dir.display();
                tracing::info!(%of, "the last good versions of objects are of another config directory and not used");
            }
            return Remembered::default();
        }
        let gone = kept.gone.iter().filter_map(|gone| Some((gone.id()?, gone.generation))).collect();
        let held = kept.held.iter().map(|(file, held)| (self.origin(file), *held)).collect();
        Remembered { in_force: kept.texts.into_iter().flat_map(|text| self.objects(text)).collect(), gone, held }
    }

    fn origin(&self, file: &Path) -> Arc<str> {
        self.config_dir.join(file).display().to_string().into()
    }

    fn objects(&self, kept: Text) -> Vec<(Candidate, u64)> {
        let origin = self.origin(&kept.file);
        let read = validate::read(&Document { origin, text: Ok(kept.text.into()) }).objects;
        let mut generations: HashMap<ObjectId, u64> =
            kept.objects.iter().filter_map(|object| Some((object.id()?, object.generation))).collect();
        // Of an object that stands twice in a file the first counts, so each is taken once.
        let mut in_force = |candidate: Candidate| generations.remove(&candidate.object.id).map(|n| (candidate, n));
        read.into_iter().filter_map(&mut in_force).collect()
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what is in force.
    ///
    /// # Errors
    /// What is saved is still what was saved before. `FileTooLarge` when no other try can help.
    pub fn save(&self, in_force: &InForce) -> io::Result<()> {
        // Before anything is copied.
        self.bounded(in_force.texts.iter().map(|source| source.text.len()).sum())?;
        let text = |source: &SharedText| Text {
            file: self.relative(&source.file),
            text: source.text.to_string(),
            objects: source.objects.iter().map(Counted::new).collect(),
        };
        let (texts, gone) = (in_force.texts.iter().map(text), in_force.gone.iter().map(Counted::new));
        let held = in_force.held.iter().map(|(file, held)| (self.relative(file), *held)).collect();
        self.write(&Kept { config_dir: self.identity(), texts: texts.collect(), gone: gone.collect(), held })
    }

    /// Removes what was saved, so that no start believes it.
    pub(super) fn forget(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| file::sync_name(&self.path)),
        }
    }

    fn read(&self) -> io::Result<Kept> {
        let mut bytes = Vec::new();
        match fs::File::open(&self.path) {
            Ok(file) => file.take(self.limit + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
            Err(error) => return Err(error),
        };
        self.bounded(bytes.len())?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        let bytes = serde_json::to_vec(kept)?;
        self.bounded(bytes.len())?;
        file::replace(&self.path, &bytes)
    }

    /// The config directory however it is spelt. Links are not followed: one that is swapped is still the same.
    fn identity(&self) -> PathBuf {
        std::path::absolute(&self.config_dir).unwrap_or_else(|_| self.config_dir.clone())
    }

    fn relative(&self, file: &str) -> PathBuf {
        let file = Path::new(file);
        file.strip_prefix(&self.config_dir).unwrap_or(file).to_owned()
    }

    fn bounded(&self, bytes: usize) -> io::Result<()> {
        let larger = || {
            let limit = self.limit / (1024 * 1024);
            io::Error::new(io::ErrorKind::FileTooLarge, format!("they are larger than {limit} MiB"))
        };
        (bytes as u64 <= self.limit).then_some(()).ok_or_else(larger)
    }
}

impl Counted {
    fn new((id, generation): &(ObjectId, u64)) -> Self {
        let (namespace, name) = (id.namespace.to_string(), id.name.to_string());
        Self { kind: id.kind.to_owned(), namespace, name, generation: *generation }
    }

    /// The id, when the kind is still known.
    fn id(&self) -> Option<ObjectId> {
        let kind = model::kinds().find(|kind| kind.name == self.kind)?;
        Some(ObjectId::new(kind.name, &self.namespace, &self.name))
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

    /// Two control planes on one state directory are a mistake, and no reason to lose what both remember.
    #[test]
    fn two_writers_of_one_state_directory_leave_one_whole_file_and_no_draft() {
        let state = tempfile::tempdir().unwrap();
        let kept = |name: &str| {
            let text = Text { file: "a.yaml".into(), text: format!("# {name}").repeat(50_000), objects: Vec::new() };
            Kept { config_dir: name.into(), texts: vec![text], ..Kept::default() }
        };
        std::thread::scope(|scope| {
            for name in ["one", "two"] {
                let (kept, memory) = (kept(name), Memory::new(state.path(), Path::new(name)));
                scope.spawn(move || (0..50).for_each(|_| memory.write(&kept).unwrap()));
            }
        });
        let found: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(found, ["last-good.json"]);
        Memory::new(state.path(), Path::new("one")).read().unwrap();
    }
}
