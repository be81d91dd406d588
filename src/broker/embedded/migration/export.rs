//! Telling what a database keeps.

use aws_lc_rs::digest::{SHA256, digest};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata};

use super::{Options, refused, rows};
use crate::broker::Error;
use crate::broker::embedded::copy::existing;
use crate::broker::embedded::kv::Class;
use crate::broker::embedded::ring::Histories;
use crate::broker::embedded::tables::{KV, LOG, NOTES, RETIRED_KEY, REVOCATIONS, USERS};
use crate::broker::embedded::{log, open};
use crate::broker::migration::{
    Batch, ChannelState, HistoryEvent, Kind, MigrationError, Record, Source, Take,
};
use crate::protocol::Epoch;

/// A database that is migrated from. Held open: no server starts on it meanwhile.
pub struct Origin {
    options: Options,
    database: Database,
    /// As a server would have them; in as much memory.
    histories: Option<Histories>,
}

impl Origin {
    /// Opens it.
    ///
    /// # Errors
    /// It is not there, in use, or itself the target of an unfinished migration.
    pub fn open(options: Options) -> Result<Self, MigrationError> {
        let database = existing(&options.path).map_err(|error| refused(&error))?;
        Ok(Self {
            options,
            database,
            histories: None,
        })
    }

    fn read(&self) -> Result<ReadTransaction, MigrationError> {
        self.database.begin_read().map_err(source)
    }

    fn histories(&mut self) -> Result<&Histories, MigrationError> {
        if self.histories.is_none() {
            let now_ms = self.options.clock.unix_ms();
            let loaded = open::load(&self.database, now_ms, self.options.history_bytes);
            self.histories = Some(loaded.map_err(MigrationError::Source)?.1);
        }
        self.histories.as_ref().ok_or(MigrationError::Changed)
    }

    fn history(
        &mut self,
        from: Option<&str>,
        beyond_ms: u64,
        take: Take<'_>,
    ) -> Result<(), MigrationError> {
        let from = from.and_then(|from| from.parse().ok());
        let start = from.map_or(0, |number: u64| number + 1);
        let mut batch = Batch::new(take);
        for (number, ring) in self.histories()?.rings.range(start..) {
            let expire_ms = ring.expire_ms.saturating_add(log::IDLE_MS);
            if expire_ms <= beyond_ms {
                continue;
            }
            batch.add(Record::Channel(ChannelState {
                channel: ring.channel.clone(),
                epoch: ring.epoch.clone(),
                top: ring.top,
                limit: ring.limit as u64,
                expire_ms,
            }))?;
            for index in ring.first_alive(beyond_ms)..ring.slots.len() {
                let slot = &ring.slots[index];
                batch.add(Record::Event(HistoryEvent {
                    channel: ring.channel.clone(),
                    offset: ring.offset_at(index),
                    expire_ms: slot.expire_ms,
                    event: slot.event.clone(),
                }))?;
            }
            batch.place(|| number.to_string())?;
        }
        batch.flush(None)
    }

    fn kept(
        &self,
        class: Class,
        from: Option<&str>,
        beyond_ms: u64,
        take: Take<'_>,
    ) -> Result<(), MigrationError> {
        let tx = self.read()?;
        let table = tx.open_table(KV).map_err(source)?;
        let class = class as u8;
        let from = from
            .and_then(|from| from.split_once('\0'))
            .unwrap_or_default();
        let mut batch = Batch::new(take);
        let begin = (class, from.0, from.1);
        for row in table.range(begin..(class + 1, "", "")).map_err(source)? {
            let (key, row) = row.map_err(source)?;
            let (_, space, name) = key.value();
            let told = rows::value(key.value(), row.value()).map_err(MigrationError::Source)?;
            if let Some((record, expire_ms)) = told
                && expire_ms > beyond_ms
            {
                batch.add(record)?;
            }
            batch.place(|| format!("{space}\0{name}"))?;
        }
        batch.flush(None)
    }

    fn users(&self, from: Option<&str>, take: Take<'_>) -> Result<(), MigrationError> {
        let tx = self.read()?;
        let table = tx.open_table(USERS).map_err(source)?;
        let mut batch = Batch::new(take);
        for row in table.range(from.unwrap_or("")..).map_err(source)? {
            let (id, row) = row.map_err(source)?;
            let user = rows::user(id.value(), row.value()).map_err(MigrationError::Source)?;
            batch.add(Record::User(user))?;
            batch.place(|| id.value().to_owned())?;
        }
        batch.flush(None)
    }

