//! Keeps to `deny.toml`: licences, sources and doubles of everything that is built in.
//!
//! The same rules as cargo-deny's, for what this project uses of them, without a tool that takes
//! many minutes to build. Advisories are not looked for: that needs a database from the network.

#![allow(
    clippy::unwrap_used,
    reason = "what cannot be read here has to fail the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
struct Rules {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

/// `name@version`, the version perhaps cut short, as in a requirement.
#[derive(Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    name_and_version: String,
    reason: String,
}

/// A crate as `cargo tree` tells of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Built {
    name: String,
    version: String,
    /// What stands behind the version: nothing for a crate of crates.io.
    origin: String,
    licence: String,
}

#[test]
fn every_licence_is_allowed() {
    let (rules, built) = (rules(), built());
    let refused: Vec<_> = built
        .iter()
        .filter(|one| one.name != "fanfare" && !is_allowed(&one.licence, &rules.licenses.allow))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn everything_comes_from_crates_io() {
    let foreign: Vec<_> = built()
        .into_iter()
        .filter(|one| one.name != "fanfare" && !one.origin.is_empty())
        .collect();
    assert!(foreign.is_empty(), "{foreign:#?}");
}

#[test]
fn no_crate_is_built_in_twice_without_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in built() {
        versions.entry(one.name).or_default().insert(one.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    for skip in rules().bans.skip {
        assert!(!skip.reason.is_empty(), "{}", skip.name_and_version);
        let (name, start) = skip.name_and_version.split_once('@').unwrap();
        let excused = versions.get_mut(name).is_some_and(|versions| {
            let before = versions.len();
            versions.retain(|version| !is_within(version, start));
            versions.len() < before
        });
        assert!(excused, "deny.toml still skips {}", skip.name_and_version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "{versions:#?}");
}

#[test]
fn licence_expressions_are_understood() {
    let allow = BTreeSet::from(["MIT", "ISC", "Unicode-3.0"].map(String::from));
    for fine in [
        "MIT",
        "MIT OR Apache-2.0",
        "Apache-2.0/MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "ISC AND (Apache-2.0 OR ISC)",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    ] {
        assert!(is_allowed(fine, &allow), "{fine}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR Apache-2.0) AND OpenSSL",
        "MIT WITH GPL-exception",
    ] {
        assert!(!is_allowed(bad, &allow), "{bad}");
    }
}

fn rules() -> Rules {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn built() -> BTreeSet<Built> {
    let mut all = BTreeSet::new();
    for target in rules().graph.targets {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--prefix=none", "--format={p}|{l}"])
            .args(["--edges=normal,build,dev", "--target", &target])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let listed = String::from_utf8(output.stdout).unwrap();
        all.extend(
            listed
                .lines()
                .filter(|line| !line.is_empty())
                .map(parse_line),
        );
    }
    assert!(all.len() > 50, "only {} crates were listed", all.len());
    all
}

/// `serde_derive v1.0.229 (proc-macro)|MIT OR Apache-2.0`, ` (*)` at the end of a repetition.
fn parse_line(line: &str) -> Built {
    let (package, licence) = line.split_once('|').unwrap();
    let (name, rest) = package.split_once(" v").unwrap();
    let (version, origin) = rest.split_once(' ').unwrap_or((rest, ""));
    Built {
        name: name.to_string(),
        version: version.to_string(),
        origin: origin.replace("(proc-macro)", "").trim().to_string(),
        licence: licence.trim_end_matches(" (*)").to_string(),
    }
}

/// Whether `version` is `start` or begins with all of its numbers.
fn is_within(version: &str, start: &str) -> bool {
    version == start || version.starts_with(&format!("{start}."))
}

/// Whether an SPDX expression can be met with the allowed licences alone. `/` is the old `OR`; an
/// exception (`WITH`) counts as a licence of its own.
fn is_allowed(expression: &str, allow: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace(" WITH ", "-WITH-");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = any_of(&mut rest, allow);
    met && rest.is_empty()
}

fn any_of(words: &mut &[&str], allow: &BTreeSet<String>) -> bool {
    let mut met = all_of(words, allow);
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        met |= all_of(words, allow);
    }
    met
}

fn all_of(words: &mut &[&str], allow: &BTreeSet<String>) -> bool {
    let mut met = single(words, allow);
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        met &= single(words, allow);
    }
    met
}

fn single(words: &mut &[&str], allow: &BTreeSet<String>) -> bool {
    let Some((word, rest)) = words.split_first() else {
        return false;
    };
    *words = rest;
    if *word != "(" {
        return allow.contains(*word);
    }
    let met = any_of(words, allow);
    let Some((&")", rest)) = words.split_first() else {
        return false;
    };
    *words = rest;
    met
}
