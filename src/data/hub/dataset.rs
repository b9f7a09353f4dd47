//! Which files of a dataset are the rows of a configuration and split.

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::HubError;
use super::{Hub, HubFile, RepoKind};

/// Where the Hub keeps the parquet files that it makes of datasets in other formats.
const CONVERTED: &str = "refs/convert/parquet";

/// `NAME[:CONFIG]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetName {
    pub name: String,
    pub config: Option<String>,
}

impl FromStr for DatasetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, config) = match text.split_once(':') {
            Some((name, config)) => (name, Some(config)),
            None => (text, None),
        };
        if !is_repo_name(name) {
            return Err(format!("'{name}' is no name of a dataset, like OWNER/NAME"));
        }
        if config.is_some_and(str::is_empty) {
            return Err(format!("'{text}' has no configuration after the colon"));
        }
        Ok(Self {
            name: name.to_owned(),
            config: config.map(str::to_owned),
        })
    }
}

/// Whether this can be the name of a repository: `NAME` or `OWNER/NAME`.
pub(super) fn is_repo_name(name: &str) -> bool {
    let part = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        !part.is_empty() && part.bytes().all(allowed) && !part.starts_with(['.', '-'])
    };
    name.len() <= 96 && name.split('/').count() <= 2 && name.split('/').all(part)
}

/// The parquet files of a dataset's split, in order, and the commit that they are of.
///
/// # Errors
/// Where there are none, or the Hub doesn't answer.
pub fn dataset_files(
    hub: &Arc<Hub>,
    dataset: &DatasetName,
    split: &str,
    revision: &str,
) -> Result<(Vec<HubFile>, String), HubError> {
    if hub.settings.offline {
        return cached_files(hub, dataset, split, revision);
    }
    let name = &dataset.name;
    let info = hub.info(RepoKind::Dataset, name, revision)?;
    let commit = commit_of(name, &info)?;
    let files = parquet_files(hub, name, &commit, &info);
    let card = info.pointer("/cardData/configs").and_then(Value::as_array);
    let chosen = choose(dataset, split, &files, card.map(Vec::as_slice))?;
    if !chosen.is_empty() {
        hub.remember_commit(RepoKind::Dataset, name, revision, &commit)?;
        return Ok((chosen, commit));
    }
    // In another format: the Hub may have made parquet of it.
    let none = |problem: &str| HubError::Malformed {
        what: format!("the dataset {name}"),
        problem: format!("{problem}; is there a split \"{split}\", and which configurations?"),
    };
    let info = match hub.info(RepoKind::Dataset, name, CONVERTED) {
        Ok(info) => info,
        Err(HubError::NotFound { .. }) => return Err(none("it has no parquet file of this split")),
        Err(other) => return Err(other),
    };
    let commit = commit_of(name, &info)?;
    let files = parquet_files(hub, name, &commit, &info);
    let config = dataset.config.as_deref().unwrap_or("default");
    let prefixes = [
        format!("{config}/{split}/"),
        format!("{config}/partial-{split}/"),
    ];
    let chosen: Vec<HubFile> = files
        .into_iter()
        .filter(|file| prefixes.iter().any(|prefix| file.path.starts_with(prefix)))
        .collect();
    if chosen.is_empty() {
        return Err(none(
            "it has no parquet file of this split, and the Hub made none",
        ));
    }
    if chosen
        .iter()
        .any(|file| file.path.starts_with(&prefixes[1]))
    {
        tracing::warn!("{name}: the Hub has only the first part of this dataset as parquet");
    }
    Ok((chosen, commit))
}

fn commit_of(name: &str, info: &Value) -> Result<String, HubError> {
    let commit = info.get("sha").and_then(Value::as_str);
    commit
        .map(str::to_owned)
        .ok_or_else(|| HubError::Malformed {
            what: format!("the dataset {name}"),
            problem: "the Hub names no commit of it".into(),
        })
}

