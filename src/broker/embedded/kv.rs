//! Keys with a time to live and a revision.

use bytes::Bytes;
use redb::ReadableTable;

use super::batch::Batch;
use super::row::{RowReader, RowWriter};
use super::tables::{ROW_BYTES, row_of};
use crate::broker::{Error, Stored};

/// The expiry of what never expires.
pub(super) const NEVER: u64 = u64::MAX;
/// Expired keys that one commit removes.
const SLICE_ROWS: usize = 1_000;

/// Who owns a key: callers of the contract cannot reach the store's own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Class {
    Caller = 0,
    Answer = 1,
}

/// The value of a key that is there and not past its time.
pub(super) fn read(
    table: &impl ReadableTable<(u8, &'static str, &'static str), &'static [u8]>,
    class: Class,
    space: &str,
    key: &str,
    now_ms: u64,
) -> Result<Option<Stored>, Error> {
    let Some(row) = row_of(table, (class as u8, space, key))? else {
        return Ok(None);
    };
    let row = Row::from_row(&row)?;
    Ok((row.expire_ms > now_ms).then(|| Stored {
        value: Bytes::copy_from_slice(row.value),
        revision: row.revision,
    }))
}

/// When a row's key goes.
pub(super) fn expire_ms(row: &[u8]) -> Result<u64, Error> {
    Row::from_row(row).map(|row| row.expire_ms)
}

/// What setting a key weighs at most.
pub(super) fn row_bytes(space: &str, key: &str, value: &[u8]) -> u64 {
    2 * (ROW_BYTES + 24 + space.len() as u64 + key.len() as u64) + 17 + value.len() as u64
}

/// Sets a key until `expire_ms` under a new revision.
pub(super) fn write(
    batch: &mut Batch<'_>,
    class: Class,
    space: &str,
    key: &str,
    value: &[u8],
    expire_ms: u64,
) -> Result<(), Error> {
    delete(batch, class, space, key)?;
    batch.ledger.revision += 1;
    let row = Row {
        expire_ms,
        revision: batch.ledger.revision,
        value,
    };
    let tables = &mut batch.tables;
    tables.kv.insert((class as u8, space, key), &row.to_row())?;
    if expire_ms != NEVER {
        let expiry = (expire_ms, class as u8, space, key);
        tables.kv_expiry.insert(expiry, &[])?;
    }
    Ok(())
}

/// Sets a key if its revision is `expected`; whether it did.
pub(super) fn compare_and_set(
    batch: &mut Batch<'_>,
    (space, key): (&str, &str),
    expected: Option<u64>,
    value: &[u8],
    expire_ms: u64,
) -> Result<bool, Error> {
    let now = read(
        batch.tables.kv.table(),
        Class::Caller,
        space,
        key,
        batch.now_ms,
    )?;
    if now.map(|stored| stored.revision) != expected {
        return Ok(false);
    }
    batch.room(row_bytes(space, key, value))?;
    write(batch, Class::Caller, space, key, value, expire_ms)?;
    Ok(true)
}

/// Removes a key and its place in the expiry index; whether it was there and not past its time.
pub(super) fn delete(
    batch: &mut Batch<'_>,
    class: Class,
    space: &str,
    key: &str,
) -> Result<bool, Error> {
    let Some(row) = batch.tables.kv.remove((class as u8, space, key))? else {
        return Ok(false);
    };
    let expire_ms = Row::from_row(&row)?.expire_ms;
    if expire_ms != NEVER {
        let expiry = (expire_ms, class as u8, space, key);
        batch.tables.kv_expiry.remove(expiry)?;
    }
    Ok(expire_ms > batch.now_ms)
}

/// Removes keys that are past their time, a slice of them; whether there may be more.
pub(super) fn sweep(batch: &mut Batch<'_>) -> Result<bool, Error> {
    let mut expired = Vec::new();
    let end = (batch.now_ms.saturating_add(1), 0, "", "");
    let table = batch.tables.kv_expiry.table();
    for row in table.range(..end).map_err(Error::storage)?.take(SLICE_ROWS) {
        let (row, _) = row.map_err(Error::storage)?;
        let (expire_ms, class, space, key) = row.value();
        expired.push((expire_ms, class, space.to_owned(), key.to_owned()));
    }
    for (expire_ms, class, space, key) in &expired {
        let tables = &mut batch.tables;
        tables.kv.remove((*class, space, key))?;
        tables.kv_expiry.remove((*expire_ms, *class, space, key))?;
    }
    Ok(expired.len() == SLICE_ROWS)
}

/// Whether a key is past its time and still there.
pub(super) fn has_expired(
    table: &impl ReadableTable<(u64, u8, &'static str, &'static str), &'static [u8]>,
    now_ms: u64,
) -> Result<bool, Error> {
    let first = table.first().map_err(Error::storage)?;
    Ok(first.is_some_and(|(row, _)| row.value().0 <= now_ms))
}

/// A row of the table `kv`.
pub(super) struct Row<'a> {
    pub(super) expire_ms: u64,
    pub(super) revision: u64,
    pub(super) value: &'a [u8],
}

impl<'a> Row<'a> {
    pub(super) fn to_row(&self) -> Vec<u8> {
        RowWriter::new()
            .number(self.expire_ms)
            .number(self.revision)
            .rest(self.value)
    }

    pub(super) fn from_row(row: &'a [u8]) -> Result<Self, Error> {
        let mut row = RowReader::new(row)?;
        Ok(Self {
            expire_ms: row.number()?,
            revision: row.number()?,
            value: row.rest(),
        })
    }
}
