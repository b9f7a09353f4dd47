//! What of a text was found, taken and left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::discover::{LeftOut, named};
use super::shard::Shard;
use super::{Kind, Passed};

/// Files that are named of those that are left out.
const NAMED: usize = 10;

/// What was counted of a text that was read whole.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Texts of each shard.
    pub texts: Vec<u64>,
    pub passed: Passed,
}

/// The files of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindSummary {
    /// Format and compression.
    pub kind: String,
    pub files: u64,
    /// As they are stored.
    pub bytes: u64,
    /// Where they were counted.
    pub texts: Option<u64>,
}

/// Files that are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutSummary {
    pub why: String,
    pub files: u64,
    /// The first of them, as far as their names are UTF-8.
    pub names: Vec<String>,
}

/// A text, as it stands in `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextSummary {
    /// What the user asked for.
    pub source: String,
    /// Its weight in a mixture.
    pub weight: Option<f64>,
    pub kinds: Vec<KindSummary>,
    pub left_out: Vec<LeftOutSummary>,
    /// In one pass, where it was counted.
    pub passed: Option<Passed>,
}

impl TextSummary {
    pub(super) fn of(
        source: &str,
        shards: &[Shard],
        left_out: &BTreeMap<LeftOut, Vec<PathBuf>>,
        counts: Option<&Counts>,
    ) -> Self {
        let mut kinds = BTreeMap::<Kind, KindSummary>::new();
        for (index, shard) in shards.iter().enumerate() {
            let texts = counts.map(|counts| counts.texts.get(index).copied().unwrap_or(0));
            let kind = kinds.entry(shard.kind()).or_insert_with(|| KindSummary {
                kind: shard.kind().name(),
                files: 0,
                bytes: 0,
                texts: texts.map(|_| 0),
            });
            kind.files += 1;
            kind.bytes += shard.size();
            kind.texts = kind.texts.zip(texts).map(|(before, more)| before + more);
        }
        let left_out = left_out.iter().map(|(why, paths)| LeftOutSummary {
            why: why.said().to_owned(),
            files: paths.len() as u64,
            names: (paths.iter().take(NAMED))
                .map(|path| path.to_string_lossy().into_owned())
                .collect(),
        });
        Self {
            source: source.to_owned(),
            weight: None,
            kinds: kinds.into_values().collect(),
            left_out: left_out.collect(),
            passed: counts.map(|counts| counts.passed),
        }
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let mut parts: Vec<String> = self
            .kinds
            .iter()
            .map(|kind| {
                let texts = kind.texts.map(|texts| format!(", {texts} texts"));
                format!(
                    "{} {} of {}, {:.1} MB{}",
                    kind.files,
                    if kind.files == 1 { "file" } else { "files" },
                    kind.kind,
                    kind.bytes as f64 / 1e6,
                    texts.unwrap_or_default()
                )
            })
            .collect();
        parts.extend(self.passed.and_then(Passed::said));
        let left_out = self.left_out.iter().map(|out| {
            let names: Vec<PathBuf> = out.names.iter().map(PathBuf::from).collect();
            let names = named(Path::new(&self.source), &names, out.files as usize);
            format!("left out {} {}: {names}", out.files, out.why)
        });
        parts.extend(left_out);
        let weight = self.weight.map(|weight| format!(" (weight {weight})"));
        format!(
            "text {}{} | {}",
            self.source,
            weight.unwrap_or_default(),
            parts.join(" | ")
        )
    }
}
