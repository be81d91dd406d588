//! Answers that are given again: what an idempotency key was first answered with, for a day.
//!
//! The answer is written in the transaction of the write itself, so there is no moment at which one
//! exists without the other.

use super::batch::Batch;
use super::kv::{self, Class};
use super::notifications;
use super::row::{RowReader, RowWriter};
use crate::broker::{Added, Error, Notification, Published};
use crate::protocol::{Epoch, Position};

/// How long an answer is kept.
const KEEP_MS: u64 = 24 * 60 * 60 * 1000;

const PUBLISH: &str = "publish";
const NOTIFICATION: &str = "notification";

/// What remembering an answer weighs, at most, beside the notification.
pub(super) fn row_bytes(key: &str) -> u64 {
    256 + 2 * key.len() as u64
}

/// What this key was answered with by an earlier publication.
pub(super) fn published(batch: &Batch<'_>, key: &str) -> Result<Option<Published>, Error> {
    let Some(answer) = kv::read(
        batch.tables.kv.table(),
        Class::Answer,
        PUBLISH,
        key,
        batch.now_ms,
    )?
    else {
        return Ok(None);
    };
    let mut row = RowReader::new(&answer.value)?;
    let epoch = row.maybe_text()?.map(Epoch::new);
    let offset = row.number()?;
    Ok(Some(Published {
        position: epoch.map(|epoch| Position { epoch, offset }),
        repeated: true,
    }))
}

pub(super) fn remember_published(
    batch: &mut Batch<'_>,
    key: &str,
    position: Option<&Position>,
) -> Result<(), Error> {
    let answer = RowWriter::new()
        .maybe_text(position.map(|position| position.epoch.as_str()))
        .number(position.map_or(0, |position| position.offset))
        .done();
    remember(batch, PUBLISH, key, &answer)
}

/// The notification that this key made earlier: as it is now, or as it was if it has been deleted.
pub(super) fn added(batch: &Batch<'_>, key: &str) -> Result<Option<Added>, Error> {
    let table = batch.tables.kv.table();
    let Some(answer) = kv::read(table, Class::Answer, NOTIFICATION, key, batch.now_ms)? else {
        return Ok(None);
    };
    let mut row = RowReader::new(&answer.value)?;
    let (user, order) = (row.text()?.to_owned(), row.number()?);
    let first = notifications::from_row(&user, false, order, row.rest())?;
    let notes = batch.tables.notes.table();
    let notification = notifications::find(notes, &user, &first.id)?.unwrap_or(first);
    let counts = notifications::counts(batch.tables.note_counts.table(), &user)?;
    Ok(Some(Added {
        notification,
        unread: counts.unread,
        repeated: true,
    }))
}

pub(super) fn remember_added(
    batch: &mut Batch<'_>,
    key: &str,
    notification: &Notification,
    order: u64,
) -> Result<(), Error> {
    let answer = RowWriter::new()
        .text(&notification.user_id)
        .number(order)
        .rest(&notifications::to_row(notification)?);
    remember(batch, NOTIFICATION, key, &answer)
}

fn remember(batch: &mut Batch<'_>, space: &str, key: &str, answer: &[u8]) -> Result<(), Error> {
    let expire_ms = batch.now_ms.saturating_add(KEEP_MS);
    kv::write(batch, Class::Answer, space, key, answer, expire_ms)
}
