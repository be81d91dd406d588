//! Counting and comparing what both sides tell.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::Record;

/// Differences that are named.
const NAMED_MAX: usize = 10;

/// What a comparison found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// By what was counted.
    pub rows: BTreeMap<String, Row>,
    /// The first records that differ or are missing, named.
    pub differences: Vec<String>,
    /// How many differ in all.
    pub differing: u64,
}

/// One kind, on both sides.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Records in the source.
    pub source: u64,
    /// Those of them that are in the target.
    pub target: u64,
    /// The digest of the source's, the same in whichever order they come.
    pub source_digest: Digest,
    /// That of the target's.
    pub target_digest: Digest,
}

/// The sum of the halves of the SHA-256 of all records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(u128);

impl Digest {
    fn add(&mut self, canonical: &[u8]) {
        let hash = digest(&SHA256, canonical);
        if let Some(half) = hash.as_ref().first_chunk() {
            self.0 = self.0.wrapping_add(u128::from_be_bytes(*half));
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        format!("{:032x}", digest.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

impl Report {
    /// Takes what the source has and what the target has in its place.
    pub(super) fn compare(&mut self, record: &Record, found: Option<&Record>) {
        let row = self.rows.entry(record.label()).or_default();
        let ours = record.canonical();
        row.source += 1;
        row.source_digest.add(&ours);
        let theirs = found.map(Record::canonical);
        if let Some(theirs) = &theirs {
            row.target += 1;
            row.target_digest.add(theirs);
        }
        if theirs.as_ref() != Some(&ours) {
            self.differing += 1;
            if self.differences.len() < NAMED_MAX {
                let what = match theirs {
                    Some(_) => "differs",
                    None => "is missing",
                };
                self.differences.push(format!("{} {what}", record.name()));
            }
        }
    }

    /// Whether both sides have the same.
    pub fn agrees(&self) -> bool {
        self.differing == 0
    }

    /// Records of the source.
    pub fn records(&self) -> u64 {
        self.rows.values().map(|row| row.source).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::User;

    fn user(id: &str, nickname: &str) -> Record {
        Record::User(User {
            id: id.into(),
            wallet: None,
            nickname: Some(nickname.into()),
            created_at_ms: 1,
        })
    }

    #[test]
    fn the_order_is_of_no_meaning_and_everything_else_is() {
        let (a, b) = (user("a", "x"), user("b", "y"));
        let mut one = Report::default();
        one.compare(&a, Some(&a));
        one.compare(&b, Some(&b));
        let mut other = Report::default();
        other.compare(&b, Some(&user("b", "z")));
        other.compare(&a, None);
        assert!(one.agrees());
        let (row, other_row) = (&one.rows["users"], &other.rows["users"]);
        assert_eq!(row.source_digest, row.target_digest);
        assert_eq!(row.source_digest, other_row.source_digest);
        assert_ne!(other_row.source_digest, other_row.target_digest);
        assert_eq!((other_row.source, other_row.target), (2, 1));
        assert_eq!(
            other.differences,
            ["user \"b\" differs", "user \"a\" is missing"]
        );
        let text = serde_json::to_string(&one).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.rows["users"].source_digest, row.source_digest);
    }
}
