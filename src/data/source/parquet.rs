//! Columns of a parquet file, page by page; other columns are never read.

mod hadoop;
mod open_column;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::{Compression as Codec, Type as PhysicalType};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::reader::{ChunkReader, FileReader, Length};
use ::parquet::file::serialized_reader::SerializedFileReader;
use ::parquet::schema::types::ColumnDescPtr;
use bytes::Bytes;

use super::bytes::Bytes as Decompressed;
use super::fields::{Fields, listed};
use super::json_field::SPOKEN;
use super::{Compression, FormatEntry, Passed, Position, Rows};
use crate::data::error::{DataError, Result};
use crate::data::hub::{HubError, HubFile, HubReader, HubWindow};
use open_column::OpenColumn;

/// Columns of a parquet file.
pub const PARQUET: FormatEntry = FormatEntry {
    name: "parquet",
    endings: &["parquet", "pq", "parq"],
    magic: Some(b"PAR1"),
    holds: "columns; only those of `--text-field` are read",
    reader: "parquet",
    of_text: |head| head.unnamed(),
    open: |file| {
        Ok(Box::new(Parquet::file(
            file.path,
            file.compression,
            file.fields,
            file.at,
        )?))
    },
};

/// Rows decoded at once.
const AT_ONCE: usize = 64;

/// Where the bytes of a parquet file are.
enum Chunks {
    File(File),
    Hub(Arc<HubWindow>),
}

/// A part of them in order.
enum Part {
    File(<File as ChunkReader>::T),
    Hub(HubReader),
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Part::File(file) => file.read(into),
            Part::Hub(hub) => hub.read(into),
        }
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        match self {
            Chunks::File(file) => Length::len(file),
            Chunks::Hub(hub) => hub.size(),
        }
    }
}

impl ChunkReader for Chunks {
    type T = Part;

    fn get_read(&self, start: u64) -> ParquetResult<Part> {
        match self {
            Chunks::File(file) => file.get_read(start).map(Part::File),
            Chunks::Hub(hub) => Ok(Part::Hub(hub.reader(start))),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Chunks::File(file) => file.get_bytes(start, length),
            Chunks::Hub(hub) => hub
                .bytes(start, length)
                .map_err(|e| ParquetError::External(Box::new(e))),
        }
    }
}

/// The rows of a parquet file.
pub struct Parquet {
    name: String,
    fields: Fields,
    reader: SerializedFileReader<Chunks>,
    /// The same bytes once more, for pages that are decompressed here.
    chunks: Arc<Chunks>,
    window: Option<Arc<HubWindow>>,
    /// Those of the fields; none where all are null throughout.
    columns: Vec<Column>,
    /// Rows before the next one, null ones included.
    row: u64,
    passed: Passed,
}

/// One column of texts, or of numbers, going on from page to page.
struct Column {
    index: usize,
    descriptor: ColumnDescPtr,
    /// The row group after the open one.
    next_group: usize,
    open: Option<OpenColumn>,
    /// Of each decoded row, how many values it has: 0 where it is null, several in a list.
    counts: VecDeque<usize>,
    values: std::vec::IntoIter<ByteArray>,
}

impl Parquet {
    /// Opens a file; a compressed one is decompressed to a temporary file first, as its directory is at
    /// its end.
    ///
    /// # Errors
    /// When it is no parquet file, or has no text in this column.
    pub fn file(
        path: &Path,
        compression: Compression,
        fields: &Fields,
        at: Position,
    ) -> Result<Self> {
        let fail = |source| DataError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match compression {
            Compression::None => File::open(path).map_err(fail)?,
            Compression::Gzip
            | Compression::Zstd
            | Compression::Xz
            | Compression::Bzip2
            | Compression::Lz4 => {
                let mut whole = tempfile::tempfile().map_err(fail)?;
                let mut bytes = Decompressed::open(path, compression, 0)?;
                loop {
                    let part = bytes.fill()?;
                    let count = part.len();
                    if count == 0 {
                        break;
                    }
                    std::io::Write::write_all(&mut whole, part).map_err(fail)?;
                    bytes.consume(count);
                }
                whole.rewind().map_err(fail)?;
                whole
            }
        };
        let again = Chunks::File(file.try_clone().map_err(fail)?);
        Self::open(
            path.display().to_string(),
            [Chunks::File(file), again],
            None,
            fields,
            at,
        )
    }

