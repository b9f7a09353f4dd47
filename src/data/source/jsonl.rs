//! JSON lines: one object a line.

use std::path::Path;

use super::bytes::Bytes;
use super::json_field::Field;
use super::{Compression, Position, Rows, is_blank};
use crate::data::error::{DataError, Result};

/// The rows of a file of JSON lines.
pub struct JsonLines {
    bytes: Bytes,
    field: String,
    line: Vec<u8>,
    rows: u64,
}

impl JsonLines {
    /// Opens a file at a position in it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open(path: &Path, compression: Compression, field: &str, at: Position) -> Result<Self> {
        Ok(Self {
            bytes: Bytes::open(path, compression, at.byte)?,
            field: field.to_owned(),
            line: Vec::new(),
            rows: at.row,
        })
    }
}

/// The text in the JSON value `json`, which starts at byte `start`; `None` where it is null or blank.
pub(super) fn text_of(
    bytes: &Bytes,
    start: u64,
    json: &[u8],
    field: &str,
) -> Result<Option<String>> {
    let json = std::str::from_utf8(json)
        .map_err(|e| bytes.not_utf8(start + e.valid_up_to() as u64))?
        .trim_start_matches('\u{feff}');
    let text = Field::of(json, field)
        .map_err(|e| format!("it is not a JSON object: {e}"))
        .and_then(|found| found.text(field));
    match text {
        Ok(text) => Ok(text.filter(|text| !is_blank(text))),
        Err(problem) => Err(DataError::Row {
            name: bytes.path().display().to_string(),
            line: bytes.line_of(start)?,
            problem,
        }),
    }
}

impl Rows for JsonLines {
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            let start = self.bytes.offset();
            if !self.bytes.line(&mut self.line)? {
                return Ok(None);
            }
            if self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if let Some(text) = text_of(&self.bytes, start, &self.line, &self.field)? {
                self.rows += 1;
                return Ok(Some(text));
            }
        }
    }

    fn position(&self) -> Position {
        Position {
            row: self.rows,
            byte: self.bytes.offset(),
        }
    }
}
