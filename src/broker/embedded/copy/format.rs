//! The file that a backup is: gzip around one line of JSON (the [`Manifest`]) and records.
//!
//! | record | after its letter |
//! |---|---|
//! | `F` a file beside the database | name, bytes |
//! | `T` a table begins | name |
//! | `R` a row of it | key, value |
//! | `E` the end | rows in all as a u64, then the SHA-256 of everything before it |
//!
//! Names, keys and values have their length in front; numbers are little endian, lengths 32 bits.

use std::io::{self, BufRead, BufReader, Read, Write};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

/// What this program writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
/// The first line is ours and short.
const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// No row is larger: a request's body is 1 MiB by default, and redb itself ends at 4 GiB.
const PART_BYTES_MAX: u32 = 1 << 30;

/// What a backup says of itself in its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Of the file; goes up with every change that an older program would misread.
    pub format: u32,
    /// The program that wrote it.
    pub version: String,
    /// The layout of the tables.
    pub schema: u64,
    /// When it began, RFC 3339.
    pub created_at: String,
    /// Rows in all tables.
    pub rows: u64,
}

/// Why a backup could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It is a file of something else.
    #[error("this is no backup of fanfare")]
    NotABackup,
    /// It was written by a newer program.
    #[error("the backup has format {found}, this program knows formats up to {FORMAT}")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// It ends too early, or what is in it is not what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(&'static str),
    /// It cannot be read.
    #[error("the backup cannot be read")]
    Io(#[from] io::Error),
}

/// A part of a backup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    File { name: String, bytes: Vec<u8> },
    Table { name: String },
    Row { key: Vec<u8>, value: Vec<u8> },
}

/// Writes a backup.
pub(super) struct BackupWriter<W: Write> {
    out: GzEncoder<W>,
    hash: Context,
    rows: u64,
}

impl<W: Write> BackupWriter<W> {
    pub(super) fn begin(out: W, manifest: &Manifest) -> io::Result<Self> {
        let mut writer = Self {
            out: GzEncoder::new(out, Compression::fast()),
            hash: Context::new(&SHA256),
            rows: 0,
        };
        let mut line = serde_json::to_vec(manifest)?;
        line.push(b'\n');
        writer.put(&line)?;
        Ok(writer)
    }

    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.put(b"F")?;
        self.part(name.as_bytes())?;
        self.part(bytes)
    }

    pub(super) fn table(&mut self, name: &str) -> io::Result<()> {
        self.put(b"T")?;
        self.part(name.as_bytes())
    }

    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.rows += 1;
        self.put(b"R")?;
        self.part(key)?;
        self.part(value)
    }

    /// Writes the end; rows in all.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let rows = self.rows;
        self.put(b"E")?;
        self.put(&rows.to_le_bytes())?;
        let digest = self.hash.finish();
        self.out.write_all(digest.as_ref())?;
        self.out.finish()?.flush()?;
        Ok(rows)
    }

    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|length| *length <= PART_BYTES_MAX)
            .ok_or_else(|| io::Error::other("a row is too large for a backup"))?;
        self.put(&length.to_le_bytes())?;
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads a backup. What it gives is only to be relied on once it has come to the end.
pub(super) struct BackupReader<R: Read> {
    input: BufReader<GzDecoder<R>>,
    hash: Context,
    rows: u64,
    manifest: Manifest,
}

