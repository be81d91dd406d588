//! Making a database of a backup.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Database, Key, TableDefinition, TableHandle, WriteTransaction};

use super::backup::existing;
use super::format::{BackupReader, FormatError, Manifest, Record};
use crate::broker::Error;
use crate::broker::embedded::open::{self, SCHEMA};
use crate::broker::embedded::tables::{TableVisitor, visit_tables};
use crate::broker::embedded::{OpenError, log};
use crate::clock::{Clock, rfc3339};
use crate::owner::hand_over;

/// Rows of one transaction: enough that commits cost nothing, few enough for the memory.
const SLICE_ROWS: usize = 20_000;

/// Why a backup did not become a database.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is no good.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Its tables are of a newer program.
    #[error(
        "the backup has schema version {found}, this program knows versions up to {SCHEMA}: use the fanfare that made it"
    )]
    NewerSchema {
        /// Its schema.
        found: u64,
    },
    /// It has a table that this program does not know.
    #[error("the backup has an unknown table {0:?}")]
    UnknownTable(String),
    /// There is a database already.
    #[error("{0} exists: name --replace to put it aside, or another data_dir")]
    Exists(PathBuf),
    /// What was made of it cannot be opened, or a server runs on what is to be replaced.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new database cannot be written.
    #[error("the new database: {0}")]
    Store(#[from] Error),
    /// The folder or a file in it.
    #[error("{path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What to restore, and where.
#[derive(Debug)]
pub struct Restore<'a> {
    /// The backup.
    pub backup: &'a Path,
    /// `data_dir`.
    pub data_dir: &'a Path,
    /// Whether what is there is put aside.
    pub replace: bool,
    /// Names of files that may come with the database.
    pub extras: &'a [&'a str],
}

/// What became of it.
#[derive(Debug)]
pub struct Restored {
    /// What the backup said of itself.
    pub manifest: Manifest,
    /// The database.
    pub database: PathBuf,
    /// What was put aside.
    pub aside: Vec<PathBuf>,
    /// Files that came with it.
    pub extras: Vec<PathBuf>,
}

/// Reads a backup to its end: whether all that was written is there. Rows and how far along it is are
/// told on the way.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify(backup: &Path, mut progress: impl FnMut(u64, u64)) -> Result<Manifest, RestoreError> {
    let mut reader = reader(backup)?;
    let mut rows = 0;
    while let Some(record) = reader.next()? {
        if let Record::Row { .. } = record {
            rows += 1;
            if rows % SLICE_ROWS as u64 == 0 {
                progress(rows, reader.manifest().rows);
            }
        }
    }
    let manifest = reader.manifest().clone();
    if manifest.rows != rows {
        return Err(FormatError::Damaged("it has not as many rows as it says").into());
    }
    Ok(manifest)
}

