//! The rules of the house: what keeps the code small, one-directional and documented, checked on the text of
//! the workspace. Every complaint names file, line, rule and what to do.

use std::collections::BTreeSet;

use selvedge_control_plane::{
    model,
    source::{Document, files},
    store,
};
use selvedge_policies::{finding::Code, kind::Kind, reason::Reason};
use selvedge_proxy::Bootstrap;
use selvedge_tests::{
    complaints::{self, Complaints},
    lockfile,
    pages::{self, Page},
    source::{self, Function, Source},
    workspace,
};
use serde_json::Value;

#[path = "house/comments.rs"]
mod comments;
#[path = "house/imports.rs"]
mod imports;
#[path = "house/members.rs"]
mod members;
#[path = "house/names.rs"]
mod names;

/// Packages of the workspace, and which of the others each may use.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("policies", &[]),
    ("identity", &["selvedge-policies"]),
    ("capture", &["selvedge-policies"]),
    ("scrape", &[]),
    ("cni", &["selvedge-capture"]),
    ("xds", &[]),
    ("decide", &["selvedge-policies", "selvedge-xds"]),
    (
        "control-plane",
        &[
            "selvedge-policies",
            "selvedge-identity",
            "selvedge-scrape",
            "selvedge-xds",
            "selvedge-decide",
            "selvedge-inject",
        ],
    ),
    (
        "proxy",
        &[
            "selvedge-policies",
            "selvedge-identity",
            "selvedge-capture",
            "selvedge-scrape",
            "selvedge-xds",
            "selvedge-decide",
        ],
    ),
    ("inject", &[]),
    ("examples/saas", &["selvedge-policies", "selvedge-control-plane"]),
    ("images", &[]),
    ("install", &["selvedge-policies", "selvedge-control-plane", "selvedge-inject"]),
    (
        "cli",
        &[
            "selvedge-policies",
            "selvedge-identity",
            "selvedge-xds",
            "selvedge-decide",
            "selvedge-control-plane",
            "selvedge-proxy",
            "selvedge-inject",
            "selvedge-capture",
            "selvedge-install",
            "selvedge-saas",
        ],
    ),
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

/// Words that decide or hold something, and how often the pipeline has them: it asks once whether a connection is HTTP,
/// and ends where a stage has kept the connection for itself.
const PIPELINE_WORDS: [(&str, usize); 11] = [
    ("if ", 1),
    ("else ", 4),
    ("match ", 0),
    ("loop ", 0),
    ("for ", 0),
    ("while ", 0),
    ("=>", 0),
    ("&mut self", 0),
    ("struct ", 0),
    ("enum ", 0),
    ("impl ", 0),
];

#[test]
fn the_pipeline_stays_a_story() {
    let mut complaints = Complaints::new("move the work into the stage; pipeline.rs only says which comes next");
    for source in source::below("proxy/src/pipeline.rs") {
        if source.production.len() > 150 {
            complaints.file(&source.path, format!("{} lines", source.production.len()));
        }
        for (word, bound) in PIPELINE_WORDS {
            let lines: Vec<usize> = source.find(word).map(|(line, _)| line).collect();
            if lines.len() != bound {
                let what = format!("`{}` stands on lines {lines:?}, not on {bound} of them", word.trim());
                complaints.file(&source.path, what);
            }
        }
    }
    complaints.report();
}

#[test]
fn every_module_opens_with_what_it_guarantees_and_none_is_called_mod() {
    let mut complaints = Complaints::new("`foo.rs` with `foo/` beside it, first line `//! ...`");
    // Tests, and what lies beside the `src` of benches.
    let folders = [
        "tests/src",
        "tests/tests",
        "tests/pages",
        "policies/tests",
        "control-plane/tests",
        "xds/tests",
        "proxy/tests",
        "cni/tests",
        "inject/tests",
        "cli/tests",
        "examples/saas/tests",
        "benches",
    ];
    let others = folders.iter().flat_map(|folder| {
        let files = source::rust_files(folder);
        assert!(!files.is_empty(), "there is no Rust in {folder}");
        files
    });
    for source in source::production().into_iter().chain(others) {
        if source.path.ends_with("/mod.rs") {
            complaints.file(&source.path, "is called mod.rs");
        }
        if !source.text.starts_with("//! ") {
            complaints.line(&source.path, 1, "has no module documentation");
        }
    }
    complaints.report();
}

