//! The page about capture in a pod says of this program what it can do: each command that the page shows is one it takes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

/// What the program prints for `--help` behind these words; fails where it does not know them.
fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_selvedge-cni")).args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_of_the_page_is_one_of_the_program() {
    let page = include_str!("../../docs/kubernetes/capture.md");
    let mut shown = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("selvedge-cni ")) {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| *word != "#").collect();
        let help = help(&words[..1]);
        for option in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{option} ")), "{line}: no {option} in\n{help}");
        }
        shown.push(words[0]);
    }
    let all = help(&[]);
    let known = all.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let known = known.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let mut missing = known.filter(|command| *command != "help" && !shown.contains(command));
    assert_eq!(missing.next(), None, "a command that the page does not show");
    assert!(page.contains("`--remove-on-exit`") && help(&["watch"]).contains("--remove-on-exit"));
}
