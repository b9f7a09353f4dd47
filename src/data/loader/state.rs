//! Where a loader stands, as one value.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::order::{Cursor, Split};
use super::samples::{BreakMode, Row};
use crate::data::source::Passed;

/// Everything that decides the batches after a group of batches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Snapshot {
    pub cursor: Cursor,
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

/// Where a loader stands: with it and the same text, batches go on as if never interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Saved", try_from = "Saved")]
pub struct LoaderState {
    /// The seed in use; it outlives a different seed in the configuration of the resumed run.
    pub(super) seed: u64,
    /// What the text was, to notice another one; empty before the first batch.
    pub(super) fingerprint: String,
    pub(super) source: String,
    pub(super) split: Split,
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
            split: Split::default(),
            mode: BreakMode::default(),
            max_tokens: 0,
            after: Arc::default(),
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

    /// What this pass over the text passed over up to here.
    pub fn passed(&self) -> Passed {
        self.after.cursor.passed
    }

    /// Passes over the text whose last text was read.
    pub fn epoch(&self) -> u64 {
        self.after.cursor.epoch
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
    draining: bool,
    drawn: u64,
    groups: u64,
    batches: u64,
    total_rows: u64,
    open: String,
    left: String,
    /// Rows of each batch that is ready, then all these rows.
    ready_sizes: Vec<usize>,
    ready: String,
    buffer: String,
}

impl From<LoaderState> for Saved {
    fn from(state: LoaderState) -> Self {
        let after = &state.after;
        let ready = &state.group[state.next.min(state.group.len())..];
        Self {
            seed: state.seed,
            fingerprint: state.fingerprint,
            source: state.source,
            split: state.split,
            sample_break_mode: state.mode,
            max_tokens: state.max_tokens,
            cursor: after.cursor,
            draining: after.draining,
            drawn: after.drawn,
            groups: after.groups,
            batches: state.batches,
            total_rows: state.total_rows,
            open: pack([after.open.as_slice()]),
            left: pack(after.left.iter().map(|row| &**row)),
            ready_sizes: ready.iter().map(Vec::len).collect(),
            ready: pack(ready.iter().flatten().map(|row| &**row)),
            buffer: pack(after.buffer.iter().map(|row| &**row)),
        }
    }
}

impl TryFrom<Saved> for LoaderState {
    type Error = String;

    fn try_from(saved: Saved) -> Result<Self, String> {
        let open = unpack(&saved.open)?;
        let mut ready = unpack(&saved.ready)?.into_iter();
        let group: Vec<Vec<Row>> = saved
            .ready_sizes
            .iter()
            .map(|&size| ready.by_ref().take(size).collect())
            .collect();
        let whole = group
            .iter()
            .map(Vec::len)
            .eq(saved.ready_sizes.iter().copied());
        if !whole || ready.next().is_some() || saved.ready_sizes.contains(&0) {
            return Err("its ready batches are not the rows that it says".into());
        }
        Ok(Self {
            seed: saved.seed,
            fingerprint: saved.fingerprint,
            source: saved.source,
            split: saved.split,
            mode: saved.sample_break_mode,
            max_tokens: saved.max_tokens,
            after: Arc::new(Snapshot {
                cursor: saved.cursor,
                draining: saved.draining,
                open: open.first().map(|row| row.to_vec()).unwrap_or_default(),
                buffer: unpack(&saved.buffer)?,
                drawn: saved.drawn,
                left: unpack(&saved.left)?,
                groups: saved.groups,
            }),
            group: Arc::new(group),
            next: 0,
            batches: saved.batches,
            total_rows: saved.total_rows,
        })
    }
}

/// Each row's length and ids in LEB128, in base64.
fn pack<'r>(rows: impl IntoIterator<Item = &'r [u32]>) -> String {
    let mut bytes = Vec::new();
    let mut put = |mut value: u32| {
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
    };
    for row in rows {
        put(row.len() as u32);
        row.iter().for_each(|&id| put(id));
    }
    STANDARD.encode(bytes)
}

fn unpack(text: &str) -> Result<Vec<Row>, String> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|e| format!("its rows are not base64: {e}"))?;
    let mut bytes = bytes.into_iter().peekable();
    let mut rows = Vec::new();
    let cut = || "its rows end in the middle".to_owned();
    while bytes.peek().is_some() {
        let mut take = || -> Option<u32> {
            let mut value = 0u32;
            for shift in (0..35).step_by(7) {
                let byte = bytes.next()?;
                value |= u32::from(byte & 0x7f).checked_shl(shift)?;
                if byte < 0x80 {
                    return Some(value);
                }
            }
            None
        };
        let length = take().ok_or_else(cut)?;
        let row: Option<Vec<u32>> = (0..length).map(|_| take()).collect();
        rows.push(row.ok_or_else(cut)?.into());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_packing_and_damage_is_an_error() {
        let rows: Vec<Row> = vec![
            vec![].into(),
            vec![0, 127, 128, 30_526, u32::MAX].into(),
            vec![2].into(),
        ];
        let text = pack(rows.iter().map(|row| &**row));
        assert_eq!(unpack(&text).unwrap(), rows);
        assert_eq!(unpack("").unwrap(), Vec::<Row>::new());
        let bytes = STANDARD.decode(&text).unwrap();
        for end in [bytes.len() - 1, 2, 7] {
            let said = unpack(&STANDARD.encode(&bytes[..end])).unwrap_err();
            assert_eq!(said, "its rows end in the middle", "{end}");
        }
        assert!(unpack("?").unwrap_err().contains("not base64"));
        let endless = unpack(&STANDARD.encode([0xff; 6])).unwrap_err();
        assert_eq!(endless, "its rows end in the middle");
        let mut json = serde_json::to_value(LoaderState::new(1)).unwrap();
        json["ready_sizes"] = serde_json::json!([1]);
        let said = serde_json::from_value::<LoaderState>(json).unwrap_err();
        assert!(said.to_string().contains("ready batches"), "{said}");
    }
}
