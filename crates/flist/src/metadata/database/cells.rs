//! Reads the cells of one row, and checks the type and the range of each.

use std::cell::Cell;

use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::super::error::Malformed;

/// One row; each cell is read with a check of its type and range.
#[derive(Debug)]
pub struct Cells<'a> {
    pub(super) table: &'static str,
    pub(super) rowid: i64,
    pub(super) row: &'a Row<'a>,
    pub(super) text_limit: usize,
    /// The text limit left for the following rows.
    pub(super) text_left: &'a Cell<usize>,
}

impl Cells<'_> {
    fn wrong(&self, column: &'static str, found: String) -> Malformed {
        Malformed::Value { table: self.table, rowid: self.rowid, column, found }
    }

    fn cell(&self, index: usize, column: &'static str) -> Result<ValueRef<'_>, Malformed> {
        self.row.get_ref(index).map_err(|_unreadable| self.wrong(column, "nothing readable".to_owned()))
    }

    pub(super) fn integer(&self, index: usize, column: &'static str) -> Result<i64, Malformed> {
        match self.cell(index, column)? {
            ValueRef::Integer(value) => Ok(value),
            other => Err(self.wrong(column, format!("{}, not an integer", other.data_type()))),
        }
    }

    pub(super) fn ranged<T: TryFrom<i64>>(&self, index: usize, column: &'static str) -> Result<T, Malformed> {
        let value = self.integer(index, column)?;
        T::try_from(value).map_err(|_out_of_range| self.wrong(column, format!("{value}, which is out of range")))
    }

    pub(super) fn unsigned(&self, index: usize, column: &'static str) -> Result<u64, Malformed> {
        self.ranged(index, column)
    }

    /// Counts bytes that will be kept against the limit.
    fn keep<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], Malformed> {
        let left = self.text_left.get().checked_sub(bytes.len());
        self.text_left.set(left.ok_or(Malformed::TooMuchText { table: self.table, limit: self.text_limit })?);
        Ok(bytes)
    }

    /// Reads a name as bytes: `rfs` writes names as text, and names that are not UTF-8 are blobs.
    pub(super) fn name(&self, index: usize, column: &'static str) -> Result<&[u8], Malformed> {
        match self.cell(index, column)? {
            ValueRef::Text(name) | ValueRef::Blob(name) => self.keep(name),
            other => Err(self.wrong(column, format!("{}, not text", other.data_type()))),
        }
    }

    fn text_bytes(&self, index: usize, column: &'static str) -> Result<&[u8], Malformed> {
        match self.cell(index, column)? {
            ValueRef::Text(text) => self.keep(text),
            other => Err(self.wrong(column, format!("{}, not text", other.data_type()))),
        }
    }

    /// Reads text, and counts it against the limit on all text.
    ///
    /// # Errors
    /// Another type, not UTF-8, or too much text.
    pub fn text(&self, index: usize, column: &'static str) -> Result<String, Malformed> {
        let bytes = self.text_bytes(index, column)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.wrong(column, "text that is not UTF-8".to_owned()))
    }

    pub(super) fn bytes(&self, index: usize, column: &'static str) -> Result<Vec<u8>, Malformed> {
        match self.cell(index, column)? {
            ValueRef::Blob(bytes) => Ok(self.keep(bytes)?.to_vec()),
            other => Err(self.wrong(column, format!("{}, not a blob", other.data_type()))),
        }
    }

    pub(super) fn digest(&self, index: usize, column: &'static str) -> Result<[u8; 32], Malformed> {
        let found = match self.cell(index, column)? {
            ValueRef::Blob(bytes) => match <[u8; 32]>::try_from(bytes) {
                Ok(digest) => return Ok(digest),
                Err(_) => format!("{} bytes, not 32", bytes.len()),
            },
            other => format!("{}, not a blob", other.data_type()),
        };
        Err(self.wrong(column, found))
    }
}
