//! Notifications: newest first for each user, with the unread ones and the oldest at the ends of ranges.
//!
//! The id is a UUID of version 7 whose time and counter are the row's order, and 62 random bits: a
//! point lookup needs no index, and nobody can guess one.

use redb::ReadableTable;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::batch::Batch;
use super::idempotency;
use super::row::{RowReader, RowWriter};
use super::tables::{ROW_BYTES, row_of};
use crate::broker::{
    Added, Changed, Error, NewNotification, Notification, NotificationPage, NotificationQuery,
    ReadMark,
};

/// Notifications beyond the cap that one addition removes, should the cap have been lowered.
const EVICT_ROWS: usize = 1_000;

pub(super) const UNREAD: u8 = 0;
pub(super) const READ: u8 = 1;

/// How many notifications a user has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) total: u64,
    pub(super) unread: u64,
}

pub(super) fn counts(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    user: &str,
) -> Result<Counts, Error> {
    let Some(row) = row_of(table, user)? else {
        return Ok(Counts::default());
    };
    let mut row = RowReader::new(&row)?;
    Ok(Counts {
        total: row.number()?,
        unread: row.number()?,
    })
}

fn write_counts(batch: &mut Batch<'_>, user: &str, counts: Counts) -> Result<(), Error> {
    if counts.total == 0 {
        batch.tables.note_counts.remove(user)?;
        return Ok(());
    }
    let row = RowWriter::new().number(counts.total).number(counts.unread);
    batch.tables.note_counts.insert(user, &row.done())
}

/// Adds a notification and makes room for it among its owner's.
pub(super) fn add(
    batch: &mut Batch<'_>,
    new: &NewNotification,
    key: Option<&str>,
) -> Result<Added, Error> {
    if let Some(added) = key
        .map(|key| idempotency::added(batch, key))
        .transpose()?
        .flatten()
    {
        return Ok(added);
    }
    let order = (batch.ledger.order + 1).max(batch.now_ms << 12);
    let notification = Notification {
        id: id_of(order).to_string(),
        user_id: new.user_id.clone(),
        kind: new.kind.clone(),
        title: new.title.clone(),
        message: new.message.clone(),
        is_read: false,
        metadata: new.metadata.clone(),
        created_at_ms: batch.now_ms,
    };
    let row = to_row(&notification)?;
    let bytes = ROW_BYTES + 64 + 2 * new.user_id.len() as u64 + row.len() as u64;
    batch.room(bytes + key.map_or(0, |key| bytes + idempotency::row_bytes(key)))?;
    batch.ledger.order = order;
    let user = new.user_id.as_str();
    batch.tables.notes.insert((user, UNREAD, !order), &row)?;
    let mut counts = counts(batch.tables.note_counts.table(), user)?;
    counts.total += 1;
    counts.unread += 1;
    evict(batch, user, &mut counts)?;
    write_counts(batch, user, counts)?;
    if let Some(key) = key {
        idempotency::remember_added(batch, key, &notification, order)?;
    }
    Ok(Added {
        notification,
        unread: counts.unread,
        repeated: false,
    })
}

/// Removes what is beyond the cap: the oldest read ones, then the oldest.
fn evict(batch: &mut Batch<'_>, user: &str, counts: &mut Counts) -> Result<(), Error> {
    let cap = batch.notifications_per_user.max(1) as u64;
    for _ in 0..EVICT_ROWS {
        if counts.total <= cap {
            break;
        }
        let table = batch.tables.notes.table();
        let oldest = match oldest(table, user, READ)? {
            Some(order) => Some((READ, order)),
            None => oldest(table, user, UNREAD)?.map(|order| (UNREAD, order)),
        };
        let Some((read, inverted)) = oldest else {
            break;
        };
        batch.tables.notes.remove((user, read, inverted))?;
        counts.total = counts.total.saturating_sub(1);
        counts.unread = counts.unread.saturating_sub(u64::from(read == UNREAD));
    }
    Ok(())
}