    /// Opens a file on the Hub.
    ///
    /// # Errors
    /// Those of [`file`](Self::file), and where the Hub doesn't answer.
    pub fn hub(file: &Arc<HubFile>, fields: &Fields, at: Position) -> Result<Self> {
        if let Some(cached) = file.cached() {
            return Self::file(&cached, Compression::None, fields, at);
        }
        let window = Arc::new(HubWindow::new(Arc::clone(file)));
        let chunks = [(); 2].map(|()| Chunks::Hub(Arc::clone(&window)));
        Self::open(file.name(), chunks, Some(window), fields, at)
    }

    fn open(
        name: String,
        [chunks, again]: [Chunks; 2],
        window: Option<Arc<HubWindow>>,
        fields: &Fields,
        at: Position,
    ) -> Result<Self> {
        let reader =
            guarded(|| SerializedFileReader::new(chunks)).map_err(|problem| problem.of(&name))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let leaves = schema.columns();
        let found: Vec<(&String, usize)> = fields
            .names()
            .iter()
            .filter_map(|field| Some((field, leaf_of(leaves, field)?)))
            .collect();
        if !fields.suffice(found.len()) {
            let names: Vec<String> = leaves.iter().map(plain_path).collect();
            return Err(DataError::Source {
                problem: format!(
                    "it has no column {} but {}; name the one of the text with {}",
                    fields.quoted(),
                    listed(&names),
                    fields.flag()
                ),
                name,
            });
        }
        let mut rows = Self {
            name,
            fields: fields.clone(),
            reader,
            chunks: Arc::new(again),
            window,
            columns: Vec::new(),
            row: 0,
            passed: Passed::default(),
        };
        for (field, index) in found {
            let descriptor = &leaves[index];
            let kind = descriptor.physical_type();
            // What stands beside texts that stay apart may be a number: a score, a label, an id.
            let number = fields.are_apart()
                && match kind {
                    PhysicalType::BOOLEAN
                    | PhysicalType::INT32
                    | PhysicalType::INT64
                    | PhysicalType::FLOAT
                    | PhysicalType::DOUBLE => true,
                    PhysicalType::INT96
                    | PhysicalType::BYTE_ARRAY
                    | PhysicalType::FIXED_LEN_BYTE_ARRAY => false,
                };
            if kind == PhysicalType::BYTE_ARRAY || number {
                rows.columns.push(Column {
                    index,
                    descriptor: Arc::clone(descriptor),
                    next_group: 0,
                    open: None,
                    counts: VecDeque::new(),
                    values: Vec::new().into_iter(),
                });
            } else if rows.has_value(index)? {
                return Err(DataError::Source {
                    name: rows.name,
                    problem: format!(
                        "its column \"{field}\" is {}, not a text; name the one of the text with {}",
                        descriptor.physical_type(),
                        fields.flag()
                    ),
                });
            }
        }
        rows.seek(at.row)?;
        if rows.columns.is_empty() {
            // A column that is null throughout has the type of none.
            rows.passed.missing = rows.rows_of_groups().sum();
        }
        Ok(rows)
    }

