//! The chain of network plugins of a node: files that a runtime reads in the order of their names, of which it takes the
//! first it can use. What others wrote stays as it is, byte for byte, within the list; only the order of the list's own
//! fields may change.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::value::{RawValue, to_raw_value};

use super::{InstallError, PROGRAM, replace, sync_names};

/// What a runtime reads, as `libcni` of containerd and CRI-O: lists, and files of a single plugin.
const LIST: &str = "conflist";
const SINGLE: [&str; 2] = ["conf", "json"];
/// The extension of a file of a single plugin that a list of ours has taken the place of.
const SAVED: &str = "before-selvedge";

/// The fields of a JSON object, each as it was written.
type Fields = BTreeMap<String, Box<RawValue>>;

/// A file that a runtime can use.
pub(crate) struct Configuration {
    path: PathBuf,
    text: String,
    fields: Fields,
    /// The plugins of a list; `None` for a file of a single plugin.
    plugins: Option<Vec<Box<RawValue>>>,
}

/// What the chain is told to call.
fn entry() -> Box<RawValue> {
    let entry = r#"{"type":"selvedge-cni","capabilities":{"io.kubernetes.cri.pod-annotations":true}}"#;
    RawValue::from_string(entry.to_owned()).unwrap_or_default()
}

/// The file that a runtime takes; `None` when there is none that it can use.
pub(crate) fn first(folder: &Path) -> Result<Option<Configuration>, InstallError> {
    Ok(files(folder)?.iter().find_map(|path| Configuration::read(path)))
}

/// Takes the plugin out of every file; true when it was in one.
pub(super) fn remove(folder: &Path) -> Result<bool, InstallError> {
    let mut changed = false;
    for path in files(folder)? {
        let single = path.with_extension("");
        let saved = beside(&single, SAVED);
        if saved.exists() && path.extension().is_some_and(|extension| extension == LIST) {
            restore(&path, &single, &saved)?;
            changed = true;
        } else if let Some(found) = Configuration::read(&path).filter(|found| found.names_us()) {
            found.write(|plugins| plugins.retain(|plugin| !is_us(plugin)))?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Gives a file of a single plugin its place back, unless its owner has written it anew.
fn restore(list: &Path, single: &Path, saved: &Path) -> Result<(), InstallError> {
    if single.exists() {
        fs::remove_file(saved).map_err(InstallError::file(saved, "removed"))?;
    } else {
        fs::rename(saved, single).map_err(InstallError::file(single, "given its place back"))?;
    }
    fs::remove_file(list).and_then(|()| sync_names(list)).map_err(InstallError::file(list, "removed"))
}

/// The files that runtimes read, in their order.
fn files(folder: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let listed = fs::read_dir(folder).map_err(InstallError::file(folder, "listed"))?;
    let is_read = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| extension == LIST || SINGLE.contains(&extension))
    };
    let mut files: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).filter(is_read).collect();
    files.sort();
    Ok(files)
}

/// `path` with one more extension.
fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(extension);
    path.with_file_name(name)
}

fn kind(plugin: &RawValue) -> Option<String> {
    let fields: Fields = serde_json::from_str(plugin.get()).ok()?;
    serde_json::from_str(fields.get("type")?.get()).ok()
}

fn is_us(plugin: &RawValue) -> bool {
    kind(plugin).is_some_and(|kind| kind == PROGRAM)
}

impl Configuration {
    /// The file at `path`, if a runtime can use it: others it passes over, too.
    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let fields: Fields = serde_json::from_str(&text).ok()?;
        let is_list = path.extension().is_some_and(|extension| extension == LIST);
        let plugins: Option<Vec<Box<RawValue>>> = match fields.get("plugins") {
            Some(plugins) if is_list => Some(serde_json::from_str(plugins.get()).ok()?),
            _ => None,
        };
        let usable = match &plugins {
            Some(plugins) => plugins.first().is_some_and(|first| kind(first).is_some()),
            None => !is_list && fields.contains_key("type"),
        };
        usable.then(|| Self { path: path.to_owned(), text, fields, plugins })
    }

    /// The file of the chain, in the folder that runtimes read.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it calls this version of the plugin.
    pub(crate) fn is_ours(&self) -> bool {
        let read = |plugin: &RawValue| serde_json::from_str::<serde_json::Value>(plugin.get()).ok();
        self.plugins.iter().flatten().any(|plugin| read(plugin) == read(&entry()))
    }

    fn names_us(&self) -> bool {
        self.plugins.iter().flatten().any(|plugin| is_us(plugin))
    }

    /// Adds the plugin at the end; where an earlier version is named, in its place. A file of a single plugin becomes a
    /// list that is next in order, and keeps its content under a name that no runtime reads.
    pub(super) fn add(&self) -> Result<(), InstallError> {
        if self.plugins.is_some() {
            return self.write(|plugins| match plugins.iter_mut().find(|plugin| is_us(plugin)) {
                Some(earlier) => *earlier = entry(),
                None => plugins.push(entry()),
            });
        }
        let single = RawValue::from_string(self.text.clone()).map_err(|error| self.failed(error.into()))?;
        let named =
            ["cniVersion", "name"].into_iter().filter_map(|key| Some((key.into(), self.fields.get(key)?.clone())));
        let list = beside(&self.path, LIST);
        self.publish(&list, named.collect(), &[single, entry()])?;
        // Until this the runtime takes the single plugin, as before.
        let saved = beside(&self.path, SAVED);
        let moved = fs::rename(&self.path, &saved).and_then(|()| sync_names(&self.path));
        moved.map_err(InstallError::file(&self.path, "renamed"))
    }

    /// Writes the list with other plugins, unless somebody has written it since it was read: then nothing happens, and
    /// whoever asked reads it again.
    fn write(&self, change: impl FnOnce(&mut Vec<Box<RawValue>>)) -> Result<(), InstallError> {
        let mut plugins = self.plugins.clone().unwrap_or_default();
        change(&mut plugins);
        if fs::read_to_string(&self.path).is_ok_and(|now| now != self.text) {
            return Ok(());
        }
        self.publish(&self.path, self.fields.clone(), &plugins)
    }

    fn publish(&self, path: &Path, mut fields: Fields, plugins: &[Box<RawValue>]) -> Result<(), InstallError> {
        let plugins = to_raw_value(plugins).map_err(|error| self.failed(error.into()))?;
        fields.insert("plugins".into(), plugins);
        let text = serde_json::to_string_pretty(&fields).map_err(|error| self.failed(error.into()))?;
        let mode = fs::metadata(&self.path).map_err(|error| self.failed(error))?.permissions();
        replace(path, format!("{text}\n").as_bytes(), mode)
    }

    fn failed(&self, source: std::io::Error) -> InstallError {
        InstallError::file(&self.path, "rewritten")(source)
    }
}
