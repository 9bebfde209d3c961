//! The rules of the house: what keeps the code small, one-directional and documented, checked on the text of
//! the workspace. Every complaint names file, line, rule and what to do.

use std::collections::BTreeSet;

use selvedge_policies::{reason::Reason, registry};
use selvedge_tests::{
    complaints::{self, Complaints},
    lockfile,
    source::{self, Function, Source},
    workspace,
};

/// Packages of the workspace, and which of the others each may use.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("policies", &[]),
    ("control-plane/xds", &["selvedge-policies"]),
    ("control-plane", &["selvedge-policies", "selvedge-xds"]),
    ("proxy", &["selvedge-policies", "selvedge-xds"]),
    ("examples/saas", &["selvedge-policies", "selvedge-control-plane"]),
    ("cli", &["selvedge-policies", "selvedge-xds", "selvedge-control-plane", "selvedge-proxy", "selvedge-saas"]),
];

#[test]
fn files_stay_small() {
    let sources = source::production();
    let mut complaints = Complaints::new("split it where the subject changes; 150 lines are a good size, 600 the end");
    for source in sources.iter().filter(|source| source.lines_of_code() > 600) {
        complaints.file(&source.path, format!("{} lines of code", source.lines_of_code()));
    }
    complaints.percentile(sources.iter().map(|s| (s.lines_of_code(), s.path.clone())).collect(), 400, "files");
    complaints.report();
}

#[test]
fn functions_stay_small() {
    let sources = source::production();
    let all: Vec<(&Source, Function)> = sources
        .iter()
        .flat_map(|source| source.functions().into_iter().map(move |function| (source, function)))
        .collect();
    let mut complaints = Complaints::new("give a name to a part of it; below 40 lines is the aim, 80 the end");
    for (source, Function { name, line, length }) in all.iter().filter(|(_, function)| function.length > 80) {
        complaints.line(&source.path, *line, format!("{name} has {length} lines"));
    }
    let sizes = all.iter().map(|(source, f)| (f.length, format!("{}:{} {}", source.path, f.line, f.name))).collect();
    complaints.percentile(sizes, 40, "functions");
    complaints.report();
}

#[test]
fn the_pipeline_stays_a_story() {
    let mut complaints = Complaints::new("move the work into the stage; pipeline.rs only says which comes next");
    for source in source::production().iter().filter(|source| source.path == "proxy/src/pipeline.rs") {
        if source.production.len() > 150 {
            complaints.file(&source.path, format!("{} lines", source.production.len()));
        }
        for word in ["match ", "loop ", "for ", "while ", "=>", "&mut self", "struct ", "enum ", "impl "] {
            for (line, _) in source.find(word) {
                complaints.line(&source.path, line, format!("`{}` decides or holds something", word.trim()));
            }
        }
    }
    complaints.report();
}

#[test]
fn every_module_opens_with_what_it_guarantees_and_none_is_called_mod() {
    let mut complaints = Complaints::new("`foo.rs` with `foo/` beside it, first line `//! ...`");
    let folders =
        ["tests/src", "tests/tests", "control-plane/xds/tests", "cli/tests", "proxy/tests", "benches/benches"];
    for source in source::production().into_iter().chain(folders.iter().flat_map(|folder| source::rust_files(folder))) {
        if source.path.ends_with("/mod.rs") {
            complaints.file(&source.path, "is called mod.rs");
        }
        if !source.text.starts_with("//! ") {
            complaints.line(&source.path, 1, "has no module documentation");
        }
    }
    complaints.report();
}

#[test]
fn nothing_is_left_half_done() {
    let mut complaints = Complaints::new("finish it, or write an issue");
    for source in source::production() {
        for needle in ["todo!", "unimplemented!", "dbg!"] {
            complaints.lines(&source.path, source.find(needle), &format!("{needle} in production code"));
        }
        for (index, line) in source.production.iter().enumerate() {
            if ["TODO", "FIXME", "XXX"].iter().any(|word| line.contains(word)) {
                complaints.line(&source.path, index + 1, line.trim());
            }
        }
    }
    complaints.report();
}

#[test]
fn production_code_does_not_panic_on_purpose() {
    let mut complaints = Complaints::new("return an error, or prove it with an #[expect(.., reason = \"..\")]");
    for source in source::production() {
        // In a constant the compiler evaluates it, so it cannot fail at run time.
        let unwraps = source.find(".unwrap()").filter(|(_, line)| !line.contains("const "));
        complaints.lines(&source.path, unwraps, "unwrap outside tests");
        for (line, _) in source.find(".expect(") {
            if !expectation_above(&source, line) {
                complaints.line(&source.path, line, "expect without an #[expect(clippy::expect_used, reason)]");
            }
        }
        for (line, written) in source.find("#[allow").chain(source.find("#![allow")) {
            if !written.contains("reason") && !written.contains("] //") {
                complaints.line(&source.path, line, "allow without a reason");
            }
        }
    }
    complaints.report();
}