impl Restore<'_> {
    /// Proves the backup, makes a database of it beside the old one, opens it once, and only then
    /// lets it take the old one's place. The epochs of all channels end: a position that was given
    /// out after the backup must not come to stand for another event.
    ///
    /// # Errors
    /// [`RestoreError`]; what was there is then as it was.
    pub fn run(
        &self,
        clock: &Clock,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Restored, RestoreError> {
        let manifest = verify(self.backup, |_, _| {})?;
        let target = self.data_dir.join(open::FILE_NAME);
        let is_there = target.exists();
        if is_there && !self.replace {
            return Err(RestoreError::Exists(target));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.data_dir)
            .map_err(at(self.data_dir))?;
        // Held open to the end: no server may start on what is about to be replaced. What cannot be
        // opened is what backups are for.
        let _replaced = match is_there.then(|| existing(&target)) {
            Some(Err(error @ (OpenError::InUse { .. } | OpenError::Permission { .. }))) => {
                return Err(error.into());
            }
            held => held,
        };
        let draft = self.data_dir.join(format!("{}.restoring", open::FILE_NAME));
        remove_if_there(&draft)?;
        let made = self.build(&draft, clock, &mut progress);
        let extras = match made {
            Ok(extras) => extras,
            Err(error) => {
                let _ = fs::remove_file(&draft);
                return Err(error);
            }
        };
        let mut restored = Restored {
            manifest,
            database: target.clone(),
            aside: Vec::new(),
            extras: Vec::new(),
        };
        hand_over(&draft, if is_there { &target } else { self.data_dir });
        let stamp = rfc3339(clock.unix_ms()).replace(':', "-");
        if is_there {
            restored.aside.push(put_aside(&target, &stamp)?);
        }
        fs::rename(&draft, &target).map_err(at(&target))?;
        for (name, bytes) in extras {
            let path = self.data_dir.join(name);
            match fs::read(&path) {
                Ok(there) if there == bytes => continue,
                Ok(_) => restored.aside.push(put_aside(&path, &stamp)?),
                Err(_) => {}
            }
            write_private(&path, &bytes)?;
            hand_over(&path, &target);
            restored.extras.push(path);
        }
        let folder = File::open(self.data_dir).map_err(at(self.data_dir))?;
        folder.sync_all().map_err(at(self.data_dir))?;
        Ok(restored)
    }

    fn build(
        &self,
        draft: &Path,
        clock: &Clock,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<Vec<(String, Vec<u8>)>, RestoreError> {
        let mut reader = reader(self.backup)?;
        let all = reader.manifest().rows;
        open::create_file(draft)?;
        let database = open::builder().create(draft).map_err(Error::storage)?;
        let mut extras = Vec::new();
        let mut table = String::new();
        let mut rows = Vec::new();
        let mut done = 0;
        while let Some(record) = reader.next()? {
            match record {
                Record::File { name, bytes } if self.extras.contains(&name.as_str()) => {
                    extras.push((name, bytes));
                }
                // A file that this program has no use for.
                Record::File { .. } => {}
                Record::Table { name } => {
                    insert(&database, &table, &mut rows)?;
                    table = name;
                }
                Record::Row { key, value } => {
                    rows.push((key, value));
                    done += 1;
                    if rows.len() == SLICE_ROWS {
                        insert(&database, &table, &mut rows)?;
                        progress(done, all);
                    }
                }
            }
        }
        insert(&database, &table, &mut rows)?;
        open::rewrite(&database, log::end_all_epochs)?;
        drop(database);
        // As the server will do it.
        drop(open::open(draft, clock.unix_ms(), u64::MAX)?);
        Ok(extras)
    }
}

fn reader(backup: &Path) -> Result<BackupReader<BufReader<File>>, RestoreError> {
    let file = File::open(backup).map_err(at(backup))?;
    let reader = BackupReader::begin(BufReader::new(file))?;
    let found = reader.manifest().schema;
    if found > SCHEMA {
        return Err(RestoreError::NewerSchema { found });
    }
    Ok(reader)
}

/// Writes rows of one table, in one transaction.
fn insert(
    database: &Database,
    name: &str,
    rows: &mut Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<(), RestoreError> {
    if name.is_empty() {
        return Ok(());
    }
    let mut tx = database.begin_write().map_err(Error::storage)?;
    tx.set_quick_repair(true);
    let mut insert = Insert {
        tx: &tx,
        name,
        rows,
        found: false,
    };
    visit_tables(&mut insert)?;
    if !insert.found {
        return Err(RestoreError::UnknownTable(name.to_owned()));
    }
    tx.commit().map_err(Error::storage)?;
    Ok(())
}

struct Insert<'t> {
    tx: &'t WriteTransaction,
    name: &'t str,
    rows: &'t mut Vec<(Vec<u8>, Vec<u8>)>,
    found: bool,
}

impl TableVisitor for Insert<'_> {
    type Error = Error;

    fn visit<K: Key + 'static>(
        &mut self,
        table: TableDefinition<'static, K, &'static [u8]>,
    ) -> Result<(), Error> {
        if table.name() != self.name {
            return Ok(());
        }
        self.found = true;
        let mut table = self.tx.open_table(table).map_err(Error::storage)?;
        for (key, value) in self.rows.drain(..) {
            // The checksum says that these are the bytes of a key that this table once had.
            table
                .insert(&K::from_bytes(&key), value.as_slice())
                .map_err(Error::storage)?;
        }
        Ok(())
    }
}

fn put_aside(path: &Path, stamp: &str) -> Result<PathBuf, RestoreError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".replaced-{stamp}"));
    let aside = path.with_file_name(name);
    fs::rename(path, &aside).map_err(at(path))?;
    Ok(aside)
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), RestoreError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(at(path))
}

fn remove_if_there(path: &Path) -> Result<(), RestoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { path, source }
}
