//! The shards of a text, in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mpnet_runtime::digest::hexadecimal;
use sha2::{Digest, Sha256};

use super::discover::{Discovered, FileId, LeftOut, discover, named};
use super::fields::Fields;
use super::shard::{Place, Shard};
use super::summary::{Counts, TextSummary};
use super::{Passed, Position, Rows, Tolerant};
use crate::data::error::Result;
use crate::data::hub::{DatasetName, Hub, HubFile, dataset_files};

/// How shards are read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// The fields of the text.
    pub fields: Fields,
    /// Bad rows that are passed over, in one pass over the text; the next one is an error.
    pub max_bad_rows: u64,
}

impl From<&str> for ReadOptions {
    fn from(field: &str) -> Self {
        ReadOptions {
            fields: field.into(),
            max_bad_rows: 0,
        }
    }
}

/// Shards in the order of their names, and how they are read.
#[derive(Debug, Clone)]
pub struct Sources {
    /// What the user asked for, for messages.
    name: String,
    shards: Vec<Shard>,
    left_out: BTreeMap<LeftOut, Vec<PathBuf>>,
    options: ReadOptions,
}

impl Sources {
    /// The text files that `path` names: a folder, a file, or a pattern with `*`.
    ///
    /// # Errors
    /// When there is none, or the folder can't be read.
    pub fn local(path: &Path, options: impl Into<ReadOptions>) -> Result<Self> {
        Self::local_without(&[path.to_owned()], options, &[])
    }

    /// The text files that all of `paths` name, one path after the other and each file once, without those that are
    /// among `ids`, which the run validates or tests on.
    ///
    /// # Errors
    /// Those of [`local`](Self::local).
    pub fn local_without(
        paths: &[PathBuf],
        options: impl Into<ReadOptions>,
        ids: &[FileId],
    ) -> Result<Self> {
        let mut found = Discovered::default();
        for path in paths {
            found.join(discover(path)?);
        }
        found.without(ids);
        // Where there are several, files are named by their whole paths.
        let place = match paths {
            [path] => path.as_path(),
            _ => Path::new(""),
        };
        let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        let name = names.join(" and ");
        found.tell(&name, place);
        Self::discovered(name, found, options.into())
    }

    /// These files.
    ///
    /// # Errors
    /// When one is missing.
    pub fn files(name: String, files: &[PathBuf], options: impl Into<ReadOptions>) -> Result<Self> {
        let found = Discovered {
            files: files.to_vec(),
            ..Discovered::default()
        };
        Self::discovered(name, found, options.into())
    }

    /// What was found.
    ///
    /// # Errors
    /// When a file is missing or is not read.
    pub fn discovered(name: String, found: Discovered, options: ReadOptions) -> Result<Self> {
        let shards = found.files.iter().map(|file| Shard::file(file));
        let shards: Vec<Shard> = shards.collect::<Result<_>>()?;
        let mut notes = BTreeMap::<&str, Vec<PathBuf>>::new();
        for shard in &shards {
            if let Some(note) = shard.note() {
                notes.entry(note).or_default().push(shard.name().into());
            }
        }
        for (note, files) in notes {
            tracing::warn!("{}: {note}", named(Path::new(""), &files, files.len()));
        }
        Ok(Self {
            name,
            shards,
            left_out: found.left_out,
            options,
        })
    }

