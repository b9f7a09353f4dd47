//! What a run tells: one record a log line, an evaluation or an event.

use crate::data::Read;
use crate::data::source::{Passed, TextSummary};
use crate::launch::WORLD_SIZE;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Short rows of a micro-batch that leave less of the predictions than this are said.
const MUCH: f64 = 0.8;

/// What a loss is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossUnit {
    /// Bits per predicted token; older runs did not say.
    #[default]
    BitsPerToken,
    /// Nats per row, as sentence-transformers tells it.
    NatsPerRow,
    /// What it comes to per row: a distance, for instance.
    PerRow,
}

impl LossUnit {
    /// A loss of so many nats per item in this unit.
    pub fn of_nats(self, nats: f64) -> f64 {
        match self {
            LossUnit::BitsPerToken => nats / std::f64::consts::LN_2,
            LossUnit::NatsPerRow | LossUnit::PerRow => nats,
        }
    }

    /// As a line has it.
    pub fn name(self) -> &'static str {
        match self {
            LossUnit::BitsPerToken => "bits per token",
            LossUnit::NatsPerRow => "nats per row",
            LossUnit::PerRow => "per row",
        }
    }

    /// What loss and accuracy are of, as titles of charts have it.
    pub fn titles(self) -> [&'static str; 2] {
        match self {
            LossUnit::BitsPerToken => [
                "Loss, bits per predicted token",
                "Accuracy, share of predicted tokens",
            ],
            LossUnit::NatsPerRow => [
                "Loss, nats per row",
                "Accuracy, share of rows that are right",
            ],
            LossUnit::PerRow => ["Loss, per row", "Accuracy, share of rows that are right"],
        }
    }

    /// Whether files need not say it.
    fn is_usual(&self) -> bool {
        *self == LossUnit::default()
    }
}

/// One thing that happened, as it stands in `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    Start(Start),
    Train(Train),
    Valid(Valid),
    Test(Test),
    Event(Event),
}

/// A run began or was resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Updates made before.
    pub step: u64,
    /// Seconds since 1970.
    pub time: f64,
    pub total_updates: u64,
    pub parameters: u64,
    pub vocabulary: u64,
    /// Version of this program.
    pub version: String,
    pub onnxruntime: String,
    /// Engine, provider and arithmetic.
    pub execution: String,
    pub system: String,
    pub processors: u64,
    /// What of the text was found, taken and left out, for each part; older runs did not say.
    #[serde(default)]
    pub text: Vec<TextSummary>,
    /// What losses are in.
    #[serde(default, skip_serializing_if = "LossUnit::is_usual")]
    pub unit: LossUnit,
    /// The run's settings.
    pub config: serde_json::Value,
}

/// Means over the updates since the line before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Train {
    pub step: u64,
    pub time: f64,
    /// In the unit of the start.
    pub loss: f64,
    /// Share of the items that were right.
    pub acc: f64,
    /// Of the last update, as the next two.
    pub lr: f64,
    /// Norm of all gradients before clipping.
    pub gnorm: f64,
    /// Tokens that are not padding, a second.
    pub tokens_per_second: f64,
    /// Share of the device's peak arithmetic, where that is known.
    pub mfu: Option<f64>,
    /// Memory of this process, in bytes, where the system says.
    pub memory: Option<u64>,
    /// Share of the time without a batch.
    pub waiting: f64,
    /// What several ranks have to say beside; nothing where one process trains alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RankFigures>,
    /// Updates skipped since the run began or was resumed.
    pub skipped: u64,
    /// Tokens predicted, as a share of those that would be if each row predicted its own share: all rows
    /// of a micro-batch predict as many as its shortest one. Older runs did not say.
    #[serde(default)]
    pub predicted_share: Option<f64>,
    /// What was read of each part of a mixture since the run began; nothing where there is one text.
    #[serde(default)]
    pub mixture: Vec<Share>,
    /// What the present pass over the text passed over.
    #[serde(default)]
    pub passed: Passed,
}

/// The ranks of a run, over the updates since the line before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankFigures {
    /// How many there are.
    pub world: u64,
    /// Tokens that are not padding, a second, on each of their devices.
    pub tokens_per_second_per_device: f64,
    /// The one that took longest for its own part of the updates.
    pub slowest: u64,
    /// By how much longer than the mean of all, as a share of that.
    pub lag: f64,
    /// Share of the time in collectives on the rank that writes, waiting for other ranks included.
    pub collectives: f64,
}

impl RankFigures {
    /// Of ranks that took so many seconds each, and made so many tokens a second in all. None of one process alone.
    pub fn of(busy: &[f64], tokens_per_second: f64, collectives: f64) -> Option<RankFigures> {
        let mean = busy.iter().sum::<f64>() / busy.len().max(1) as f64;
        let slowest = (0..busy.len()).max_by(|&a, &b| busy[a].total_cmp(&busy[b]))?;
        (busy.len() > 1).then(|| RankFigures {
            world: busy.len() as u64,
            tokens_per_second_per_device: tokens_per_second / busy.len() as f64,
            slowest: slowest as u64,
            lag: busy[slowest] / mean.max(1e-9) - 1.0,
            collectives,
        })
    }
}