    fn rows_of_groups(&self) -> impl Iterator<Item = u64> + '_ {
        let groups = self.reader.metadata().row_groups();
        groups.iter().map(|group| group.num_rows().max(0) as u64)
    }

    /// Whether the column `index` has any value that is not null.
    fn has_value(&self, index: usize) -> Result<bool> {
        let groups = self.reader.num_row_groups();
        for group in 0..groups {
            let reader = &self.reader;
            let any = guarded(|| {
                let column = reader.get_row_group(group)?.get_column_reader(index)?;
                match column {
                    ColumnReader::BoolColumnReader(column) => any_value(column),
                    ColumnReader::Int32ColumnReader(column) => any_value(column),
                    ColumnReader::Int64ColumnReader(column) => any_value(column),
                    ColumnReader::Int96ColumnReader(column) => any_value(column),
                    ColumnReader::FloatColumnReader(column) => any_value(column),
                    ColumnReader::DoubleColumnReader(column) => any_value(column),
                    ColumnReader::ByteArrayColumnReader(column) => any_value(column),
                    ColumnReader::FixedLenByteArrayColumnReader(column) => any_value(column),
                }
            });
            if any.map_err(|problem| problem.of(&self.name))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes to a row without decoding those before it, the rest of its page excepted.
    fn seek(&mut self, row: u64) -> Result<()> {
        let (mut before, mut group) = (0, 0);
        for rows in self.rows_of_groups() {
            if before + rows > row {
                break;
            }
            before += rows;
            group += 1;
        }
        self.row = before;
        let inside = row - before;
        for place in 0..self.columns.len() {
            self.columns[place].next_group = group;
            if inside == 0 {
                continue;
            }
            if !self.open_group(place)? {
                return Err(DataError::Source {
                    name: self.name.clone(),
                    problem: format!("it has {before} rows, and had at least {row}"),
                });
            }
            let name = &self.name;
            if let Some(column) = &mut self.columns[place].open {
                let skipped = guarded(|| column.skip(inside as usize)).map_err(|p| p.of(name))?;
                self.row = before + skipped as u64;
            }
        }
        Ok(())
    }

    /// Opens the next row group of a column; false at the end.
    fn open_group(&mut self, place: usize) -> Result<bool> {
        let column = &self.columns[place];
        let groups = self.reader.metadata().row_groups();
        let Some(group) = groups.get(column.next_group) else {
            return Ok(false);
        };
        let chunk = group.column(column.index);
        if let Some(window) = &self.window {
            let (start, length) = chunk.byte_range();
            window.read_ahead_until(start.saturating_add(length));
        }
        let rows = group.num_rows().max(0) as usize;
        let opened = guarded(|| {
            let framed = match chunk.compression() {
                Codec::LZ4 => hadoop::pages(&self.chunks, chunk, rows)?,
                _ => None,
            };
            OpenColumn::new(match framed {
                Some(pages) => get_column_reader(Arc::clone(&column.descriptor), pages),
                None => {
                    let group = self.reader.get_row_group(column.next_group)?;
                    group.get_column_reader(column.index)?
                }
            })
        });
        let opened = opened.map_err(|problem| problem.of(&self.name))?;
        let column = &mut self.columns[place];
        column.open = Some(opened);
        column.next_group += 1;
        Ok(true)
    }

    /// Decodes the next rows of a column; false at the end.
    fn decode(&mut self, place: usize) -> Result<bool> {
        loop {
            let column = &mut self.columns[place];
            let Some(open) = &mut column.open else {
                if !self.open_group(place)? {
                    return Ok(false);
                }
                continue;
            };
            let full = column.descriptor.max_def_level();
            let listed = column.descriptor.max_rep_level() > 0;
            let (mut levels, mut starts, mut values) = (Vec::new(), Vec::new(), Vec::new());
            let read = guarded(|| {
                let starts = listed.then_some(&mut starts);
                open.read(AT_ONCE, &mut levels, starts, &mut values)
            });
            let records = read.map_err(|problem| {
                problem.of(&format!(
                    "{}, row group {}",
                    self.name,
                    column.next_group.saturating_sub(1)
                ))
            })?;
            if records == 0 {
                column.open = None;
                continue;
            }
            if full == 0 {
                column.counts.extend(values.iter().map(|_| 1));
            } else {
                for (place, &level) in levels.iter().enumerate() {
                    // In a list only the first value of a row has repetition level 0.
                    if starts.get(place).is_none_or(|&start| start == 0) {
                        column.counts.push_back(0);
                    }
                    if level == full
                        && let Some(count) = column.counts.back_mut()
                    {
                        *count += 1;
                    }
                }
            }
            column.values = values.into_iter();
            return Ok(true);
        }
    }

    /// The texts of the next row; `None` at the end.
    fn next_row(&mut self) -> Result<Option<Vec<String>>> {
        if self.columns.is_empty() {
            return Ok(None);
        }
        let (mut texts, mut damaged) = (Vec::new(), false);
        for place in 0..self.columns.len() {
            if self.columns[place].counts.is_empty() && !self.decode(place)? {
                return Ok(None);
            }
            let column = &mut self.columns[place];
            let count = column.counts.pop_front().unwrap_or(0);
            let mut of_column = Vec::new();
            for value in column.values.by_ref().take(count) {
                match value.as_utf8() {
                    Ok(text) => of_column.push(text.to_owned()),
                    Err(_) => damaged = true,
                }
            }
            self.fields.of_one(of_column, &mut texts);
        }
        self.row += 1;
        if damaged {
            return Err(DataError::Row {
                name: self.name.clone(),
                place: format!("row {}", self.row - 1),
                problem: format!(
                    "the text of row {} is not UTF-8; write it as UTF-8 or take the row out",
                    self.row - 1
                ),
            });
        }
        Ok(Some(texts))
    }
}

/// The leaf column that `field` stands for.
fn leaf_of(leaves: &[ColumnDescPtr], field: &str) -> Option<usize> {
    let exact = leaves.iter().position(|leaf| leaf.path().string() == field);
    let plain = || leaves.iter().position(|leaf| plain_path(leaf) == field);
    // Of a list of messages, what was said; a message may be a list of parts itself.
    let listed = |wanted: &str| {
        leaves
            .iter()
            .position(|leaf| leaf.max_rep_level() > 0 && plain_path(leaf) == wanted)
    };
    let spoken = || {
        SPOKEN.iter().find_map(|name| {
            let whole = format!("{field}.{name}");
            let mut parts = SPOKEN.iter().map(|part| format!("{whole}.{part}"));
            listed(&whole).or_else(|| parts.find_map(|part| listed(&part)))
        })
    };
    exact.or_else(plain).or_else(spoken)
}

/// A column's path without what lists put into it.
fn plain_path(leaf: &ColumnDescPtr) -> String {
    let parts = leaf.path().parts();
    let wrappers = ["list", "element", "item", "bag", "array_element", "array"];
    let kept = parts.iter().enumerate().filter(|(place, part)| {
        *place == 0 || leaf.max_rep_level() == 0 || !wrappers.contains(&part.as_str())
    });
    let kept: Vec<&str> = kept.map(|(_, part)| part.as_str()).collect();
    kept.join(".")
}

/// Whether a column chunk has a value that is not null.
fn any_value<T: DataType>(mut column: ColumnReaderImpl<T>) -> ParquetResult<bool> {
    loop {
        let (mut levels, mut starts, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (records, found, _) =
            column.read_records(1024, Some(&mut levels), Some(&mut starts), &mut values)?;
        if found > 0 || records == 0 {
            return Ok(found > 0);
        }
    }
}

impl Rows for Parquet {
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            let Some(texts) = self.next_row()? else {
                return Ok(None);
            };
            let none = texts.is_empty();
            let text = self.fields.join(texts);
            if none || (text.is_none() && self.fields.are_apart()) {
                self.passed.missing += 1;
            }
            if text.is_some() {
                return Ok(text);
            }
        }
    }

    fn position(&self) -> Position {
        Position {
            row: self.row,
            byte: 0,
        }
    }

    fn passed(&self) -> Passed {
        self.passed
    }
}