/// The compiler asks this of what is named outside a package; for what its files have from each other it holds, too.
#[test]
fn every_public_item_says_what_it_is() {
    let mut complaints = Complaints::new("say what it is, in which unit, after which section of which RFC");
    for source in source::production() {
        complaints.lines(&source.path, undocumented(&source), "has no documentation");
    }
    complaints.report();
}

/// Lines of public items and fields that have no doc comment above them and their attributes.
fn undocumented(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let is_documented = |line: usize| {
        let above = source.production[..line].iter().rev().map(|line| line.trim());
        let mut in_attribute = false; // of several lines, met at its end
        let mut rest = above.skip_while(|line| {
            in_attribute = (in_attribute || *line == ")]") && !line.starts_with("#[");
            in_attribute || line.starts_with("#[")
        });
        rest.next().is_some_and(|line| line.starts_with("///"))
    };
    let is_item = |declared: &str| !["use ", "mod "].iter().any(|word| declared.starts_with(word));
    let items = source.code.iter().enumerate().filter(move |(_, code)| source::public(code).is_some_and(is_item));
    items.filter(move |(line, _)| !is_documented(*line)).map(|(line, _)| (line + 1, source.production[line].as_str()))
}

#[test]
fn a_public_item_without_a_word_is_found() {
    let text = "/// Said.\n#[derive(Debug)]\n#[a(\n  b\n)]\npub struct A {\n    /// Said.\n    pub b: u8,\n    pub c: u8,\n}\n\npub fn d() {}\n\
                pub(crate) struct E {\n    pub(crate) f: u8,\n    /// Said.\n    pub(crate) g: u8,\n    pub(super) h: u8,\n}\n\
                pub(crate) use a::B;\npub(crate) mod c;\nfn own() {}\n";
    let lines: Vec<usize> = undocumented(&Source::new("x.rs", text)).map(|(line, _)| line).collect();
    assert_eq!(lines, [9, 12, 13, 14]);
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

/// The lines on which a skip is printed where the harness of a test that passes captures it.
fn captured_skips(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_one = |line: &str| line.split_once("print").is_some_and(|(_, rest)| rest.contains("!(\"skipped: "));
    text.lines().zip(1..).filter(move |(line, _)| is_one(line)).map(|(line, number)| (number, line))
}

#[test]
fn a_skip_is_told_also_by_a_run_that_passes() {
    let mut complaints = Complaints::new("write it to standard error (`writeln!`), or make the test run everywhere");
    for folder in source::packages().iter().filter(|package| *package != "benches") {
        for source in source::rust_files(folder) {
            complaints.lines(&source.path, captured_skips(&source.text), "a skip that nobody sees");
        }
    }
    complaints.report();
    let planted = ["a();\n", "println", "!(\"skipped: needs root\");\neprint", "ln!(\"skipped: {why}\");\n"].concat();
    assert_eq!(captured_skips(&planted).map(|(line, _)| line).collect::<Vec<_>>(), [2, 3]);
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

/// Clippy refuses `Mutex` and `RwLock` by path; this keeps the exception in one place.
#[test]
fn only_the_guarded_type_holds_a_lock_of_the_standard_library() {
    let mut complaints = Complaints::new("publish an immutable value; in the control plane Guarded is for bookkeeping");
    for source in source::production().iter().filter(|source| source.path != "control-plane/src/guarded.rs") {
        complaints.lines(&source.path, source.find("clippy::disallowed_types"), "excuses itself");
    }
    complaints.report();
}

#[test]
fn decisions_know_no_runtime_and_do_no_input_or_output() {
    let mut complaints = Complaints::new("hand the value in; `policies` and `decide` decide and do nothing else");
    let forbidden = ["std::net::Tcp", "std::net::Udp", "std::fs", "std::env", "std::process", "std::thread", "std::io"];
    let clocks = ["tokio", "Instant::now", "SystemTime", "println!", "eprintln!", "async fn", ".await"];
    let runtimes =
        ["tokio", "hyper", "hyper-util", "h2", "tonic", "rustls", "socket2", "rustix", "mio", "notify", "tracing"];
    for package in ["policies", "decide", "inject"] {
        for source in source::below(&format!("{package}/")) {
            for needle in forbidden.iter().chain(&clocks) {
                complaints.lines(&source.path, source.find(needle), needle);
            }
        }
        let manifest = dependencies(package);
        for name in runtimes.iter().filter(|name| manifest.contains(**name)) {
            complaints.file(&format!("{package}/Cargo.toml"), format!("depends on {name}"));
        }
    }
    complaints.report();
}

#[test]
fn dependencies_point_one_way() {
    let mut complaints = Complaints::new(
        "the direction is policies <- xds <- decide, identity <- proxy, control-plane <- cli (docs/architecture.md)",
    );
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

#[test]
fn every_kind_of_finding_has_its_section() {
    let mut complaints = Complaints::new("docs/findings.md says of each code what it means and what to do");
    let page = unwrapped(&complaints::read_page("docs", "findings"));
    for code in Code::ALL {
        if !page.contains(&format!("## {} {} ", code.name(), code.summary())) {
            complaints.file("docs/findings.md", format!("has no section {code} that begins with '{}'", code.summary()));
        }
    }
    if page.matches("## ").count() != Code::ALL.len() {
        complaints.file("docs/findings.md", "has a section of no code");
    }
    complaints.report();
}

/// Text with each run of white space as one space, so that line ends do not matter.
fn unwrapped(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Stages that other stages call, in the order of the page.
const INNER_STAGES: [&str; 2] = ["balance", "upstream"];
/// Stages that pipeline.rs begins before the others and ends with.
const LAST_STAGES: [&str; 2] = ["respond", "record"];
/// Modules that are a stage under another name than their own.
const STAGES: [(&str, &str); 4] =
    [("terminate", "tls"), ("identify", "identity"), ("serve", "http"), ("receive", "http")];

#[test]
fn the_life_of_a_request_has_the_stages_of_the_pipeline() {
    let mut complaints = Complaints::new("docs/life-of-a-request.md tells proxy/src/pipeline.rs, heading by heading");
    let page = Page::named("docs/life-of-a-request.md");
    let headings: Vec<&str> = page.text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut called = stages_called();
    called.retain(|stage| !LAST_STAGES.contains(&stage.as_str()));
    called.extend(LAST_STAGES.map(str::to_owned));
    let told: Vec<&str> = headings.iter().copied().filter(|heading| !INNER_STAGES.contains(heading)).collect();
    if told != called {
        complaints.file(&page.name, format!("has the headings {told:?}, pipeline.rs calls {called:?}"));
    }
    let inner: Vec<&str> = headings.iter().copied().filter(|heading| INNER_STAGES.contains(heading)).collect();
    if inner != INNER_STAGES {
        complaints.file(&page.name, format!("has {inner:?} of the stages within stages {INNER_STAGES:?}"));
    }
    let door = std::fs::read_to_string(workspace().join("proxy/src/lib.rs")).unwrap();
    let door = unwrapped(&door.replace("//!", " "));
    let chain = door.split(['.', ':']).find(|sentence| sentence.contains(" → ")).expect("the door tells the order");
    let mut rest = headings.iter();
    for stage in chain.trim().split(" → ") {
        if !rest.any(|heading| *heading == stage) {
            complaints.file(&page.name, format!("lacks the stage {stage}, or has it out of order"));
        }
    }
    complaints.report();
}

/// The stages whose functions pipeline.rs calls, in order of their first call.
fn stages_called() -> Vec<String> {
    let mut stages: Vec<String> = Vec::new();
    let code = source::below("proxy/src/pipeline.rs").remove(0).code.join("\n");
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    for (at, _) in code.match_indices('(') {
        let path = code[..at].rsplit(|c| !word(c)).next().unwrap_or_default();
        let Some((stage, _)) = path.split_once("::") else { continue };
        let stage = STAGES.iter().find(|(module, _)| *module == stage).map_or(stage, |(_, stage)| stage);
        // A type of the pipeline's own vocabulary is no stage.
        if stage.starts_with(|c: char| c.is_ascii_lowercase()) && !stages.iter().any(|known| known == stage) {
            stages.push(stage.to_owned());
        }
    }
    assert!(stages.len() > 5, "pipeline.rs calls stages: {stages:?}");
    stages
}

/// The page of a kind, `docs/policies/<kind>.md` with a hyphen between its words.
fn page_of(kind: &Kind) -> Option<Page> {
    let wanted = kind.name.to_lowercase();
    let is_its = |page: &Page| {
        let name = page.name.strip_prefix("docs/policies/").and_then(|name| name.strip_suffix(".md"));
        name.is_some_and(|name| name.replace('-', "") == wanted)
    };
    pages::all().into_iter().find(is_its)
}

#[test]
fn every_kind_has_its_page_with_every_field() {
    let mut complaints =
        Complaints::new("docs/policies/<Kind>.md says what it decides, its fields, and shows an example");
    for kind in model::kinds() {
        let Some(page) = page_of(kind) else {
            complaints.file("docs/policies", format!("has no page for {}", kind.name));
            continue;
        };
        let mut fields = BTreeSet::new();
        collect_fields((kind.schema)().as_value(), &mut fields);
        assert!(!fields.is_empty(), "{} has fields", kind.name);
        let said = |field: &String| page.mentions(field) || related(&page).iter().any(|other| other.mentions(field));
        for field in fields.iter().filter(|field| !said(field)) {
            complaints.file(&page.name, format!("does not say what `{field}` is"));
        }
    }
    complaints.report();
}

/// The pages of other kinds whose parts a page says that it shares.
fn related(page: &Page) -> Vec<Page> {
    let shared = page.text.lines().filter(|line| line.contains("written as"));
    let names = shared.flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    names.map(|name| Page::named(&format!("docs/policies/{name}"))).collect()
}

/// The names of all fields of a JSON schema and its definitions.
fn collect_fields(schema: &Value, fields: &mut BTreeSet<String>) {
    match schema {
        Value::Object(parts) => {
            let named = parts.get("properties").and_then(Value::as_object);
            fields.extend(named.into_iter().flat_map(|named| named.keys().cloned()));
            parts.values().for_each(|part| collect_fields(part, fields));
        }
        Value::Array(parts) => parts.iter().for_each(|part| collect_fields(part, fields)),
        _ => {}
    }
}

/// Every block of YAML in every page is taken by what reads such files.
#[test]
fn examples_in_the_pages_are_accepted() {
    let mut complaints = Complaints::new("mend the example, or the check that refuses it");
    let (mut objects, mut sidecars) = (0, 0);
    for page in pages::all() {
        for example in page.examples() {
            if example.starts_with("workload:") {
                sidecars += 1;
                if let Err(problem) = Bootstrap::parse(example, &page.path) {
                    complaints.file(&page.name, problem);
                }
                continue;
            }
            let reading = files::parse(&Document { origin: page.name.as_str().into(), text: Ok(example.into()) });
            objects += reading.objects.len();
            for finding in reading.findings {
                complaints.file(&page.name, finding.render(false));
            }
        }
    }
    assert!(objects > 10 && sidecars > 2, "{objects} objects and {sidecars} sidecar files in the pages");
    complaints.report();
}

/// Who follows the operator's page from top to bottom has a mesh without findings.
#[test]
fn the_first_mesh_of_the_operators_page_has_no_findings() {
    let folder = tempfile::tempdir().unwrap();
    let page = Page::named("docs/operating.md");
    for (number, example) in page.examples().filter(|example| example.starts_with("apiVersion:")).enumerate() {
        std::fs::write(folder.path().join(format!("{number}.yaml")), example).unwrap();
    }
    let findings = store::lint(folder.path()).unwrap();
    let told: Vec<String> = findings.iter().map(|finding| finding.render(false)).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn every_metric_is_documented() {
    let mut complaints = Complaints::new("add it to docs/metrics.md: name, type, labels, what it tells");
    let page = complaints::read_page("docs", "metrics");
    let mut found = 0;
    for source in ["proxy/", "control-plane/"].into_iter().flat_map(source::below) {
        for (index, line) in source.production.iter().enumerate() {
            for name in metric_names(line) {
                found += 1;
                if !page.contains(name.as_str()) {
                    complaints.line(&source.path, index + 1, format!("{name} is not in docs/metrics.md"));
                }
            }
        }
    }
    assert!(found > 20, "{found} names of metrics were found");
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
    let page = Page::named("docs/sidecar.md");
    let mut found = 0;
    for (path, keys) in [("proxy/src/bootstrap.rs", "struct "), ("proxy/src/http/pace.rs", "struct CallerTimeouts")] {
        for (line, key) in source::below(path).iter().flat_map(|source| keys_of(source, keys)) {
            found += 1;
            if !page.text.contains(&format!("`{key}`")) {
                complaints.line(path, line, format!("`{key}` is not in docs/sidecar.md"));
            }
        }
    }
    assert!(found > 20, "{found} keys were found");
    complaints.report();
}

/// The public fields of the structs of a file whose declaration contains `which`, as keys of YAML, with their lines.
fn keys_of(source: &Source, which: &str) -> Vec<(usize, String)> {
    let (mut inside, mut keys) = (false, Vec::new());
    for (index, line) in source.code.iter().enumerate() {
        if line.contains("struct ") {
            inside = line.contains(which);
        }
        inside &= !line.starts_with('}');
        let field = source::public(line).and_then(|rest| rest.split_once(": "));
        let field = field.filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        keys.extend(field.filter(|_| inside).map(|(name, _)| (index + 1, camel_case(name))));
    }
    keys
}

#[test]
fn a_key_is_found_whoever_may_name_its_field() {
    let text =
        "pub(crate) struct A {\n    pub(crate) wait_for: u8,\n    b: u8,\n}\npub struct C {\n    pub d: u8,\n}\n";
    let keys = |which| keys_of(&Source::new("x.rs", text), which);
    assert_eq!(keys("struct "), [(2, "waitFor".to_owned()), (6, "d".to_owned())]);
    assert_eq!(keys("struct C"), [(6, "d".to_owned())]);
}

#[test]
fn every_flag_is_documented() {
    let mut complaints = Complaints::new("add it to docs/cli.md or to the page of its command");
    let pages = source::files(&workspace().join("docs"));
    let docs: String = pages.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let mut found = 0;
    for source in ["cli/", "proxy/"].into_iter().flat_map(source::below) {
        for (line, written) in source.find("#[arg(").filter(|(_, written)| written.contains("long")) {
            let hidden = written.contains("hide = true");
            let field = source.code[line..].iter().map(|code| code.trim()).find(|code| !code.starts_with('#'));
            // `pub(super) name: Type`.
            let name = field.and_then(|field| field.split(':').next()?.split_whitespace().next_back());
            // `#[arg(long = "for")]` where the name is a word of the language.
            let named = written.split_once("long = \"").and_then(|(_, rest)| rest.split('"').next());
            let name = named.or(name).unwrap_or_default();
            let flag = format!("--{}", name.replace('_', "-"));
            found += 1;
            if !hidden && !docs.contains(&flag) {
                complaints.line(&source.path, line, format!("{flag} is in no page under docs"));
            }
        }
    }
    assert!(found > 10, "{found} flags were found");
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
fn documents_point_at_files_and_headings_that_exist() {
    let mut complaints = Complaints::new("mend the link");
    let pages = pages::all();
    for page in &pages {
        for (line, target) in page.links().filter(|(_, target)| !target.contains("://")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { page.path.clone() } else { page.path.parent().unwrap().join(file) };
            let Ok(path) = path.canonicalize() else {
                complaints.line(&page.name, line, format!("{target} does not exist"));
                continue;
            };
            let linked = pages.iter().find(|page| page.path.canonicalize().is_ok_and(|known| known == path));
            if !anchor.is_empty() && !linked.is_some_and(|page| page.anchors().any(|known| known == anchor)) {
                complaints.line(&page.name, line, format!("{target} names a heading that is not there"));
            }
        }
    }
    complaints.report();
}
