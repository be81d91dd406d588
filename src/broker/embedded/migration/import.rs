//! Making a database of what another backend keeps.

use std::fs;

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, TableHandle, WriteTransaction,
};

use super::{Options, refused, rows};
use crate::broker::Error;
use crate::broker::embedded::kv::{self, Class, NEVER};
use crate::broker::embedded::log::{ChannelRow, LogRow};
use crate::broker::embedded::memory::{SLOT_BYTES, ring_memory};
use crate::broker::embedded::notifications::{self, READ, UNREAD};
use crate::broker::embedded::open::{self, SCHEMA};
use crate::broker::embedded::quota::Quota;
use crate::broker::embedded::revocations;
use crate::broker::embedded::ring::{Histories, log_json_bytes};
use crate::broker::embedded::row::RowWriter;
use crate::broker::embedded::tables::{
    KV, LOG, Ledger, META, MIGRATION_KEY, NOTES, REVOCATIONS, TableVisitor, Tables, USERS, row_of,
    visit_tables,
};
use crate::broker::embedded::{OpenError, users};
use crate::broker::migration::{
    ChannelState, Checkpoint, HistoryEvent, KeptValue, MigrationError, Record, Target,
};
use crate::broker::{Notification, Revocation, User};
use crate::protocol::ChannelKey;

/// Rows that one transaction gathers.
const TRANSACTION_ROWS: usize = 20_000;

/// A database that is migrated to.
pub struct Destination {
    options: Options,
    database: Option<Database>,
    ledger: Ledger,
    gathered: Gathered,
    /// What is in the log already, and what its events will take in memory.
    log_bytes: u64,
    memory: u64,
    /// The channel whose events come now: its number, and whether there were any.
    current: Option<(ChannelState, u64, bool)>,
    histories: Option<Histories>,
}

/// A transaction that is not committed yet.
#[derive(Default)]
struct Gathered {
    tx: Option<WriteTransaction>,
    rows: usize,
}

impl Destination {
    /// Opens it, or creates it.
    ///
    /// # Errors
    /// It is in use, or no database of ours.
    pub fn open(options: Options) -> Result<Self, MigrationError> {
        let database = database(&options)?;
        let mut destination = Self {
            ledger: open::read_ledger(&database).map_err(MigrationError::Target)?,
            database: Some(database),
            options,
            gathered: Gathered::default(),
            log_bytes: 0,
            memory: 0,
            current: None,
            histories: None,
        };
        destination.weigh_log().map_err(MigrationError::Target)?;
        Ok(destination)
    }

    fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or(Error::Closed)
    }

    fn weigh_log(&mut self) -> Result<(), Error> {
        let tx = self.database()?.begin_read().map_err(Error::storage)?;
        let table = tx.open_table(LOG).map_err(Error::storage)?;
        (self.log_bytes, self.memory) = (0, 0);
        for row in table.iter().map_err(Error::storage)? {
            let (_, row) = row.map_err(Error::storage)?;
            let json = LogRow::from_row(row.value())?.json.len() as u64;
            self.log_bytes += log_json_bytes(LogRow::from_row(row.value())?.json);
            self.memory += SLOT_BYTES + json;
        }
        Ok(())
    }

    fn write(&mut self, records: &[Record], mark: Option<&[u8]>) -> Result<(), Error> {
        self.histories = None;
        let tx = match self.gathered.tx.take() {
            Some(tx) => tx,
            None => {
                let mut tx = self.database()?.begin_write().map_err(Error::storage)?;
                tx.set_quick_repair(true);
                tx
            }
        };
        {
            let mut tables = Tables::open(&tx)?;
            for record in records {
                self.place(&mut tables, record)?;
            }
            self.ledger.rest_bytes = self.ledger.rest_bytes.saturating_add_signed(tables.grown());
            self.bound()?;
            if mark.is_some() {
                tables.write_meta(MIGRATION_KEY, mark)?;
            }
            self.ledger.commits += 1;
            tables.write_ledger(&self.ledger)?;
        }
        self.gathered.rows += records.len();
        if mark.is_some() || self.gathered.rows >= TRANSACTION_ROWS {
            self.gathered.rows = 0;
            return tx.commit().map_err(Error::storage);
        }
        self.gathered.tx = Some(tx);
        Ok(())
    }

    /// A server would refuse writes, or shorten histories: better nothing than half of it.
    fn bound(&self) -> Result<(), Error> {
        let quota = Quota {
            store_bytes: self.options.store_bytes,
        };
        let weight = Quota::weigh(self.log_bytes, self.ledger.rest_bytes);
        let more = "raise it, and run this again";
        if !quota.admits(weight) {
            let text = format!("limits.store_bytes is too small for what is to be kept: {more}");
            return Err(Error::storage(text));
        }
        if self.memory > self.options.history_bytes {
            let text = format!("limits.history_bytes is too small for the histories: {more}");
            return Err(Error::storage(text));
        }
        Ok(())
    }

    fn place(&mut self, tables: &mut Tables<'_>, record: &Record) -> Result<(), Error> {
        match record {
            Record::User(user) => place_user(tables, user),
            Record::Notification(note) => self.place_note(tables, note),
            Record::Channel(state) => self.place_channel(tables, state),
            Record::Event(event) => self.place_event(tables, event),
            Record::Revocation(revocation) => place_revocation(tables, revocation),
            Record::Value(kept) => {
                let KeptValue {
                    space, key, value, ..
                } = kept;
                let expire_ms = kept.expire_ms.unwrap_or(NEVER);
                self.place_value(tables, (Class::Caller, space, key), value, expire_ms)
            }
            Record::Answer(kept) => {
                let (space, value) = rows::answer(kept)?;
                let place = (Class::Answer, space, kept.key.as_str());
                self.place_value(tables, place, &value, kept.expire_ms)
            }
        }
    }

    fn place_note(&mut self, tables: &mut Tables<'_>, note: &Notification) -> Result<(), Error> {
        let user = note.user_id.as_str();
        let order = notifications::order_of(&note.id)
            .ok_or_else(|| Error::storage("a notification whose id is not one of ours"))?;
        self.ledger.order = self.ledger.order.max(order);
        let mut counts = notifications::counts(tables.note_counts.table(), user)?;
        for read in [UNREAD, READ] {
            if tables.notes.remove((user, read, !order))?.is_some() {
                counts.total = counts.total.saturating_sub(1);
                counts.unread = counts.unread.saturating_sub(u64::from(read == UNREAD));
            }
        }
        let read = if note.is_read { READ } else { UNREAD };
        let row = notifications::to_row(note)?;
        tables.notes.insert((user, read, !order), &row)?;
        counts.total += 1;
        counts.unread += u64::from(!note.is_read);
        let row = RowWriter::new().number(counts.total).number(counts.unread);
        tables.note_counts.insert(user, &row.done())
    }

    /// The channel gets a new number: rows of the log that came before belong to nobody any more.
    fn place_channel(
        &mut self,
        tables: &mut Tables<'_>,
        state: &ChannelState,
    ) -> Result<(), Error> {
        let number = self.ledger.next_channel;
        self.ledger.next_channel += 1;
        self.memory += ring_memory(&state.channel);
        write_channel(tables, state, number, state.top)?;
        self.current = Some((state.clone(), number, false));
        Ok(())
    }

    fn place_event(&mut self, tables: &mut Tables<'_>, event: &HistoryEvent) -> Result<(), Error> {
        let (state, number, has_events) = self
            .current
            .as_mut()
            .filter(|(state, ..)| state.channel == event.channel)
            .ok_or_else(|| Error::storage("an event without its channel"))?;
        if !*has_events {
            *has_events = true;
            write_channel(tables, state, *number, event.offset.saturating_sub(1))?;
        }
        let json = event.event.as_bytes();
        let row = LogRow {
            channel: *number,
            offset: event.offset,
            expire_ms: event.expire_ms,
            json,
        };
        let sequence = self.ledger.next_sequence;
        self.ledger.next_sequence += 1;
        tables
            .log
            .insert(sequence, row.to_row().as_slice())
            .map_err(Error::storage)?;
        self.log_bytes += log_json_bytes(json);
        self.memory += SLOT_BYTES + json.len() as u64;
        Ok(())
    }

    fn place_value(
        &mut self,
        tables: &mut Tables<'_>,
        (class, space, key): (Class, &str, &str),
        value: &[u8],
        expire_ms: u64,
    ) -> Result<(), Error> {
        let class = class as u8;
        self.ledger.revision += 1;
        let row = kv::Row {
            expire_ms,
            revision: self.ledger.revision,
            value,
        };
        if let Some(former) = tables.kv.remove((class, space, key))? {
            let former_ms = kv::expire_ms(&former)?;
            tables.kv_expiry.remove((former_ms, class, space, key))?;
        }
        tables.kv.insert((class, space, key), &row.to_row())?;
        if expire_ms != NEVER {
            tables
                .kv_expiry
                .insert((expire_ms, class, space, key), &[])?;
        }
        Ok(())
    }

    fn find(&self, tx: &ReadTransaction, record: &Record) -> Result<Option<Record>, Error> {
        let found = match record {
            Record::User(user) => {
                let table = tx.open_table(USERS).map_err(Error::storage)?;
                users::by_id(&table, &user.id)?.map(Record::User)
            }
            Record::Notification(note) => {
                let table = tx.open_table(NOTES).map_err(Error::storage)?;
                let note = notifications::find(&table, &note.user_id, &note.id)?;
                note.map(Record::Notification)
            }
            Record::Channel(state) => self.ring(&state.channel).map(|ring| {
                Record::Channel(ChannelState {
                    channel: state.channel.clone(),
                    epoch: ring.epoch.clone(),
                    top: ring.top,
                    limit: ring.limit as u64,
                    expire_ms: state.expire_ms,
                })
            }),
            Record::Event(event) => self.ring(&event.channel).and_then(|ring| {
                let slot = ring.slots.get(ring.index(event.offset)?)?;
                Some(Record::Event(HistoryEvent {
                    channel: event.channel.clone(),
                    offset: event.offset,
                    expire_ms: slot.expire_ms,
                    event: slot.event.clone(),
                }))
            }),
            Record::Revocation(revocation) => {
                let (kind, id, _) = revocations::named(&revocation.revoked);
                let table = tx.open_table(REVOCATIONS).map_err(Error::storage)?;
                let row = row_of(&table, (kind, id))?;
                let found = row
                    .map(|row| rows::revocation(kind, id, &row))
                    .transpose()?;
                found.map(Record::Revocation)
            }
            Record::Value(kept) => find_value(tx, (Class::Caller as u8, &kept.space, &kept.key))?,
            Record::Answer(kept) => {
                let (space, _) = rows::answer(kept)?;
                find_value(tx, (Class::Answer as u8, space, &kept.key))?
            }
        };
        Ok(found)
    }

    fn ring(&self, channel: &ChannelKey) -> Option<&crate::broker::embedded::ring::Ring> {
        self.histories.as_ref()?.ring(channel)
    }

    fn mark(&self) -> Result<Option<Vec<u8>>, Error> {
        open::meta(self.database()?, MIGRATION_KEY)
    }
}