/// Why parquet could not be decoded.
enum Problem {
    Error(ParquetError),
    Panic,
}

impl Problem {
    fn of(self, name: &str) -> DataError {
        let problem = match self {
            Problem::Error(ParquetError::External(inner)) => {
                // From a whole page as it is, from a page's header inside an I/O error.
                let inner = match inner.downcast::<std::io::Error>() {
                    Ok(io) => match io.into_inner() {
                        Some(inner) => inner,
                        None => return damaged(name, "it can't be read"),
                    },
                    Err(other) => other,
                };
                match inner.downcast::<HubError>() {
                    Ok(hub) => return DataError::Hub(*hub),
                    Err(other) => other.to_string(),
                }
            }
            Problem::Error(error) => error.to_string(),
            Problem::Panic => "its structure contradicts itself".into(),
        };
        damaged(name, &problem)
    }
}

fn damaged(name: &str, problem: &str) -> DataError {
    DataError::Source {
        name: name.to_owned(),
        problem: format!("it is damaged, or no parquet file: {problem}"),
    }
}

/// Runs a part of the parquet reader, which may panic on damaged files.
fn guarded<T>(read: impl FnOnce() -> ParquetResult<T>) -> std::result::Result<T, Problem> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(Problem::Error),
        Err(_) => Err(Problem::Panic),
    }
}
