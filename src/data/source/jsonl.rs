//! JSON lines: one object a line.

use std::path::Path;

use super::bytes::Bytes;
use super::fields::{Fields, listed};
use super::json_field::Field;
use super::{Compression, Format, FormatEntry, Passed, Position, Rows};
use crate::data::error::{DataError, Result};

/// A JSON object a line.
pub const JSON_LINES: FormatEntry = FormatEntry {
    name: "JSON lines",
    endings: &["jsonl", "ndjson", "jsonlines", "jl"],
    magic: None,
    holds: "one JSON object a line, the text in `--text-field`; or one JSON string a line",
    reader: "serde_json",
    of_text: |head| match head.in_array() || head.spread_out() {
        true => Format::Json,
        false => Format::JsonLines,
    },
    open: |file| {
        Ok(Box::new(JsonLines::open(
            file.path,
            file.compression,
            file.fields,
            file.at,
        )?))
    },
};

/// Rows without the field, and none with it before, after which that is said.
const ODD: u64 = 10_000;

/// The rows of a file of JSON lines.
pub struct JsonLines {
    bytes: Bytes,
    line: Vec<u8>,
    texts: Texts,
    rows: u64,
}

/// The texts in JSON values.
pub struct Texts {
    fields: Fields,
    /// Whether a row had the field.
    seen: bool,
    /// The fields of the first row that lacks it.
    others: Option<Vec<String>>,
    passed: Passed,
}

impl Texts {
    /// Those in `fields`; `seen` where a row before had them.
    pub fn new(fields: &Fields, seen: bool) -> Self {
        Self {
            fields: fields.clone(),
            seen,
            others: None,
            passed: Passed::default(),
        }
    }

    /// What was passed over.
    pub fn passed(&self) -> Passed {
        self.passed
    }

    /// The fields that have the texts.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Counts halves of surrogate pairs that were replaced beforehand.
    pub fn count_replaced(&mut self, count: u64) {
        self.passed.replaced += count;
    }

    /// The text in the JSON value `json`, which starts at byte `start`; `None` where there is none or a
    /// blank one.
    ///
    /// # Errors
    /// Where it is not JSON or the field holds something else.
    pub fn of(&mut self, bytes: &Bytes, start: u64, json: &[u8]) -> Result<Option<String>> {
        let json = std::str::from_utf8(json)
            .map_err(|e| bytes.not_utf8(start + e.valid_up_to() as u64))?
            .trim_start_matches('\u{feff}');
        let problem = match Field::read(json, &self.fields) {
            Ok((Field::Texts(texts), replaced)) => {
                self.seen = true;
                self.passed.replaced += replaced;
                let text = self.fields.join(texts);
                self.passed.missing += u64::from(text.is_none() && self.fields.are_apart());
                return Ok(text);
            }
            Ok((Field::Nothing, _)) => {
                self.seen = true;
                self.passed.missing += 1;
                return Ok(None);
            }
            Ok((Field::Missing(others), _)) => {
                self.passed.missing += 1;
                self.others.get_or_insert(others);
                if !self.seen && self.passed.missing == ODD {
                    let problem = self.lacking(bytes);
                    tracing::warn!("{problem}, so far after {ODD} rows");
                }
                return Ok(None);
            }
            Ok((Field::Other(field, kind), _)) => format!(
                "its field \"{field}\" is {kind}, not a text; name the one of the text with {}",
                self.fields.flag()
            ),
            Err(e) => format!("it is not a JSON object: {e}"),
        };
        Err(DataError::Row {
            name: bytes.path().display().to_string(),
            place: format!("line {}", bytes.line_of(start)?),
            problem,
        })
    }

    fn lacking(&self, bytes: &Bytes) -> DataError {
        let found = self.others.as_deref().unwrap_or_default();
        DataError::Source {
            name: bytes.path().display().to_string(),
            problem: format!(
                "no row of it has a field {} but: {}; name the one of the text with {}",
                self.fields.quoted(),
                match found.is_empty() {
                    true => "none at all".into(),
                    false => listed(found),
                },
                self.fields.flag()
            ),
        }
    }

    /// At the end of the file: some row must have the field.
    ///
    /// # Errors
    /// Where none has.
    pub fn end(&self, bytes: &Bytes) -> Result<()> {
        match self.seen || self.others.is_none() {
            true => Ok(()),
            false => Err(self.lacking(bytes)),
        }
    }
}

impl JsonLines {
    /// Opens a file at a position in it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open(
        path: &Path,
        compression: Compression,
        fields: &Fields,
        at: Position,
    ) -> Result<Self> {
        Ok(Self {
            bytes: Bytes::open(path, compression, at.byte)?,
            line: Vec::new(),
            texts: Texts::new(fields, at.row > 0),
            rows: at.row,
        })
    }
}

impl Rows for JsonLines {
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            let start = self.bytes.offset();
            if !self.bytes.line(&mut self.line)? {
                self.texts.end(&self.bytes)?;
                return Ok(None);
            }
            if self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if let Some(text) = self.texts.of(&self.bytes, start, &self.line)? {
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

    fn passed(&self) -> Passed {
        self.texts.passed()
    }
}
