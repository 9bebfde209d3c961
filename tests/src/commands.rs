//! Commands of the shell in the pages, as a reader would type them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
};

use crate::{pages::Page, process::binary, skip, workspace};

/// A command with its arguments, without what is around it: pipes, redirections, what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The line of the page that it begins on, from 1.
    pub line: usize,
    /// The words of a shell, the program first.
    pub text: String,
}

/// Programs whose name begins a command also where it stands in a line of text.
const PROGRAMS: [&str; 9] =
    ["selvedge", "selvedge-proxy", "selvedge-capture", "selvedge-cni", "kubectl", "make", "skopeo", "ctr", "kind"];

/// Words of the shell itself, which no program has to know.
const SHELL: [&str; 6] = ["for", "do", "done", "cd", "export", "PATH"];

/// The commands of a page: those of its blocks of shell, and those between backticks in its text.
pub fn of(page: &Page) -> Vec<Command> {
    let mut found = Vec::new();
    let mut fence: Option<&str> = None;
    let mut document: Option<String> = None;
    for (index, line) in page.text.lines().enumerate() {
        let mut add = |text: &str| {
            let texts = simple(text).into_iter().map(|text| Command { line: index + 1, text });
            found.extend(texts);
        };
        match (fence, line.strip_prefix("```")) {
            (None, Some(language)) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, None) => spans(line).for_each(add),
            (Some("sh"), None) => match &document {
                Some(end) if line == end => document = None,
                Some(_) => {}
                None => {
                    document = line.split_once("<<").map(|(_, end)| end.trim().to_owned());
                    add(line);
                }
            },
            (Some("console"), None) => line.strip_prefix("$ ").into_iter().for_each(add),
            (Some(_), None) => {}
        }
    }
    found
}

/// What stands between backticks and begins with a program and something for it to do.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    let spans = line.split('`').skip(1).step_by(2);
    spans.filter(|span| span.split_once(' ').is_some_and(|(program, _)| PROGRAMS.contains(&program)))
}

/// The commands of a line, each without what leads out of it and into it.
fn simple(line: &str) -> Vec<String> {
    let (mut commands, mut current, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match quote {
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            None if c == '#' && (current.is_empty() || current.ends_with(' ')) => break,
            None if matches!(c, '|' | ';' | '&') => {
                commands.push(std::mem::take(&mut current));
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    commands.push(current);
    let bare = commands.iter().map(|command| {
        let end = [" >", " <"].iter().filter_map(|redirection| command.find(redirection)).min();
        command[..end.unwrap_or(command.len())].trim().trim_start_matches("do ").trim()
    });
    bare.filter(|command| !command.is_empty() && !SHELL.contains(&program(command))).map(str::to_owned).collect()
}

/// The first word of a command.
fn program(command: &str) -> &str {
    command.split([' ', '=']).next().unwrap_or_default()
}

impl Command {
    /// The name by which its program is called.
    pub fn program(&self) -> &str {
        program(&self.text)
    }

    /// What the program says against the command, if anything. It is asked for help, so it reads the command and does
    /// nothing. Says so where the program is not here.
    pub fn problem(&self) -> Option<String> {
        let (asked, code_of_problem) = match self.program() {
            // These two have no help that reads the rest.
            "make" => (format!("make --dry-run{}", self.text.trim_start_matches("make")), None),
            // It says by this code that it does not understand the expression, and nothing is there to apply it to.
            "jq" => (format!("jq --null-input{}", self.text.trim_start_matches("jq")), Some(3)),
            _ => (format!("{} --help", self.text), None),
        };
        let mut shell = Process::new("bash");
        shell.args(["-c", &asked]).env("PATH", path()).current_dir(workspace()).stdin(Stdio::null());
        let told = shell.output().expect("bash runs");
        let code = told.status.code();
        if code == Some(127) {
            skip(&format!("`{}`: {} is not installed", self.text, self.program()));
            return None;
        }
        let output = [told.stdout, told.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        // Some help with the group of commands where they do not know the command.
        let is_group = ["kubectl", "ctr"].contains(&self.program())
            && ["SUBCOMMAND", "[command]", " command [command options]"].iter().any(|group| output.contains(group));
        let failed = code_of_problem.map_or(code != Some(0), |problem| code == Some(problem));
        (failed || is_group).then(|| output.trim().to_owned())
    }
}

/// Where programs are: those of the workspace, those that `.ci/setup test` brings, and those that are installed.
///
/// # Panics
/// When a folder has a colon in its name.
pub fn path() -> OsString {
    let built = binary("selvedge").parent().map(Path::to_owned).into_iter();
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).into_iter();
    let brought = built.clone().filter_map(|folder| Some(folder.parent()?.join("kubectl")));
    let installed = std::env::var_os("PATH").unwrap_or_default();
    let folders = built.chain(assets).chain(brought).chain(std::env::split_paths(&installed));
    std::env::join_paths(folders).expect("folders without a colon")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let page = Page { name: String::new(), path: PathBuf::new(), text: text.to_owned() };
        of(&page).into_iter().map(|command| command.text).collect()
    }

    #[test]
    fn commands_are_found_without_what_is_around_them() {
        let page = "`make image` and `a thing`, `selvedge`.\n```sh\na --b 'c | d' | e - > f # g\ncat <<END\nno command\nEND\n\
                    for x in 1 2; do\n  h $x\ndone\ni &\n```\n```console\n$ j; k\nanswer\n```\n```yaml\nl: 1\n```\n";
        assert_eq!(texts(page), ["make image", "a --b 'c | d'", "e -", "cat", "h $x", "i", "j", "k"]);
    }

    #[test]
    fn a_mistake_is_told_of() {
        let problem = |text: &str| Command { line: 1, text: text.to_owned() }.problem();
        for right in ["selvedge install --crds", "make image", "jq .a", "bash"] {
            assert_eq!(problem(right), None, "{right}");
        }
        for wrong in ["selvedge install --crsd", "selvedge isntall", "make imgae", "jq .[", "bash --imgae"] {
            assert!(problem(wrong).is_some(), "{wrong}");
        }
    }
}