    /// The parquet files of a dataset on the Hub.
    pub fn hub(name: String, files: Vec<HubFile>, options: impl Into<ReadOptions>) -> Self {
        Self {
            name,
            shards: files.into_iter().map(Shard::hub).collect(),
            left_out: BTreeMap::new(),
            options: options.into(),
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
        options: impl Into<ReadOptions>,
    ) -> Result<Self> {
        let (files, commit) = dataset_files(hub, dataset, split, revision)?;
        let name = format!(
            "the split {split} of the dataset {} at commit {commit}",
            dataset.name
        );
        let bytes: u64 = files.iter().map(HubFile::size).sum();
        tracing::info!(
            "{name}: {} files, {:.1} GB, read as they are needed",
            files.len(),
            bytes as f64 / 1e9
        );
        Ok(Self::hub(name, files, options))
    }

    /// What the user asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shards, in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Opens shard `index`, which must be one, at a position in it, where `bad` bad rows of this pass over
    /// the text are behind it.
    ///
    /// # Errors
    /// Those of [`Shard::open`].
    pub fn open(&self, index: usize, at: Position, bad: u64) -> Result<Box<dyn Rows>> {
        self.open_tolerant(index, at, bad, false)
    }

    /// The same; `quiet` where bad rows are not named, as after the first pass over the text.
    ///
    /// # Errors
    /// Those of [`Shard::open`].
    pub fn open_tolerant(
        &self,
        index: usize,
        at: Position,
        bad: u64,
        quiet: bool,
    ) -> Result<Box<dyn Rows>> {
        let rows = self.shards[index].open(&self.options.fields, at)?;
        let most = self.options.max_bad_rows.saturating_sub(bad);
        Ok(match most {
            0 => rows,
            most => Box::new(Tolerant::new(rows, most, quiet)),
        })
    }

    /// Bytes of all shards as they are stored, where all are files of this machine.
    pub fn local_bytes(&self) -> Option<u64> {
        self.shards
            .iter()
            .map(|shard| match shard.place {
                Place::File(_) => Some(shard.size()),
                Place::Hub(_) => None,
            })
            .sum()
    }

    /// Tells other text apart: a hash of the shards' file names and sizes and of the field. Folders may
    /// move.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.options.fields.key().as_bytes());
        for shard in &self.shards {
            let name = match &shard.place {
                Place::File(path) => path.file_name().unwrap_or_default().as_encoded_bytes(),
                Place::Hub(file) => file.path().as_bytes(),
            };
            hash.update([0]);
            hash.update(name);
            hash.update(shard.size().to_le_bytes());
        }
        hexadecimal(&hash.finalize()[..16])
    }

    /// What was found, taken and left out; with the texts of each kind, where they were counted.
    pub fn summary(&self, counts: Option<&Counts>) -> TextSummary {
        TextSummary::of(self.name(), &self.shards, &self.left_out, counts)
    }

    /// All texts, shard by shard, from the start.
    pub fn texts(&self) -> Texts<'_> {
        Texts {
            sources: self,
            shard: 0,
            open: None,
            passed: Passed::default(),
            quiet: false,
        }
    }

    /// The same for a look ahead: bad rows are counted and not named.
    pub fn texts_quietly(&self) -> Texts<'_> {
        Texts {
            quiet: true,
            ..self.texts()
        }
    }
}

/// The texts of [`Sources::texts`].
pub struct Texts<'s> {
    sources: &'s Sources,
    shard: usize,
    open: Option<Box<dyn Rows>>,
    /// In the shards before.
    passed: Passed,
    quiet: bool,
}

impl Texts<'_> {
    /// The place after the last text: its shard, and the position there.
    pub fn position(&self) -> (u64, Position) {
        let at = self.open.as_ref().map(|rows| rows.position());
        (self.shard as u64, at.unwrap_or_default())
    }

    /// What was passed over so far.
    pub fn passed(&self) -> Passed {
        let open = self.open.as_ref().map(|rows| rows.passed());
        self.passed.and(open.unwrap_or_default())
    }

    fn advance(&mut self) -> Result<Option<String>> {
        while self.shard < self.sources.shards.len() {
            let bad = self.passed.bad;
            let rows = match &mut self.open {
                Some(rows) => rows,
                None => self.open.insert(self.sources.open_tolerant(
                    self.shard,
                    Position::default(),
                    bad,
                    self.quiet,
                )?),
            };
            if let Some(text) = rows.next()? {
                return Ok(Some(text));
            }
            self.passed = self.passed();
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