impl Target for Destination {
    fn found(&mut self) -> Result<Option<Checkpoint>, MigrationError> {
        if let Some(row) = self.mark().map_err(MigrationError::Target)? {
            let checkpoint = serde_json::from_slice(&row);
            return checkpoint.map(Some).map_err(|_| {
                MigrationError::Refused(format!(
                    "{} holds a migration of another version: move it away",
                    self.options.path.display()
                ))
            });
        }
        let database = self.database().map_err(MigrationError::Target)?;
        if is_empty(database).map_err(MigrationError::Target)? {
            return Ok(None);
        }
        Err(MigrationError::Refused(format!(
            "{} is not empty: name --replace to put it aside, or another data_dir",
            self.options.path.display()
        )))
    }

    fn wipe(&mut self) -> Result<(), MigrationError> {
        self.gathered = Gathered::default();
        self.database = None;
        fs::remove_file(&self.options.path).map_err(|error| {
            let path = self.options.path.display();
            MigrationError::Refused(format!("{path}: {error}"))
        })?;
        *self = Self::open(self.options.clone())?;
        Ok(())
    }

    fn put(
        &mut self,
        records: &[Record],
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), MigrationError> {
        let mark = checkpoint.map(serde_json::to_vec).transpose();
        let mark = mark.map_err(|error| MigrationError::Target(Error::storage(error)))?;
        self.write(records, mark.as_deref())
            .map_err(MigrationError::Target)
    }

