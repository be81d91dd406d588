//! The shape of the source, read from the source: ARCHITECTURE.md, section 3.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layers, from the top; a module may import what stands below it, never beside or above.
/// `broker::embedded` and `metrics::server` stand apart from the contracts that they implement or
/// serve, and `http::upgrade` only looks at requests: what it decides, workers carry out.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app", "bench"],
    &["acceptor", "control", "alerts", "welcome"],
    &["worker"],
    &["http"],
    &["peers"],
    &["router"],
    &["worker::mailbox"],
    &["worker::tap"],
    &[
        "metrics::server",
        "metrics::console",
        "broker::embedded",
        "broker::redis",
    ],
    &["inbox", "presence", "access_backend", "auth", "admission"],
    &["patience"],
    &["metrics"],
    &["broker"],
    &["session", "ws"],
    &["protocol"],
    &["event_log"],
    &["config"],
    &["logging", "shutdown", "descriptors"],
    &["progress", "probe", "trace", "budget"],
    &[
        "limits",
        "clock",
        "sparing",
        "stopwatch",
        "timing",
        "key_pair",
        "outgoing",
        "owner",
        "prehashed",
        "web",
        "supervisor",
        "tls",
    ],
    &["counter"],
];

/// Steps that go up or aside all the same, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "config",
    "protocol",
    "which types of channels there may be is said once, where keys are taken apart",
)];

/// Modules that know no socket, thread, runtime, database or clock.
const PURE: &[&str] = &["protocol", "session", "ws"];

const IMPURE: &[&str] = &[
    "tokio",
    "std::net",
    "std::thread",
    "std::fs",
    "std::process",
    "std::sync::Mutex",
    "hyper",
    "redb",
    "redis",
    "flume",
    "mio",
    "rustix",
    "socket2",
    "tracing",
    "Instant",
    "SystemTime",
    "Clock",
    "async fn",
    ".await",
];

struct Source {
    path: PathBuf,
    /// Without comments and unit tests.
    code: String,
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&src, &mut found);
    found.sort();
    let is_test = |path: &PathBuf| {
        path.iter()
            .any(|part| part == "tests" || part == "tests.rs")
    };
    found.retain(|path| !is_test(path));
    let sources: Vec<Source> = found
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            // Unit tests stand at the foot of a file.
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = code.lines().map(|line| line.split("//").next().unwrap());
            Source {
                path: file.strip_prefix(&src).unwrap().to_owned(),
                code: lines.collect::<Vec<_>>().join("\n"),
            }
        })
        .collect();
    assert!(sources.len() > 50, "the source was not found");
    sources
}

/// `worker/mailbox.rs` is `worker::mailbox`, `worker/mod.rs` is `worker`.
fn module(path: &Path) -> String {
    let path = path.with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    match parts.as_slice() {
        [parts @ .., "mod"] => parts.join("::"),
        parts => parts.join("::"),
    }
}

/// The layer of a module: the one that names it, or the nearest module around it.
fn layer(module: &str) -> Option<(usize, &'static str)> {
    let mut named = module;
    loop {
        let found = LAYERS.iter().enumerate().find_map(|(depth, layer)| {
            let name = layer.iter().find(|name| **name == named)?;
            Some((depth, *name))
        });
        if found.is_some() {
            return found;
        }
        named = named.rsplit_once("::")?.0;
    }
}

/// Every `crate::..` that the code names, groups taken apart. `super` stays within a module or goes to
/// its parent, which the tree itself puts in the same place.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for at in ["crate::", "fanfare::"] {
        for (start, _) in code.match_indices(at) {
            if code[..start].ends_with(|before: char| {
                before.is_alphanumeric() || before == '_' || before == ':'
            }) {
                continue;
            }
            let rest = &code[start + at.len()..];
            let end = match rest.strip_prefix('{') {
                Some(group) => 1 + group.find('}').unwrap(),
                None => rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
                    .unwrap_or(rest.len()),
            };
            let named = rest[..end].trim_start_matches('{');
            for one in named.split(',') {
                let one = one.trim().trim_end_matches("::");
                if !one.is_empty() {
                    found.insert(one.to_string());
                }
            }
        }
    }
    found
}

#[test]
fn an_import_only_points_down() {
    let mut used: BTreeSet<&(&str, &str, &str)> = BTreeSet::new();
    let mut wrong = BTreeMap::new();
    for source in sources() {
        let from = module(&source.path);
        if from == "lib" {
            continue;
        }
        let (depth, here) = layer(&from).unwrap_or_else(|| panic!("{from} is in no layer"));
        for to in imports(&source.code) {
            let (depth_there, there) =
                layer(&to).unwrap_or_else(|| panic!("{from} imports {to}, which is in no layer"));
            let excepted = EXCEPTIONS
                .iter()
                .find(|(a, b, _)| (*a, *b) == (here, there));
            used.extend(excepted);
            if here != there && depth_there <= depth && excepted.is_none() {
                wrong.insert((from.clone(), to), format!("{here} -> {there}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "these imports point up or aside: {wrong:#?}"
    );
    assert_eq!(
        used.len(),
        EXCEPTIONS.len(),
        "an exception that nobody needs"
    );
}

#[test]
fn the_pure_modules_name_nothing_of_the_outside() {
    let mut seen = BTreeSet::new();
    for source in sources() {
        let name = module(&source.path);
        let Some(pure) = PURE
            .iter()
            .find(|pure| name.split("::").next() == Some(**pure))
        else {
            continue;
        };
        seen.insert(*pure);
        for impure in IMPURE {
            let named = source.code.match_indices(impure).any(|(at, _)| {
                let before = source.code[..at].chars().next_back();
                let after = source.code[at + impure.len()..].chars().next();
                let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                !in_word(before) && !in_word(after)
            });
            assert!(!named, "{} names {impure}", source.path.display());
        }
    }
    assert_eq!(seen.len(), PURE.len());
}

#[test]
fn the_reader_of_imports_reads_them() {
    let code = "use crate::{acceptor, welcome};\nuse crate::broker::Error;\nlet x = crate::clock::Clock;\n\
        use mycrate::x; pub use crate::config::{A, B};";
    let found = imports(code);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(
        found,
        [
            "acceptor",
            "broker::Error",
            "clock::Clock",
            "config",
            "welcome"
        ]
    );
    assert_eq!(
        layer("worker::mailbox::Inbound").unwrap().1,
        "worker::mailbox"
    );
    assert_eq!(layer("worker::drive").unwrap().1, "worker");
    assert_eq!(layer("nothing"), None);
}
