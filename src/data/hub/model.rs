//! Models and tokenizers by their name on the Hub, fetched into the cache once.

use std::io::Write;
use std::path::{Path, PathBuf};

use mpnet_runtime::digest::hexadecimal;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::cache::is_commit;
use super::client::Body;
use super::error::HubError;
use super::{Hub, RepoKind};
use crate::data::tokenizer::{TOKENIZER_FILE, TOKENIZER_FILES};

/// Files of weights, of which the first that a model has is read: whole, or in shards that
/// `NAME.index.json` lists.
pub const WEIGHT_FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
const CONFIG_FILE: &str = "config.json";
/// Files of a sentence-transformers model beside those of its encoder and its modules' own.
const SENTENCE_FILES: [&str; 3] = [
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
];
/// Where old sentence-transformers models have their encoder.
const OLD_ENCODER: &str = "0_Transformer";
/// Bytes of a file that are asked for, and held, at once.
pub(super) const PART: u64 = 64 << 20;

/// What of a repository is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Tokenizer,
    /// Configuration, weights and, where there is one, the tokenizer.
    Model,
}

impl Wanted {
    fn word(self) -> &'static str {
        match self {
            Wanted::Tokenizer => "tokenizer",
            Wanted::Model => "model",
        }
    }

    /// The files to fetch of those that the Hub lists, or what is missing.
    fn choose<'a>(self, listed: &[&'a str]) -> Result<Vec<&'a str>, String> {
        let of_tokenizer = listed.iter().filter(|n| TOKENIZER_FILES.contains(n));
        let mut chosen: Vec<&str> = of_tokenizer.copied().collect();
        match self {
            Wanted::Tokenizer if listed.contains(&TOKENIZER_FILE) => Ok(chosen),
            Wanted::Tokenizer => Err(format!(
                "the repository has no {TOKENIZER_FILE}; transformers' save_pretrained of a fast \
                 tokenizer writes one"
            )),
            Wanted::Model => {
                let encoder = listed.iter().any(|name| is_config(name));
                if !encoder {
                    return Err(format!(
                        "the repository has no {CONFIG_FILE}: it holds no model of transformers"
                    ));
                }
                let root = WEIGHT_FILES.iter().find_map(|name| weights(name, listed));
                chosen.extend(root);
                chosen.extend(listed.iter().filter(|name| is_config(name)));
                chosen.extend(of_sentence_model(listed));
                if !chosen.iter().any(|name| is_weights(name)) {
                    let names = WEIGHT_FILES.join(" nor ");
                    return Err(format!(
                        "the repository has neither {names}, whole or in shards"
                    ));
                }
                Ok(chosen)
            }
        }
    }

    /// Whether a folder of the cache holds what cannot be done without.
    fn is_in(self, folder: &Path) -> bool {
        let has = |name: &str| folder.join(name).is_file();
        match self {
            Wanted::Tokenizer => has(TOKENIZER_FILE),
            Wanted::Model => {
                let whole = |name: &&str| {
                    let index = folder.join(index_of(name));
                    has(name) || index.is_file() && shards(&index).iter().all(|shard| has(shard))
                };
                let encoder = folder.join(OLD_ENCODER);
                has(CONFIG_FILE) && WEIGHT_FILES.iter().any(whole)
                    || encoder.join(CONFIG_FILE).is_file()
                        && WEIGHT_FILES.iter().any(|name| encoder.join(name).is_file())
            }
        }
    }
}

/// The file that lists the shards of the weights in `name`.
pub fn index_of(name: &str) -> String {
    format!("{name}.index.json")
}

/// The weights called `name` among the files `listed`, or the index of their shards.
fn weights<'a>(name: &str, listed: &[&'a str]) -> Option<&'a str> {
    let find = |name: &str| listed.iter().copied().find(|listed| *listed == name);
    find(name).or_else(|| find(&index_of(name)))
}

/// Whether a file is the configuration of a model, or of the encoder of an old sentence-transformers one.
fn is_config(name: &str) -> bool {
    let folder = name.strip_suffix(CONFIG_FILE);
    folder.is_some_and(|f| f.is_empty() || f.strip_suffix('/') == Some(OLD_ENCODER))
}

fn is_weights(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    WEIGHT_FILES
        .iter()
        .any(|file| name == *file || name == index_of(file))
}

