//! `SHA256SUMS`: the hash of every file of a checkpoint, written last and checked first.

use super::error::CheckpointError;
use super::{MODEL_FILE, Result, STATE_FILE, SUMS_FILE, TOKENIZER_FOLDER};
use crate::data::tokenizer::TOKENIZER_FILES;
use crate::staging::sync_file;
use mpnet_runtime::digest::sha256_file;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Largest list that is read.
const MAX_BYTES: u64 = 1 << 16;

/// SHA-256 of a file, in hexadecimal.
pub(super) fn hash(path: &Path) -> Result<String> {
    sha256_file(path).map_err(CheckpointError::io("read", path))
}

/// Waits until a file is on the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    sync_file(path).map_err(CheckpointError::io("sync", path))
}

/// Hashes the small files of `folder`, joins them with the hashes `known`, and writes the list.
pub(super) fn write(folder: &Path, known: &BTreeMap<String, String>) -> Result<()> {
    let mut sums = known.clone();
    let tokenizer = TOKENIZER_FILES.map(|name| format!("{TOKENIZER_FOLDER}/{name}"));
    for name in tokenizer.into_iter().chain([STATE_FILE.to_owned()]) {
        if folder.join(&name).is_file() {
            let sum = hash(&folder.join(&name))?;
            sums.insert(name, sum);
        }
    }
    let path = folder.join(SUMS_FILE);
    let text: String = sums
        .iter()
        .map(|(name, sum)| format!("{sum}  {name}\n"))
        .collect();
    fs::write(&path, text).map_err(CheckpointError::io("write", &path))?;
    sync(&path)
}

/// Reads the list; none where the checkpoint is of a version without one.
pub(super) fn read(folder: &Path) -> Result<Option<BTreeMap<String, String>>> {
    let path = folder.join(SUMS_FILE);
    match fs::metadata(&path) {
        Ok(found) if found.len() > MAX_BYTES => {
            return Err(CheckpointError::damaged(
                &path,
                format!("it has {} bytes", found.len()),
            ));
        }
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(CheckpointError::io("read", &path)(e)),
    }
    let text = fs::read(&path).map_err(CheckpointError::io("read", &path))?;
    let text = String::from_utf8(text)
        .map_err(|_| CheckpointError::damaged(&path, "it is not UTF-8 text"))?;
    let sums: Option<BTreeMap<String, String>> = text
        .lines()
        .map(|line| {
            let (sum, name) = line.split_once("  ")?;
            Some((name.to_owned(), sum.to_owned()))
        })
        .collect();
    let sums =
        sums.ok_or_else(|| CheckpointError::damaged(&path, "a line is not 'SHA-256  name'"))?;
    for name in [MODEL_FILE, STATE_FILE] {
        if !sums.contains_key(name) {
            return Err(CheckpointError::damaged(
                &path,
                format!("it has no hash of {name}"),
            ));
        }
    }
    Ok(Some(sums))
}

/// Checks the file `name` of `folder` against the list, where there is one.
pub(super) fn check(folder: &Path, name: &str, sums: &BTreeMap<String, String>) -> Result<()> {
    let path = folder.join(name);
    match sums.get(name) {
        Some(expected) if *expected == hash(&path)? => Ok(()),
        Some(_) => Err(CheckpointError::damaged(
            &path,
            "its SHA-256 is not the one in SHA256SUMS",
        )),
        None => Ok(()),
    }
}
