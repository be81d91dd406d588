//! Revocations: one row for each token, family and user, and an index of which go when.

use std::ops::Bound;

use redb::ReadableTable;

use super::batch::Batch;
use super::row::{RowReader, RowWriter};
use super::tables::{ROW_BYTES, row_of};
use crate::broker::{Error, Revocation, RevocationPage, Revoked};

/// Revocations past their time that one commit removes.
const SLICE_ROWS: usize = 1_000;

const TOKEN: u8 = 0;
const FAMILY: u8 = 1;
const USER: u8 = 2;

/// Remembers a revocation. What is there already stays at least as strong.
pub(super) fn add(batch: &mut Batch<'_>, revocation: &Revocation) -> Result<(), Error> {
    let (kind, id, before_ms) = named(&revocation.revoked);
    if revocation.keep_until_ms <= batch.now_ms {
        return Ok(());
    }
    let mut row = Row {
        keep_until_ms: revocation.keep_until_ms,
        before_ms,
    };
    let table = batch.tables.revocations.table();
    let known = row_of(table, (kind, id))?;
    if let Some(known) = known {
        let known = Row::from_row(&known)?;
        row.keep_until_ms = row.keep_until_ms.max(known.keep_until_ms);
        row.before_ms = row.before_ms.max(known.before_ms);
        if row == known {
            return Ok(());
        }
        batch.last_room(row_bytes(id))?;
        let former = (known.keep_until_ms, kind, id);
        batch.tables.revocation_expiry.remove(former)?;
    } else {
        batch.last_room(row_bytes(id))?;
    }
    let tables = &mut batch.tables;
    tables.revocations.insert((kind, id), &row.to_row())?;
    tables
        .revocation_expiry
        .insert((row.keep_until_ms, kind, id), &[])
}

/// Up to `limit` revocations that are not past their time, after those of the page before.
pub(super) fn page(
    table: &impl ReadableTable<(u8, &'static str), &'static [u8]>,
    cursor: Option<&str>,
    limit: usize,
    now_ms: u64,
) -> Result<RevocationPage, Error> {
    let start = match cursor.map(from_cursor) {
        None => Bound::Unbounded,
        Some(Some(last)) => Bound::Excluded(last),
        Some(None) => return Ok(RevocationPage::default()),
    };
    let mut page = RevocationPage::default();
    let rows = table
        .range((start, Bound::Unbounded))
        .map_err(Error::storage)?;
    let mut last = None;
    for row in rows {
        if page.revocations.len() == limit {
            page.next_cursor = last;
            break;
        }
        let (key, row) = row.map_err(Error::storage)?;
        let ((kind, id), row) = (key.value(), Row::from_row(row.value())?);
        if row.keep_until_ms > now_ms {
            page.revocations.push(Revocation {
                revoked: revoked(kind, id, row.before_ms)?,
                keep_until_ms: row.keep_until_ms,
            });
            if page.revocations.len() == limit {
                last = Some(format!("{kind}{id}"));
            }
        }
    }
    Ok(page)
}

/// Removes those that are past their time, a slice of them; whether there may be more.
pub(super) fn sweep(batch: &mut Batch<'_>) -> Result<bool, Error> {
    let mut over = Vec::new();
    let end = (batch.now_ms.saturating_add(1), 0, "");
    let table = batch.tables.revocation_expiry.table();
    for row in table.range(..end).map_err(Error::storage)?.take(SLICE_ROWS) {
        let (row, _) = row.map_err(Error::storage)?;
        let (keep_until_ms, kind, id) = row.value();
        over.push((keep_until_ms, kind, id.to_owned()));
    }
    let tables = &mut batch.tables;
    for (keep_until_ms, kind, id) in &over {
        tables.revocations.remove((*kind, id))?;
        tables
            .revocation_expiry
            .remove((*keep_until_ms, *kind, id))?;
    }
    Ok(over.len() == SLICE_ROWS)
}

/// Whether one is past its time and still there.
pub(super) fn has_expired(
    table: &impl ReadableTable<(u64, u8, &'static str), &'static [u8]>,
    now_ms: u64,
) -> Result<bool, Error> {
    let first = table.first().map_err(Error::storage)?;
    Ok(first.is_some_and(|(row, _)| row.value().0 <= now_ms))
}

/// Kind, name and moment, as they are stored.
pub(super) fn named(revoked: &Revoked) -> (u8, &str, u64) {
    match revoked {
        Revoked::Token { id } => (TOKEN, id, 0),
        Revoked::Family { id } => (FAMILY, id, 0),
        Revoked::User { id, before_ms } => (USER, id, *before_ms),
    }
}

pub(super) fn revoked(kind: u8, id: &str, before_ms: u64) -> Result<Revoked, Error> {
    let id = id.to_owned();
    match kind {
        TOKEN => Ok(Revoked::Token { id }),
        FAMILY => Ok(Revoked::Family { id }),
        USER => Ok(Revoked::User { id, before_ms }),
        _ => Err(Error::storage("a revocation of an unknown kind")),
    }
}

/// The last key of the page before; `None` if nobody was given such a cursor.
fn from_cursor(cursor: &str) -> Option<(u8, &str)> {
    let kind = cursor.get(..1)?.parse().ok()?;
    Some((kind, &cursor[1..]))
}

/// What a revocation weighs at most.
fn row_bytes(id: &str) -> u64 {
    2 * (ROW_BYTES + 32 + id.len() as u64)
}

/// A row of the table `revocations`.
#[derive(PartialEq)]
pub(super) struct Row {
    pub(super) keep_until_ms: u64,
    pub(super) before_ms: u64,
}

impl Row {
    pub(super) fn to_row(&self) -> Vec<u8> {
        RowWriter::new()
            .number(self.keep_until_ms)
            .number(self.before_ms)
            .done()
    }

    pub(super) fn from_row(row: &[u8]) -> Result<Self, Error> {
        let mut row = RowReader::new(row)?;
        Ok(Self {
            keep_until_ms: row.number()?,
            before_ms: row.number()?,
        })
    }
}
