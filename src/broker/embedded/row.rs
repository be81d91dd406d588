//! How rows are written: a version byte, then members without names, little endian.
//!
//! Not for: what the members mean; each table's file knows that.

use crate::broker::Error;

/// First byte of every row. Another one is a row of a newer program.
const VERSION: u8 = 1;

/// Composes a row.
pub(super) struct RowWriter(Vec<u8>);

impl RowWriter {
    pub(super) fn new() -> Self {
        Self(vec![VERSION])
    }

    pub(super) fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(super) fn number(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn text(mut self, value: &str) -> Self {
        self = self.number(value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    pub(super) fn maybe_text(self, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.byte(1).text(value),
            None => self.byte(0),
        }
    }

    /// The last member: everything up to the end of the row.
    pub(super) fn rest(mut self, value: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(value);
        self.0
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Takes a row apart again. A row that ends early is a damaged file, never a panic.
pub(super) struct RowReader<'a>(&'a [u8]);

impl<'a> RowReader<'a> {
    pub(super) fn new(row: &'a [u8]) -> Result<Self, Error> {
        match row.split_first() {
            Some((&VERSION, rest)) => Ok(Self(rest)),
            _ => Err(damaged()),
        }
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        let (&first, rest) = self.0.split_first().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn number(&mut self) -> Result<u64, Error> {
        let (digits, rest) = self.0.split_first_chunk::<8>().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*digits))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Error> {
        let length = usize::try_from(self.number()?).map_err(|_| damaged())?;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(damaged)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| damaged())
    }

    pub(super) fn maybe_text(&mut self) -> Result<Option<&'a str>, Error> {
        match self.byte()? {
            0 => Ok(None),
            _ => self.text().map(Some),
        }
    }

    /// A flag that rows of an earlier schema end without.
    pub(super) fn late_flag(&mut self) -> bool {
        self.byte().is_ok_and(|flag| flag == 1)
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

fn damaged() -> Error {
    Error::storage("a row of the database cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_and_a_cut_one_is_an_error() {
        let row = RowWriter::new()
            .number(7)
            .maybe_text(Some("a\0b"))
            .maybe_text(None)
            .rest(b"tail");
        let read = |row: &[u8]| {
            let mut reader = RowReader::new(row)?;
            assert_eq!(reader.number()?, 7);
            assert_eq!(reader.maybe_text()?, Some("a\0b"));
            assert_eq!(reader.maybe_text()?, None);
            Ok::<_, Error>(reader.rest().to_vec())
        };
        assert_eq!(read(&row).unwrap(), b"tail");
        for length in 0..row.len() - 4 {
            assert!(read(&row[..length]).is_err(), "{length}");
        }
    }
}
