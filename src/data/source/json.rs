//! A JSON array of objects, or objects one after the other, cut apart as they are read; or one object of columns.

use std::path::Path;

use super::bytes::Bytes;
use super::fields::Fields;
use super::json_columns::Columns;
use super::jsonl::Texts;
use super::{Compression, Format, FormatEntry, LONGEST_TEXT, Passed, Position, Rows};
use crate::data::error::{DataError, Result};

/// JSON objects in an array, or one after the other.
pub const JSON: FormatEntry = FormatEntry {
    name: "JSON",
    endings: &["json"],
    magic: None,
    holds: "an array of such objects, or one after the other; or one object of columns, which are lists of one length",
    reader: "serde_json",
    of_text: |_| Format::Json,
    open: |file| {
        Ok(Box::new(Json::open(
            file.path,
            file.compression,
            file.fields,
            file.at,
        )?))
    },
};

/// The rows of a JSON file.
pub struct Json {
    bytes: Bytes,
    layout: Layout,
    texts: Texts,
    value: Vec<u8>,
    /// Texts so far; of columns rows so far, with a text or without.
    rows: u64,
    /// Whether no value was read yet.
    first: bool,
    columns: Option<Columns>,
}

/// How the values of a file follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One after the other.
    Sequence,
    /// In an array.
    Array,
    /// In an array whose end was read.
    Closed,
}

impl Layout {
    /// Passes over what comes before the first value of a file.
    fn of(start: &mut Bytes) -> Result<Layout> {
        while let Some(&byte) = start.fill()?.first() {
            match byte {
                b'[' => {
                    start.consume(1);
                    return Ok(Layout::Array);
                }
                // The mark that some editors put before UTF-8 counts as space.
                b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf => start.consume(1),
                _ => break,
            }
        }
        Ok(Layout::Sequence)
    }
}

/// How far into a value the bytes are.
#[derive(Default)]
struct Inside {
    depth: u32,
    string: bool,
    escaped: bool,
}

impl Inside {
    /// Whether the value that starts with or goes on with this byte ends with it.
    fn ends_with(&mut self, byte: u8) -> bool {
        if self.string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.string = false,
                _ => {}
            }
            return !self.string && self.depth == 0;
        }
        match byte {
            b'"' => self.string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

impl Json {
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
        let mut start = Bytes::open(path, compression, 0)?;
        let layout = Layout::of(&mut start)?;
        let bytes = match at.byte {
            0 => start,
            byte => Bytes::open(path, compression, byte)?,
        };
        Ok(Self {
            bytes,
            layout,
            texts: Texts::new(fields, at.row > 0),
            value: Vec::new(),
            rows: at.row,
            first: at.byte == 0,
            columns: None,
        })
    }

    /// Passes over what lies between values; false at the end.
    fn find_value(&mut self) -> Result<bool> {
        while let Some(&byte) = self.bytes.fill()?.first() {
            match (byte, self.layout) {
                (b' ' | b'\t' | b'\r' | b'\n' | b',', _) => {}
                (b']', Layout::Array) => self.layout = Layout::Closed,
                (_, Layout::Closed) => {
                    return Err(self.wrong_at(
                        self.bytes.offset(),
                        "there is more behind the ] that ends the array: make it one array, or a file of \
                         objects one after the other",
                    ));
                }
                (_, Layout::Sequence | Layout::Array) => return Ok(true),
            }
            self.bytes.consume(1);
        }
        match self.layout {
            Layout::Array => Err(self.wrong_at(
                self.bytes.offset(),
                "the file ends here without the ] that ends its array: it was cut off",
            )),
            Layout::Sequence | Layout::Closed => Ok(false),
        }
    }

    /// The error for what is wrong at byte `offset`.
    fn wrong_at(&self, offset: u64, problem: &str) -> DataError {
        // No bad row: where the next one starts is not known.
        DataError::Source {
            name: format!(
                "{}, line {}",
                self.bytes.path().display(),
                self.bytes.line_of(offset).unwrap_or(0)
            ),
            problem: problem.to_owned(),
        }
    }

    /// Reads one value into `value`.
    fn read_value(&mut self) -> Result<()> {
        self.value.clear();
        let (start, mut inside) = (self.bytes.offset(), Inside::default());
        loop {
            let bytes = self.bytes.fill()?;
            if bytes.is_empty() {
                return Err(self.wrong_at(
                    start,
                    "the file ends in the middle of the value that starts here",
                ));
            }
            let end = bytes.iter().position(|&byte| {
                // Numbers and the like have no end of their own.
                let bare = inside.depth == 0 && !inside.string && b", \t\r\n]".contains(&byte);
                bare || inside.ends_with(byte)
            });
            let count = end.map_or(bytes.len(), |end| end + 1);
            self.value.extend_from_slice(&bytes[..count]);
            self.bytes.consume(count);
            if end.is_some() {
                return Ok(());
            }
            if self.value.len() as u64 > LONGEST_TEXT {
                return Err(match (start, self.layout) {
                    (0, Layout::Sequence) => self.wrong_at(
                        start,
                        "the value that starts here is longer than 64 MiB; if it holds columns, write rows of them \
                         instead (pandas: to_json(..., orient=\"records\", lines=True))",
                    ),
                    (_, Layout::Sequence | Layout::Array | Layout::Closed) => self.bytes.too_long(),
                });
            }
        }
    }
}

impl Json {
    /// Takes the value that was just read for columns, where it is the only one of its file and is some.
    fn take_columns(&mut self) -> Result<bool> {
        let object = self.layout == Layout::Sequence && self.value.starts_with(b"{");
        if !object || self.find_value()? {
            return Ok(false);
        }
        let json = std::str::from_utf8(&self.value).ok();
        self.columns = json.and_then(|json| Columns::of(json, self.texts.fields()));
        if let Some(columns) = self.columns.as_ref().filter(|_| self.rows == 0) {
            self.texts.count_replaced(columns.replaced);
        }
        Ok(self.columns.is_some())
    }

    /// The next text of columns.
    fn next_of_columns(&mut self) -> Result<Option<String>> {
        while let Some(columns) = self.columns.as_ref().filter(|c| self.rows < c.rows()) {
            let (index, row) = (self.rows, columns.row(self.rows));
            self.rows += 1;
            let text = self.texts.of(&self.bytes, 0, row.as_bytes());
            match text {
                Ok(None) => {}
                Ok(some) => return Ok(some),
                Err(DataError::Row { name, problem, .. }) => {
                    return Err(DataError::Row {
                        name,
                        place: format!("row {index}"),
                        problem,
                    });
                }
                Err(other) => return Err(other),
            }
        }
        self.texts.end(&self.bytes)?;
        Ok(None)
    }
}

impl Rows for Json {
    fn next(&mut self) -> Result<Option<String>> {
        if self.columns.is_some() {
            return self.next_of_columns();
        }
        while self.find_value()? {
            let start = self.bytes.offset();
            self.read_value()?;
            if std::mem::take(&mut self.first) && self.take_columns()? {
                return self.next_of_columns();
            }
            if let Some(text) = self.texts.of(&self.bytes, start, &self.value)? {
                self.rows += 1;
                return Ok(Some(text));
            }
        }
        self.texts.end(&self.bytes)?;
        Ok(None)
    }

    fn position(&self) -> Position {
        Position {
            row: self.rows,
            // Columns are known by their first byte.
            byte: match self.first || self.columns.is_some() {
                true => 0,
                false => self.bytes.offset(),
            },
        }
    }

    fn passed(&self) -> Passed {
        self.texts.passed()
    }
}
