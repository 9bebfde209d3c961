//! Imports run one way: between packages, within each along the list of its `lib.rs`, and never in a circle.

use selvedge_tests::{
    complaints::Complaints,
    imports::Package,
    source::{self, Source},
};

/// The packages whose library has modules, by the folder of its sources.
fn libraries(sources: &[Source]) -> Vec<String> {
    let doors = sources.iter().filter_map(|source| source.path.strip_suffix("lib.rs"));
    doors.map(str::to_owned).collect()
}

const OF_CIRCLES: &str = "put what both need into a file of its own, below them";
const OF_ORDER: &str = "move what is needed to where it may be used, or give the module another place in the list";

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = source::production();
    let mut complaints = Complaints::new(OF_CIRCLES);
    for src in libraries(&sources) {
        Package::new(&src, &sources).circles(&mut complaints);
    }
    complaints.report();
}

#[test]
fn imports_run_along_the_list_of_modules() {
    let sources = source::production();
    let mut complaints = Complaints::new(OF_ORDER);
    for src in libraries(&sources) {
        Package::new(&src, &sources).order(&mut complaints);
    }
    complaints.report();
}

/// A package of these files, whose `lib.rs` begins with `first`.
fn planted(first: &str, files: &[(&str, &str)]) -> Vec<Source> {
    let door = Source::new("p/src/lib.rs", format!("//! {first}\n\nmod caller;\nmod stage;\nmod noun;\n"));
    let file = |(name, text): &(&str, &str)| Source::new(format!("p/src/{name}.rs"), *text);
    [door].into_iter().chain(files.iter().map(file)).collect()
}

/// What the rule of circles says of them.
fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let mut complaints = Complaints::new(OF_CIRCLES);
    Package::new("p/src/", &planted("Modules stand callers first.", files)).circles(&mut complaints);
    complaints.found().to_vec()
}

/// What the rule of the order says of them.
fn order(first: &str, files: &[(&str, &str)]) -> Vec<String> {
    let mut complaints = Complaints::new(OF_ORDER);
    Package::new("p/src/", &planted(first, files)).order(&mut complaints);
    complaints.found().to_vec()
}

#[test]
fn a_circle_of_files_is_found_however_it_is_written() {
    let caller = ("caller", "use crate::stage::Step;\n\npub struct Call(Step);\n");
    let noun = ("noun", "\npub fn f() {\n    super::caller::call();\n}\n");
    for stage in ["use crate::noun;\n", "pub use crate::noun::Name as Other;\n", "fn g() { crate::noun::f() }\n"] {
        assert_eq!(
            circles(&[caller, ("stage", stage), noun]),
            [
                "p/src/caller.rs:1: imports p/src/stage.rs, which needs this file in turn",
                "p/src/noun.rs:3: imports p/src/caller.rs, which needs this file in turn",
                "p/src/stage.rs:1: imports p/src/noun.rs, which needs this file in turn",
            ],
            "{stage}"
        );
    }
    assert!(circles(&[caller, ("stage", "// use crate::noun;\n"), noun]).is_empty(), "no circle");
}

#[test]
fn a_name_is_followed_to_the_file_that_defines_it() {
    let door = ("noun", "mod inner;\nmod other;\n\npub use inner::Name;\n");
    let inner = ("noun/inner", "use super::other::Other;\n\npub struct Name(Other);\n");
    let other = ("noun/other", "use crate::noun::Name;\n\npub struct Other;\n");
    assert_eq!(
        circles(&[door, inner, other]),
        [
            "p/src/noun/inner.rs:1: imports p/src/noun/other.rs, which needs this file in turn",
            "p/src/noun/other.rs:1: imports p/src/noun/inner.rs, which needs this file in turn",
        ]
    );
}

#[test]
fn a_door_and_its_members_are_one_room() {
    let door = ("noun", "mod inner;\n\nuse inner::Inner;\n\npub struct Name(Inner);\n");
    let inner = ("noun/inner", "use super::Name;\n\npub struct Inner(Option<Box<Name>>);\n");
    assert!(circles(&[door, inner]).is_empty());
    assert!(order("Modules stand callers first.", &[door, inner]).is_empty());
}

#[test]
fn an_import_against_the_order_is_found_in_both_directions() {
    let up = ("noun", "use crate::{\n    stage,\n};\n");
    let down = ("caller", "use std::io;\n\nuse crate::noun::Name;\n");
    let files = [up, down, ("stage", "")];
    assert_eq!(
        order("Modules stand callers first: each uses only those listed below it.", &files),
        ["p/src/noun.rs:1: imports p/src/stage.rs, which p/src/lib.rs lists above noun"]
    );
    assert_eq!(
        order("Modules stand data first: each uses only those listed above it.", &files),
        ["p/src/caller.rs:3: imports p/src/noun.rs, which p/src/lib.rs lists below caller"]
    );
    let silent = order("Everything.", &files);
    assert_eq!(silent, ["p/src/lib.rs:1: says neither 'callers first' nor 'data first'"]);
}
