//! One column of a parquet file, page by page; other columns are never read.

use std::fs::File;
use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::Type as PhysicalType;
use ::parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::errors::{ParquetError, Result as ParquetResult};
use ::parquet::file::reader::{ChunkReader, FileReader, Length};
use ::parquet::file::serialized_reader::SerializedFileReader;
use bytes::Bytes;

use super::bytes::Bytes as Decompressed;
use super::{Compression, Position, Rows, is_blank};
use crate::data::error::{DataError, Result};
use crate::data::hub::{HubError, HubFile, HubReader, HubWindow};

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
    reader: SerializedFileReader<Chunks>,
    window: Option<Arc<HubWindow>>,
    column: usize,
    /// Rows may be null.
    nullable: bool,
    /// The row group after the open one.
    next_group: usize,
    open: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Decoded rows, the next one last.
    decoded: Vec<Option<ByteArray>>,
    /// Rows before the next one, null ones included.
    row: u64,
}

impl Parquet {
    /// Opens a file; a compressed one is decompressed to a temporary file first, as its directory is at
    /// its end.
    ///
    /// # Errors
    /// When it is no parquet file, or has no text in this column.
    pub fn file(path: &Path, compression: Compression, field: &str, at: Position) -> Result<Self> {
        let fail = |source| DataError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match compression {
            Compression::None => File::open(path).map_err(fail)?,
            Compression::Gzip | Compression::Zstd => {
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
        Self::open(
            path.display().to_string(),
            Chunks::File(file),
            None,
            field,
            at,
        )
    }

    /// Opens a file on the Hub.
    ///
    /// # Errors
    /// Those of [`file`](Self::file), and where the Hub doesn't answer.
    pub fn hub(file: &Arc<HubFile>, field: &str, at: Position) -> Result<Self> {
        if let Some(cached) = file.cached() {
            return Self::file(&cached, Compression::None, field, at);
        }
        let window = Arc::new(HubWindow::new(Arc::clone(file)));
        let chunks = Chunks::Hub(Arc::clone(&window));
        Self::open(file.name(), chunks, Some(window), field, at)
    }

    fn open(
        name: String,
        chunks: Chunks,
        window: Option<Arc<HubWindow>>,
        field: &str,
        at: Position,
    ) -> Result<Self> {
        let reader =
            guarded(|| SerializedFileReader::new(chunks)).map_err(|problem| problem.of(&name))?;
        let wrong = |problem: String| {
            Err(DataError::Source {
                name: name.clone(),
                problem,
            })
        };
        let schema = reader.metadata().file_metadata().schema_descr();
        let columns = schema.columns();
        let Some(column) = columns.iter().position(|c| c.path().string() == field) else {
            let names: Vec<String> = columns.iter().map(|c| c.path().string()).collect();
            return wrong(format!(
                "it has no column \"{field}\" but {}; name the one of the text with --text-field",
                names.join(", ")
            ));
        };
        let found = &columns[column];
        if found.physical_type() != PhysicalType::BYTE_ARRAY || found.max_rep_level() > 0 {
            return wrong(format!(
                "its column \"{field}\" is {}{}, not a text; name the one of the text with --text-field",
                found.physical_type(),
                if found.max_rep_level() > 0 {
                    " in a list"
                } else {
                    ""
                }
            ));
        }
        let nullable = found.max_def_level() > 0;
        let mut rows = Self {
            name,
            reader,
            window,
            column,
            nullable,
            next_group: 0,
            open: None,
            decoded: Vec::new(),
            row: 0,
        };
        rows.seek(at.row)?;
        Ok(rows)
    }

    /// Goes to a row without decoding those before it, the rest of its page excepted.
    fn seek(&mut self, row: u64) -> Result<()> {
        let groups = self.reader.metadata().row_groups();
        for group in groups.iter().map(|g| g.num_rows().max(0) as u64) {
            if self.row + group > row {
                break;
            }
            self.row += group;
            self.next_group += 1;
        }
        let inside = row - self.row;
        if inside > 0 {
            if !self.open_group()? {
                return Err(DataError::Source {
                    name: self.name.clone(),
                    problem: format!("it has {} rows, and had at least {row}", self.row),
                });
            }
            let name = &self.name;
            if let Some(column) = &mut self.open {
                let skipped =
                    guarded(|| column.skip_records(inside as usize)).map_err(|p| p.of(name))?;
                self.row += skipped as u64;
            }
        }
        Ok(())
    }

    /// Opens the next row group; false at the end.
    fn open_group(&mut self) -> Result<bool> {
        let groups = self.reader.metadata().row_groups();
        let Some(group) = groups.get(self.next_group) else {
            return Ok(false);
        };
        if let Some(window) = &self.window {
            let (start, length) = group.column(self.column).byte_range();
            window.read_ahead_until(start.saturating_add(length));
        }
        let (reader, index, column) = (&self.reader, self.next_group, self.column);
        let opened = guarded(|| reader.get_row_group(index)?.get_column_reader(column));
        let opened = opened.map_err(|problem| problem.of(&self.name))?;
        self.open = Some(get_typed_column_reader(opened));
        self.next_group += 1;
        Ok(true)
    }

    /// Decodes the next rows; false at the end.
    fn decode(&mut self) -> Result<bool> {
        loop {
            let Some(column) = &mut self.open else {
                if !self.open_group()? {
                    return Ok(false);
                }
                continue;
            };
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            let read =
                guarded(|| column.read_records(AT_ONCE, Some(&mut levels), None, &mut values));
            let (records, _, _) = read.map_err(|problem| {
                problem.of(&format!(
                    "{}, row group {}",
                    self.name,
                    self.next_group.saturating_sub(1)
                ))
            })?;
            if records == 0 {
                self.open = None;
                continue;
            }
            let mut values = values.into_iter();
            let full = self.reader.metadata().file_metadata().schema_descr();
            let full = full.column(self.column).max_def_level();
            self.decoded = match self.nullable {
                true => levels
                    .iter()
                    .map(|&level| values.next_if_level(level == full))
                    .collect(),
                false => values.map(Some).collect(),
            };
            self.decoded.reverse();
            return Ok(true);
        }
    }
}

/// The next value, where the row has one.
trait NextIf {
    fn next_if_level(&mut self, there: bool) -> Option<ByteArray>;
}

impl NextIf for std::vec::IntoIter<ByteArray> {
    fn next_if_level(&mut self, there: bool) -> Option<ByteArray> {
        if there { self.next() } else { None }
    }
}

impl Rows for Parquet {
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            let Some(value) = self.decoded.pop() else {
                if !self.decode()? {
                    return Ok(None);
                }
                continue;
            };
            self.row += 1;
            let Some(value) = value else { continue };
            let text = value.as_utf8().map_err(|_| DataError::Source {
                name: self.name.clone(),
                problem: format!("the text of row {} is not UTF-8", self.row - 1),
            })?;
            if !is_blank(text) {
                return Ok(Some(text.to_owned()));
            }
        }
    }

    fn position(&self) -> Position {
        Position {
            row: self.row,
            byte: 0,
        }
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
