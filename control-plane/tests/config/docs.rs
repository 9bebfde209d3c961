//! The documentation and the examples say what the code does.

use std::{fs, path::Path};

use selvedge_control_plane::{
    source::{Document, files},
    store,
};

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn every_example_of_the_policy_pages_is_sound() {
    for page in fs::read_dir(workspace().join("docs/policies")).unwrap() {
        let path = page.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for example in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let origin = path.display().to_string().into();
            let reading = files::parse(&Document { origin, text: Ok(example.into()) });
            let findings: Vec<String> = reading.findings.iter().map(|finding| finding.render(false)).collect();
            assert!(findings.is_empty(), "{}", findings.join("\n\n"));
        }
    }
}

#[test]
fn the_example_application_is_clean() {
    let findings = store::lint(&workspace().join("examples/saas/mesh")).unwrap();
    let findings: Vec<String> = findings.iter().map(|finding| finding.render(false)).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n\n"));
}

#[test]
fn the_life_of_a_config_has_the_modules_as_headings() {
    let page = fs::read_to_string(workspace().join("docs/life-of-a-config.md")).unwrap();
    let headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let library = fs::read_to_string(workspace().join("control-plane/src/lib.rs")).unwrap();
    let modules = library.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
    let modules: Vec<&str> = modules.map(|name| name.trim_end_matches(';')).collect();
    let told: Vec<&str> = headings.into_iter().filter(|heading| modules.contains(heading)).collect();
    assert_eq!(told, ["source", "validate", "model", "store", "compile", "snapshot", "skew", "serve", "status"]);
}
