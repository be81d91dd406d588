//! Records on their way, so many at a time.

use super::{MigrationError, Record, Take};

/// Records that one batch has at most, and bytes, more or less.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;

/// Gathers what a [`super::Source`] tells.
pub struct Batch<'a> {
    take: Take<'a>,
    records: Vec<Record>,
    bytes: usize,
    /// Something left that no place came with.
    is_owed: bool,
}

impl<'a> Batch<'a> {
    /// An empty one, for `take`.
    pub fn new(take: Take<'a>) -> Self {
        Self {
            take,
            records: Vec::new(),
            bytes: 0,
            is_owed: false,
        }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// What the taker says.
    pub fn add(&mut self, record: Record) -> Result<(), MigrationError> {
        if self.is_full() {
            self.flush(None)?;
            self.is_owed = true;
        }
        self.bytes += record.bytes();
        self.records.push(record);
        Ok(())
    }

    /// Says where the walk can go on.
    ///
    /// # Errors
    /// What the taker says.
    pub fn place(&mut self, place: impl FnOnce() -> String) -> Result<(), MigrationError> {
        if self.is_full() || self.is_owed {
            self.flush(Some(place()))?;
            self.is_owed = false;
        }
        Ok(())
    }

    /// Hands on what there is.
    ///
    /// # Errors
    /// What the taker says.
    pub fn flush(&mut self, place: Option<String>) -> Result<(), MigrationError> {
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        if records.is_empty() && place.is_none() {
            return Ok(());
        }
        (self.take)(records, place)
    }

    fn is_full(&self) -> bool {
        self.records.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES
    }
}