    fn look_up(&mut self, records: &[Record]) -> Result<Vec<Option<Record>>, MigrationError> {
        let mut look = || -> Result<Vec<Option<Record>>, Error> {
            let is_history = |it: &Record| matches!(it, Record::Channel(_) | Record::Event(_));
            if self.histories.is_none() && records.iter().any(is_history) {
                // As a server would have them.
                let (now_ms, bytes) = (self.options.clock.unix_ms(), self.options.history_bytes);
                self.histories = Some(open::load(self.database()?, now_ms, bytes)?.1);
            }
            let tx = self.database()?.begin_read().map_err(Error::storage)?;
            records
                .iter()
                .map(|record| self.find(&tx, record))
                .collect()
        };
        look().map_err(MigrationError::Target)
    }

    /// A database forgets nothing.
    fn identity(&mut self) -> Result<String, MigrationError> {
        Ok(String::new())
    }

    fn finish(&mut self, _: &Checkpoint) -> Result<(), MigrationError> {
        let database = self.database().map_err(MigrationError::Target)?;
        open::rewrite(database, |tables, _| tables.write_meta(MIGRATION_KEY, None))
            .map_err(MigrationError::Target)
    }
}

fn database(options: &Options) -> Result<Database, MigrationError> {
    let path = &options.path;
    open::create_file(path).map_err(|error| refused(&error))?;
    let database = open::builder()
        .create(path)
        .map_err(|error| refused(&open::explain(path, error)))?;
    match open::schema(&database).map_err(MigrationError::Target)? {
        None => open::create_tables(&database).map_err(MigrationError::Target)?,
        Some(SCHEMA) => {}
        Some(found) => {
            return Err(refused(&OpenError::Newer {
                path: path.clone(),
                found,
                known: SCHEMA,
            }));
        }
    }
    Ok(database)
}

fn place_user(tables: &mut Tables<'_>, user: &User) -> Result<(), Error> {
    tables
        .users
        .insert(user.id.as_str(), &users::to_row(user))?;
    if let Some(wallet) = &user.wallet {
        let pointer = RowWriter::new().text(&user.id).done();
        tables.wallets.insert(wallet, &pointer)?;
    }
    Ok(())
}

fn place_revocation(tables: &mut Tables<'_>, revocation: &Revocation) -> Result<(), Error> {
    let (kind, id, before_ms) = revocations::named(&revocation.revoked);
    let row = revocations::Row {
        keep_until_ms: revocation.keep_until_ms,
        before_ms,
    };
    if let Some(former) = tables.revocations.remove((kind, id))? {
        let former_ms = revocations::Row::from_row(&former)?.keep_until_ms;
        tables.revocation_expiry.remove((former_ms, kind, id))?;
    }
    tables.revocations.insert((kind, id), &row.to_row())?;
    tables
        .revocation_expiry
        .insert((row.keep_until_ms, kind, id), &[])
}

fn write_channel(
    tables: &mut Tables<'_>,
    state: &ChannelState,
    number: u64,
    floor: u64,
) -> Result<(), Error> {
    let row = ChannelRow {
        number,
        epoch: state.epoch.as_str().to_owned(),
        limit: state.limit,
        floor,
        relaxed: false,
    };
    tables
        .channels
        .insert(state.channel.as_str(), &row.to_row())
}

fn find_value(tx: &ReadTransaction, key: (u8, &str, &str)) -> Result<Option<Record>, Error> {
    let table = tx.open_table(KV).map_err(Error::storage)?;
    let row = row_of(&table, key)?;
    let found = row.map(|row| rows::value(key, &row)).transpose()?;
    Ok(found.flatten().map(|(record, _)| record))
}

/// Whether no table but the one of the schema has a row.
fn is_empty(database: &Database) -> Result<bool, Error> {
    struct Rows(ReadTransaction, u64);
    impl TableVisitor for Rows {
        type Error = Error;

        fn visit<K: Key + 'static>(
            &mut self,
            table: TableDefinition<'static, K, &'static [u8]>,
        ) -> Result<(), Error> {
            if table.name() != META.name() {
                let table = self.0.open_table(table).map_err(Error::storage)?;
                self.1 += table.len().map_err(Error::storage)?;
            }
            Ok(())
        }
    }
    let mut rows = Rows(database.begin_read().map_err(Error::storage)?, 0);
    visit_tables(&mut rows)?;
    Ok(rows.1 == 0)
}
