//! A file's bytes after decompression, from any offset, with lines of bounded length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, sink};
use std::path::{Path, PathBuf};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::GzDecoder;
use lz4_flex::frame::FrameDecoder;
use lzma_rust2::XzReader;

use super::{Compression, LONGEST_TEXT};
use crate::data::error::{DataError, Result};

const BUFFER: usize = 1 << 16;
/// The largest window of Zstandard, as `zstd --long=31` writes it. Memory is taken as it is needed.
const LARGEST_WINDOW: u32 = 31;
/// KiB that a block of xz may ask for: its largest dictionary is 1.5 GiB.
const XZ_MEMORY: u32 = 2 << 20;

/// The decompressed bytes of `plain`.
///
/// # Errors
/// When the decoder can't be made.
pub fn decompressed(
    plain: impl BufRead + Send + 'static,
    compression: Compression,
) -> io::Result<Box<dyn BufRead + Send>> {
    fn buffered(decoder: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
        Box::new(BufReader::with_capacity(BUFFER, decoder))
    }
    Ok(match compression {
        Compression::None => Box::new(plain),
        Compression::Gzip => buffered(GzipMembers(Some(GzDecoder::new(plain)))),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(plain)?;
            decoder.window_log_max(LARGEST_WINDOW)?;
            buffered(decoder)
        }
        Compression::Xz => buffered(XzReader::new_mem_limit(plain, true, XZ_MEMORY)),
        Compression::Bzip2 => buffered(MultiBzDecoder::new(plain)),
        Compression::Lz4 => buffered(Lz4Frames(FrameDecoder::new(plain))),
    })
}

/// Members of gzip one after the other, up to the end or the zeros that tapes and block devices leave behind the
/// last, which `gzip` passes over as well.
struct GzipMembers<R: BufRead>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let count = member.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            let mut behind = self.0.take().map(GzDecoder::into_inner);
            while let Some(rest) = &mut behind {
                let bytes = rest.fill_buf()?;
                if bytes.is_empty() {
                    return Ok(0);
                }
                let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                if zeros == 0 {
                    self.0 = behind.take().map(GzDecoder::new);
                } else {
                    rest.consume(zeros);
                }
            }
        }
        Ok(0)
    }
}

/// LZ4 frames one after the other: the decoder ends at each.
struct Lz4Frames<R: BufRead>(FrameDecoder<R>);

impl<R: BufRead> Read for Lz4Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.0.read(into)?;
            if count > 0 || into.is_empty() || self.0.get_mut().fill_buf()?.is_empty() {
                return Ok(count);
            }
        }
    }
}

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
        let mut inner = decompressed(plain, compression).map_err(fail)?;
        if skip > 0 {
            let skipped = io::copy(&mut inner.by_ref().take(skip), &mut sink());
            if skipped.map_err(|source| failed(path, compression, 0, source))? < skip {
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

    /// The same file, from `offset` on.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn again(&self, offset: u64) -> Result<Self> {
        Self::open(&self.path, self.compression, offset)
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
        let (path, compression, offset) = (&self.path, self.compression, self.offset);
        self.inner
            .fill_buf()
            .map_err(|source| failed(path, compression, offset, source))
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
        let mut again = self.again(0)?;
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

    fn failed(&self, source: io::Error) -> DataError {
        failed(&self.path, self.compression, self.offset, source)
    }
}

/// The error of a read after `offset` decompressed bytes.
fn failed(path: &Path, compression: Compression, offset: u64, source: io::Error) -> DataError {
    if compression == Compression::None || source.raw_os_error().is_some() {
        return DataError::Read {
            path: path.to_owned(),
            source,
        };
    }
    DataError::Source {
        name: path.display().to_string(),
        problem: format!(
            "its {} data is damaged or breaks off after the first {offset} bytes that it holds \
             ({source}): fetch or make the file again",
            compression.name()
        ),
    }
}

fn shorter(path: &Path) -> DataError {
    DataError::FileChanged {
        path: path.to_owned(),
        problem: "it is shorter than it was".into(),
    }
}
