//! Where a loader stands, as one value.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::order::Cursor;
use super::samples::{BreakMode, Row};
use crate::data::source::Passed;

/// Everything that decides the batches after a group of batches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Snapshot {
    /// Of each part of the text; one where it is no mixture.
    pub cursors: Vec<Cursor>,
    /// Whether the epoch ended and its rows are being used up.
    pub draining: bool,
    /// The row that is not full yet.
    pub open: Vec<u32>,
    /// The shuffle buffer, in its order.
    pub buffer: Vec<Row>,
    /// Rows taken out of the buffer since the run began.
    pub drawn: u64,
    /// Rows that were left over from the last group.
    pub left: Vec<Row>,
    /// Groups cut since the run began.
    pub groups: u64,
}

impl Snapshot {
    /// The start of a text of so many parts.
    pub fn new(parts: usize) -> Self {
        Self {
            cursors: vec![Cursor::default(); parts],
            ..Self::default()
        }
    }
}

/// What was read of one part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Read {
    pub texts: u64,
    pub bytes: u64,
}

/// Where a loader stands: with it and the same text, batches go on as if never interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Saved", try_from = "Saved")]
pub struct LoaderState {
    /// The seed in use; it outlives a different seed in the configuration of the resumed run.
    pub(super) seed: u64,
    /// What the text was, to notice another one; empty before the first batch.
    pub(super) fingerprint: String,
    pub(super) source: String,
    pub(super) mode: BreakMode,
    pub(super) max_tokens: usize,
    pub(super) after: Arc<Snapshot>,
    /// The batches of the present group, and the first of them that is not used.
    pub(super) group: Arc<Vec<Vec<Row>>>,
    pub(super) next: usize,
    pub(super) batches: u64,
    pub(super) total_rows: u64,
}

impl LoaderState {
    /// The start of a run.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            fingerprint: String::new(),
            source: String::new(),
            mode: BreakMode::default(),
            max_tokens: 0,
            after: Arc::new(Snapshot::new(1)),
            group: Arc::default(),
            next: 0,
            batches: 0,
            total_rows: 0,
        }
    }

    /// Batches handed out since the run began.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// Rows handed out since the run began.
    pub fn total_rows(&self) -> u64 {
        self.total_rows
    }

    /// What the present passes over the parts of the text passed over up to here.
    pub fn passed(&self) -> Passed {
        let cursors = self.after.cursors.iter();
        cursors.fold(Passed::default(), |sum, cursor| sum.and(cursor.passed))
    }

    /// What was read of each part of the text since the run began.
    pub fn read(&self) -> Vec<Read> {
        let cursors = self.after.cursors.iter();
        cursors
            .map(|cursor| Read {
                texts: cursor.texts,
                bytes: cursor.bytes,
            })
            .collect()
    }

    /// Passes over the text whose last text was read; over the first part of a mixture.
    pub fn epoch(&self) -> u64 {
        self.after.cursors.first().map_or(0, |cursor| cursor.epoch)
    }
}

/// Which part of the text a process took, as earlier versions could say. There is one state for all ranks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Split {
    rank: u64,
    world: u64,
}

impl Default for Split {
    fn default() -> Self {
        Self { rank: 0, world: 1 }
    }
}

/// The state in a file. Rows are packed, as there are thousands.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    seed: u64,
    fingerprint: String,
    source: String,
    split: Split,
    sample_break_mode: BreakMode,
    max_tokens: usize,
    cursor: Cursor,
    /// Those of the further parts of a mixture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mixed: Vec<Cursor>,
    draining: bool,
    drawn: u64,
    groups: u64,
    batches: u64,
    total_rows: u64,
    #[serde(with = "packed")]
    open: Vec<Row>,
    #[serde(with = "packed")]
    left: Vec<Row>,
    /// Rows of each batch that is ready, then all these rows.
    ready_sizes: Vec<usize>,
    #[serde(with = "packed")]
    ready: Vec<Row>,
    #[serde(with = "packed")]
    buffer: Vec<Row>,
}

impl From<LoaderState> for Saved {
    fn from(state: LoaderState) -> Self {
        let after = &state.after;
        let ready = &state.group[state.next.min(state.group.len())..];
        Self {
            seed: state.seed,
            fingerprint: state.fingerprint,
            source: state.source,
            split: Split::default(),
            sample_break_mode: state.mode,
            max_tokens: state.max_tokens,
            cursor: after.cursors.first().copied().unwrap_or_default(),
            mixed: after.cursors.get(1..).unwrap_or_default().to_vec(),
            draining: after.draining,
            drawn: after.drawn,
            groups: after.groups,
            batches: state.batches,
            total_rows: state.total_rows,
            open: vec![after.open.as_slice().into()],
            left: after.left.clone(),
            ready_sizes: ready.iter().map(Vec::len).collect(),
            ready: ready.iter().flatten().cloned().collect(),
            buffer: after.buffer.clone(),
        }
    }
}