/// What was read of one part of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    pub texts: u64,
    pub bytes: u64,
    /// Of the texts, in 0 to 1.
    pub share: f64,
}

impl Share {
    /// Those of several parts; none of a single one.
    pub fn of(read: &[Read]) -> Vec<Share> {
        let all: u64 = read.iter().map(|part| part.texts).sum();
        let parts = read.iter().filter(|_| read.len() > 1);
        parts
            .map(|part| Share {
                texts: part.texts,
                bytes: part.bytes,
                share: part.texts as f64 / all.max(1) as f64,
            })
            .collect()
    }
}

/// The validation text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Valid {
    pub step: u64,
    pub time: f64,
    pub loss: f64,
    pub acc: f64,
    /// Lowest loss so far.
    pub best_loss: Option<f64>,
    #[serde(default, skip_serializing_if = "LossUnit::is_usual")]
    pub unit: LossUnit,
    /// What else was measured, such as ndcg@10.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// The test text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    pub step: u64,
    pub time: f64,
    pub loss: f64,
    pub acc: f64,
    #[serde(default, skip_serializing_if = "LossUnit::is_usual")]
    pub unit: LossUnit,
}

/// Something to know: a skipped update, a spike, a full disk, a stalled source, a stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub step: u64,
    pub time: f64,
    pub text: String,
}

impl Record {
    /// Updates made when it happened.
    pub fn step(&self) -> u64 {
        match self {
            Record::Start(r) => r.step,
            Record::Train(r) => r.step,
            Record::Valid(r) => r.step,
            Record::Test(r) => r.step,
            Record::Event(r) => r.step,
        }
    }

    /// The line for people; none for what has lines of its own.
    pub fn line(&self) -> Option<String> {
        match self {
            Record::Start(r) => Some(format!(
                "ONNX Runtime {}, {} | {:.1} M parameters | vocabulary {} | {} updates of {} × {} rows{}{}",
                r.onnxruntime,
                r.execution,
                r.parameters as f64 / 1e6,
                r.vocabulary,
                r.total_updates,
                r.config["update_freq"],
                r.config["batch_size"],
                match r.config[WORLD_SIZE].as_u64() {
                    Some(world) => format!(" on {world} ranks"),
                    None => String::new(),
                },
                r.text
                    .iter()
                    .map(|text| format!("\n{}", text.line()))
                    .collect::<String>()
            )),
            Record::Train(r) => Some(r.line()),
            Record::Valid(r) => {
                let best = r.best_loss == Some(r.loss);
                Some(format!(
                    "validation after update {} | loss {:.4} {} | acc {:.4}{}{}",
                    r.step,
                    r.loss,
                    r.unit.name(),
                    r.acc,
                    r.figures
                        .iter()
                        .map(|(name, figure)| format!(" | {name} {figure:.4}"))
                        .collect::<String>(),
                    if best { " | best so far" } else { "" }
                ))
            }
            Record::Test(r) => Some(format!(
                "test, best checkpoint | loss {:.4} {} | acc {:.4}",
                r.loss,
                r.unit.name(),
                r.acc
            )),
            Record::Event(r) => Some(r.text.clone()),
        }
    }
}

impl Train {
    fn line(&self) -> String {
        let mut line = format!(
            "| loss {:.4} | acc {:.4} | lr {:.3e} | gnorm {:.3} | {:.0} tokens/s",
            self.loss, self.acc, self.lr, self.gnorm, self.tokens_per_second
        );
        if let Some(ranks) = &self.ranks {
            let each = ranks.tokens_per_second_per_device;
            line += &format!(" ({} × {each:.0})", ranks.world);
        }
        if let Some(mfu) = self.mfu {
            line += &format!(" | {:.1} % of peak", 100.0 * mfu);
        }
        if let Some(memory) = self.memory {
            line += &format!(" | {:.0} MB", memory as f64 / 1e6);
        }
        line += &format!(" | waiting for data {:.1} %", 100.0 * self.waiting);
        if let Some(ranks) = &self.ranks {
            line += &format!(
                " | collectives {:.1} % | slowest rank {}: +{:.1} %",
                100.0 * ranks.collectives,
                ranks.slowest,
                100.0 * ranks.lag
            );
        }
        if let Some(share) = self.predicted_share.filter(|&share| share < MUCH) {
            line += &format!(
                " | short rows leave {:.0} % of the predictions",
                100.0 * share
            );
        }
        if !self.mixture.is_empty() {
            let shares = self.mixture.iter();
            let shares: Vec<String> = shares
                .map(|part| format!("{:.1}", 100.0 * part.share))
                .collect();
            line += &format!(" | mixed {} %", shares.join(" : "));
        }
        if let Some(said) = self.passed.said() {
            line += &format!(" | {said}");
        }
        if self.skipped > 0 {
            line += &format!(" | {} skipped", self.skipped);
        }
        line
    }
}

/// Seconds since 1970.
pub fn now() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64())
}
