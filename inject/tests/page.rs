//! The page about injection has what the tables of this package have, and the JSON schema beside it is theirs.

use std::{fs, path::PathBuf};

use selvedge_inject::{
    annotation::{self, ANNOTATIONS, Annotation, Fallback},
    setting::{SETTINGS, Setting},
    switch::CONDITIONS,
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/kubernetes").join(name)
}

fn of_annotation(annotation: &&Annotation) -> String {
    let fallback = match annotation.fallback {
        Fallback::Nothing => "none".to_owned(),
        Fallback::Text(text) => text.to_owned(),
        Fallback::Setting(setting) => format!("the setting `{}`", setting.key),
    };
    format!("| `{}` | {} | {fallback} | {} |", annotation.key, annotation.form.expects, annotation.summary)
}

fn of_setting(setting: &&Setting) -> String {
    format!("| `{}` | {} | {} |", setting.key, setting.default.unwrap_or("required"), setting.summary)
}

#[test]
fn the_page_has_every_row_of_the_tables() {
    let page = fs::read_to_string(path("injection.md")).unwrap();
    let conditions = CONDITIONS.iter().map(|condition| format!("| `{}` | {} |", condition.name, condition.why));
    let rows: Vec<String> =
        ANNOTATIONS.iter().map(of_annotation).chain(SETTINGS.iter().map(of_setting)).chain(conditions).collect();
    let missing: Vec<&String> = rows.iter().filter(|row| !page.lines().any(|line| line == row.as_str())).collect();
    let missing: Vec<&str> = missing.into_iter().map(String::as_str).collect();
    assert!(missing.is_empty(), "docs/kubernetes/injection.md lacks these rows:\n{}", missing.join("\n"));
}

#[test]
fn the_schema_beside_the_page_is_that_of_the_table() {
    let schema = format!("{}\n", serde_json::to_string_pretty(&annotation::schema()).unwrap());
    if std::env::var_os("SELVEDGE_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(path("annotations.schema.json"), &schema).unwrap();
    }
    let written = fs::read_to_string(path("annotations.schema.json")).unwrap();
    assert_eq!(written, schema, "SELVEDGE_GOLDEN=write writes docs/kubernetes/annotations.schema.json anew");
}