impl TryFrom<Saved> for LoaderState {
    type Error = String;

    fn try_from(saved: Saved) -> Result<Self, String> {
        let mut ready = saved.ready.into_iter();
        let group: Vec<Vec<Row>> = saved
            .ready_sizes
            .iter()
            .map(|&size| ready.by_ref().take(size).collect())
            .collect();
        let whole = group
            .iter()
            .map(Vec::len)
            .eq(saved.ready_sizes.iter().copied());
        if saved.split != Split::default() {
            return Err("it is that of a part of the text alone".into());
        }
        if !whole || ready.next().is_some() || saved.ready_sizes.contains(&0) {
            return Err("its ready batches are not the rows that it says".into());
        }
        Ok(Self {
            seed: saved.seed,
            fingerprint: saved.fingerprint,
            source: saved.source,
            mode: saved.sample_break_mode,
            max_tokens: saved.max_tokens,
            after: Arc::new(Snapshot {
                cursors: [&[saved.cursor], saved.mixed.as_slice()].concat(),
                draining: saved.draining,
                open: saved
                    .open
                    .first()
                    .map(|row| row.to_vec())
                    .unwrap_or_default(),
                buffer: saved.buffer,
                drawn: saved.drawn,
                left: saved.left,
                groups: saved.groups,
            }),
            group: Arc::new(group),
            next: 0,
            batches: saved.batches,
            total_rows: saved.total_rows,
        })
    }
}

/// Rows as postcard writes them, lengths and ids in LEB128, in base64.
mod packed {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de, ser};

    use super::Row;

    pub fn serialize<S: Serializer>(rows: &[Row], serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        for row in rows {
            bytes = postcard::to_extend(&**row, bytes).map_err(ser::Error::custom)?;
        }
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Row>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD
            .decode(text)
            .map_err(|e| problem("are not base64", &e))?;
        let (mut left, mut rows) = (&bytes[..], Vec::new());
        while !left.is_empty() {
            let (row, rest) = postcard::take_from_bytes::<Vec<u32>>(left)
                .map_err(|e| problem("are cut off or changed", &e))?;
            rows.push(row.into());
            left = rest;
        }
        Ok(rows)
    }

    fn problem<E: de::Error>(what: &str, error: &dyn std::fmt::Display) -> E {
        E::custom(format!("its rows {what}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    #[test]
    fn rows_survive_packing_and_damage_is_an_error() {
        let rows: Vec<Row> = vec![
            vec![].into(),
            vec![0, 127, 128, 30_526, u32::MAX].into(),
            vec![2].into(),
        ];
        // As checkpoints of earlier versions have them.
        let bytes = [
            &[0, 5, 0, 127, 0x80, 1, 0xbe, 0xee, 1][..],
            &[0xff, 0xff, 0xff, 0xff, 15, 1, 2],
        ]
        .concat();
        let text = STANDARD.encode(&bytes);
        let state = |buffer: &str| -> Result<LoaderState, _> {
            let mut saved = serde_json::to_value(LoaderState::new(1)).unwrap();
            saved["buffer"] = Value::from(buffer);
            serde_json::from_value(saved)
        };
        let read = state(&text).unwrap();
        assert_eq!(read.after.buffer, rows);
        assert_eq!(serde_json::to_value(read).unwrap()["buffer"], text);
        assert_eq!(state("").unwrap().after.buffer, Vec::<Row>::new());
        for end in [bytes.len() - 1, 2, 7] {
            let error = state(&STANDARD.encode(&bytes[..end])).unwrap_err();
            assert!(error.to_string().contains("cut off"), "{end}: {error}");
        }
        assert!(state("?").unwrap_err().to_string().contains("base64"));
        let error = state(&STANDARD.encode([0xff; 6])).unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");
        let mut saved = serde_json::to_value(LoaderState::new(1)).unwrap();
        saved["ready_sizes"] = json!([1]);
        let error = serde_json::from_value::<LoaderState>(saved).unwrap_err();
        assert!(error.to_string().contains("ready batches"), "{error}");
        let mut saved = serde_json::to_value(LoaderState::new(1)).unwrap();
        assert_eq!(saved["split"], json!({ "rank": 0, "world": 1 }));
        saved["split"] = json!({ "rank": 0, "world": 2 });
        let error = serde_json::from_value::<LoaderState>(saved).unwrap_err();
        assert!(error.to_string().contains("part of the text"), "{error}");
    }
}
