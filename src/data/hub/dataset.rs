//! Which files of a dataset are the rows of a configuration and split.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::HubError;
use super::{Hub, HubFile, RepoKind};

/// Where the Hub keeps the parquet files that it makes of datasets in other formats.
const CONVERTED: &str = "refs/convert/parquet";
const PARQUET: &str = ".parquet";
/// A dataset's card, and what its YAML stands between.
const CARD: &str = "README.md";
const HEAD_LINE: &str = "---";
/// Configurations that a message names.
const MOST_NAMED: usize = 20;

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
        if !super::is_repo_name(name) {
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

/// What a dataset's repository holds at a commit.
struct Listing {
    commit: String,
    /// Its parquet files, in the order of their paths.
    files: Vec<HubFile>,
    /// `configs` of its card: which files are which configuration's and split's.
    configs: Vec<Value>,
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
    let name = &dataset.name;
    let found = Listing::of(hub, name, revision)?;
    let chosen = choose(dataset, split, &found)?;
    if !chosen.is_empty() {
        return Ok((chosen, found.commit));
    }
    // In another format: the Hub may have made parquet of it.
    let none = |problem: &str| {
        Err(HubError::Malformed {
            what: format!("the dataset {name}"),
            problem: format!("{problem}; is there a split \"{split}\", and which configurations?"),
        })
    };
    let converted = match Listing::of(hub, name, CONVERTED) {
        Ok(converted) => converted,
        Err(HubError::NotFound { .. }) => return none("it has no parquet file of this split"),
        Err(HubError::Offline { cache, .. }) => {
            return Err(HubError::Offline {
                what: format!("the split {split} of the dataset {name} at revision {revision}"),
                cache,
            });
        }
        Err(other) => return Err(other),
    };
    if !converted.files.iter().any(|file| file.path.contains('/')) {
        return none("it has no parquet file of this split, and the Hub made none of any");
    }
    let config = converted_configuration(dataset, &converted)?;
    let prefixes = [
        format!("{config}/{split}/"),
        format!("{config}/partial-{split}/"),
    ];
    let mut chosen = converted.files;
    chosen.retain(|file| prefixes.iter().any(|prefix| file.path.starts_with(prefix)));
    if chosen.is_empty() {
        return none("it has no parquet file of this split, and the Hub made none");
    }
    if chosen
        .iter()
        .any(|file| file.path.starts_with(&prefixes[1]))
    {
        tracing::warn!("{name}: the Hub has only the first part of this dataset as parquet");
    }
    Ok((chosen, converted.commit))
}

/// The configuration of what the Hub converted: the one asked for, the default one, or the only one.
fn converted_configuration(dataset: &DatasetName, converted: &Listing) -> Result<String, HubError> {
    const DEFAULT: &str = "default";
    let configs: BTreeSet<&str> = converted
        .files
        .iter()
        .filter_map(|file| Some(file.path.split_once('/')?.0))
        .collect();
    let wanted = dataset.config.as_deref();
    let only = configs.first().filter(|_| configs.len() == 1).copied();
    match wanted.or(configs.get(DEFAULT).copied()).or(only) {
        Some(config) if configs.contains(config) => Ok(config.to_owned()),
        Some(_) | None => Err(HubError::Malformed {
            what: format!("the dataset {}", dataset.name),
            problem: format!(
                "{}; as in --dataset-name {}:CONFIG, there are {}",
                match wanted {
                    Some(wanted) => format!("it has no configuration \"{wanted}\""),
                    None => "it has no default configuration: name one".to_owned(),
                },
                dataset.name,
                in_a_sentence(configs.into_iter().map(str::to_owned).collect()),
            ),
        }),
    }
}

impl Listing {
    /// That of a revision: from the Hub, or without it from what the cache has of it.
    fn of(hub: &Arc<Hub>, repo: &str, revision: &str) -> Result<Listing, HubError> {
        let mut listing = if hub.settings.offline {
            Listing::cached(hub, repo, revision)?
        } else {
            let cached = Listing::cached(hub, repo, revision).ok();
            let cached = cached.filter(|listing| !listing.files.is_empty());
            match (
                Listing::asked(hub, repo, revision, cached.is_some()),
                cached,
            ) {
                (Ok(listing), _) => listing,
                (Err(error), Some(listing)) if error.is_of_the_way() => {
                    tracing::warn!(
                        "{error}. Using the {} parquet files of {repo} in the cache; HF_HUB_OFFLINE=1 does so without \
                         asking",
                        listing.files.len()
                    );
                    listing
                }
                (Err(error), _) => return Err(error),
            }
        };
        listing.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(listing)
    }

    /// As the Hub says it, which is not waited for long where the cache could do.
    fn asked(
        hub: &Arc<Hub>,
        repo: &str,
        revision: &str,
        cached: bool,
    ) -> Result<Listing, HubError> {
        let info = hub.info(RepoKind::Dataset, repo, revision, cached)?;
        let Some(commit) = info.get("sha").and_then(Value::as_str) else {
            return Err(HubError::Malformed {
                what: format!("the dataset {repo}"),
                problem: "the Hub names no commit of it".into(),
            });
        };
        hub.remember_commit(RepoKind::Dataset, repo, revision, commit);
        let listed = info.get("siblings").and_then(Value::as_array);
        let file = |file: &Value| {
            let path = file.get("rfilename")?.as_str()?;
            let size = file.get("size")?.as_u64()?;
            file_at(hub, repo, commit, path, size)
        };
        let configs = info.pointer("/cardData/configs").and_then(Value::as_array);
        Ok(Listing {
            commit: commit.to_owned(),
            files: listed.into_iter().flatten().filter_map(file).collect(),
            configs: configs.cloned().unwrap_or_default(),
        })
    }

    fn cached(hub: &Arc<Hub>, repo: &str, revision: &str) -> Result<Listing, HubError> {
        let kind = RepoKind::Dataset;
        let commit = hub
            .cached_commit(kind, repo, revision)
            .ok_or_else(|| HubError::Offline {
                what: format!("the dataset {repo} at revision {revision}"),
                cache: hub.settings.cache.clone(),
            })?;
        let root = hub.snapshot(kind, repo, &commit).ok_or(HubError::NoCache)?;
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| HubError::Cache { path, source }
        };
        let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
        // Of a revision that is known and not fetched there is no folder.
        folders.retain(|folder| folder.is_dir());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(fail(&folder))? {
                let entry = entry.map_err(fail(&folder))?;
                let path = entry.path();
                if entry.file_type().map_err(fail(&path))?.is_dir() {
                    folders.push(path);
                    continue;
                }
                let relative = path.strip_prefix(&root).ok().and_then(Path::to_str);
                let Some(relative) = relative.filter(|path| path.ends_with(PARQUET)) else {
                    continue;
                };
                // A link whose file is gone is a shard that is missing, not one to pass over.
                let size = path.metadata().map_err(fail(&path))?.len();
                files.extend(file_at(hub, repo, &commit, relative, size));
            }
        }
        let card = root.join(CARD);
        let configs = match std::fs::read_to_string(&card) {
            Ok(text) => card_configs(&text).map_err(|problem| HubError::Malformed {
                what: format!("the dataset's card {}", card.display()),
                problem,
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(fail(&card)(e)),
        };
        Ok(Listing {
            commit,
            files,
            configs,
        })
    }
}

/// A file of a repository, where it is parquet.
fn file_at(hub: &Arc<Hub>, repo: &str, commit: &str, path: &str, size: u64) -> Option<HubFile> {
    path.ends_with(PARQUET).then(|| HubFile {
        hub: Arc::clone(hub),
        repo: repo.to_owned(),
        commit: commit.to_owned(),
        path: path.to_owned(),
        size,
    })
}

/// The files of the configuration and split: as the dataset's card says, else by their names.
fn choose(dataset: &DatasetName, split: &str, listing: &Listing) -> Result<Vec<HubFile>, HubError> {
    let wanted = dataset.config.as_deref();
    let config = configuration(dataset, &listing.configs)?;
    if let Some(files) = config.and_then(|config| config.get("data_files")) {
        return matching(dataset, &listing.files, &patterns_of(files, split));
    }
    let folder = match config {
        Some(config) => config.get("data_dir").and_then(Value::as_str),
        None => wanted,
    };
    let folder = folder.map(|folder| format!("{}/", folder.trim_matches('/')));
    let inside = |file: &&HubFile| {
        let folder = folder.as_ref();
        folder.is_none_or(|folder| file.path.starts_with(folder))
    };
    let candidates: Vec<&HubFile> = listing.files.iter().filter(inside).collect();
    if let (Some(wanted), None, true) = (wanted, config, candidates.is_empty())
        && !listing.configs.is_empty()
    {
        return Err(HubError::Malformed {
            what: format!("the dataset {}", dataset.name),
            problem: format!(
                "it has no configuration \"{wanted}\"; there are {}",
                names_of(&listing.configs)
            ),
        });
    }
    let folder = folder.as_deref().unwrap_or_default();
    let paths = candidates.iter().map(|file| &file.path[folder.len()..]);
    let splits = Splits::of(paths.clone().collect::<Vec<_>>());
    let is_of = |path: &str, split: &str| splits.has(path, split);
    let chosen: Vec<HubFile> = candidates
        .iter()
        .zip(paths.clone())
        .filter(|(_, path)| is_of(path, split))
        .map(|(file, _)| (*file).clone())
        .collect();
    let none: Vec<String> = paths
        .filter(|path| splits.of_path(path).is_empty())
        .map(str::to_owned)
        .collect();
    if !none.is_empty() && !chosen.is_empty() {
        tracing::warn!(
            "{}: {} parquet files are of no split by their names, and left out: {}",
            dataset.name,
            none.len(),
            in_a_sentence(none)
        );
    }
    Ok(chosen)
}

/// The configuration of a card that is asked for, or its default one; `None` where the card has none.
fn configuration<'c>(
    dataset: &DatasetName,
    configs: &'c [Value],
) -> Result<Option<&'c Value>, HubError> {
    let named = |wanted: &str| {
        let mut all = configs.iter();
        all.find(|config| config_name(config).as_deref() == Some(wanted))
    };
    if let Some(wanted) = &dataset.config {
        return Ok(named(wanted));
    }
    let default = |config: &&Value| config.get("default").and_then(Value::as_bool) == Some(true);
    match (configs.iter().find(default).or(named("default")), configs) {
        (Some(config), _) | (None, [config]) => Ok(Some(config)),
        (None, []) => Ok(None),
        (None, [_, _, ..]) => Err(HubError::Malformed {
            what: format!("the dataset {}", dataset.name),
            problem: format!(
                "it has several configurations: name one, as in --dataset-name {}:CONFIG; there are {}",
                dataset.name,
                names_of(configs)
            ),
        }),
    }
}

