//! The tables of the database and what they weigh.

use redb::{Key, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

use super::quota::{REST_PERCENT, row_weight};
use super::row::{RowReader, RowWriter};
use crate::broker::Error;

/// One row: [`LEDGER_KEY`]; and the schema version under [`SCHEMA_KEY`], as a bare number so that
/// every later program can read it.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Sequence number -> an event of some channel's history. The recovery log of the rings.
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Channel key -> its number, epoch, limit and last offset that the log may no longer show.
pub(super) const CHANNELS: TableDefinition<&str, &[u8]> = TableDefinition::new("channels");
/// (class, space, key) -> expiry, revision, value.
pub(super) const KV: TableDefinition<(u8, &str, &str), &[u8]> = TableDefinition::new("kv");
/// (expiry, class, space, key): which keys go when.
pub(super) const KV_EXPIRY: TableDefinition<(u64, u8, &str, &str), &[u8]> =
    TableDefinition::new("kv_expiry");
/// User id -> user.
pub(super) const USERS: TableDefinition<&str, &[u8]> = TableDefinition::new("users");
/// Wallet -> user id.
pub(super) const WALLETS: TableDefinition<&str, &[u8]> = TableDefinition::new("wallets");
/// (user, 1 if read, inverted order) -> notification. Being read is part of the key, so that the
/// unread ones, the oldest read one and the oldest one are each the end of a range.
pub(super) const NOTES: TableDefinition<(&str, u8, u64), &[u8]> = TableDefinition::new("notes");
/// User -> how many notifications, how many unread.
pub(super) const NOTE_COUNTS: TableDefinition<&str, &[u8]> = TableDefinition::new("note_counts");

/// (kind, token, family or user) -> until when it is kept, and which of a user's tokens it is about.
pub(super) const REVOCATIONS: TableDefinition<(u8, &str), &[u8]> =
    TableDefinition::new("revocations");
/// (end, kind, token, family or user): which revocations go when.
pub(super) const REVOCATION_EXPIRY: TableDefinition<(u64, u8, &str), &[u8]> =
    TableDefinition::new("revocation_expiry");

/// Does something with every table there is: backups and checks must not forget one.
pub(super) trait TableVisitor {
    /// Why it stops.
    type Error;

    fn visit<K: Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
    ) -> Result<(), Self::Error>;
}

/// Visits every table, [`META`] last: what is read before it is never ahead of the ledger.
pub(super) fn visit_tables<V: TableVisitor>(visitor: &mut V) -> Result<(), V::Error> {
    visitor.visit(LOG)?;
    visitor.visit(CHANNELS)?;
    visitor.visit(KV)?;
    visitor.visit(KV_EXPIRY)?;
    visitor.visit(USERS)?;
    visitor.visit(WALLETS)?;
    visitor.visit(NOTES)?;
    visitor.visit(NOTE_COUNTS)?;
    visitor.visit(REVOCATIONS)?;
    visitor.visit(REVOCATION_EXPIRY)?;
    visitor.visit(META)
}

pub(super) const SCHEMA_KEY: &str = "schema";
pub(super) const LEDGER_KEY: &str = "ledger";
/// How far an unfinished migration to here has come (`migration`). No server starts while it is there.
pub(super) const MIGRATION_KEY: &str = "migration";
/// Whom everything was migrated for from here, until a server opens it again.
pub(super) const RETIRED_KEY: &str = "retired";

/// What a row costs besides its key and value: its share of the page's index and of the branches.
pub(super) const ROW_BYTES: u64 = 16;

/// The tables of a write transaction, opened.
pub(super) struct Tables<'t> {
    meta: Table<'t, &'static str, &'static [u8]>,
    /// Not counted: the log is weighed by its own file.
    pub(super) log: Table<'t, u64, &'static [u8]>,
    pub(super) channels: Counted<'t, &'static str>,
    pub(super) kv: Counted<'t, (u8, &'static str, &'static str)>,
    pub(super) kv_expiry: Counted<'t, (u64, u8, &'static str, &'static str)>,
    pub(super) users: Counted<'t, &'static str>,
    pub(super) wallets: Counted<'t, &'static str>,
    pub(super) notes: Counted<'t, (&'static str, u8, u64)>,
    pub(super) note_counts: Counted<'t, &'static str>,
    pub(super) revocations: Counted<'t, (u8, &'static str)>,
    pub(super) revocation_expiry: Counted<'t, (u64, u8, &'static str)>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(tx: &'t WriteTransaction) -> Result<Self, Error> {
        let open = || -> Result<Self, TableError> {
            Ok(Self {
                meta: tx.open_table(META)?,
                log: tx.open_table(LOG)?,
                channels: Counted::new(tx.open_table(CHANNELS)?),
                kv: Counted::new(tx.open_table(KV)?),
                kv_expiry: Counted::new(tx.open_table(KV_EXPIRY)?),
                users: Counted::new(tx.open_table(USERS)?),
                wallets: Counted::new(tx.open_table(WALLETS)?),
                notes: Counted::new(tx.open_table(NOTES)?),
                note_counts: Counted::new(tx.open_table(NOTE_COUNTS)?),
                revocations: Counted::new(tx.open_table(REVOCATIONS)?),
                revocation_expiry: Counted::new(tx.open_table(REVOCATION_EXPIRY)?),
            })
        };
        open().map_err(Error::storage)
    }

    /// By how many bytes the counted tables grew (or shrank) in this transaction.
    pub(super) fn grown(&self) -> i64 {
        self.channels.grown
            + self.kv.grown
            + self.kv_expiry.grown
            + self.users.grown
            + self.wallets.grown
            + self.notes.grown
            + self.note_counts.grown
            + self.revocations.grown
            + self.revocation_expiry.grown
    }

    /// Whether anything was written to the counted tables.
    pub(super) fn touched(&self) -> bool {
        self.channels.touched
            || self.kv.touched
            || self.kv_expiry.touched
            || self.users.touched
            || self.wallets.touched
            || self.notes.touched
            || self.note_counts.touched
            || self.revocations.touched
            || self.revocation_expiry.touched
    }

    pub(super) fn write_schema(&mut self, schema: u64) -> Result<(), Error> {
        self.meta
            .insert(SCHEMA_KEY, schema.to_le_bytes().as_slice())
            .map_err(Error::storage)?;
        Ok(())
    }

    /// Sets a row of [`META`], or takes it away.
    pub(super) fn write_meta(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        match value {
            Some(value) => self.meta.insert(key, value).map_err(Error::storage)?,
            None => self.meta.remove(key).map_err(Error::storage)?,
        };
        Ok(())
    }

    pub(super) fn write_ledger(&mut self, ledger: &Ledger) -> Result<(), Error> {
        self.meta
            .insert(LEDGER_KEY, ledger.to_row().as_slice())
            .map_err(Error::storage)?;
        Ok(())
    }
}

