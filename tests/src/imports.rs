//! Which files of a package import which others, and whether they may.
//!
//! A path in a `use`, or one written out in the code, is followed through re-exports to the file that defines what it
//! names. A family's door (`foo.rs`) and its members (`foo/*.rs`) are one room with several files: what they take from
//! each other counts neither as a circle nor against the order. Members among each other are held to both, as far as
//! files go.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{complaints::Complaints, source::Source};

mod paths;

use paths::Named;

/// A module: its names from the root of the package, none for `lib.rs`.
type Module = Vec<String>;

/// The files of one package.
pub struct Package<'a> {
    files: BTreeMap<Module, &'a Source>,
    named: BTreeMap<Module, Vec<Named>>,
    imports: BTreeMap<Module, Vec<Import>>,
}

/// One file needs another.
#[derive(PartialEq, Eq)]
struct Import {
    to: Module,
    line: usize,
}

/// Which way imports run along the modules of a `lib.rs`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    CallersFirst,
    DataFirst,
}

impl<'a> Package<'a> {
    /// The package whose library lies in `src`, such as `proxy/src/`. A `main.rs` is a crate of its own and left out.
    pub fn new(src: &str, sources: &'a [Source]) -> Self {
        let module = |source: &'a Source| {
            let path = source.path.strip_prefix(src)?.strip_suffix(".rs")?;
            match path {
                "main" => None,
                "lib" => Some((Module::new(), source)),
                path => Some((path.split('/').map(str::to_owned).collect(), source)),
            }
        };
        let files: BTreeMap<Module, &Source> = sources.iter().filter_map(module).collect();
        let named = files.iter().map(|(module, source)| (module.clone(), paths::of(source))).collect();
        let mut package = Self { files, named, imports: BTreeMap::new() };
        package.imports = package.files.keys().map(|module| (module.clone(), package.imports_of(module))).collect();
        package
    }

    /// Complains of every import that is part of a circle of files.
    pub fn circles(&self, complaints: &mut Complaints) {
        for (from, imports) in &self.imports {
            for Import { to, line } in imports.iter().filter(|import| self.reached(&import.to).contains(from)) {
                let what = format!("imports {}, which needs this file in turn", self.path(to));
                complaints.line(&self.files[from].path, *line, what);
            }
        }
    }

    /// Complains of every import against the order that the first line of `lib.rs` gives to its modules.
    pub fn order(&self, complaints: &mut Complaints) {
        let Some(door) = self.files.get(&Module::new()) else { return };
        let places: HashMap<String, usize> = paths::modules(door).into_iter().zip(0..).collect();
        let Some(order) = order(door) else {
            if places.len() > 1 {
                complaints.line(&door.path, 1, format!("says neither '{CALLERS_FIRST}' nor '{DATA_FIRST}'"));
            }
            return;
        };
        for (from, imports) in &self.imports {
            for Import { to, line } in imports {
                let (Some(own), Some(other)) = (places.get(&from[0]), places.get(&to[0])) else { continue };
                let (against, where_) = match order {
                    Order::CallersFirst => (other < own, "above"),
                    Order::DataFirst => (other > own, "below"),
                };
                if against {
                    let what = format!("imports {}, which {} lists {where_} {}", self.path(to), door.path, from[0]);
                    complaints.line(&self.files[from].path, *line, what);
                }
            }
        }
    }

    fn path(&self, module: &Module) -> &str {
        &self.files[module].path
    }

    /// What one file imports of others that are not of its line.
    fn imports_of(&self, from: &Module) -> Vec<Import> {
        let found = self.named[from].iter().filter_map(|named| {
            let to = self.defining(from, &named.path, 0)?;
            (!from.starts_with(&to) && !to.starts_with(from)).then_some(Import { to, line: named.line })
        });
        let mut found: Vec<Import> = found.collect();
        found.dedup();
        found
    }

    /// The file that defines what `path` names in the file of `module`; `None` when it is of another crate.
    fn defining(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Module::new(), &path[1..]),
            "self" => (module.clone(), &path[1..]),
            "super" => (module.clone(), path),
            child => (self.child(module, child).map(|_| module.clone())?, path),
        };
        while rest.first().is_some_and(|name| name == "super") {
            (_, rest) = (at.pop(), &rest[1..]);
        }
        while let Some((name, left)) = rest.split_first() {
            at = match self.child(&at, name) {
                Some(child) => child,
                None => match self.brought_in(&at, name, depth) {
                    Some(elsewhere) => elsewhere,
                    None => break,
                },
            };
            rest = left;
        }
        Some(at)
    }

    fn child(&self, module: &Module, name: &str) -> Option<Module> {
        let child = [&module[..], &[name.to_owned()]].concat();
        self.files.contains_key(&child).then_some(child)
    }

    /// Where `name` comes from when `module` has it by a `use` only.
    fn brought_in(&self, module: &Module, name: &str, depth: usize) -> Option<Module> {
        let used = self.named[module].iter().find(|named| named.alias.as_deref() == Some(name))?;
        // A name of another crate, or one that leads in a circle, is defined nowhere here.
        if depth > 8 || used.path.first().is_some_and(|first| first == name) {
            return None;
        }
        self.defining(module, &used.path, depth + 1)
    }

    /// All files that `from` needs, through any number of others.
    fn reached(&self, from: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&Module> = self.files.get_key_value(from).map(|(module, _)| module).into_iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(self.imports[module].iter().map(|import| &import.to));
            }
        }
        reached
    }
}

const CALLERS_FIRST: &str = "callers first";
const DATA_FIRST: &str = "data first";

/// What the first line of a `lib.rs` says.
fn order(door: &Source) -> Option<Order> {
    let first = door.text.lines().next()?;
    match (first.contains(CALLERS_FIRST), first.contains(DATA_FIRST)) {
        (true, false) => Some(Order::CallersFirst),
        (false, true) => Some(Order::DataFirst),
        _ => None,
    }
}