/// The files of sentence-transformers: the list of modules, their settings, and the weights of those that
/// have some, once.
fn of_sentence_model<'a>(listed: &[&'a str]) -> Vec<&'a str> {
    let mut chosen = Vec::new();
    for &name in listed {
        let needed = match name.split_once('/') {
            None => SENTENCE_FILES.contains(&name),
            Some((folder, file)) => {
                let numbered = folder.split_once('_');
                let module = numbered.is_some_and(|(n, _)| n.parse::<u32>().is_ok());
                let [first, second] = WEIGHT_FILES;
                let better = format!("{folder}/{first}");
                let repeated = file == second && listed.contains(&better.as_str());
                let needed = [CONFIG_FILE, first, second].contains(&file)
                    || SENTENCE_FILES.contains(&file)
                    || TOKENIZER_FILES.contains(&file);
                module && needed && !repeated
            }
        };
        if needed {
            chosen.push(name);
        }
    }
    chosen
}

/// The shards that an index names; none where it cannot be read, which is said when the model is opened.
fn shards(index: &Path) -> Vec<String> {
    let text = std::fs::read(index).unwrap_or_default();
    let json: Value = serde_json::from_slice(&text).unwrap_or_default();
    let files = json["weight_map"].as_object().into_iter().flatten();
    let mut files: Vec<String> = files
        .filter_map(|(_, file)| Some(file.as_str()?.to_owned()))
        .collect();
    files.sort();
    files.dedup();
    files
}

/// The folder with the files of the tokenizer called `name`; `None` where that can be no repository.
///
/// # Errors
/// Where the Hub has no such tokenizer, or neither it nor the cache gives it.
pub fn tokenizer_folder(
    hub: &Hub,
    name: &str,
    revision: &str,
) -> Result<Option<PathBuf>, HubError> {
    folder(hub, name, revision, Wanted::Tokenizer)
}

/// The folder with the configuration, weights and tokenizer of the model called `name`; `None` where
/// that can be no repository.
///
/// # Errors
/// Where the Hub has no such model, or neither it nor the cache gives it.
pub fn model_folder(hub: &Hub, name: &str, revision: &str) -> Result<Option<PathBuf>, HubError> {
    folder(hub, name, revision, Wanted::Model)
}

fn folder(
    hub: &Hub,
    name: &str,
    revision: &str,
    wanted: Wanted,
) -> Result<Option<PathBuf>, HubError> {
    if !super::is_repo_name(name) {
        return Ok(None);
    }
    let (kind, word) = (RepoKind::Model, wanted.word());
    let cached = hub.cached_commit(kind, name, revision).and_then(|commit| {
        let folder = hub.snapshot(kind, name, &commit)?;
        wanted.is_in(&folder).then_some(folder)
    });
    if hub.settings.offline || is_commit(revision) {
        match cached {
            Some(folder) => return Ok(Some(folder)),
            None if hub.settings.offline => {
                return Err(HubError::Offline {
                    what: format!("the {word} {name} at revision {revision}"),
                    cache: hub.settings.cache.clone(),
                });
            }
            None => {}
        }
    }
    let info = match (hub.info(kind, name, revision, cached.is_some()), cached) {
        (Ok(info), _) => info,
        (Err(error), Some(folder)) if error.is_of_the_way() => {
            tracing::warn!(
                "{error}. Using the {word} in {}; HF_HUB_OFFLINE=1 does so without asking",
                folder.display()
            );
            return Ok(Some(folder));
        }
        (Err(error), _) => return Err(error),
    };
    fetch(hub, name, revision, &info, wanted).map(Some)
}

fn fetch(
    hub: &Hub,
    name: &str,
    revision: &str,
    info: &Value,
    wanted: Wanted,
) -> Result<PathBuf, HubError> {
    let kind = RepoKind::Model;
    let what = format!("the {} {name}", wanted.word());
    let malformed = |problem: String| HubError::Malformed {
        what: what.clone(),
        problem,
    };
    let commit = info.get("sha").and_then(Value::as_str);
    let commit = commit.filter(|c| is_commit(c));
    let commit = commit.ok_or_else(|| malformed("the Hub names no commit of it".into()))?;
    let listed = info.get("siblings").and_then(Value::as_array);
    let listed: Vec<(&str, &Value)> = listed
        .into_iter()
        .flatten()
        .filter_map(|entry| Some((entry.get("rfilename")?.as_str()?, entry)))
        .collect();
    let names: Vec<&str> = listed.iter().map(|(name, _)| *name).collect();
    let chosen = wanted.choose(&names).map_err(malformed)?;
    let mut files = Vec::new();
    for &chosen in &chosen {
        files.extend(listed.iter().find(|(name, _)| *name == chosen));
    }
    let repository = Repository {
        name,
        commit,
        what: &what,
    };
    let mut hub = repository.fetch(hub, &files)?;
    let snapshot = |hub: &Hub| hub.snapshot(kind, name, commit).ok_or(HubError::NoCache);
    // Which shards there are is in their index alone: their names are anything.
    for index in chosen.iter().filter(|name| name.ends_with(".index.json")) {
        let mut files = Vec::new();
        for shard in shards(&snapshot(&hub)?.join(index)) {
            let found = listed.iter().find(|(name, _)| *name == shard);
            files.push(found.ok_or_else(|| {
                malformed(format!(
                    "its {index} names {shard}, which the repository does not have"
                ))
            })?);
        }
        hub = repository.fetch(&hub, &files)?;
    }
    hub.remember_commit(kind, name, revision, commit);
    snapshot(&hub)
}

