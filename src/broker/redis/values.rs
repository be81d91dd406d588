//! The key-value part, and revocations.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::Redis;
use super::call::Call;
use super::history::{decode, garbled, lasting};
use super::scripts::Script;
use crate::broker::{Error, Revocation, RevocationPage, Revoked, Stored};
use crate::clock::millis;

/// Bytes of the revision before a value: a random number, so that none ever comes back.
pub(super) const REVISION_BYTES: usize = 8;
/// Digits of a time in the row of a revocation.
const TIME_DIGITS: usize = 20;

impl Redis {
    pub(super) async fn set_value(
        &self,
        space: &str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        let call = Call::command("SET", self.keys.value(space, key)).arg(revised(value));
        let call = match ttl {
            Some(ttl) => call.arg("PX").number(lasting(millis(ttl))),
            None => call,
        };
        self.write(&call, true).await.map(drop)
    }

    pub(super) async fn value(&self, space: &str, key: &str) -> Result<Option<Stored>, Error> {
        let call = Call::command("GET", self.keys.value(space, key));
        let Some(row): Option<Vec<u8>> = decode(self.link.call(&call).await?)? else {
            return Ok(None);
        };
        let revision = row.first_chunk().ok_or_else(garbled)?;
        Ok(Some(Stored {
            revision: u64::from_be_bytes(*revision),
            value: Bytes::from(row).slice(REVISION_BYTES..),
        }))
    }

    pub(super) async fn delete_value(&self, space: &str, key: &str) -> Result<bool, Error> {
        let call = Call::command("DEL", self.keys.value(space, key));
        Ok(decode::<u64>(self.write(&call, true).await?)? > 0)
    }

    pub(super) async fn swap_value(
        &self,
        (space, key): (&str, &str),
        expected: Option<u64>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, Error> {
        let expected = expected.map_or_else(Vec::new, |revision| revision.to_be_bytes().into());
        let ttl = ttl.map_or_else(String::new, |ttl| lasting(millis(ttl)).to_string());
        let call = Call::script(Script::Swap, vec![self.keys.value(space, key)])
            .arg(expected)
            .arg(revised(value))
            .arg(ttl);
        Ok(decode::<u64>(self.write(&call, true).await?)? == 1)
    }

    pub(super) async fn remember_revocation(&self, revocation: Revocation) -> Result<(), Error> {
        let until_ms = revocation.keep_until_ms;
        let (name, before_ms) = name(&revocation.revoked);
        let call = Call::script(Script::Revoke, self.revoked())
            .arg(name)
            .arg(format!("{before_ms:020}"))
            .arg(format!("{until_ms:020}"))
            .number(until_ms);
        self.write(&call, true).await.map(drop)
    }

    pub(super) async fn revocation_page(
        &self,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<RevocationPage, Error> {
        let limit = limit.clamp(1, 100_000);
        let from = cursor.map_or_else(|| "-".to_owned(), |last| format!("({last}"));
        let call = Call::command("ZRANGEBYLEX", self.keys.of_all_nodes("revoked", "l"))
            .arg(from)
            .arg("+")
            .arg("LIMIT")
            .number(0)
            .number(limit as u64);
        let entries: Vec<String> = decode(self.link.call(&call).await?)?;
        let now_ms = self.clock.unix_ms();
        let mut page = RevocationPage {
            revocations: Vec::with_capacity(entries.len()),
            next_cursor: None,
        };
        for entry in &entries {
            let revocation = revocation(entry)?;
            if revocation.keep_until_ms > now_ms {
                page.revocations.push(revocation);
            }
        }
        // A change puts an entry behind where it was, so none is passed over.
        if entries.len() == limit {
            page.next_cursor = entries.into_iter().next_back();
        }
        Ok(page)
    }

    /// The list of all, each as its name and its row in one, which is read in its order; by name, when
    /// each ends; by name, the row.
    fn revoked(&self) -> Vec<String> {
        self.keys.revoked()
    }
}

/// A value under a revision that no other write ever had.
pub(super) fn revised(value: &[u8]) -> Vec<u8> {
    let revision = Uuid::new_v4().as_u128() as u64;
    [&revision.to_be_bytes(), value].concat()
}

pub(super) fn name(revoked: &Revoked) -> (String, u64) {
    match revoked {
        Revoked::Token { id } => (format!("t:{id}"), 0),
        Revoked::Family { id } => (format!("f:{id}"), 0),
        Revoked::User { id, before_ms } => (format!("u:{id}"), *before_ms),
    }
}

/// What an entry of the list says: a name and two times.
pub(super) fn revocation(entry: &str) -> Result<Revocation, Error> {
    let name_bytes = entry.len().checked_sub(2 * TIME_DIGITS);
    let split = name_bytes.and_then(|at| entry.split_at_checked(at));
    let (name, row) = split.ok_or_else(garbled)?;
    let (kind, id) = name.split_once(':').ok_or_else(garbled)?;
    let (before, until) = row.split_at_checked(TIME_DIGITS).ok_or_else(garbled)?;
    let number = |digits: &str| digits.parse::<u64>().map_err(Error::storage);
    let id = id.to_owned();
    Ok(Revocation {
        revoked: match kind {
            "t" => Revoked::Token { id },
            "f" => Revoked::Family { id },
            "u" => Revoked::User {
                id,
                before_ms: number(before)?,
            },
            _ => return Err(garbled()),
        },
        keep_until_ms: number(until)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_comes_back_from_its_row() {
        for revoked in [
            Revoked::Token { id: String::new() },
            Revoked::Family { id: "a:b".into() },
            Revoked::User {
                id: "u".into(),
                before_ms: u64::MAX,
            },
        ] {
            let (name, before_ms) = name(&revoked);
            let back = revocation(&format!("{name}{before_ms:020}{:020}", 7)).unwrap();
            assert_eq!((back.revoked, back.keep_until_ms), (revoked, 7));
        }
        for wrong in ["x:y", "t:", ""] {
            assert!(revocation(&format!("{wrong}{}", "0".repeat(39))).is_err());
        }
        assert!(revocation(&format!("x:{}", "0".repeat(40))).is_err());
    }
}
