//! Answers that are given again: what an idempotency key was first answered with, for a day.
//!
//! The answer is written in the transaction of the write itself, so there is no moment at which one
//! exists without the other.

use super::batch::Batch;
use super::kv::{self, Class};
use super::notifications;
use super::row::{RowReader, RowWriter};
use crate::broker::{Added, Error, Notification, Published};
use crate::protocol::{ChannelKey, Epoch, Position};

/// How long an answer is kept.
const KEEP_MS: u64 = 24 * 60 * 60 * 1000;

pub(super) const PUBLISH: &str = "publish";
pub(super) const NOTIFICATION: &str = "notification";

/// What remembering an answer weighs, at most, beside the notification.
pub(super) fn row_bytes(key: &str) -> u64 {
    // A key names its channel or user, which the answer does once more.
    256 + 3 * key.len() as u64
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
    let (position, _) = from_published_row(&answer.value)?;
    Ok(Some(Published {
        position,
        repeated: true,
    }))
}

/// Where it went, and to which channel. Rows of before there were migrations do not name that.
pub(super) fn from_published_row(row: &[u8]) -> Result<(Option<Position>, Option<String>), Error> {
    let mut row = RowReader::new(row)?;
    let epoch = row.maybe_text()?.map(Epoch::new);
    let offset = row.number()?;
    let position = epoch.map(|epoch| Position { epoch, offset });
    Ok((position, row.text().ok().map(str::to_owned)))
}

pub(super) fn published_row(channel: &ChannelKey, position: Option<&Position>) -> Vec<u8> {
    RowWriter::new()
        .maybe_text(position.map(|position| position.epoch.as_str()))
        .number(position.map_or(0, |position| position.offset))
        .text(channel.as_str())
        .done()
}

pub(super) fn remember_published(
    batch: &mut Batch<'_>,
    key: &str,
    channel: &ChannelKey,
    position: Option<&Position>,
) -> Result<(), Error> {
    remember(batch, PUBLISH, key, &published_row(channel, position))
}

/// The notification that this key made earlier: as it is now, or as it was if it has been deleted.
pub(super) fn added(batch: &Batch<'_>, key: &str) -> Result<Option<Added>, Error> {
    let table = batch.tables.kv.table();
    let Some(answer) = kv::read(table, Class::Answer, NOTIFICATION, key, batch.now_ms)? else {
        return Ok(None);
    };
    let first = from_added_row(&answer.value)?;
    let notes = batch.tables.notes.table();
    let counts = notifications::counts(batch.tables.note_counts.table(), &first.user_id)?;
    let notification = notifications::find(notes, &first.user_id, &first.id)?.unwrap_or(first);
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
    remember(batch, NOTIFICATION, key, &added_row(notification, order)?)
}

pub(super) fn added_row(notification: &Notification, order: u64) -> Result<Vec<u8>, Error> {
    Ok(RowWriter::new()
        .text(&notification.user_id)
        .number(order)
        .rest(&notifications::to_row(notification)?))
}

/// The notification as it was when it was added.
pub(super) fn from_added_row(row: &[u8]) -> Result<Notification, Error> {
    let mut row = RowReader::new(row)?;
    let (user, order) = (row.text()?.to_owned(), row.number()?);
    notifications::from_row(&user, false, order, row.rest())
}

fn remember(batch: &mut Batch<'_>, space: &str, key: &str, answer: &[u8]) -> Result<(), Error> {
    let expire_ms = batch.now_ms.saturating_add(KEEP_MS);
    kv::write(batch, Class::Answer, space, key, answer, expire_ms)
}
