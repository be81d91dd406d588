//! Writing a backup.

use std::io::{self, Write};
use std::path::Path;

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, TableHandle,
};

use super::format::{BackupWriter, FORMAT, Manifest};
use crate::broker::Error;
use crate::broker::embedded::open::SCHEMA;
use crate::broker::embedded::tables::{TableVisitor, visit_tables};
use crate::broker::embedded::{Embedded, OpenError, lock, open};
use crate::clock::{Clock, rfc3339};

/// Rows between two words about progress.
const PROGRESS_ROWS: u64 = 4_096;

/// Why a backup could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be opened.
    #[error("the database")]
    Open(#[from] OpenError),
    /// The database cannot be read.
    #[error("the database cannot be read: {0}")]
    Store(#[from] Error),
    /// The backup cannot be written.
    #[error("the backup cannot be written")]
    Write(#[from] io::Error),
}

/// A small file that belongs to the database, such as the generated secret.
#[derive(Debug)]
pub struct Extra {
    /// Its name in `data_dir`.
    pub name: &'static str,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Is told now and then how many rows of how many are through.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl Embedded {
    /// Writes a backup of everything that was acknowledged before this was called, and of nothing
    /// that was half done. Blocks for as long as `out` takes it; writers go on meanwhile.
    ///
    /// # Errors
    /// [`BackupError`]; what `out` has got by then is no backup, and no reader takes it for one.
    pub fn dump(
        &self,
        extras: &[Extra],
        out: impl Write,
        progress: Progress<'_>,
    ) -> Result<Manifest, BackupError> {
        let clock = self.shared.clock.clone();
        // Not under the lock: a backup takes its time, and whoever opens the file anew must not wait.
        let tx = {
            let database = lock::read(&self.shared.database);
            let database = database.as_ref().ok_or(Error::Closed)?;
            database.begin_read().map_err(Error::storage)?
        };
        dump(&tx, extras, &clock, out, progress)
    }

    /// Waits until everything is on disk that was answered before, relaxed events included.
    ///
    /// # Errors
    /// As for any write.
    pub async fn settle(&self) -> Result<(), Error> {
        self.write(0, |_| Ok(())).await
    }
}

/// The same of a database that nobody has open.
///
/// # Errors
/// As [`Embedded::dump`]; [`OpenError::InUse`] while a server runs on it.
pub fn dump_file(
    path: &Path,
    extras: &[Extra],
    clock: &Clock,
    out: impl Write,
    progress: Progress<'_>,
) -> Result<Manifest, BackupError> {
    open::guarded(path, || {
        let database = existing(path)?;
        let tx = database.begin_read().map_err(Error::storage)?;
        dump(&tx, extras, clock, out, progress)
    })
}

/// Opens a database that must be there, and brings it to this program's schema.
pub(in crate::broker::embedded) fn existing(path: &Path) -> Result<Database, OpenError> {
    match std::fs::metadata(path) {
        Err(source) => Err(OpenError::Io {
            path: path.to_owned(),
            source,
        }),
        // Opening it would make a database of it, as if nothing had been lost.
        Ok(file) if file.len() == 0 => Err(OpenError::Damaged {
            path: path.to_owned(),
            cause: "it is empty".to_owned(),
        }),
        Ok(_) => open::guarded(path, || open::database(path)),
    }
}

fn dump(
    tx: &ReadTransaction,
    extras: &[Extra],
    clock: &Clock,
    out: impl Write,
    progress: Progress<'_>,
) -> Result<Manifest, BackupError> {
    let mut count = Count { tx, rows: 0 };
    visit_tables(&mut count)?;
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: SCHEMA,
        created_at: rfc3339(clock.unix_ms()),
        rows: count.rows,
    };
    let mut writer = BackupWriter::begin(out, &manifest)?;
    for extra in extras {
        writer.file(extra.name, &extra.bytes)?;
    }
    let mut rows = Rows {
        tx,
        writer: &mut writer,
        done: 0,
        all: manifest.rows,
        progress,
    };
    visit_tables(&mut rows)?;
    writer.finish()?;
    Ok(manifest)
}

struct Count<'t> {
    tx: &'t ReadTransaction,
    rows: u64,
}

impl TableVisitor for Count<'_> {
    type Error = Error;

    fn visit<K: Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
    ) -> Result<(), Error> {
        let table = self.tx.open_table(table).map_err(Error::storage)?;
        self.rows += table.len().map_err(Error::storage)?;
        Ok(())
    }
}

struct Rows<'t, 'p, W: Write> {
    tx: &'t ReadTransaction,
    writer: &'t mut BackupWriter<W>,
    done: u64,
    all: u64,
    progress: Progress<'p>,
}

impl<W: Write> TableVisitor for Rows<'_, '_, W> {
    type Error = BackupError;

    fn visit<K: Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
    ) -> Result<(), BackupError> {
        self.writer.table(table.name())?;
        let table = self.tx.open_table(table).map_err(Error::storage)?;
        for row in table.iter().map_err(Error::storage)? {
            let (key, value) = row.map_err(Error::storage)?;
            let key = key.value();
            self.writer.row(K::as_bytes(&key).as_ref(), value.value())?;
            self.done += 1;
            if self.done.is_multiple_of(PROGRESS_ROWS) {
                (self.progress)(self.done, self.all);
            }
        }
        Ok(())
    }
}