/// Every parquet file that the API lists, in the order of their paths.
fn parquet_files(hub: &Arc<Hub>, repo: &str, commit: &str, info: &Value) -> Vec<HubFile> {
    let listed = info.get("siblings").and_then(Value::as_array);
    let mut files: Vec<HubFile> = listed
        .into_iter()
        .flatten()
        .filter_map(|file| {
            let path = file.get("rfilename")?.as_str()?;
            let size = file.get("size")?.as_u64()?;
            path.ends_with(".parquet").then(|| HubFile {
                hub: Arc::clone(hub),
                repo: repo.to_owned(),
                commit: commit.to_owned(),
                path: path.to_owned(),
                size,
            })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The files of the configuration and split: as the dataset's card says, else by their names.
fn choose(
    dataset: &DatasetName,
    split: &str,
    files: &[HubFile],
    card: Option<&[Value]>,
) -> Result<Vec<HubFile>, HubError> {
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    let configs: Vec<&Value> = card
        .into_iter()
        .flatten()
        .filter(|config| config.get("data_files").is_some())
        .collect();
    let wanted = dataset.config.as_deref();
    let config = match wanted {
        Some(wanted) => configs
            .iter()
            .find(|c| text(c, "config_name").as_deref() == Some(wanted)),
        None => {
            let default = |c: &&&Value| {
                c.get("default").and_then(Value::as_bool) == Some(true)
                    || text(c, "config_name").as_deref() == Some("default")
            };
            configs.iter().find(default).or(configs.first())
        }
    };
    if let Some(config) = config {
        let patterns = patterns_of(&config["data_files"], split);
        return matching(dataset, files, &patterns);
    }
    let inside = |file: &&HubFile| match wanted {
        Some(config) => file.path.starts_with(&format!("{config}/")),
        None => true,
    };
    let candidates: Vec<&HubFile> = files.iter().filter(inside).collect();
    if let (Some(wanted), true) = (wanted, candidates.is_empty()) {
        let names: Vec<String> = configs
            .iter()
            .filter_map(|c| text(c, "config_name"))
            .collect();
        if !names.is_empty() {
            return Err(HubError::Malformed {
                what: format!("the dataset {}", dataset.name),
                problem: format!(
                    "it has no configuration \"{wanted}\"; there are {}",
                    names.join(", ")
                ),
            });
        }
    }
    let named = candidates.iter().any(|file| split_of(&file.path).is_some());
    Ok(candidates
        .into_iter()
        .filter(|file| match named {
            true => split_of(&file.path) == Some(canonical(split)),
            // Files that name no split are for training.
            false => split == "train",
        })
        .cloned()
        .collect())
}

/// The path patterns of a split in a card's `data_files`: a pattern, a list of them, or a list of
/// `{split, path}`.
fn patterns_of(data_files: &Value, split: &str) -> Vec<String> {
    let texts = |value: &Value| -> Vec<String> {
        let list = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        list.iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let list = match data_files {
        Value::Array(list) => list.as_slice(),
        other => std::slice::from_ref(other),
    };
    let mut patterns = Vec::new();
    for entry in list {
        match entry.get("path") {
            Some(path) if entry.get("split").and_then(Value::as_str) == Some(split) => {
                patterns.extend(texts(path));
            }
            Some(_) => {}
            None if split == "train" => patterns.extend(texts(entry)),
            None => {}
        }
    }
    patterns
}

fn matching(
    dataset: &DatasetName,
    files: &[HubFile],
    patterns: &[String],
) -> Result<Vec<HubFile>, HubError> {
    let compiled: Vec<(glob::Pattern, String)> = patterns
        .iter()
        .map(|text| Ok((glob::Pattern::new(text)?, format!("{text}/"))))
        .collect::<Result<_, glob::PatternError>>()
        .map_err(|e| HubError::Malformed {
            what: format!("the card of the dataset {}", dataset.name),
            problem: format!("one of the patterns {} is none: {e}", patterns.join(", ")),
        })?;
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::default()
    };
    let matches = |file: &&HubFile| {
        compiled.iter().any(|(pattern, folder)| {
            pattern.matches_with(&file.path, options) || file.path.starts_with(folder)
        })
    };
    Ok(files.iter().filter(matches).cloned().collect())
}

/// The split that a word in a path stands for.
fn canonical(word: &str) -> &str {
    match word {
        "train" | "training" => "train",
        "validation" | "valid" | "dev" | "val" | "eval" | "evaluation" => "validation",
        "test" | "testing" => "test",
        other => other,
    }
}

/// The split that a path names in one of its words.
fn split_of(path: &str) -> Option<&str> {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(canonical)
        .find(|word| matches!(*word, "train" | "validation" | "test"))
}

/// Without the Hub: the parquet files that the cache has of the revision.
fn cached_files(
    hub: &Arc<Hub>,
    dataset: &DatasetName,
    split: &str,
    revision: &str,
) -> Result<(Vec<HubFile>, String), HubError> {
    let kind = RepoKind::Dataset;
    let name = &dataset.name;
    let offline = || HubError::Offline {
        what: format!("the split {split} of the dataset {name} at revision {revision}"),
        cache: hub.settings.cache.clone(),
    };
    let commit = hub
        .cached_commit(kind, name, revision)
        .ok_or_else(offline)?;
    let root = hub.snapshot(kind, name, &commit);
    let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            let relative = path.strip_prefix(&root).ok().and_then(|p| p.to_str());
            match relative {
                _ if metadata.is_dir() => folders.push(path),
                Some(relative) if relative.ends_with(".parquet") => files.push(HubFile {
                    hub: Arc::clone(hub),
                    repo: name.clone(),
                    commit: commit.clone(),
                    path: relative.to_owned(),
                    size: metadata.len(),
                }),
                _ => {}
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let chosen = choose(dataset, split, &files, None)?;
    match chosen.is_empty() {
        true => Err(offline()),
        false => Ok((chosen, commit)),
    }
}
