//! The order of the texts: shards shuffled anew each epoch, one after the other.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::error::{DataError, Result};
use crate::data::rng::{Purpose, keyed, shuffle};
use crate::data::source::{Passed, Position, Rows, Sources};

/// A place between two texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Passes over the text that are complete.
    pub epoch: u64,
    /// Shards of this pass, in its order, that are complete.
    pub shards: u64,
    /// Position in the next one.
    pub at: Position,
    /// What this pass passed over up to here; checkpoints from before it was counted have none.
    #[serde(default)]
    pub passed: Passed,
    /// Texts handed out since the run began, and their bytes; of runs from before they were counted, since
    /// then.
    #[serde(default)]
    pub texts: u64,
    #[serde(default)]
    pub bytes: u64,
}

/// Whether a text has at least `shortest` characters.
pub fn is_long(text: &str, shortest: usize) -> bool {
    // Most are long enough in bytes alone to be so in characters.
    text.len() >= shortest.saturating_mul(4) || text.chars().count() >= shortest
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Text(String),
    EpochEnd,
}

/// What is read, and how.
#[derive(Debug, Clone)]
pub struct OrderConfig {
    pub sources: Arc<Sources>,
    pub seed: u64,
    /// Which part of a mixture it is.
    pub part: u64,
    /// Shard and position up to which texts are never trained on.
    pub held_out: (u64, Position),
    /// Shorter texts are passed over, in characters.
    pub min_text_length: usize,
}

/// Texts without end.
pub struct Order {
    config: OrderConfig,
    cursor: Cursor,
    /// The shards of this epoch.
    shards: Vec<u32>,
    open: Option<Box<dyn Rows>>,
    /// What this pass passed over in front of what is open.
    before: Passed,
    /// Epochs in a row that gave no text.
    empty: u32,
}

impl Order {
    /// From `cursor` on.
    pub fn new(config: OrderConfig, cursor: Cursor) -> Self {
        let mut order = Self {
            config,
            cursor,
            shards: Vec::new(),
            open: None,
            before: cursor.passed,
            empty: 0,
        };
        order.start_epoch();
        order
    }

    /// The place after what was handed out last.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    fn start_epoch(&mut self) {
        let count = self.config.sources.shards().len() as u32;
        self.shards = (0..count).collect();
        let mut rng = keyed(
            self.config.seed,
            Purpose::Shuffle,
            self.cursor.epoch,
            self.config.part,
        );
        shuffle(&mut rng, &mut self.shards);
    }

    /// The next text, or the end of the epoch.
    ///
    /// # Errors
    /// When a shard can't be read, or two epochs in a row held no text.
    pub fn next(&mut self) -> Result<Next> {
        while let Some(&shard) = self.shards.get(self.cursor.shards as usize) {
            if let Some(text) = self.next_of(shard)? {
                self.empty = 0;
                self.cursor.texts += 1;
                self.cursor.bytes += text.len() as u64;
                return Ok(Next::Text(text));
            }
            if let Some(rows) = self.open.take() {
                self.before = self.before.and(rows.passed());
                self.cursor.passed = self.before;
            }
            self.cursor.shards += 1;
            self.cursor.at = Position::default();
        }
        self.empty += 1;
        if self.empty > 1 {
            return Err(DataError::NoText {
                name: self.config.sources.name().to_owned(),
                shortest: self.config.min_text_length,
            });
        }
        self.cursor = Cursor {
            epoch: self.cursor.epoch.wrapping_add(1),
            texts: self.cursor.texts,
            bytes: self.cursor.bytes,
            ..Cursor::default()
        };
        self.before = Passed::default();
        self.start_epoch();
        Ok(Next::EpochEnd)
    }

    fn next_of(&mut self, shard: u32) -> Result<Option<String>> {
        let (held_shard, held) = self.config.held_out;
        if u64::from(shard) < held_shard {
            return Ok(None);
        }
        let rows = match &mut self.open {
            Some(rows) => rows,
            None => {
                let start = match u64::from(shard) == held_shard {
                    true => self.cursor.at.max(held),
                    false => self.cursor.at,
                };
                let sources = &self.config.sources;
                // What was named in the first pass is not named in each.
                let quiet = self.cursor.epoch > 0;
                let rows = sources.open_tolerant(shard as usize, start, self.before.bad, quiet)?;
                self.open.insert(rows)
            }
        };
        while let Some(text) = rows.next()? {
            self.cursor.at = rows.position();
            self.cursor.passed = self.before.and(rows.passed());
            if is_long(&text, self.config.min_text_length) {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }
}
