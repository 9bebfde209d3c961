//! The words that programs tell each other are what the schemas say.
//! `UPDATE_GENERATED=1 cargo test -p selvedge-policies --test decisions words` writes them anew.

use std::{fs, path::Path};

use selvedge_policies::{
    kind::vocabulary,
    registry,
    settings::{self, Settings},
};

const KEPT: &str = "src/registry/words.txt";

/// The text that the schemas of today make, a word a line.
fn fresh() -> String {
    let kinds = registry::kinds().map(|kind| (kind.name, (kind.schema)()));
    let all = kinds.chain([(settings::KIND, schemars::schema_for!(Settings))]);
    let mut words: Vec<String> = all
        .flat_map(|(name, schema)| {
            vocabulary::of(schema.as_value()).into_iter().map(move |word| format!("{name} {word}\n"))
        })
        .collect();
    words.sort();
    words.concat()
}

#[test]
fn words_are_what_the_schemas_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(KEPT);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, fresh()).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    let stale = "policies/src/registry/words.txt is stale; run with UPDATE_GENERATED=1";
    assert_eq!(kept, fresh(), "{stale}");
}

#[test]
fn no_word_is_lost_on_the_way() {
    let told = registry::vocabulary();
    let told = told.iter().flat_map(|(kind, words)| words.iter().map(move |word| format!("{kind} {word}\n")));
    assert_eq!(told.collect::<String>(), fresh());
}
