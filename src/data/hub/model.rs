//! Tokenizers by their name on the Hub, fetched into the cache once.

use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::cache::is_commit;
use super::dataset::is_repo_name;
use super::error::HubError;
use super::{Hub, RepoKind};
use crate::data::tokenizer::{TOKENIZER_FILE, TOKENIZER_FILES};

/// The folder with the files of the tokenizer called `name`; `None` where that can be no repository.
///
/// # Errors
/// Where the Hub has no such tokenizer, or neither it nor the cache gives it.
pub fn tokenizer_folder(
    hub: &Hub,
    name: &str,
    revision: &str,
) -> Result<Option<PathBuf>, HubError> {
    if !is_repo_name(name) {
        return Ok(None);
    }
    let kind = RepoKind::Model;
    let cached = hub.cached_commit(kind, name, revision).and_then(|commit| {
        let folder = hub.snapshot(kind, name, &commit);
        folder.join(TOKENIZER_FILE).is_file().then_some(folder)
    });
    if hub.settings.offline || is_commit(revision) {
        match cached {
            Some(folder) => return Ok(Some(folder)),
            None if hub.settings.offline => {
                return Err(HubError::Offline {
                    what: format!("the tokenizer {name} at revision {revision}"),
                    cache: hub.settings.cache.clone(),
                });
            }
            None => {}
        }
    }
    let info = match (hub.info(kind, name, revision), cached) {
        (Ok(info), _) => info,
        (Err(HubError::Connection { problem, .. }), Some(folder)) => {
            tracing::warn!(
                "the Hub doesn't answer ({problem}): using the tokenizer in {}",
                folder.display()
            );
            return Ok(Some(folder));
        }
        (Err(error), _) => return Err(error),
    };
    fetch(hub, name, revision, &info).map(Some)
}

fn fetch(hub: &Hub, name: &str, revision: &str, info: &Value) -> Result<PathBuf, HubError> {
    let kind = RepoKind::Model;
    let what = format!("the tokenizer {name}");
    let malformed = |problem: String| HubError::Malformed {
        what: what.clone(),
        problem,
    };
    let commit = info.get("sha").and_then(Value::as_str);
    let commit = commit.ok_or_else(|| malformed("the Hub names no commit of it".into()))?;
    let folder = hub.snapshot(kind, name, commit);
    let listed = info.get("siblings").and_then(Value::as_array);
    let listed: Vec<&Value> = listed.into_iter().flatten().collect();
    let find = |file: &str| {
        let mut all = listed.iter();
        all.find(|f| f.get("rfilename").and_then(Value::as_str) == Some(file))
    };
    if find(TOKENIZER_FILE).is_none() {
        return Err(malformed(format!(
            "the repository has no {TOKENIZER_FILE}; transformers' save_pretrained of a fast tokenizer \
             writes one"
        )));
    }
    for file in TOKENIZER_FILES {
        let Some(entry) = find(file) else { continue };
        let size = entry.get("size").and_then(Value::as_u64);
        let path = folder.join(file);
        if path.metadata().is_ok_and(|m| Some(m.len()) == size) {
            continue;
        }
        let url = hub.file_url(kind, name, commit, file);
        let bytes = hub.get(&format!("{file} of {what}"), &url)?;
        let lfs = entry.pointer("/lfs/sha256").and_then(Value::as_str);
        let sum: String = match lfs {
            Some(_) => Sha256::digest(&bytes)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect(),
            None => String::new(),
        };
        if size.is_some_and(|size| size != bytes.len() as u64) || lfs.is_some_and(|l| l != sum) {
            return Err(malformed(format!(
                "{url} gave {} bytes that are not the file that the Hub lists",
                bytes.len()
            )));
        }
        let hash = lfs.or_else(|| entry.get("blobId").and_then(Value::as_str));
        let hash = hash.filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
        let hash = hash.ok_or_else(|| malformed(format!("the Hub names no hash of {file}")))?;
        hub.store(kind, name, commit, file, hash, &bytes)?;
    }
    hub.remember_commit(kind, name, revision, commit)?;
    Ok(folder)
}
