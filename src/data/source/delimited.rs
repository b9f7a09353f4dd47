//! CSV and TSV: a line of column names, then rows of cells.

use std::io::{self, Read};
use std::path::Path;

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use super::bytes::Bytes;
use super::fields::{Fields, listed};
use super::{Compression, Format, FormatEntry, LONGEST_TEXT, Opening, Position, Rows, TextHead};
use crate::data::error::{DataError, Result};

/// Cells parted by commas.
pub const CSV: FormatEntry = FormatEntry {
    name: "CSV",
    endings: &["csv"],
    magic: None,
    holds: "a line of column names, then rows; cells parted by commas, or by tabs, semicolons or bars \
            where the first line has no comma",
    reader: "csv",
    of_text: |head| objects_or(head, Format::Csv),
    open: |file| Ok(Box::new(Delimited::open(file, b',')?)),
};

/// Cells parted by tabs.
pub const TSV: FormatEntry = FormatEntry {
    name: "TSV",
    endings: &["tsv", "tab"],
    magic: None,
    holds: "the same with tabs; where a cell begins with a quote and does not end with one, quotes are letters",
    reader: "csv",
    of_text: |head| objects_or(head, Format::Tsv),
    open: |file| Ok(Box::new(Delimited::open(file, b'\t')?)),
};

/// JSON lines where that is what the file holds.
fn objects_or(head: &TextHead, format: Format) -> Format {
    match head.all_objects() {
        true => Format::JsonLines,
        false => format,
    }
}

/// Bytes that the CSV reader takes at once.
const BUFFER: usize = 1 << 16;
/// Bytes of a file by which it is seen whether its quotes are letters.
const HEAD: u64 = 1 << 20;

/// The rows of a CSV file.
pub struct Delimited {
    reader: Reader<Limited>,
    /// Where the reader began.
    base: u64,
    fields: Fields,
    /// The columns of the fields that the file has.
    columns: Vec<usize>,
    /// Cells of the first line.
    width: usize,
    delimiter: u8,
    record: ByteRecord,
    rows: u64,
}

/// Bytes of which a single row takes no more than it may: an open quote would take the whole file.
struct Limited {
    bytes: Bytes,
    left: u64,
    /// Whether they were read to their end.
    ended: bool,
    /// What went wrong, as it was before it became an I/O error.
    error: Option<DataError>,
}

impl Read for Limited {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let part = match self.bytes.fill() {
            Ok(part) => part,
            Err(error) => {
                let said = io::Error::other(error.to_string());
                self.error = Some(error);
                return Err(said);
            }
        };
        let count = part.len().min(into.len());
        self.ended |= count == 0;
        into[..count].copy_from_slice(&part[..count]);
        self.bytes.consume(count);
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                self.error = Some(self.bytes.too_long());
                return Err(io::Error::other("too long"));
            }
        }
        Ok(count)
    }
}

impl Delimited {
    /// Opens a file at a position in it; `usual` parts its cells where it is in the first line.
    ///
    /// # Errors
    /// When it can't be read or has none of the fields.
    pub fn open(file: &Opening, usual: u8) -> Result<Self> {
        let Opening {
            path,
            compression,
            fields,
            at,
        } = *file;
        let mut first = Vec::new();
        Bytes::open(path, compression, 0)?.line(&mut first)?;
        let delimiter = delimiter(&first, usual);
        let quoting = delimiter != b'\t' || !has_letter_quotes(path, compression)?;
        let reader = |at: u64| -> Result<Reader<Limited>> {
            Ok(ReaderBuilder::new()
                .quoting(quoting)
                .has_headers(false)
                .flexible(true)
                .delimiter(delimiter)
                .buffer_capacity(BUFFER)
                .from_reader(Limited {
                    bytes: Bytes::open(path, compression, at)?,
                    left: LONGEST_TEXT,
                    ended: false,
                    error: None,
                }))
        };
        let mut rows = Self {
            reader: reader(0)?,
            base: 0,
            fields: fields.clone(),
            columns: Vec::new(),
            width: 0,
            delimiter,
            record: ByteRecord::new(),
            rows: at.row,
        };
        rows.read()?;
        let names: Vec<String> = rows
            .record
            .iter()
            .map(|name| {
                let name = String::from_utf8_lossy(name);
                name.trim_start_matches('\u{feff}').trim().to_owned()
            })
            .collect();
        let place = |field: &String| names.iter().position(|name| name == field);
        rows.columns = fields.names().iter().filter_map(place).collect();
        rows.width = names.len();
        if !fields.suffice(rows.columns.len()) && !names.is_empty() {
            return Err(DataError::Source {
                name: path.display().to_string(),
                problem: format!(
                    "its first line names no column {} but: {}; name the one of the text with {}, \
                     or put a line of names first",
                    fields.quoted(),
                    listed(&names),
                    fields.flag()
                ),
            });
        }
        if at.byte > 0 {
            rows.reader = reader(at.byte)?;
            rows.base = at.byte;
        }
        Ok(rows)
    }

    /// Reads a record; false at the end.
    fn read(&mut self) -> Result<bool> {
        self.reader.get_mut().left = LONGEST_TEXT;
        match self.reader.read_byte_record(&mut self.record) {
            Ok(more) => Ok(more),
            Err(error) => {
                if let Some(cause) = self.reader.get_mut().error.take() {
                    return Err(cause);
                }
                Err(DataError::Source {
                    name: self.name(),
                    problem: match error.into_kind() {
                        ErrorKind::Io(source) => format!("it can't be read: {source}"),
                        other => format!("it is no CSV: {other:?}"),
                    },
                })
            }
        }
    }