/// A repository at one commit.
struct Repository<'a> {
    name: &'a str,
    commit: &'a str,
    /// What it is in messages.
    what: &'a str,
}

impl Repository<'_> {
    /// Fetches what the cache lacks of `files`, names with what the Hub lists of each. Returns the Hub with
    /// the cache that they are in.
    fn fetch(&self, hub: &Hub, files: &[&(&str, &Value)]) -> Result<Hub, HubError> {
        let (kind, name, commit) = (RepoKind::Model, self.name, self.commit);
        let is_there = |hub: &Hub, (file, entry): &(&str, &Value)| {
            let size = entry.get("size").and_then(Value::as_u64);
            let path = hub.snapshot(kind, name, commit).map(|f| f.join(file));
            path.is_some_and(|path| path.metadata().is_ok_and(|m| Some(m.len()) == size))
        };
        // A cache that cannot be written to does where everything is there.
        if files.iter().all(|one| is_there(hub, one)) {
            return Ok(hub.clone());
        }
        let hub = hub.with_writable_cache()?;
        for (file, entry) in files.iter().filter(|one| !is_there(&hub, one)) {
            let size = entry.get("size").and_then(Value::as_u64);
            let lfs = entry.pointer("/lfs/sha256").and_then(Value::as_str);
            let hash = lfs.or_else(|| entry.get("blobId").and_then(Value::as_str));
            let hash = hash.filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
            let hash = hash.ok_or_else(|| HubError::Malformed {
                what: self.what.to_owned(),
                problem: format!("the Hub names no hash of {file}"),
            })?;
            let download = Download {
                what: format!("{file} of {}", self.what),
                url: hub.file_url(kind, name, commit, file),
                size,
                sha256: lfs,
            };
            let fill = |into: &mut dyn Write| download.write(&hub, PART, into);
            hub.store(kind, name, commit, file, hash, fill)?;
        }
        Ok(hub)
    }
}

/// A file of the Hub on its way to the disk.
pub(super) struct Download<'a> {
    pub what: String,
    pub url: String,
    pub size: Option<u64>,
    /// Where the Hub says it.
    pub sha256: Option<&'a str>,
}

impl Download<'_> {
    /// Writes the file `into` something, `part` bytes at a time where it has more and the server serves parts.
    pub(super) fn write(&self, hub: &Hub, part: u64, into: &mut dyn Write) -> Result<(), HubError> {
        let mut body = Hashed {
            what: &self.what,
            hash: Sha256::new(),
            bytes: 0,
            into,
        };
        match self.size {
            Some(size) if size > part => {
                tracing::info!("fetching {}, {} MB", self.what, size / 1_000_000);
                for start in (0..size).step_by(usize::try_from(part).unwrap_or(usize::MAX)) {
                    let range = start..(start + part).min(size);
                    match hub.get_range(&self.what, &self.url, range, size) {
                        Ok(bytes) => body.take(&bytes)?,
                        Err(HubError::NoRanges { .. }) if start == 0 => {
                            hub.get_whole(&self.what, &self.url, size, &mut body)?;
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            Some(_) | None => body.take(&hub.get(&self.what, &self.url)?)?,
        }
        let (found, sum) = (body.bytes, hexadecimal(body.hash.finalize()));
        if self.size.is_some_and(|size| size != found) || self.sha256.is_some_and(|h| h != sum) {
            return Err(HubError::Malformed {
                what: self.what.clone(),
                problem: format!(
                    "{} gave {found} bytes that are not the file that the Hub lists",
                    self.url
                ),
            });
        }
        Ok(())
    }
}

/// A file on its way to the disk, and its hash so far.
struct Hashed<'a> {
    what: &'a str,
    hash: Sha256,
    bytes: u64,
    into: &'a mut dyn Write,
}

impl Body for Hashed<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.into
            .write_all(bytes)
            .map_err(|source| HubError::Write {
                what: self.what.to_owned(),
                source,
            })
    }

    /// Never called: parts of files that arrived are never asked for again.
    fn clear(&mut self) {}
}
