//! Rows of the tables as records.

use bytes::Bytes;

use crate::broker::Error;
use crate::broker::embedded::kv::{self, Class, NEVER};
use crate::broker::embedded::{idempotency, log, notifications, revocations, users};
use crate::broker::migration::{Given, KeptAnswer, KeptValue, Record};
use crate::broker::{Notification, Revocation, User};

pub(super) fn user(id: &str, row: &[u8]) -> Result<User, Error> {
    users::from_row(id, row)
}

pub(super) fn note(user: &str, read: u8, order: u64, row: &[u8]) -> Result<Notification, Error> {
    notifications::from_row(user, read == notifications::READ, order, row)
}

pub(super) fn revocation(kind: u8, id: &str, row: &[u8]) -> Result<Revocation, Error> {
    let row = revocations::Row::from_row(row)?;
    Ok(Revocation {
        revoked: revocations::revoked(kind, id, row.before_ms)?,
        keep_until_ms: row.keep_until_ms,
    })
}

/// A row of the table `kv`, whoever it belongs to, and when it goes. `None`: an answer of which it is
/// not known to which channel it was given.
pub(super) fn value(
    (class, space, key): (u8, &str, &str),
    row: &[u8],
) -> Result<Option<(Record, u64)>, Error> {
    let row = kv::Row::from_row(row)?;
    let expire_ms = row.expire_ms;
    let answer = |given| {
        Record::Answer(KeptAnswer {
            key: key.to_owned(),
            expire_ms,
            given,
        })
    };
    let record = if class == Class::Caller as u8 {
        Record::Value(KeptValue {
            space: space.to_owned(),
            key: key.to_owned(),
            value: Bytes::copy_from_slice(row.value),
            expire_ms: (expire_ms != NEVER).then_some(expire_ms),
        })
    } else if space == idempotency::NOTIFICATION {
        answer(Given::Added(idempotency::from_added_row(row.value)?))
    } else {
        let (position, channel) = idempotency::from_published_row(row.value)?;
        let Some(channel) = channel else {
            return Ok(None);
        };
        answer(Given::Published {
            channel: log::restored_key(&channel)?,
            position,
        })
    };
    Ok(Some((record, expire_ms)))
}

/// Where an answer is kept, and its value.
pub(super) fn answer(answer: &KeptAnswer) -> Result<(&'static str, Vec<u8>), Error> {
    match &answer.given {
        Given::Published { channel, position } => Ok((
            idempotency::PUBLISH,
            idempotency::published_row(channel, position.as_ref()),
        )),
        Given::Added(note) => {
            let order = notifications::order_of(&note.id)
                .ok_or_else(|| Error::storage("a notification whose id is not one of ours"))?;
            let row = idempotency::added_row(note, order)?;
            Ok((idempotency::NOTIFICATION, row))
        }
    }
}
