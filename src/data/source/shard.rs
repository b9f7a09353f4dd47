//! One file of text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fields::Fields;
use super::sniff::look;
use super::{Compression, Format, Kind, Opening, Position, Rows, parquet};
use crate::data::error::{DataError, Result};
use crate::data::hub::HubFile;

/// Where a shard's bytes are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    File(PathBuf),
    Hub(Arc<HubFile>),
}

/// One file of text.
#[derive(Debug, Clone)]
pub struct Shard {
    name: String,
    size: u64,
    kind: Kind,
    pub(super) place: Place,
    note: Option<String>,
}

impl Shard {
    /// The file `path`, whose kind its content decides, or its name where that doesn't.
    ///
    /// # Errors
    /// When there is no such file, or it is of a kind that is not read.
    pub fn file(path: &Path) -> Result<Self> {
        let fail = |source| DataError::Read {
            path: path.to_owned(),
            source,
        };
        let metadata = std::fs::metadata(path).map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(std::io::ErrorKind::IsADirectory.into()));
        }
        let looked = look(path)?;
        Ok(Self {
            name: path.display().to_string(),
            size: metadata.len(),
            kind: looked.kind,
            place: Place::File(path.to_owned()),
            note: looked.note,
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
            note: None,
        }
    }

    /// Its path or address, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes, as it is stored.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What it holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is odd about it, to be said.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Opens it at a position that was handed out before, or at its start.
    ///
    /// # Errors
    /// When it can't be read, or is not what its name says.
    pub fn open(&self, fields: &Fields, at: Position) -> Result<Box<dyn Rows>> {
        let Kind {
            format,
            compression,
        } = self.kind;
        let path = match &self.place {
            Place::File(path) => path,
            Place::Hub(file) => return Ok(Box::new(parquet::Parquet::hub(file, fields, at)?)),
        };
        (format.entry().open)(&Opening {
            path,
            compression,
            fields,
            at,
        })
    }
}
