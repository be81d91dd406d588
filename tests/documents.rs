//! `fanfare documents`: the manual pages and completions that packages carry.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The commands that `fanfare --help` shows.
fn shown() -> BTreeSet<String> {
    let help = support::command().arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let names = commands.lines().filter_map(|line| {
        // What is deeper is the text of the line above.
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    names.collect()
}

fn text(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_command_has_a_page_and_every_shell_its_completions() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path().join("made/on/the/way");
    let made = support::command()
        .arg("documents")
        .arg(&folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");

    let commands = shown();
    assert!(commands.contains("serve") && commands.contains("check"));
    let whole = text(&folder, "man1/fanfare.1");
    for command in &commands {
        let page = text(&folder, &format!("man1/fanfare-{command}.1"));
        assert!(page.contains(&format!(".TH fanfare-{command} 1")), "{page}");
        assert!(
            whole.contains(&format!("fanfare\\-{command}(1)")),
            "{command}"
        );
    }
    for page in std::fs::read_dir(folder.join("man1")).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        let command = name
            .trim_end_matches(".1")
            .strip_prefix("fanfare-")
            .unwrap_or("serve");
        let command = command.split('-').next().unwrap();
        assert!(
            commands.contains(command),
            "{name} is about nothing that is shown"
        );
    }

    let bash = folder.join("bash/fanfare.bash");
    let complete = format!(
        ". {} && COMP_WORDS=(fanfare che) COMP_CWORD=1 && _fanfare fanfare che fanfare && echo \"${{COMPREPLY[@]}}\"",
        bash.display()
    );
    let said = Command::new("bash")
        .args(["-c", &complete])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout).trim(),
        "check",
        "{said:?}"
    );
    assert!(text(&folder, "zsh/_fanfare").starts_with("#compdef fanfare"));
    assert!(text(&folder, "fish/fanfare.fish").contains("complete -c fanfare"));
}
