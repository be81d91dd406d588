//! What an operator does with a database that no server has open: prove it, pack it, weigh it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, TableHandle,
};
use serde::Serialize;

use super::copy::existing;
use super::log::{ChannelRow, channel_and_offset};
use super::tables::{
    CHANNELS, KV, KV_EXPIRY, LOG, NOTE_COUNTS, NOTES, TableVisitor, USERS, WALLETS, visit_tables,
};
use super::{OpenError, kv, notifications, open, users};
use crate::broker::Error;

/// Problems of one kind that are told; more are only counted.
const TOLD_MAX: usize = 10;

/// Why a command on a database file did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be read or written.
    #[error("the database: {0}")]
    Store(#[from] Error),
}

/// What a check found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Rows that were read.
    pub rows: u64,
    /// What is wrong, for people; empty: nothing is.
    pub problems: Vec<String>,
    /// Problems that are not in the list.
    pub more: u64,
}

/// What a database file holds and takes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Weighed {
    /// Its length; parts that were never written take no room.
    pub file_bytes: u64,
    /// What it takes on disk.
    pub disk_bytes: u64,
    /// Rows by table.
    pub tables: BTreeMap<String, u64>,
}

/// Length and blocks before and after packing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compacted {
    /// What it took on disk.
    pub before_bytes: u64,
    /// What it takes now.
    pub after_bytes: u64,
}

/// Verifies every page's checksum, then that the tables agree with each other.
///
/// # Errors
/// When it cannot be opened or read at all. What is wrong inside is in [`Checked`].
pub fn check(path: &Path) -> Result<Checked, MaintenanceError> {
    match open::guarded(path, || check_it(path)) {
        Err(MaintenanceError::Open(OpenError::Damaged { cause, .. })) => {
            let mut checked = Checked::default();
            checked.tell(cause);
            Ok(checked)
        }
        checked => checked,
    }
}

fn check_it(path: &Path) -> Result<Checked, MaintenanceError> {
    let mut database = existing(path)?;
    let mut checked = Checked::default();
    match database.check_integrity() {
        Ok(true) => {}
        Ok(false) => checked.tell("redb had to repair the file".to_owned()),
        Err(error) => {
            checked.tell(format!("redb: {error}"));
            return Ok(checked);
        }
    }
    let tx = database.begin_read().map_err(Error::storage)?;
    channels_and_log(&tx, &mut checked)?;
    keys(&tx, &mut checked)?;
    wallets(&tx, &mut checked)?;
    notes(&tx, &mut checked)?;
    drop(tx);
    drop(database);
    // As the server will do it.
    drop(open::open(path, 0, u64::MAX)?);
    Ok(checked)
}

/// Rewrites the file without the gaps in it.
///
/// # Errors
/// When it cannot be opened, read or written; it is then as it was.
pub fn compact(path: &Path) -> Result<Compacted, MaintenanceError> {
    open::guarded(path, || compact_it(path))
}

fn compact_it(path: &Path) -> Result<Compacted, MaintenanceError> {
    let mut database = existing(path)?;
    let before_bytes = disk_bytes(path);
    // Each round moves what it can; the last one finds nothing more to move.
    while database.compact().map_err(Error::storage)? {}
    drop(database);
    Ok(Compacted {
        before_bytes,
        after_bytes: disk_bytes(path),
    })
}

/// Counts the rows of every table.
///
/// # Errors
/// When it cannot be opened or read.
pub fn weigh(path: &Path) -> Result<Weighed, MaintenanceError> {
    open::guarded(path, || weigh_it(path))
}

fn weigh_it(path: &Path) -> Result<Weighed, MaintenanceError> {
    let database: Database = existing(path)?;
    let tx = database.begin_read().map_err(Error::storage)?;
    let mut lengths = Lengths {
        tx: &tx,
        tables: BTreeMap::new(),
    };
    visit_tables(&mut lengths)?;
    Ok(Weighed {
        file_bytes: std::fs::metadata(path).map_or(0, |file| file.len()),
        disk_bytes: disk_bytes(path),
        tables: lengths.tables,
    })
}

fn disk_bytes(path: &Path) -> u64 {
    // `st_blocks` counts units of 512 bytes, whatever the file system's block is.
    std::fs::metadata(path).map_or(0, |file| file.blocks() * 512)
}

impl Checked {
    fn tell(&mut self, problem: String) {
        if self.problems.len() < TOLD_MAX {
            self.problems.push(problem);
        } else {
            self.more += 1;
        }
    }
}

struct Lengths<'t> {
    tx: &'t ReadTransaction,
    tables: BTreeMap<String, u64>,
}

impl TableVisitor for Lengths<'_> {
    type Error = Error;

    fn visit<K: Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
    ) -> Result<(), Error> {
        let open = self.tx.open_table(table).map_err(Error::storage)?;
        let rows = open.len().map_err(Error::storage)?;
        self.tables.insert(table.name().to_owned(), rows);
        Ok(())
    }
}

