//! Names of what there is in a mesh (`namespace/name`, `namespace/name:port`) are read in one place,
//! `policies/src/names.rs`. Whoever cuts a text at a slash or a colon elsewhere cuts something else, and says here what.

use selvedge_tests::{
    complaints::Complaints,
    source::{self, Source},
};

const HOME: &str = "policies/src/names.rs";

/// Files that cut other texts, and which.
const OTHERS: [(&str, &str); 15] = [
    ("benches/src/machine.rs", "what a program says of its version"),
    ("cli/src/demo/story.rs", "a SPIFFE ID"),
    ("cli/src/manifest/patch.rs", "a JSON pointer"),
    ("cli/src/manifest/tree.rs", "a JSON pointer"),
    ("control-plane/src/serve.rs", "the path of a request"),
    ("control-plane/src/validate.rs", "group and version of a kind"),
    ("policies/src/facts.rs", "a SPIFFE ID"),
    ("policies/src/kind.rs", "group and version of a kind"),
    ("policies/src/matching/canonical.rs", "the path of a request"),
    ("policies/src/matching/host.rs", "host and port"),
    ("proxy/src/bootstrap.rs", "host and port"),
    ("proxy/src/http/authority.rs", "host and port"),
    ("proxy/src/http/upgrade.rs", "a protocol and its version"),
    ("proxy/src/process/manager/kept.rs", "names that a service manager says"),
    ("xds/src/resource.rs", "the type URL of a message"),
];

/// Lines of a file that cut a text at a slash or a colon.
fn cuts(source: &Source) -> impl Iterator<Item = usize> + '_ {
    let is_cut = |line: &String| {
        let calls = line.match_indices("split").filter_map(|(at, _)| line[at..].split_once('('));
        calls
            .map(|(_, arguments)| arguments.split(')').next().unwrap_or_default())
            .any(|arguments| ["'/'", "':'", "\"/\"", "\":\""].iter().any(|separator| arguments.contains(separator)))
    };
    source.production.iter().enumerate().filter(move |(_, line)| is_cut(line)).map(|(at, _)| at + 1)
}

fn complain(sources: &[Source]) -> Complaints {
    let mut complaints = Complaints::new("read names by the types of policies/src/names.rs; list here what is no name");
    let ours = sources.iter().filter(|source| source.path != HOME && !source.path.starts_with("examples/"));
    for source in ours {
        let is_other = OTHERS.iter().any(|(path, _)| source.path == *path);
        for line in cuts(source).filter(|_| !is_other) {
            complaints.line(&source.path, line, "a text is cut at a slash or a colon");
        }
    }
    complaints
}

#[test]
fn names_are_read_in_one_place() {
    complain(&source::production()).report();
}

#[test]
fn whoever_cuts_a_name_is_found() {
    for cut in
        ["split_once('/')", "rsplit_once(':')", "split('/')", "splitn(2, '/')", "rsplit([':', '.'])", "split(\"/\")"]
    {
        let text = format!("//! Nothing.\n\nfn name(text: &str) -> bool {{\n    text.{cut}.is_some()\n}}\n");
        let found = complain(&[Source::new("cli/src/offender.rs", &text), Source::new(HOME, &text)]);
        assert_eq!(found.found().len(), 1, "{cut}");
    }
    let innocent = Source::new("cli/src/demo.rs", "fn f(text: &str) { text.split_once('='); text.split(\"://\"); }\n");
    assert_eq!(complain(&[innocent]).found().len(), 0);
}

#[test]
fn what_is_listed_cuts_something() {
    let sources = source::production();
    for (path, what) in OTHERS {
        let listed = sources.iter().find(|source| source.path == path);
        assert!(listed.is_some_and(|source| cuts(source).next().is_some()), "{path} cuts no {what} any more");
    }
}