/// The name of a card's configuration; YAML makes a number of some.
fn config_name(config: &Value) -> Option<String> {
    match config.get("config_name")? {
        Value::String(name) => Some(name.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The configurations' names in a sentence.
fn names_of(configs: &[Value]) -> String {
    in_a_sentence(configs.iter().filter_map(config_name).collect())
}

/// Names in a sentence, but not too many of them.
fn in_a_sentence(names: Vec<String>) -> String {
    match names.get(..MOST_NAMED) {
        Some(first) if names.len() > MOST_NAMED => {
            let more = names.len() - MOST_NAMED;
            format!("{} and {more} more", first.join(", "))
        }
        Some(_) | None => names.join(", "),
    }
}

/// `configs` in the YAML at the head of a dataset's card; none where there is no such head.
///
/// # Errors
/// Where it is not YAML.
fn card_configs(card: &str) -> Result<Vec<Value>, String> {
    #[derive(Deserialize)]
    struct Head {
        configs: Option<Vec<Value>>,
    }
    let mut lines = card.trim_start_matches('\u{feff}').trim_start().lines();
    if lines.next().map(str::trim_end) != Some(HEAD_LINE) {
        return Ok(Vec::new());
    }
    let head: Vec<&str> = lines
        .take_while(|line| line.trim_end() != HEAD_LINE)
        .collect();
    let head: Option<Head> = serde_saphyr::from_str(&head.join("\n"))
        .map_err(|e| format!("the YAML at its head can't be read: {e}"))?;
    Ok(head.and_then(|head| head.configs).unwrap_or_default())
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

/// Words in paths and the split that they stand for, as in the library `datasets`.
const KEYWORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// How the paths of a repository without a card tell the splits apart, the first of these that any of them has, as
/// the library `datasets` does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Splits {
    /// `data/SPLIT-00000-of-00001.parquet`.
    Shards,
    /// Words in the names of folders.
    Folders,
    /// Words in the names of files.
    Files,
    /// Not at all: everything is for training.
    None,
}

impl Splits {
    fn of(paths: Vec<&str>) -> Splits {
        let ways = [Splits::Shards, Splits::Folders, Splits::Files];
        let tells = |way: &Splits| paths.iter().any(|path| !way.of_path(path).is_empty());
        ways.into_iter().find(tells).unwrap_or(Splits::None)
    }

    /// Whether the file at `path` is of `split`, which may go by another of its words.
    fn has(self, path: &str, split: &str) -> bool {
        let found = self.of_path(path);
        found.contains(&split) || found.contains(&canonical(split))
    }

    /// The splits of the file at `path`: none, or more than one where several words say so.
    fn of_path(self, path: &str) -> Vec<&str> {
        let (folders, name) = match path.rsplit_once('/') {
            Some((folders, name)) => (folders.split('/').collect(), name),
            None => (Vec::new(), path),
        };
        let keywords = |parts: &[&str]| -> Vec<&str> {
            let named = |words: &[&str]| {
                let has = |word: &&str| parts.iter().any(|part| has_word(part, word));
                words.iter().any(has)
            };
            let splits = KEYWORDS.iter().filter(|(_, words)| named(words));
            splits.map(|(split, _)| *split).collect()
        };
        match self {
            Splits::Shards => shard_of(&folders, name).into_iter().collect(),
            Splits::Folders => keywords(&folders),
            Splits::Files => keywords(&[name]),
            Splits::None => vec!["train"],
        }
    }
}

/// The split of `SPLIT-00000-of-00001` and more, in the folder `data`.
fn shard_of<'a>(folders: &[&str], name: &'a str) -> Option<&'a str> {
    const DIGITS: usize = 5;
    let number = |text: &str| {
        let digits = text.get(..DIGITS);
        digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let (front, total) = name.rsplit_once("-of-")?;
    let (split, shard) = front.rsplit_once('-')?;
    let fits = folders == ["data"] && shard.len() == DIGITS && number(shard) && number(total);
    fits.then_some(split)
}

/// Whether `name` has `word` between its ends and characters that separate words.
fn has_word(name: &str, word: &str) -> bool {
    let separates = |b: &u8| b"-._ ".contains(b) || b.is_ascii_digit();
    let bytes = name.as_bytes();
    name.match_indices(word).any(|(start, _)| {
        let before = start.checked_sub(1).and_then(|i| bytes.get(i));
        let after = bytes.get(start + word.len());
        before.is_none_or(separates) && after.is_none_or(separates)
    })
}

/// The split that a word stands for.
fn canonical(word: &str) -> &str {
    let known = KEYWORDS.iter().find(|(_, words)| words.contains(&word));
    known.map_or(word, |(split, _)| split)
}