impl<R: Read> BackupReader<R> {
    pub(super) fn begin(input: R) -> Result<Self, FormatError> {
        let mut input = BufReader::with_capacity(64 << 10, GzDecoder::new(input));
        let mut line = Vec::new();
        let read = (&mut input)
            .take(MANIFEST_BYTES_MAX)
            .read_until(b'\n', &mut line);
        if read.is_err() || line.last() != Some(&b'\n') {
            return Err(FormatError::NotABackup);
        }
        let manifest: Manifest =
            serde_json::from_slice(&line).map_err(|_| FormatError::NotABackup)?;
        if manifest.format > FORMAT {
            return Err(FormatError::Newer {
                found: manifest.format,
            });
        }
        let mut hash = Context::new(&SHA256);
        hash.update(&line);
        Ok(Self {
            input,
            hash,
            rows: 0,
            manifest,
        })
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next record; `None` at an end that proves that everything is as it was written.
    pub(super) fn next(&mut self) -> Result<Option<Record>, FormatError> {
        let [letter] = self.array::<1>()?;
        Ok(Some(match letter {
            b'F' => Record::File {
                name: self.text()?,
                bytes: self.part()?,
            },
            b'T' => Record::Table { name: self.text()? },
            b'R' => {
                self.rows += 1;
                Record::Row {
                    key: self.part()?,
                    value: self.part()?,
                }
            }
            b'E' => {
                let rows = u64::from_le_bytes(self.array()?);
                let expected = self.hash.clone().finish();
                let mut digest = [0; SHA256_OUTPUT_LEN];
                self.fill(&mut digest)?;
                if digest != *expected.as_ref() || rows != self.rows {
                    return Err(FormatError::Damaged("its checksum is wrong"));
                }
                // Brings gzip to its own checksum.
                if self.input.read(&mut [0]).map_err(broken)? != 0 {
                    return Err(FormatError::Damaged("there is more after its end"));
                }
                return Ok(None);
            }
            _ => return Err(FormatError::Damaged("a record of no kind")),
        }))
    }

    fn text(&mut self) -> Result<String, FormatError> {
        String::from_utf8(self.part()?).map_err(|_| FormatError::Damaged("a name that is no text"))
    }

    fn part(&mut self) -> Result<Vec<u8>, FormatError> {
        let length = u32::from_le_bytes(self.array()?);
        if length > PART_BYTES_MAX {
            return Err(FormatError::Damaged("a row of impossible size"));
        }
        // Grows with what is there: a wrong length must not take memory that nothing fills.
        let mut bytes = Vec::new();
        let read = (&mut self.input)
            .take(length.into())
            .read_to_end(&mut bytes)
            .map_err(broken)?;
        if read != length as usize {
            return Err(FormatError::Damaged("it ends too early"));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FormatError> {
        self.input.read_exact(bytes).map_err(broken)
    }
}

fn broken(error: io::Error) -> FormatError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FormatError::Damaged("it ends too early"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            FormatError::Damaged("its compression is wrong")
        }
        _ => FormatError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            version: "1.2.3".into(),
            schema: 2,
            created_at: "2026-11-26T00:00:00.000Z".into(),
            rows: 2,
        }
    }

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = BackupWriter::begin(&mut bytes, &manifest()).unwrap();
        writer.file("secret", b"s").unwrap();
        writer.table("log").unwrap();
        writer.row(b"k1", b"v1").unwrap();
        writer.row(b"", &[7; 100_000]).unwrap();
        assert_eq!(writer.finish().unwrap(), 2);
        bytes
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<Record>, FormatError> {
        let mut reader = BackupReader::begin(bytes)?;
        let mut records = Vec::new();
        while let Some(record) = reader.next()? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = sample();
        assert_eq!(
            BackupReader::begin(&*bytes).unwrap().manifest(),
            &manifest()
        );
        let records = read_all(&bytes).unwrap();
        assert_eq!(records.len(), 4);
        assert_eq!(
            records[2],
            Record::Row {
                key: b"k1".to_vec(),
                value: b"v1".to_vec()
            }
        );
    }

    #[test]
    fn every_loss_and_every_changed_byte_is_noticed() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(read_all(&bytes[..length]).is_err(), "{length}");
        }
        // The gzip header has bytes that mean nothing: time, system, flags.
        for at in 10..bytes.len() - 8 {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            let records = read_all(&changed);
            assert!(
                records.is_err() || records.unwrap() == read_all(&bytes).unwrap(),
                "{at}"
            );
        }
        assert!(matches!(
            read_all(b"SQLite format 3"),
            Err(FormatError::NotABackup)
        ));
    }
}
