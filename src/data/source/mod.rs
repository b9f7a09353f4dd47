//! Where training text comes from: shards of several formats, read row by row and never whole.
//!
//! A shard is one file. Its rows are handed out in order, each with the [`Position`] after it, at which
//! reading goes on later: uncompressed lines by a seek, parquet by skipping pages unread, compressed
//! streams by decoding again what was read (they have no other way).

mod bytes;
mod discover;
mod format;
mod json;
mod json_field;
mod jsonl;
mod parquet;
mod txt;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mpnet_runtime::digest::hexadecimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{DataError, Result};
use super::hub::{DatasetName, Hub, HubFile, dataset_files};
pub use discover::training_files;
pub use format::{Compression, Format, Kind};

/// The field of the text where none is named.
pub const DEFAULT_FIELD: &str = "text";

/// A text longer than this is taken for a broken file.
pub(crate) const LONGEST_TEXT: u64 = 64 << 20;

/// A place between two rows of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Rows before it.
    pub row: u64,
    /// Bytes before it, after decompression; 0 in parquet.
    pub byte: u64,
}

/// The rows of an open shard.
pub trait Rows: Send {
    /// The next text; `None` at the end. Blank and missing texts are passed over.
    ///
    /// # Errors
    /// When the shard can't be read or holds something else than text.
    fn next(&mut self) -> Result<Option<String>>;

    /// The place after the last text.
    fn position(&self) -> Position;
}

/// Whether Python's `str.isspace` holds for the text (U+001F counts there, though not in Unicode).
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c == '\x1f')
}

/// Where a shard's bytes are.
#[derive(Debug, Clone)]
enum Place {
    File(PathBuf),
    Hub(Arc<HubFile>),
}

/// One file of text.
#[derive(Debug, Clone)]
pub struct Shard {
    name: String,
    size: u64,
    kind: Kind,
    place: Place,
}

impl Shard {
    /// The file `path`; a name without a known ending is taken for lines of text.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn file(path: &Path) -> Result<Self> {
        let fail = |source| DataError::Read {
            path: path.to_owned(),
            source,
        };
        let metadata = std::fs::metadata(path).map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self {
            name: path.display().to_string(),
            size: metadata.len(),
            kind: Kind::of(path).unwrap_or_default(),
            place: Place::File(path.to_owned()),
        })
    }

    /// A parquet file on the Hub.
    pub fn hub(file: HubFile) -> Self {
        Self {
            name: file.name(),
            size: file.size(),
            kind: Kind {
                format: Format::Parquet,
                compression: Compression::None,
            },
            place: Place::Hub(Arc::new(file)),
        }
    }

    /// Its path or address, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens it at a position that was handed out before, or at its start.
    ///
    /// # Errors
    /// When it can't be read, or is not what its name says.
    pub fn open(&self, field: &str, at: Position) -> Result<Box<dyn Rows>> {
        match (&self.place, self.kind.format) {
            (Place::File(path), Format::Text) => {
                Ok(Box::new(txt::Lines::open(path, self.kind.compression, at)?))
            }
            (Place::File(path), Format::JsonLines) => Ok(Box::new(jsonl::JsonLines::open(
                path,
                self.kind.compression,
                field,
                at,
            )?)),
            (Place::File(path), Format::Json) => Ok(Box::new(json::Json::open(
                path,
                self.kind.compression,
                field,
                at,
            )?)),
            (Place::File(path), Format::Parquet) => Ok(Box::new(parquet::Parquet::file(
                path,
                self.kind.compression,
                field,
                at,
            )?)),
            (Place::Hub(file), _) => Ok(Box::new(parquet::Parquet::hub(file, field, at)?)),
        }
    }
}

/// Shards in the order of their names, and the field of their texts.
#[derive(Debug, Clone)]
pub struct Sources {
    /// What the user asked for, for messages.
    name: String,
    shards: Vec<Shard>,
    field: String,
}