fn oldest(
    table: &impl ReadableTable<(&'static str, u8, u64), &'static [u8]>,
    user: &str,
    read: u8,
) -> Result<Option<u64>, Error> {
    let mut rows = table
        .range((user, read, 0)..=(user, read, u64::MAX))
        .map_err(Error::storage)?;
    let last = rows.next_back().transpose().map_err(Error::storage)?;
    Ok(last.map(|(key, _)| key.value().2))
}

/// The notification of this id, if it is this user's.
pub(super) fn find(
    table: &impl ReadableTable<(&'static str, u8, u64), &'static [u8]>,
    user: &str,
    id: &str,
) -> Result<Option<Notification>, Error> {
    let Some(order) = order_of(id) else {
        return Ok(None);
    };
    for read in [UNREAD, READ] {
        if let Some(row) = row_of(table, (user, read, !order))? {
            let notification = from_row(user, read == READ, order, &row)?;
            return Ok((notification.id == id).then_some(notification));
        }
    }
    Ok(None)
}

/// A page, newest first. The cursor is the order of the last one seen, so that a page stays right
/// whatever arrives, is read or goes in the meantime.
pub(super) fn page(
    notes: &impl ReadableTable<(&'static str, u8, u64), &'static [u8]>,
    note_counts: &impl ReadableTable<&'static str, &'static [u8]>,
    user: &str,
    query: &NotificationQuery,
) -> Result<NotificationPage, Error> {
    let mut page = NotificationPage {
        notifications: Vec::new(),
        unread: counts(note_counts, user)?.unread,
        next_cursor: None,
    };
    let start = match query
        .cursor
        .as_deref()
        .map(|text| u64::from_str_radix(text, 16))
    {
        None => 0,
        Some(Ok(order)) => (!order).saturating_add(1),
        Some(Err(_)) => return Ok(page),
    };
    // Both kinds are in order; what is needed of the two together is at the head of each.
    let kinds: &[u8] = if query.unread_only {
        &[UNREAD]
    } else {
        &[UNREAD, READ]
    };
    let mut rows = Vec::new();
    for &read in kinds {
        let range = notes
            .range((user, read, start)..=(user, read, u64::MAX))
            .map_err(Error::storage)?;
        for row in range.take(query.limit.saturating_add(1)) {
            let (key, row) = row.map_err(Error::storage)?;
            rows.push((key.value().2, read, row));
        }
    }
    rows.sort_unstable_by_key(|(inverted, ..)| *inverted);
    if rows.len() > query.limit {
        rows.truncate(query.limit);
        let last = rows.last().map(|(inverted, ..)| !inverted);
        page.next_cursor = last.map(|order| format!("{order:016x}"));
    }
    for (inverted, read, row) in rows {
        page.notifications
            .push(from_row(user, read == READ, !inverted, row.value())?);
    }
    Ok(page)
}

/// Marks notifications of a user.
pub(super) fn mark(batch: &mut Batch<'_>, user: &str, mark: &ReadMark) -> Result<Changed, Error> {
    let mut counts = counts(batch.tables.note_counts.table(), user)?;
    let (mut count, mut found) = (0, false);
    let mut ids = Vec::new();
    let mut name = |id: &String, turned: u64| {
        if turned > 0 {
            ids.push(id.clone());
        }
        turned
    };
    match mark {
        ReadMark::One { id, is_read } => {
            let to = if *is_read { READ } else { UNREAD };
            let order = order_if_found(batch, user, id)?;
            found = order.is_some();
            if let Some(order) = order {
                count += name(id, turn(batch, user, order, to, &mut counts)?);
            }
        }
        ReadMark::Many(named) => {
            for id in named {
                if let Some(order) = order_if_found(batch, user, id)? {
                    found = true;
                    count += name(id, turn(batch, user, order, READ, &mut counts)?);
                }
            }
        }
        ReadMark::All => {
            for order in orders(batch.tables.notes.table(), user, UNREAD)? {
                found = true;
                count += turn(batch, user, order, READ, &mut counts)?;
            }
        }
    }
    if count > 0 {
        write_counts(batch, user, counts)?;
    }
    Ok(Changed {
        count,
        ids,
        unread: counts.unread,
        found,
    })
}

/// Deletes one notification of a user.
pub(super) fn delete(batch: &mut Batch<'_>, user: &str, id: &str) -> Result<Changed, Error> {
    let mut counts = counts(batch.tables.note_counts.table(), user)?;
    let order = order_if_found(batch, user, id)?;
    if let Some(order) = order {
        let was_unread = batch.tables.notes.remove((user, UNREAD, !order))?.is_some();
        if !was_unread {
            batch.tables.notes.remove((user, READ, !order))?;
        }
        counts.total = counts.total.saturating_sub(1);
        counts.unread = counts.unread.saturating_sub(u64::from(was_unread));
        write_counts(batch, user, counts)?;
    }
    Ok(Changed {
        count: u64::from(order.is_some()),
        ids: Vec::new(),
        unread: counts.unread,
        found: order.is_some(),
    })
}

/// Deletes the read notifications of a user.
pub(super) fn clear_read(batch: &mut Batch<'_>, user: &str) -> Result<Changed, Error> {
    let mut counts = counts(batch.tables.note_counts.table(), user)?;
    let orders = orders(batch.tables.notes.table(), user, READ)?;
    for order in &orders {
        batch.tables.notes.remove((user, READ, !order))?;
    }
    let count = orders.len() as u64;
    if count > 0 {
        counts.total = counts.total.saturating_sub(count);
        write_counts(batch, user, counts)?;
    }
    Ok(Changed {
        count,
        ids: Vec::new(),
        unread: counts.unread,
        found: count > 0,
    })
}

/// Moves a notification to the read or unread ones; 1 if it was among the others.
fn turn(
    batch: &mut Batch<'_>,
    user: &str,
    order: u64,
    to: u8,
    counts: &mut Counts,
) -> Result<u64, Error> {
    let from = if to == READ { UNREAD } else { READ };
    let Some(row) = batch.tables.notes.remove((user, from, !order))? else {
        return Ok(0);
    };
    batch.tables.notes.insert((user, to, !order), &row)?;
    if to == READ {
        counts.unread = counts.unread.saturating_sub(1);
    } else {
        counts.unread += 1;
    }
    Ok(1)
}

fn order_if_found(batch: &Batch<'_>, user: &str, id: &str) -> Result<Option<u64>, Error> {
    let found = find(batch.tables.notes.table(), user, id)?;
    Ok(found.and_then(|_| order_of(id)))
}

fn orders(
    table: &impl ReadableTable<(&'static str, u8, u64), &'static [u8]>,
    user: &str,
    read: u8,
) -> Result<Vec<u64>, Error> {
    let rows = table
        .range((user, read, 0)..=(user, read, u64::MAX))
        .map_err(Error::storage)?;
    rows.map(|row| {
        let (key, _) = row.map_err(Error::storage)?;
        Ok(!key.value().2)
    })
    .collect()
}

/// The order is 48 bits of milliseconds and 12 bits of counter; together 60 bits.
fn id_of(order: u64) -> Uuid {
    let random = Uuid::new_v4().as_u128() & ((1 << 62) - 1);
    let time = u128::from(order >> 12) << 80;
    let counter = u128::from(order & 0xfff) << 64;
    Uuid::from_u128(time | 0x7 << 76 | counter | 0b10 << 62 | random)
}

pub(super) fn order_of(id: &str) -> Option<u64> {
    let id = Uuid::try_parse(id).ok()?.as_u128();
    Some(((id >> 80) as u64) << 12 | ((id >> 64) as u64 & 0xfff))
}

pub(super) fn to_row(notification: &Notification) -> Result<Vec<u8>, Error> {
    let id = Uuid::try_parse(&notification.id).map_err(Error::storage)?;
    Ok(RowWriter::new()
        .number(id.as_u128() as u64)
        .number(notification.created_at_ms)
        .text(&notification.kind)
        .text(&notification.title)
        .text(&notification.message)
        .maybe_text(notification.metadata.as_deref().map(RawValue::get))
        .done())
}

pub(super) fn from_row(
    user: &str,
    is_read: bool,
    order: u64,
    row: &[u8],
) -> Result<Notification, Error> {
    let mut row = RowReader::new(row)?;
    let head = u128::from(order >> 12) << 80 | 0x7 << 76 | u128::from(order & 0xfff) << 64;
    let id = Uuid::from_u128(head | u128::from(row.number()?));
    let created_at_ms = row.number()?;
    let (kind, title, message) = (row.text()?, row.text()?, row.text()?);
    let metadata = row
        .maybe_text()?
        .map(|json| RawValue::from_string(json.to_owned()));
    Ok(Notification {
        id: id.to_string(),
        user_id: user.to_owned(),
        kind: kind.to_owned(),
        title: title.to_owned(),
        message: message.to_owned(),
        is_read,
        metadata: metadata.transpose().map_err(Error::storage)?,
        created_at_ms,
    })
}
