//! Members of a list are known by their own file and the list alone: kinds of policies, filters of routes, settings of a
//! `MeshPolicy`. Whoever adds one has nothing else to change, and cannot forget the list.

use selvedge_policies::{registry, route::filter::FILTERS, settings::SETTINGS};
use selvedge_tests::{
    complaints::Complaints,
    source::{self, Source},
};

/// A list, where its members are, and what each of them begins with.
struct Family {
    /// Files below are its members.
    folder: &'static str,
    /// The files that may name them.
    doors: &'static [&'static str],
    /// What makes a file a member.
    declares: &'static str,
    /// The field that names it.
    name: &'static str,
    /// The names that are listed.
    listed: fn() -> Vec<&'static str>,
    /// Whether its modules can be named outside, so that the text has to be looked at for them.
    is_public: bool,
}

const FAMILIES: [Family; 3] = [
    Family {
        folder: "policies/src/request/",
        doors: &["policies/src/request.rs", "policies/src/registry.rs"],
        declares: "const KIND: PolicyKind",
        name: "name: \"",
        listed: || registry::kinds().map(|kind| kind.name).collect(),
        is_public: true,
    },
    Family {
        folder: "policies/src/route/filter/",
        doors: &["policies/src/route/filter.rs"],
        declares: "const KIND: FilterKind",
        name: "name: \"",
        listed: || FILTERS.iter().map(|kind| kind.name).collect(),
        is_public: false,
    },
    Family {
        folder: "policies/src/settings/",
        doors: &["policies/src/settings.rs"],
        declares: "const SETTING: Setting",
        name: "field: \"",
        listed: || SETTINGS.iter().map(|setting| setting.field).collect(),
        is_public: false,
    },
];

/// A member of a family.
struct Member<'a> {
    family: &'a Family,
    module: String,
    name: String,
    types: Vec<String>,
}

impl Family {
    /// The members among `sources`: files right in the folder that declare one.
    fn members<'a>(&'a self, sources: &[Source]) -> Vec<Member<'a>> {
        let members = sources.iter().filter_map(|source| {
            let module = source.path.strip_prefix(self.folder)?.strip_suffix(".rs")?;
            let declared = source.production.iter().position(|line| line.contains(self.declares))?;
            let name = source.production[declared..].iter().find_map(|line| line.split_once(self.name))?;
            let types = source.code.iter().filter_map(|line| {
                let declared = source::public(line)?;
                let rest = declared.strip_prefix("struct ").or_else(|| declared.strip_prefix("enum "))?;
                rest.split(|c: char| !c.is_alphanumeric()).next()
            });
            // Its other types have names of everyday, and are reached by its module alone.
            let types = types.filter(|name| name.ends_with("Spec"));
            let name = name.1.split('"').next().unwrap_or_default().to_owned();
            Some(Member { family: self, module: module.to_owned(), name, types: types.map(str::to_owned).collect() })
        });
        members.collect()
    }
}

impl Member<'_> {
    /// True for its own file and folder, and for the list.
    fn may_be_named_in(&self, path: &str) -> bool {
        let own = format!("{}{}", self.family.folder, self.module);
        let rest = path.strip_prefix(&own);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/')) || self.family.doors.contains(&path)
    }

    /// What of it `source` names on a line.
    fn named_on<'a>(&'a self, code: &str, written: &str) -> Option<&'a str> {
        let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        let is_comment = written.trim_start().starts_with("//");
        let literal =
            !is_comment && written.contains(&format!("\"{}\"", self.name)) && self.family.folder != SETTINGS_ARE;
        let module = self.family.is_public && words.contains(&&*self.module);
        let of_types = self.types.iter().find(|name| words.contains(&name.as_str()));
        literal.then_some(&*self.name).or(module.then_some(&*self.module)).or(of_types.map(String::as_str))
    }
}

/// A setting is a field of YAML and of what `/config` shows to people; its word alone says nothing of its type.
const SETTINGS_ARE: &str = "policies/src/settings/";

/// Complains of every line of `looked_at`, outside their own files and lists, that names a member of those in `sources`.
fn look(sources: &[Source], looked_at: &[Source], complaints: &mut Complaints) {
    let members: Vec<Member<'_>> = FAMILIES.iter().flat_map(|family| family.members(sources)).collect();
    assert!(members.len() >= 7, "{} members were found", members.len());
    // Benches and examples write documents, as users do.
    let looked_at = looked_at.iter().filter(|source| !source.path.starts_with("benches/"));
    for source in looked_at.filter(|source| !source.path.starts_with("examples/")) {
        for member in members.iter().filter(|member| !member.may_be_named_in(&source.path)) {
            for (index, (code, written)) in source.code.iter().zip(&source.production).enumerate() {
                if let Some(name) = member.named_on(code, written) {
                    let what = format!("names {name}, which {} has", member.family.doors[0]);
                    complaints.line(&source.path, index + 1, what);
                }
            }
        }
    }
}

const WAY_OUT: &str = "let the member say it of itself, and ask the list";

#[test]
fn no_file_but_their_own_and_the_list_names_a_policy_kind_a_filter_or_a_setting() {
    let mut complaints = Complaints::new(WAY_OUT);
    let sources = source::production();
    look(&sources, &sources, &mut complaints);
    complaints.report();
}

#[test]
fn whoever_names_a_member_is_found() {
    let sources = source::production();
    for (line, found) in [
        ("use selvedge_policies::request::rate_limit;", 1),
        ("if kind == \"RateLimit\" {}", 1),
        ("let spec: AuthorizationPolicySpec = read();", 1),
        ("match filter { \"RequestHeaderModifier\" => {} }", 1),
        ("// a RateLimit, \"RateLimit\"", 0),
        ("let rate_limits = registry::find(kind);", 0),
    ] {
        let planted = [Source::new("decide/src/offender.rs", format!("//! Planted.\n\n{line}\n"))];
        let mut complaints = Complaints::new(WAY_OUT);
        look(&sources, &planted, &mut complaints);
        assert_eq!(complaints.found().len(), found, "{line}: {:?}", complaints.found());
    }
}

#[test]
fn whoever_names_the_type_of_a_member_is_found_also_within_its_package() {
    let member =
        "pub(crate) struct NewSpec;\npub(super) const KIND: FilterKind = FilterKind {\n    name: \"New\",\n};\n";
    let mut sources = source::production();
    sources.push(Source::new("policies/src/route/filter/new.rs", member));
    let planted = [Source::new("policies/src/offender.rs", "//! Planted.\n\nfn f(_: NewSpec) {}\n")];
    let mut complaints = Complaints::new(WAY_OUT);
    look(&sources, &planted, &mut complaints);
    assert_eq!(complaints.found().len(), 1, "{:?}", complaints.found());
}

#[test]
fn every_member_is_listed_and_no_module_of_a_closed_family_is_open() {
    let sources = source::production();
    for family in &FAMILIES {
        let (members, listed) = (family.members(&sources), (family.listed)());
        assert!(!members.is_empty(), "{}", family.folder);
        for member in &members {
            assert!(listed.contains(&&*member.name), "{} is not in the list of {}", member.name, family.doors[0]);
        }
        let door = sources.iter().find(|source| source.path == family.doors[0]).expect("the door is there");
        let open = door.code.iter().filter(|line| line.contains("pub") && line.contains(" mod ")).count();
        assert!(family.is_public || open == 0, "{} opens a module", door.path);
    }
}
