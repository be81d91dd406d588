//! SECURITY.md names the test of each threat: those tests have to be there.

#![allow(clippy::unwrap_used)] // a test

use std::path::Path;

#[test]
fn every_test_that_it_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let (mut files, mut tests) = (0, 0);
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let mut content = String::new();
        for quoted in last.split('`').skip(1).step_by(2) {
            if ["tests/", "src/", "benches/"]
                .iter()
                .any(|folder| quoted.starts_with(folder))
            {
                content = std::fs::read_to_string(root.join(quoted))
                    .unwrap_or_else(|error| panic!("{quoted}: {error}"));
                files += 1;
            } else if quoted.contains('_') && !content.is_empty() {
                assert!(
                    content.contains(&format!("fn {quoted}(")),
                    "{quoted}: {row}"
                );
                tests += 1;
            }
        }
    }
    assert!(files > 30 && tests > 20, "{files} files, {tests} tests");
}
