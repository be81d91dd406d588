//! Opening the database: the file, its schema, and what is kept of it in memory.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, StorageError};
use uuid::Uuid;

use super::log;
use super::ring::Histories;
use super::tables::{LEDGER_KEY, Ledger, META, MIGRATION_KEY, RETIRED_KEY, SCHEMA_KEY, Tables};
use crate::broker::Error;

/// The layout of the tables. Goes up with every change that an older program would misread.
pub(super) const SCHEMA: u64 = 3;

/// The file in `data_dir`.
pub const FILE_NAME: &str = "fanfare.redb";

/// redb's page cache. What is read often (rings) is not read from redb at all.
const CACHE_BYTES: usize = 32 << 20;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It was written by a newer program.
    #[error(
        "{path} has schema version {found}, this program knows versions up to {known}: \
         start the newer fanfare again, or choose another data_dir"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: u64,
        /// The version of this program.
        known: u64,
    },
    /// Another process has it open.
    #[error(
        "{path} is in use by another process: stop the other fanfare, or choose another data_dir"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is a file of something else.
    #[error("{path} is not a fanfare database: move it away, or choose another data_dir")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The operating system does not allow it.
    #[error("no permission to read and write {path}: give it to the user that fanfare runs as")]
    Permission {
        /// The file or its folder.
        path: PathBuf,
    },
    /// It is a database, but it cannot be read.
    #[error(
        "{path} is damaged ({cause}): restore a backup (fanfare restore --replace FILE), \
         or move it away to start empty"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A migration to here has not come to its end.
    #[error(
        "{path} holds an unfinished migration: run \"fanfare migrate --to embedded\" again to finish it, \
         or move the file away"
    )]
    Unfinished {
        /// The file.
        path: PathBuf,
    },
    /// Anything else of the operating system.
    #[error("{path} cannot be opened")]
    Io {
        /// The file or its folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An open database and what of it lives in memory.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) ledger: Ledger,
    pub(super) histories: Histories,
}

/// Does what reads a database. redb panics on some damaged files, where it finds what cannot be.
///
/// # Errors
/// [`OpenError::Damaged`] in place of a panic, which stands on stderr already.
pub(super) fn guarded<T, E: From<OpenError>>(
    path: &Path,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    // Nothing of it is looked at again.
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(OpenError::Damaged {
            path: path.to_owned(),
            cause: said.unwrap_or("it cannot be read").to_owned(),
        }
        .into())
    })
}

/// Opens or creates the database and reads its log.
pub(super) fn open(path: &Path, now_ms: u64, history_bytes: u64) -> Result<Opened, OpenError> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        tracing::warn!(path = %path.display(), "the database file is empty: all begins anew");
    }
    guarded(path, || open_it(path, now_ms, history_bytes))
}

fn open_it(path: &Path, now_ms: u64, history_bytes: u64) -> Result<Opened, OpenError> {
    let database = database(path)?;
    let damaged = |error: Error| OpenError::Damaged {
        path: path.to_owned(),
        cause: error.to_string(),
    };
    // Whoever opens it goes on from here: it is no longer what was migrated away.
    if meta(&database, RETIRED_KEY).map_err(damaged)?.is_some() {
        rewrite(&database, |tables, _| tables.write_meta(RETIRED_KEY, None)).map_err(damaged)?;
    }
    let (ledger, histories) = load(&database, now_ms, history_bytes).map_err(damaged)?;
    Ok(Opened {
        database,
        ledger,
        histories,
    })
}

/// Opens or creates the database and brings it to this program's schema.
pub(super) fn database(path: &Path) -> Result<Database, OpenError> {
    create_file(path)?;
    let database = builder()
        .create(path)
        .map_err(|error| explain(path, error))?;
    let damaged = |error: Error| OpenError::Damaged {
        path: path.to_owned(),
        cause: error.to_string(),
    };
    match schema(&database).map_err(damaged)? {
        Some(found) if found > SCHEMA => {
            return Err(OpenError::Newer {
                path: path.to_owned(),
                found,
                known: SCHEMA,
            });
        }
        Some(_) if meta(&database, MIGRATION_KEY).map_err(damaged)?.is_some() => {
            return Err(OpenError::Unfinished {
                path: path.to_owned(),
            });
        }
        Some(found) => settle(&database, found).map_err(damaged)?,
        None => create_tables(&database).map_err(damaged)?,
    }
    Ok(database)
}

/// Opens a database that this process has had open before.
pub(super) fn reopen(path: &Path) -> Result<Database, DatabaseError> {
    builder().open(path)
}

pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Reads the ledger and rebuilds the rings.
pub(super) fn load(
    database: &Database,
    now_ms: u64,
    history_bytes: u64,
) -> Result<(Ledger, Histories), Error> {
    let ledger = read_ledger(database)?;
    let tx = database.begin_read().map_err(Error::storage)?;
    let histories = log::load(&tx, &ledger, now_ms, history_bytes)?;
    Ok((ledger, histories))
}

/// A row of the table [`META`].
pub(super) fn meta(database: &Database, key: &str) -> Result<Option<Vec<u8>>, Error> {
    let tx = database.begin_read().map_err(Error::storage)?;
    let meta = tx.open_table(META).map_err(Error::storage)?;
    super::tables::row_of(&meta, key)
}

/// The ledger as it is on disk.
pub(super) fn read_ledger(database: &Database) -> Result<Ledger, Error> {
    let tx = database.begin_read().map_err(Error::storage)?;
    let meta = tx.open_table(META).map_err(Error::storage)?;
    let row = meta.get(LEDGER_KEY).map_err(Error::storage)?;
    let row = row.ok_or_else(|| Error::storage("the database has no ledger"))?;
    Ledger::from_row(row.value())
}

/// Sixteen random hexadecimal digits.
pub(super) fn random_epoch() -> String {
    format!("{:016x}", Uuid::new_v4().as_u128() as u64)
}

/// A UUID of version 7 at this time.
pub(super) fn time_ordered(now_ms: u64) -> Uuid {
    let random = Uuid::new_v4().into_bytes();
    let mut tail = [0; 10];
    // The bits of version and variant in it are set anew.
    tail.copy_from_slice(&random[6..]);
    uuid::Builder::from_unix_timestamp_millis(now_ms, &tail).into_uuid()
}

/// Creates the file for its owner alone, and its folder if it is missing.
pub(super) fn create_file(path: &Path) -> Result<(), OpenError> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| refused(folder, source))?;
    }
    let created = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match created {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(refused(path, source)),
    }
}

fn refused(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::Permission { path }
        }
        _ => OpenError::Io { path, source },
    }
}

pub(super) fn explain(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse { path }
        }
        DatabaseError::Storage(StorageError::Io(source))
            if matches!(
                source.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            OpenError::NotADatabase { path }
        }
        DatabaseError::Storage(StorageError::Io(source)) => refused(&path, source),
        other => OpenError::Damaged {
            path,
            cause: other.to_string(),
        },
    }
}

/// The schema version in the file; `None` if it has no tables yet.
pub(super) fn schema(database: &Database) -> Result<Option<u64>, Error> {
    let tx = database.begin_read().map_err(Error::storage)?;
    let meta = match tx.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(Error::storage(error)),
    };
    let row = meta.get(SCHEMA_KEY).map_err(Error::storage)?;
    let row = row.ok_or_else(|| Error::storage("it has no schema version"))?;
    let digits = row.value().try_into().map_err(Error::storage)?;
    Ok(Some(u64::from_le_bytes(digits)))
}

/// Brings a database of an earlier schema, or one that was not closed, to where this program goes on.
fn settle(database: &Database, schema: u64) -> Result<(), Error> {
    let ahead = read_ledger(database)?.ahead;
    if ahead {
        end_epochs(database)
    } else if schema != SCHEMA {
        rewrite(database, |_, _| Ok(()))
    } else {
        Ok(())
    }
}

/// See [`log::end_relaxed_epochs`].
pub(super) fn end_epochs(database: &Database) -> Result<(), Error> {
    rewrite(database, log::end_relaxed_epochs)
}

/// Changes the database outside of the writer.
pub(super) fn rewrite(
    database: &Database,
    change: impl FnOnce(&mut Tables<'_>, &mut Ledger) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut ledger = read_ledger(database)?;
    let mut tx = database.begin_write().map_err(Error::storage)?;
    tx.set_quick_repair(true);
    {
        let mut tables = Tables::open(&tx)?;
        change(&mut tables, &mut ledger)?;
        ledger.commits += 1;
        ledger.rest_bytes = ledger.rest_bytes.saturating_add_signed(tables.grown());
        tables.write_ledger(&ledger)?;
        tables.write_schema(SCHEMA)?;
    }
    tx.commit().map_err(Error::storage)
}

pub(super) fn create_tables(database: &Database) -> Result<(), Error> {
    let mut tx = database.begin_write().map_err(Error::storage)?;
    tx.set_quick_repair(true);
    {
        let mut tables = Tables::open(&tx)?;
        tables.write_schema(SCHEMA)?;
        tables.write_ledger(&Ledger {
            commits: 0,
            ground: random_epoch(),
            next_sequence: 1,
            next_channel: 1,
            revision: 0,
            order: 0,
            rest_bytes: 0,
            ahead: false,
        })?;
    }
    tx.commit().map_err(Error::storage)
}