/// Every event belongs to a channel; a channel's events are in order.
fn channels_and_log(tx: &ReadTransaction, checked: &mut Checked) -> Result<(), Error> {
    let mut names = HashMap::new();
    let channels = tx.open_table(CHANNELS).map_err(Error::storage)?;
    for row in channels.iter().map_err(Error::storage)? {
        let (key, row) = row.map_err(Error::storage)?;
        checked.rows += 1;
        let Ok(row) = ChannelRow::from_row(row.value()) else {
            checked.tell(format!("channel {}: its row cannot be read", key.value()));
            continue;
        };
        if let Some(other) = names.insert(row.number, key.value().to_owned()) {
            checked.tell(format!("channels {other} and {}: one number", key.value()));
        }
    }
    let mut tops: HashMap<u64, HashSet<u64>> = HashMap::new();
    let log = tx.open_table(LOG).map_err(Error::storage)?;
    for row in log.iter().map_err(Error::storage)? {
        let (sequence, row) = row.map_err(Error::storage)?;
        checked.rows += 1;
        let Ok((channel, offset)) = channel_and_offset(row.value()) else {
            checked.tell(format!(
                "event {}: its row cannot be read",
                sequence.value()
            ));
            continue;
        };
        // Rows of a channel that was dropped stay until the log is packed.
        let Some(name) = names.get(&channel) else {
            continue;
        };
        if !tops.entry(channel).or_default().insert(offset) {
            checked.tell(format!("channel {name}: offset {offset} stands twice"));
        }
    }
    Ok(())
}

/// Every key that ends is in the index of ends, and the other way round.
fn keys(tx: &ReadTransaction, checked: &mut Checked) -> Result<(), Error> {
    let table = tx.open_table(KV).map_err(Error::storage)?;
    let expiry = tx.open_table(KV_EXPIRY).map_err(Error::storage)?;
    for row in table.iter().map_err(Error::storage)? {
        let (key, row) = row.map_err(Error::storage)?;
        checked.rows += 1;
        let (class, space, name) = key.value();
        let Ok(expire_ms) = kv::expire_ms(row.value()) else {
            checked.tell(format!("key {space}/{name}: its row cannot be read"));
            continue;
        };
        let entry = (expire_ms, class, space, name);
        if expire_ms != kv::NEVER && expiry.get(&entry).map_err(Error::storage)?.is_none() {
            checked.tell(format!("key {space}/{name}: nothing will ever remove it"));
        }
    }
    for row in expiry.iter().map_err(Error::storage)? {
        let (entry, _) = row.map_err(Error::storage)?;
        checked.rows += 1;
        let (_, class, space, name) = entry.value();
        if table
            .get(&(class, space, name))
            .map_err(Error::storage)?
            .is_none()
        {
            checked.tell(format!("key {space}/{name}: an end of what is not there"));
        }
    }
    Ok(())
}

/// Every wallet belongs to a user who has it.
fn wallets(tx: &ReadTransaction, checked: &mut Checked) -> Result<(), Error> {
    let users = tx.open_table(USERS).map_err(Error::storage)?;
    checked.rows += users.len().map_err(Error::storage)?;
    let wallets = tx.open_table(WALLETS).map_err(Error::storage)?;
    for row in wallets.iter().map_err(Error::storage)? {
        let (wallet, _) = row.map_err(Error::storage)?;
        checked.rows += 1;
        let wallet = wallet.value();
        let owner = users::by_wallet(&users, &wallets, wallet);
        if !matches!(owner, Ok(Some(user)) if user.wallet.as_deref() == Some(wallet)) {
            checked.tell(format!("wallet {wallet}: its user does not have it"));
        }
    }
    Ok(())
}

/// The counts of each user are those of the rows.
fn notes(tx: &ReadTransaction, checked: &mut Checked) -> Result<(), Error> {
    let mut counted: HashMap<String, (u64, u64)> = HashMap::new();
    let notes = tx.open_table(NOTES).map_err(Error::storage)?;
    for row in notes.iter().map_err(Error::storage)? {
        let (key, _) = row.map_err(Error::storage)?;
        checked.rows += 1;
        let (user, is_read, _) = key.value();
        let (all, unread) = match counted.get_mut(user) {
            Some(counts) => counts,
            None => counted.entry(user.to_owned()).or_default(),
        };
        *all += 1;
        *unread += u64::from(is_read == 0);
    }
    let counts = tx.open_table(NOTE_COUNTS).map_err(Error::storage)?;
    for row in counts.iter().map_err(Error::storage)? {
        let (user, _) = row.map_err(Error::storage)?;
        checked.rows += 1;
        let user = user.value();
        let said = notifications::counts(&counts, user);
        let there = counted.remove(user).unwrap_or_default();
        if !matches!(said, Ok(said) if (said.total, said.unread) == there) {
            checked.tell(format!("user {user}: notifications are miscounted"));
        }
    }
    for user in counted.keys() {
        checked.tell(format!("user {user}: notifications are not counted"));
    }
    Ok(())
}
