//! The form in which 0.1 kept the last good versions: as the texts of the files they were read from.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{Entry, Held, Origin, Remembered, id};
use crate::{
    source::{Document, files},
    validate::Author,
};

/// What is on the disk.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kept {
    /// The directory the files are of.
    pub(super) config_dir: PathBuf,
    /// The texts that objects in force were read from.
    texts: Vec<Text>,
    /// The last generations of objects that are gone.
    gone: Vec<Counted>,
    /// The files that nobody could tell the content of.
    #[serde(default)]
    held: HashMap<PathBuf, Held>,
}

/// One text of a file; the newest of that file, or an earlier one that is the last good one for some objects.
#[derive(Deserialize)]
struct Text {
    /// Path below the config directory.
    file: PathBuf,
    text: String,
    objects: Vec<Counted>,
}

#[derive(Deserialize)]
struct Counted {
    kind: String,
    namespace: String,
    name: String,
    generation: u64,
}

impl Kept {
    /// Everything, each checked like any document.
    pub(super) fn remembered(self, config_dir: &Path) -> Remembered {
        let origin = |file: &Path| Origin {
            source: files::NAME.into(),
            name: config_dir.join(file).display().to_string().into(),
        };
        let mut remembered = Remembered::default();
        for text in self.texts {
            text.add(&origin(&text.file), &mut remembered);
        }
        for gone in self.gone {
            let id = id(&gone.kind, &gone.namespace, &gone.name);
            id.and_then(|id| remembered.in_force.gone.insert(id, gone.generation));
        }
        remembered.in_force.held = Arc::new(self.held.iter().map(|(file, held)| (origin(file), *held)).collect());
        remembered
    }
}

impl Text {
    fn add(&self, origin: &Origin, remembered: &mut Remembered) {
        let document = Document { origin: origin.name.clone(), text: Ok(self.text.as_str().into()) };
        let generations =
            self.objects.iter().filter_map(|of| Some((id(&of.kind, &of.namespace, &of.name)?, of.generation)));
        let mut generations: HashMap<_, u64> = generations.collect();
        for candidate in files::parse_of(&document, Author::Before).objects {
            // Of an object that stands twice in a file the first counts, so each is taken once.
            let Some(generation) = generations.remove(&candidate.object.id) else { continue };
            let (provenance, document, sound) = (candidate.provenance, candidate.document, candidate.sound);
            remembered.add(
                Arc::unwrap_or_clone(candidate.object),
                Entry { origin: origin.clone(), provenance, document, generation, sound },
            );
        }
    }
}