/// True when the function around `line`, or the file, carries a reasoned `#[expect(clippy::expect_used)]`.
fn expectation_above(source: &Source, line: usize) -> bool {
    let reasoned = |line: &String| line.contains("clippy::expect_used");
    let function =
        source.functions().into_iter().filter(|f| f.line <= line && line < f.line + f.length).map(|f| f.line).min();
    let from = function.unwrap_or(line).saturating_sub(10);
    source.production[from..line].iter().any(reasoned)
        || source.production.iter().any(|l| l.starts_with("#![") && reasoned(l))
}

/// Clippy refuses `Instant::now` and `SystemTime::now` by path; this keeps the exceptions in one place.
#[test]
fn only_the_clock_module_reads_the_system_clock() {
    let mut complaints = Complaints::new("take a Moment, use tokio::time, or ask the clock module of the package");
    for source in source::production().iter().filter(|source| !source.path.ends_with("clock.rs")) {
        complaints.lines(&source.path, source.find("clippy::disallowed_methods"), "excuses itself");
    }
    complaints.report();
}

#[test]
fn decisions_know_no_runtime_and_do_no_input_or_output() {
    let mut complaints = Complaints::new("hand the value in; `policies` decides and nothing else");
    let forbidden = ["std::net::Tcp", "std::net::Udp", "std::fs", "std::env", "std::process", "std::thread", "std::io"];
    let clocks = ["tokio", "Instant::now", "SystemTime", "println!", "eprintln!", "async fn", ".await"];
    for source in source::production().into_iter().filter(|source| source.path.starts_with("policies/")) {
        for needle in forbidden.iter().chain(&clocks) {
            complaints.lines(&source.path, source.find(needle), needle);
        }
    }
    let manifest = dependencies("policies");
    for name in
        ["tokio", "hyper", "hyper-util", "h2", "tonic", "rustls", "socket2", "rustix", "mio", "notify", "tracing"]
    {
        if manifest.contains(name) {
            complaints.file("policies/Cargo.toml", format!("depends on {name}"));
        }
    }
    complaints.report();
}

#[test]
fn dependencies_point_one_way() {
    let mut complaints =
        Complaints::new("the direction is policies <- xds <- proxy, control-plane <- cli (docs/architecture.md)");
    for (package, allowed) in DIRECTIONS {
        let own = dependencies(package).into_iter().filter(|name| name.starts_with("selvedge"));
        for name in own.filter(|name| !allowed.contains(&name.as_str())) {
            complaints.file(&format!("{package}/Cargo.toml"), format!("depends on {name}"));
        }
    }
    complaints.report();
}

/// Names of the packages that `package` needs to build and to be tested.
fn dependencies(package: &str) -> BTreeSet<String> {
    let manifest = lockfile::toml(&format!("{package}/Cargo.toml"));
    let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
    let present = tables.iter().filter_map(|table| manifest.get(table)?.as_table_like());
    present.flat_map(|table| table.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()).collect()
}

#[test]
fn every_reason_has_its_page_and_every_page_its_reason() {
    let mut complaints = Complaints::new("docs/codes/<code>.md says what happened, why, and what to do");
    complaints.pages("docs/codes", Reason::ALL.iter().map(|reason| reason.code().to_owned()).collect());
    let index = complaints::read_page("docs/codes", "README");
    for reason in Reason::ALL {
        let path = format!("docs/codes/{}.md", reason.code());
        let page = unwrapped(&complaints::read_page("docs/codes", reason.code()));
        for fact in [reason.summary(), &reason.status().to_string(), reason.flag()] {
            if !page.is_empty() && !page.contains(fact) {
                complaints.file(&path, format!("does not say '{fact}'"));
            }
        }
        if !index.contains(&format!("| [{0}]({0}.md) | {1} | {2} |", reason.code(), reason.status(), reason.summary()))
        {
            complaints.file("docs/codes/README.md", format!("has no row for {reason}, or another one"));
        }
    }
    complaints.report();
}

