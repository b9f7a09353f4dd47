//! Files of a dataset on the Hub, read by ranges.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mpnet_runtime::digest::sha256;

use super::error::HubError;
use super::model::{Download, PART};
use super::{Hub, RepoKind};

/// Bytes asked for at once within the column that is read.
const WINDOW: u64 = 4 << 20;
/// Bytes asked for at once elsewhere.
const LEAST: u64 = 4 << 10;
/// Bytes asked for at the end of a file, where parquet has its directory.
const TAIL: u64 = 64 << 10;

/// A file of a dataset, at one commit.
#[derive(Debug, Clone)]
pub struct HubFile {
    pub(super) hub: Arc<Hub>,
    pub(super) repo: String,
    pub(super) commit: String,
    pub(super) path: String,
    pub(super) size: u64,
}

impl HubFile {
    /// Dataset and path, for messages.
    pub fn name(&self) -> String {
        format!("{} of the dataset {} on the Hub", self.path, self.repo)
    }

    /// Path in the dataset.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the cache holds the whole file.
    pub fn cached(&self) -> Option<PathBuf> {
        let folder = self
            .hub
            .snapshot(RepoKind::Dataset, &self.repo, &self.commit)?;
        let path = folder.join(&self.path);
        let whole = path.metadata().is_ok_and(|m| m.len() == self.size);
        whole.then_some(path)
    }

    fn read(&self, start: u64, end: u64) -> Result<Bytes, HubError> {
        if self.hub.settings.offline {
            return Err(HubError::Offline {
                what: self.name(),
                cache: self.hub.settings.cache.clone(),
            });
        }
        let hub = &self.hub;
        let url = hub.file_url(RepoKind::Dataset, &self.repo, &self.commit, &self.path);
        if hub.sends_whole_files() {
            return self.read_whole(&url, start, end);
        }
        match hub.get_range(&self.name(), &url, start..end, self.size) {
            Err(HubError::NoRanges { .. }) => self.read_whole(&url, start, end),
            read => read.map(Bytes::from),
        }
    }

    /// The same from a server that sends whole files alone: the file is fetched into the cache once.
    fn read_whole(&self, url: &str, start: u64, end: u64) -> Result<Bytes, HubError> {
        // One at a time, so that nothing is fetched twice.
        static FETCHING: Mutex<()> = Mutex::new(());
        let fetching = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
        let path = match self.cached() {
            Some(path) => path,
            None => {
                let file = Self {
                    hub: Arc::new(self.hub.with_writable_cache()?),
                    ..self.clone()
                };
                match file.cached() {
                    Some(path) => path,
                    None => file.fetch(url)?,
                }
            }
        };
        drop(fetching);
        let fail = |source| HubError::Cache {
            path: path.clone(),
            source,
        };
        let mut file = std::fs::File::open(&path).map_err(fail)?;
        file.seek(SeekFrom::Start(start)).map_err(fail)?;
        let mut bytes = Vec::new();
        file.take(end - start)
            .read_to_end(&mut bytes)
            .map_err(fail)?;
        Ok(bytes.into())
    }

    /// Fetches the whole file into the cache.
    fn fetch(&self, url: &str) -> Result<PathBuf, HubError> {
        let what = self.name();
        tracing::warn!(
            "{what}: the server does not serve parts of files, so {} MB are fetched",
            self.size / 1_000_000
        );
        let download = Download {
            what,
            url: url.to_owned(),
            size: Some(self.size),
            sha256: None,
        };
        // The Hub's listing may name no hash: commit and path are as much one file's.
        let name = sha256(format!("{} {}", self.commit, self.path));
        let fill = |into: &mut dyn Write| download.write(&self.hub, PART, into);
        let (kind, repo, commit) = (RepoKind::Dataset, &self.repo, &self.commit);
        self.hub.store(kind, repo, commit, &self.path, &name, fill)
    }
}

/// A file and the parts of it that were read last.
pub struct HubWindow {
    file: Arc<HubFile>,
    /// Start and bytes: the end of the file, and where reading goes on.
    parts: Mutex<[Option<(u64, Bytes)>; 2]>,
    /// Reading ahead stops here.
    until: AtomicU64,
}

impl HubWindow {
    pub fn new(file: Arc<HubFile>) -> Self {
        Self {
            file,
            parts: Mutex::default(),
            until: AtomicU64::new(0),
        }
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.file.size
    }

    /// What follows will be read in order up to this byte.
    pub fn read_ahead_until(&self, end: u64) {
        self.until.store(end.min(self.file.size), Ordering::Relaxed);
    }

    /// `length` bytes from `start` on.
    ///
    /// # Errors
    /// Where the Hub doesn't give them, or they are beyond the end.
    pub fn bytes(&self, start: u64, length: usize) -> Result<Bytes, HubError> {
        let from_there = self.from(start, length as u64)?;
        Ok(from_there.slice(..length))
    }

    /// At least `length` bytes from `start` on.
    fn from(&self, start: u64, length: u64) -> Result<Bytes, HubError> {
        let size = self.file.size;
        let end = start.checked_add(length).filter(|&end| end <= size);
        let Some(end) = end else {
            return Err(HubError::Malformed {
                what: self.file.name(),
                problem: format!(
                    "it refers to byte {start} and {length} more, but has {size} bytes"
                ),
            });
        };
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        for (first, bytes) in parts.iter().flatten() {
            if *first <= start && end <= first + bytes.len() as u64 {
                return Ok(bytes.slice((start - first) as usize..));
            }
        }
        let until = self.until.load(Ordering::Relaxed);
        let tail = size.saturating_sub(TAIL);
        let (slot, from, to) = if start >= until && end > tail {
            (0, start.min(tail), size)
        } else {
            let ahead = (start + WINDOW).min(until);
            (1, start, end.max(ahead).max((start + LEAST).min(size)))
        };
        let bytes = self.file.read(from, to)?;
        parts[slot] = Some((from, bytes.clone()));
        Ok(bytes.slice((start - from) as usize..))
    }

    /// Reads in order from `start` on.
    pub fn reader(self: &Arc<Self>, start: u64) -> HubReader {
        HubReader {
            window: Arc::clone(self),
            next: start,
            bytes: Bytes::new(),
        }
    }
}

/// A file of the Hub from some byte on.
pub struct HubReader {
    window: Arc<HubWindow>,
    next: u64,
    bytes: Bytes,
}

impl Read for HubReader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.is_empty() && self.next < self.window.size() {
            let bytes = self.window.from(self.next, 1);
            self.bytes = bytes.map_err(std::io::Error::other)?;
        }
        let count = into.len().min(self.bytes.len());
        into[..count].copy_from_slice(&self.bytes.split_to(count));
        self.next += count as u64;
        Ok(count)
    }
}