    fn name(&self) -> String {
        self.reader.get_ref().bytes.path().display().to_string()
    }

    fn bad(&self, start: u64, problem: String) -> Result<DataError> {
        Ok(DataError::Row {
            name: self.name(),
            place: format!("line {}", self.reader.get_ref().bytes.line_of(start)?),
            problem,
        })
    }

    /// What is wrong with the quotes of the record that was read, which begins at `start`.
    fn wrong_quotes(&self, start: u64) -> Result<Option<&'static str>> {
        let input = self.reader.get_ref();
        // A line that ends the file without a line feed, or a cell that nothing ends.
        if input.ended && ends_in_quotes(input.bytes.again(start)?, self.delimiter)? {
            return Ok(Some(
                "a cell begins with a quote that never closes: is the file cut short?",
            ));
        }
        // Of a text with tabs the lines seldom have the file's number of cells, each of them.
        let tabs = |line: &[u8]| line.iter().filter(|byte| **byte == b'\t').count();
        let holds_rows = |cell: &[u8]| {
            let lines: Vec<&[u8]> = cell.split(|byte| *byte == b'\n').collect();
            let whole = lines.get(1..lines.len() - 1).unwrap_or_default();
            !whole.is_empty() && whole.iter().all(|line| tabs(line) + 1 == self.width)
        };
        if self.delimiter == b'\t' && self.width > 1 && self.record.iter().any(holds_rows) {
            return Ok(Some(
                "a cell begins with a quote that closes lines further on, behind a tab: double such quotes, or \
                 write the file without any",
            ));
        }
        Ok(None)
    }

    fn byte(&self) -> u64 {
        self.base + self.reader.position().byte()
    }
}

/// Whether quotes are letters in a file whose cells are parted by tabs, as in those that know no quoting: a cell
/// begins with one and does not end with one, and every line has as many cells as the first.
fn has_letter_quotes(path: &Path, compression: Compression) -> Result<bool> {
    let mut bytes = Bytes::open(path, compression, 0)?;
    let (mut line, mut width, mut found) = (Vec::new(), None, false);
    while bytes.offset() < HEAD && bytes.line(&mut line)? {
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let cells = line.split(|byte| *byte == b'\t');
        found |= cells.clone().any(|cell| {
            let inside = cell.strip_prefix(b"\"");
            inside.is_some_and(|inside| !inside.ends_with(b"\""))
        });
        let count = cells.count();
        if *width.get_or_insert(count) != count {
            return Ok(false);
        }
    }
    Ok(found)
}

/// Whether a file ends within quotes, from a record's first byte on.
fn ends_in_quotes(mut bytes: Bytes, delimiter: u8) -> Result<bool> {
    #[derive(PartialEq)]
    enum At {
        Start,
        Plain,
        Quoted,
        /// Behind a quote that closes a cell or is the first of two.
        Quote,
    }
    let mut at = At::Start;
    loop {
        let part = bytes.fill()?;
        if part.is_empty() {
            return Ok(at == At::Quoted);
        }
        for &byte in part {
            let parts = byte == delimiter || byte == b'\n' || byte == b'\r';
            at = match (at, byte) {
                (At::Start | At::Quote, b'"') => At::Quoted,
                (At::Quoted, b'"') => At::Quote,
                (At::Quoted, _) => At::Quoted,
                (At::Start | At::Plain | At::Quote, _) if parts => At::Start,
                (At::Start | At::Plain | At::Quote, _) => At::Plain,
            };
        }
        let count = part.len();
        bytes.consume(count);
    }
}

/// What parts the cells, by the first line: the usual one where it is there, else the most frequent.
fn delimiter(first: &[u8], usual: u8) -> u8 {
    let mut quoted = false;
    let mut counts = [(usual, 0), (b'\t', 0), (b';', 0), (b'|', 0), (b',', 0)];
    for &byte in first {
        quoted ^= byte == b'"';
        for (delimiter, count) in &mut counts {
            *count += usize::from(!quoted && byte == *delimiter);
        }
    }
    if counts[0].1 > 0 {
        return usual;
    }
    let most = counts.iter().rev().max_by_key(|(_, count)| *count);
    match most {
        Some(&(delimiter, count)) if count > 0 => delimiter,
        Some(_) | None => usual,
    }
}

impl Rows for Delimited {
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            let start = self.byte();
            if !self.read()? {
                return Ok(None);
            }
            if let Some(problem) = self.wrong_quotes(start)? {
                return Err(self.bad(start, problem.to_owned())?);
            }
            if self.record.len() != self.width {
                let problem = format!(
                    "it has {} cells, and the first line names {} columns: is a quote missing?",
                    self.record.len(),
                    self.width
                );
                return Err(self.bad(start, problem)?);
            }
            let mut parts = Vec::with_capacity(self.columns.len());
            for &column in &self.columns {
                let cell = self.record.get(column).unwrap_or_default();
                let problem = match std::str::from_utf8(cell) {
                    Ok(text) if !text.contains('\0') => {
                        parts.push(text.to_owned());
                        continue;
                    }
                    Ok(_) => "its text has a NUL byte, so it is none; take it out",
                    Err(_) => {
                        "its text is not UTF-8; convert the file (iconv -t utf-8) or take the row out"
                    }
                };
                return Err(self.bad(start, problem.into())?);
            }
            if let Some(text) = self.fields.join(parts) {
                self.rows += 1;
                return Ok(Some(text));
            }
        }
    }

    fn position(&self) -> Position {
        Position {
            row: self.rows,
            byte: self.byte(),
        }
    }
}