/// Text with each run of white space as one space, so that line ends do not matter.
fn unwrapped(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_life_of_a_request_has_the_stages_of_the_pipeline() {
    let mut complaints = Complaints::new("docs/life-of-a-request.md has the stages of proxy/src/lib.rs as headings");
    let page = complaints::read_page("docs", "life-of-a-request");
    let door = std::fs::read_to_string(workspace().join("proxy/src/lib.rs")).unwrap();
    let door = unwrapped(&door.replace("//!", " "));
    let chain = &door[door.find("accept →").expect("the chain begins with accept")..];
    let chain = chain.split_once("record").expect("the chain ends with record").0;
    let mut headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    for stage in chain.split(" → ").filter(|stage| !stage.is_empty()).chain(["record"]) {
        if !headings.any(|heading| heading == stage) {
            complaints.file("docs/life-of-a-request.md", format!("lacks the stage {stage}, or has it out of order"));
        }
    }
    complaints.report();
}

#[test]
fn every_policy_kind_has_its_page() {
    let mut complaints =
        Complaints::new("docs/policies/<Kind>.md says what it decides, its fields, and shows an example");
    let pages: Vec<String> = complaints::page_names("docs/policies");
    for kind in registry::kinds() {
        let wanted = kind.name.to_lowercase();
        if !pages.iter().any(|page| page.to_lowercase().replace('-', "") == wanted) {
            complaints.file("docs/policies", format!("has no page for {}", kind.name));
        }
    }
    complaints.report();
}

#[test]
fn examples_in_the_policy_pages_are_accepted() {
    let mut complaints = Complaints::new("mend the example, or the check that refuses it");
    for page in complaints::page_names("docs/policies") {
        let text = complaints::read_page("docs/policies", &page);
        for example in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let document: serde_json::Value = serde_saphyr::from_str(example).unwrap_or_else(|e| panic!("{page}: {e}"));
            let kind = document["kind"].as_str().and_then(registry::find);
            for problem in kind.map(|kind| (kind.check)(&document["spec"])).unwrap_or_default() {
                complaints.file(&format!("docs/policies/{page}.md"), format!("{}: {}", problem.path, problem.message));
            }
        }
    }
    complaints.report();
}

#[test]
fn every_metric_is_documented() {
    let mut complaints = Complaints::new("add it to docs/metrics.md: name, type, labels, what it tells");
    let page = complaints::read_page("docs", "metrics");
    for source in
        source::production().iter().filter(|s| ["proxy/", "control-plane/"].iter().any(|p| s.path.starts_with(p)))
    {
        for (index, line) in source.production.iter().enumerate() {
            for name in metric_names(line).filter(|name| !page.contains(name.as_str())) {
                complaints.line(&source.path, index + 1, format!("{name} is not in docs/metrics.md"));
            }
        }
    }
    complaints.report();
}

/// Literals that look like the name of a metric.
fn metric_names(line: &str) -> impl Iterator<Item = String> + '_ {
    let literals = line.split('"').skip(1).step_by(2);
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    literals.filter(move |text| text.starts_with("selvedge_") && text.chars().all(plain)).map(str::to_owned)
}

#[test]
fn every_key_of_the_sidecar_file_is_documented() {
    let mut complaints = Complaints::new("add it to docs/sidecar.md: meaning, default, example");
    let page = complaints::read_page("docs", "sidecar");
    for source in source::production().iter().filter(|source| source.path == "proxy/src/bootstrap.rs") {
        for (index, line) in source.code.iter().enumerate() {
            let field = line.trim().strip_prefix("pub ").and_then(|rest| rest.split_once(": "));
            let Some((name, _)) = field.filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            else {
                continue;
            };
            if !page.contains(&format!("`{}`", camel_case(name))) {
                complaints.line(&source.path, index + 1, format!("`{}` is not in docs/sidecar.md", camel_case(name)));
            }
        }
    }
    complaints.report();
}

#[test]
fn every_flag_is_documented() {
    let mut complaints = Complaints::new("add it to docs/cli.md or to the page of its command");
    let pages = source::files(&workspace().join("docs"));
    let docs: String = pages.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let commands = |source: &&Source| ["cli/", "proxy/"].iter().any(|package| source.path.starts_with(package));
    for source in source::production().iter().filter(commands) {
        for (line, written) in source.find("#[arg(").filter(|(_, written)| written.contains("long")) {
            let hidden = written.contains("hide = true");
            let field = source.code[line..].iter().map(|code| code.trim()).find(|code| !code.starts_with('#'));
            let name = field.and_then(|field| field.trim_start_matches("pub ").split(':').next()).unwrap_or_default();
            let flag = format!("--{}", name.replace('_', "-"));
            if !hidden && !docs.contains(&flag) {
                complaints.line(&source.path, line, format!("{flag} is in no page under docs"));
            }
        }
    }
    complaints.report();
}

fn camel_case(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        name + &letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    })
}

#[test]
fn documents_point_at_files_that_exist() {
    let mut complaints = Complaints::new("mend the link");
    let root = workspace();
    let pages = source::files(&root.join("docs"))
        .into_iter()
        .chain(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    for path in pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        for (index, line) in text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = target.split('#').next().unwrap_or_default();
                let local = !file.is_empty() && !file.contains("://");
                if local && !path.parent().unwrap().join(file).exists() {
                    complaints.line(&name, index + 1, format!("{target} does not exist"));
                }
            }
        }
    }
    complaints.report();
}