impl Sources {
    /// The text files that `path` names: a folder, a file, or a pattern with `*`.
    ///
    /// # Errors
    /// When there is none, or the folder can't be read.
    pub fn local(path: &Path, field: &str) -> Result<Self> {
        let files = training_files(path)?;
        Self::files(path.display().to_string(), &files, field)
    }

    /// These files.
    ///
    /// # Errors
    /// When one is missing.
    pub fn files(name: String, files: &[PathBuf], field: &str) -> Result<Self> {
        let shards = files.iter().map(|file| Shard::file(file));
        Ok(Self {
            name,
            shards: shards.collect::<Result<_>>()?,
            field: field.to_owned(),
        })
    }

    /// The parquet files of a dataset on the Hub.
    pub fn hub(name: String, files: Vec<HubFile>, field: &str) -> Self {
        Self {
            name,
            shards: files.into_iter().map(Shard::hub).collect(),
            field: field.to_owned(),
        }
    }

    /// The parquet files of a split of a dataset on the Hub, as they are at a revision.
    ///
    /// # Errors
    /// Those of [`dataset_files`].
    pub fn dataset(
        hub: &Arc<Hub>,
        dataset: &DatasetName,
        split: &str,
        revision: &str,
        field: &str,
    ) -> Result<Self> {
        let (files, commit) = dataset_files(hub, dataset, split, revision)?;
        let name = format!("the dataset {} at commit {commit}", dataset.name);
        let bytes: u64 = files.iter().map(HubFile::size).sum();
        tracing::info!(
            "{name}: {} files, {:.1} GB, read as they are needed",
            files.len(),
            bytes as f64 / 1e9
        );
        Ok(Self::hub(name, files, field))
    }

    /// What the user asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shards, in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Opens shard `index`, which must be one, at a position in it.
    ///
    /// # Errors
    /// Those of [`Shard::open`].
    pub fn open(&self, index: usize, at: Position) -> Result<Box<dyn Rows>> {
        self.shards[index].open(&self.field, at)
    }

    /// Bytes of all shards as they are stored, where all are files of this machine.
    pub fn local_bytes(&self) -> Option<u64> {
        self.shards
            .iter()
            .map(|shard| match shard.place {
                Place::File(_) => Some(shard.size),
                Place::Hub(_) => None,
            })
            .sum()
    }

    /// Tells other text apart: a hash of the shards' file names and sizes and of the field. Folders may
    /// move.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.field.as_bytes());
        for shard in &self.shards {
            let name = match &shard.place {
                Place::File(path) => path.file_name().unwrap_or_default().as_encoded_bytes(),
                Place::Hub(file) => file.path().as_bytes(),
            };
            hash.update([0]);
            hash.update(name);
            hash.update(shard.size.to_le_bytes());
        }
        hexadecimal(&hash.finalize()[..16])
    }

    /// All texts, shard by shard, from the start.
    pub fn texts(&self) -> Texts<'_> {
        Texts {
            sources: self,
            shard: 0,
            open: None,
        }
    }
}

/// The texts of [`Sources::texts`].
pub struct Texts<'s> {
    sources: &'s Sources,
    shard: usize,
    open: Option<Box<dyn Rows>>,
}

impl Texts<'_> {
    /// The place after the last text: its shard, and the position there.
    pub fn position(&self) -> (u64, Position) {
        let at = self.open.as_ref().map(|rows| rows.position());
        (self.shard as u64, at.unwrap_or_default())
    }

    fn advance(&mut self) -> Result<Option<String>> {
        while self.shard < self.sources.shards.len() {
            let rows = match &mut self.open {
                Some(rows) => rows,
                None => self
                    .open
                    .insert(self.sources.open(self.shard, Position::default())?),
            };
            if let Some(text) = rows.next()? {
                return Ok(Some(text));
            }
            self.open = None;
            self.shard += 1;
        }
        Ok(None)
    }
}

impl Iterator for Texts<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        self.advance().transpose()
    }
}

#[cfg(test)]
pub(crate) mod tests;
