//! The rows of an open shard, and what of them is passed over.

use serde::{Deserialize, Serialize};

use crate::data::error::Result;

/// A place between two rows of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Rows before it.
    pub row: u64,
    /// Bytes before it, after decompression; 0 in parquet.
    pub byte: u64,
}

/// What was not taken as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Passed {
    /// Rows without the field, or where it is null.
    #[serde(default)]
    pub missing: u64,
    /// Halves of surrogate pairs that became U+FFFD.
    #[serde(default)]
    pub replaced: u64,
    /// Rows that can't be read.
    #[serde(default)]
    pub bad: u64,
}

impl Passed {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Passed) -> Passed {
        Passed {
            missing: self.missing + other.missing,
            replaced: self.replaced + other.replaced,
            bad: self.bad + other.bad,
        }
    }

    /// In words; nothing where there is nothing to say.
    pub fn said(self) -> Option<String> {
        let mut parts = Vec::new();
        for (count, what) in [
            (self.bad, "bad rows passed over"),
            (self.missing, "rows without the text field passed over"),
            (
                self.replaced,
                "halves of surrogate pairs replaced by U+FFFD",
            ),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// The rows of an open shard.
pub trait Rows: Send {
    /// The next text; `None` at the end. Blank and missing texts are passed over.
    ///
    /// # Errors
    /// When the shard can't be read or holds something else than text. After an error of a
    /// [bad row](crate::data::DataError::is_bad_row) the next call goes on behind that row.
    fn next(&mut self) -> Result<Option<String>>;

    /// The place after the last text.
    fn position(&self) -> Position;

    /// What was passed over since it was opened; bad rows are counted by the caller.
    fn passed(&self) -> Passed {
        Passed::default()
    }
}

/// Rows, of which some may be bad.
pub struct Tolerant {
    rows: Box<dyn Rows>,
    /// Bad rows met since it was opened.
    bad: u64,
    /// How many of them are passed over; the next one is an error.
    most: u64,
    /// Whether to say each.
    quiet: bool,
}

impl Tolerant {
    /// Passes over `most` bad rows of `rows`.
    pub fn new(rows: Box<dyn Rows>, most: u64, quiet: bool) -> Self {
        Self {
            rows,
            bad: 0,
            most,
            quiet,
        }
    }
}

impl Rows for Tolerant {
    fn next(&mut self) -> Result<Option<String>> {
        loop {
            match self.rows.next() {
                Err(error) if error.is_bad_row() && self.bad < self.most => {
                    self.bad += 1;
                    if !self.quiet {
                        tracing::warn!("{error}; the row is passed over");
                    }
                }
                other => return other,
            }
        }
    }

    fn position(&self) -> Position {
        self.rows.position()
    }

    fn passed(&self) -> Passed {
        Passed {
            bad: self.bad,
            ..self.rows.passed()
        }
    }
}