    fn notes(&self, from: Option<&str>, take: Take<'_>) -> Result<(), MigrationError> {
        let tx = self.read()?;
        let table = tx.open_table(NOTES).map_err(source)?;
        let mut batch = Batch::new(take);
        let begin = (from.unwrap_or(""), 0, 0);
        let mut last = None;
        for row in table.range(begin..).map_err(source)? {
            let (key, row) = row.map_err(source)?;
            let (user, read, inverted) = key.value();
            if last.as_deref().is_some_and(|last| last != user) {
                // All of the one before: the walk goes on with this one.
                batch.place(|| user.to_owned())?;
            }
            if last.as_deref() != Some(user) {
                last = Some(user.to_owned());
            }
            let note = rows::note(user, read, !inverted, row.value());
            batch.add(Record::Notification(note.map_err(MigrationError::Source)?))?;
        }
        batch.flush(None)
    }

    fn revocations(
        &self,
        from: Option<&str>,
        beyond_ms: u64,
        take: Take<'_>,
    ) -> Result<(), MigrationError> {
        let tx = self.read()?;
        let table = tx.open_table(REVOCATIONS).map_err(source)?;
        let mut batch = Batch::new(take);
        let kind = from.and_then(|from| from.get(..1)?.parse().ok());
        let begin = (
            kind.unwrap_or(0),
            from.and_then(|from| from.get(1..)).unwrap_or(""),
        );
        for row in table.range(begin..).map_err(source)? {
            let (key, row) = row.map_err(source)?;
            let (kind, id) = key.value();
            let revocation = rows::revocation(kind, id, row.value());
            let revocation = revocation.map_err(MigrationError::Source)?;
            if revocation.keep_until_ms > beyond_ms {
                batch.add(Record::Revocation(revocation))?;
            }
            batch.place(|| format!("{kind}{id}"))?;
        }
        batch.flush(None)
    }
}

impl Source for Origin {
    /// The ledger changes with every commit.
    fn identity(&mut self) -> Result<String, MigrationError> {
        let ledger = open::read_ledger(&self.database).map_err(MigrationError::Source)?;
        let hash = digest(&SHA256, &ledger.to_row());
        let digits = hash.as_ref().iter().take(16);
        Ok(digits.map(|byte| format!("{byte:02x}")).collect())
    }

    fn retired(&mut self) -> Result<Option<String>, MigrationError> {
        let row = open::meta(&self.database, RETIRED_KEY).map_err(MigrationError::Source)?;
        Ok(row.and_then(|row| String::from_utf8(row).ok()))
    }

    fn count(&mut self, kind: Kind) -> Option<u64> {
        let tx = self.read().ok()?;
        let rows = match kind {
            Kind::Revocations => tx.open_table(REVOCATIONS).ok()?.len(),
            Kind::Users => tx.open_table(USERS).ok()?.len(),
            Kind::Notifications => tx.open_table(NOTES).ok()?.len(),
            Kind::History => tx.open_table(LOG).ok()?.len(),
            Kind::Values | Kind::Answers => return None,
        };
        rows.ok()
    }

    fn walk(
        &mut self,
        kind: Kind,
        from: Option<&str>,
        beyond_ms: u64,
        take: Take<'_>,
    ) -> Result<(), MigrationError> {
        match kind {
            Kind::Revocations => self.revocations(from, beyond_ms, take),
            Kind::Users => self.users(from, take),
            Kind::Values => self.kept(Class::Caller, from, beyond_ms, take),
            Kind::Answers => self.kept(Class::Answer, from, beyond_ms, take),
            Kind::Notifications => self.notes(from, take),
            Kind::History => self.history(from, beyond_ms, take),
        }
    }

    fn ground(&mut self) -> Result<Option<Epoch>, MigrationError> {
        let ledger = open::read_ledger(&self.database).map_err(MigrationError::Source)?;
        Ok(Some(Epoch::new(&ledger.ground)))
    }

    fn retire(&mut self, identity: &str) -> Result<(), MigrationError> {
        open::rewrite(&self.database, |tables, ledger| {
            log::end_all_epochs(tables, ledger)?;
            tables.write_meta(RETIRED_KEY, Some(identity.as_bytes()))
        })
        .map_err(MigrationError::Source)
    }
}

fn source(error: impl std::fmt::Display) -> MigrationError {
    MigrationError::Source(Error::storage(error))
}
