//! Doc comments of public items are read apart from their neighbours: beside a name in an editor, or in a list. Three words
//! repeat the name, and "The same" of what stands above says nothing where nothing stands above.

use selvedge_tests::{
    complaints::Complaints,
    source::{self, Source},
};

/// The first line of each doc comment of a public item that says nothing by itself, counted from 1, and what it says.
fn empty_words(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut words, mut first) = (String::new(), 0);
    let mut in_attribute = false; // of several lines
    for (number, line) in source.production.iter().map(|line| line.trim()).enumerate() {
        if let Some(comment) = line.strip_prefix("///") {
            first = if words.is_empty() { number + 1 } else { first };
            words = format!("{words} {}", comment.trim());
        } else if in_attribute || line.starts_with("#[") {
            in_attribute = !line.ends_with(']');
        } else {
            let said = std::mem::take(&mut words);
            let says_little = said.split_whitespace().count() <= 3 || said.trim_start().starts_with("The same");
            if source::public(line).is_some() && !said.is_empty() && says_little {
                found.push((first, said.trim().to_owned()));
            }
        }
    }
    found
}

#[test]
fn public_items_say_more_than_their_name() {
    let mut complaints = Complaints::new("say what it means to somebody who sees this line alone: unit, shape, bounds");
    // What tests share is read as a library, too.
    for source in source::production().into_iter().chain(source::rust_files("tests/src")) {
        for (line, said) in empty_words(&source) {
            complaints.line(&source.path, line, said);
        }
    }
    complaints.report();
}

#[test]
fn a_comment_that_repeats_the_name_is_found() {
    let text = "/// The file.\n#[a(\n  b\n)]\npub file: u8,\n/// The file that was\n/// read last.\npub last: u8,\n\
                /// The same for the second one of them.\n#[b]\npub fn second() {}\n/// Mine.\nfn own() {}\n\
                /// The next one.\npub(crate) next: u8,\n/// Near.\npub(super) near: u8,\n";
    let found: Vec<usize> = empty_words(&Source::new("x.rs", text)).into_iter().map(|(line, _)| line).collect();
    assert_eq!(found, [1, 9, 14]);
}

/// The lines of `source` with a public function that no example of the file calls, and its name.
fn without_example(source: &Source) -> Vec<(usize, String)> {
    let mut inside = false;
    let said = source.production.iter().filter_map(|line| {
        let line = line.trim();
        let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
        inside ^= text.trim_start().starts_with("```");
        inside.then_some(text)
    });
    let examples: Vec<&str> = said.collect();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let is_called = |name: &str| examples.iter().any(|line| line.split(|c| !is_part(c)).any(|word| word == name));
    let functions = source.code.iter().zip(1..).filter_map(|(code, number)| {
        let (before, rest) = code.split_once("fn ")?;
        let name = rest.split(|c| !is_part(c)).next()?;
        before.trim_start().starts_with("pub ").then_some((number, name.to_owned()))
    });
    functions.filter(|(_, name)| !is_called(name)).collect()
}

#[test]
fn what_can_be_asked_of_decisions_is_shown_in_an_example() {
    let mut complaints = Complaints::new("call it in a doc test: its own, that of its type or that of its module");
    for source in ["policies/", "decide/"].into_iter().flat_map(source::below) {
        for (line, name) in without_example(&source) {
            complaints.line(&source.path, line, format!("no example calls {name}"));
        }
    }
    complaints.report();
}

#[test]
fn a_public_function_without_an_example_is_found() {
    let text = "/// Said.\n///\n/// ```\n/// one(7);\n/// ```\n/// two\npub fn one() {}\n    pub const fn two() {}\nfn own() {}\n\
                pub(crate) fn near() {}\n";
    assert_eq!(without_example(&Source::new("x.rs", text)), [(8, "two".to_owned())]);
}
