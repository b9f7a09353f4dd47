//! A file's bytes after decompression, from any offset, with lines of bounded length.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, sink};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{Compression, LONGEST_TEXT};
use crate::data::error::{DataError, Result};

const BUFFER: usize = 1 << 16;

/// Decompressed bytes in order.
pub struct Bytes {
    path: PathBuf,
    compression: Compression,
    inner: Box<dyn BufRead + Send>,
    /// Bytes before the next one.
    offset: u64,
}

impl Bytes {
    /// Opens the file at an offset after decompression. Plain files are sought, compressed ones decoded
    /// up to there.
    ///
    /// # Errors
    /// When it can't be read, or ends before the offset.
    pub fn open(path: &Path, compression: Compression, offset: u64) -> Result<Self> {
        let fail = |source| DataError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(fail)?;
        let mut skip = offset;
        if compression == Compression::None {
            if offset > file.metadata().map_err(fail)?.len() {
                return Err(shorter(path));
            }
            file.seek(SeekFrom::Start(offset)).map_err(fail)?;
            skip = 0;
        }
        let plain = BufReader::with_capacity(BUFFER, file);
        let mut inner: Box<dyn BufRead + Send> = match compression {
            Compression::None => Box::new(plain),
            Compression::Gzip => {
                Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(plain)))
            }
            Compression::Zstd => {
                let decoder = zstd::Decoder::with_buffer(plain).map_err(fail)?;
                Box::new(BufReader::with_capacity(BUFFER, decoder))
            }
        };
        if skip > 0 {
            let skipped = std::io::copy(&mut inner.by_ref().take(skip), &mut sink());
            if skipped.map_err(fail)? < skip {
                return Err(shorter(path));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            compression,
            inner,
            offset,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes before the next one.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads up to and with the next line feed into `line`, which is emptied first: false at the end.
    ///
    /// # Errors
    /// When the file can't be read or the line is too long.
    pub fn line(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        line.clear();
        let mut limited = self.inner.by_ref().take(LONGEST_TEXT + 1);
        let read = limited.read_until(b'\n', line);
        let read = read.map_err(|source| self.failed(source))? as u64;
        if read > LONGEST_TEXT {
            return Err(self.too_long());
        }
        self.offset += read;
        Ok(read > 0)
    }

    /// The next bytes, none at the end; [`consume`](Self::consume) moves on.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn fill(&mut self) -> Result<&[u8]> {
        // Asked twice, as the borrow of the first answer would last.
        if let Err(source) = self.inner.fill_buf() {
            return Err(self.failed(source));
        }
        let path = &self.path;
        self.inner.fill_buf().map_err(|source| DataError::Read {
            path: path.clone(),
            source,
        })
    }

    /// Passes over bytes of the last [`fill`](Self::fill).
    pub fn consume(&mut self, count: usize) {
        self.inner.consume(count);
        self.offset += count as u64;
    }

    /// The error for a byte at `offset` that is not UTF-8. Finds its line by reading the file again.
    pub fn not_utf8(&self, offset: u64) -> DataError {
        DataError::NotUtf8 {
            path: self.path.clone(),
            line: self.line_of(offset).unwrap_or(0),
            offset,
        }
    }

    /// The number of the line that holds the byte at `offset`, counted from 1.
    pub fn line_of(&self, offset: u64) -> Result<u64> {
        let mut again = Self::open(&self.path, self.compression, 0)?;
        let (mut line, mut left) = (1, offset);
        while left > 0 {
            let bytes = again.fill()?;
            let count = bytes.len().min(left as usize);
            if count == 0 {
                break;
            }
            line += bytes[..count].iter().filter(|&&b| b == b'\n').count() as u64;
            again.consume(count);
            left -= count as u64;
        }
        Ok(line)
    }

    /// The error for a text beyond the limit.
    pub fn too_long(&self) -> DataError {
        DataError::Source {
            name: self.path.display().to_string(),
            problem: format!(
                "the text at byte {} is longer than {} MiB: is this the format that the name says?",
                self.offset,
                LONGEST_TEXT >> 20
            ),
        }
    }

    fn failed(&self, source: std::io::Error) -> DataError {
        DataError::Read {
            path: self.path.clone(),
            source,
        }
    }
}

fn shorter(path: &Path) -> DataError {
    DataError::FileChanged {
        path: path.to_owned(),
        problem: "it is shorter than it was".into(),
    }
}