/// A table that knows by how much it grew.
pub(super) struct Counted<'t, K: Key + 'static> {
    table: Table<'t, K, &'static [u8]>,
    grown: i64,
    touched: bool,
}

impl<'t, K: Key + 'static> Counted<'t, K> {
    fn new(table: Table<'t, K, &'static [u8]>) -> Self {
        Self {
            table,
            grown: 0,
            touched: false,
        }
    }

    /// For reading.
    pub(super) fn table(&self) -> &Table<'t, K, &'static [u8]> {
        &self.table
    }

    pub(super) fn insert(&mut self, key: K::SelfType<'_>, value: &[u8]) -> Result<(), Error> {
        let key_bytes = K::as_bytes(&key).as_ref().len();
        self.touched = true;
        let before = self.table.insert(&key, value).map_err(Error::storage)?;
        if let Some(before) = before {
            self.grown -= weight(key_bytes, before.value());
        }
        self.grown += weight(key_bytes, value);
        Ok(())
    }

    /// Removes a row and gives it back.
    pub(super) fn remove(&mut self, key: K::SelfType<'_>) -> Result<Option<Vec<u8>>, Error> {
        let key_bytes = K::as_bytes(&key).as_ref().len();
        let Some(before) = self.table.remove(&key).map_err(Error::storage)? else {
            return Ok(None);
        };
        self.touched = true;
        let before = before.value().to_vec();
        self.grown -= weight(key_bytes, &before);
        Ok(Some(before))
    }
}

fn weight(key_bytes: usize, value: &[u8]) -> i64 {
    let bytes = ROW_BYTES + (key_bytes + value.len()) as u64;
    i64::try_from(row_weight(bytes, REST_PERCENT)).unwrap_or(i64::MAX)
}

/// The numbers that must never go back, in one row that is written with every commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Commits ever. Tells after an I/O error whether the commit that failed is on disk after all.
    pub(super) commits: u64,
    /// The epoch of channels that have no row.
    pub(super) ground: String,
    /// The next number in the log.
    pub(super) next_sequence: u64,
    /// [`super::ring::Histories::next_channel`].
    pub(super) next_channel: u64,
    /// The last revision given to a key.
    pub(super) revision: u64,
    /// The last order given to a notification.
    pub(super) order: u64,
    /// What all tables but the log weigh.
    pub(super) rest_bytes: u64,
    /// Positions may have been given out that are not on disk (`relaxed`).
    pub(super) ahead: bool,
}

impl Ledger {
    pub(super) fn to_row(&self) -> Vec<u8> {
        RowWriter::new()
            .number(self.commits)
            .text(&self.ground)
            .number(self.next_sequence)
            .number(self.next_channel)
            .number(self.revision)
            .number(self.order)
            .number(self.rest_bytes)
            .byte(self.ahead.into())
            .done()
    }

    pub(super) fn from_row(row: &[u8]) -> Result<Self, Error> {
        let mut row = RowReader::new(row)?;
        Ok(Self {
            commits: row.number()?,
            ground: row.text()?.to_owned(),
            next_sequence: row.number()?,
            next_channel: row.number()?,
            revision: row.number()?,
            order: row.number()?,
            rest_bytes: row.number()?,
            ahead: row.late_flag(),
        })
    }
}

/// The bytes of one row of a table that reads or writes.
pub(super) fn row_of<K: Key + 'static>(
    table: &impl ReadableTable<K, &'static [u8]>,
    key: K::SelfType<'_>,
) -> Result<Option<Vec<u8>>, Error> {
    let row = table.get(&key).map_err(Error::storage)?;
    Ok(row.map(|row| row.value().to_vec()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use redb::TableHandle;

    use super::*;

    #[derive(Default)]
    struct Names(BTreeSet<String>);

    impl TableVisitor for Names {
        type Error = std::convert::Infallible;

        fn visit<K: Key + 'static>(
            &mut self,
            table: TableDefinition<'static, K, &'static [u8]>,
        ) -> Result<(), Self::Error> {
            self.0.insert(table.name().to_owned());
            Ok(())
        }
    }

    #[test]
    fn every_table_is_visited() {
        let database = redb::Database::builder()
            .create_with_backend(redb::backends::InMemoryBackend::new())
            .unwrap();
        let tx = database.begin_write().unwrap();
        drop(Tables::open(&tx).unwrap());
        let there = tx.list_tables().unwrap();
        let there: BTreeSet<String> = there.map(|table| table.name().to_owned()).collect();
        let mut visited = Names::default();
        visit_tables(&mut visited).unwrap();
        assert_eq!(visited.0, there);
    }
}
