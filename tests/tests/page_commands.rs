//! Every command in the pages about Kubernetes is one that its program takes, whatever the program is.

use selvedge_tests::{commands, complaints::Complaints, pages};

#[test]
fn commands_in_the_pages_about_kubernetes_are_their_programs() {
    let mut complaints = Complaints::new("mend the command, or what it names");
    let mut found = 0;
    for page in pages::all().iter().filter(|page| page.name.starts_with("docs/kubernetes/")) {
        for command in commands::of(page) {
            found += 1;
            if let Some(problem) = command.problem() {
                complaints.line(&page.name, command.line, format!("`{}`: {problem}", command.text));
            }
        }
    }
    assert!(found > 40, "{found} commands were found");
    complaints.report();
}
