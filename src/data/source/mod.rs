//! Where training text comes from: shards of several formats, read row by row and never whole.
//!
//! A shard is one file. Its rows are handed out in order, each with the [`Position`] after it, at which
//! reading goes on later: uncompressed lines by a seek, parquet by skipping pages unread, compressed
//! streams by decoding again what was read (they have no other way).

mod bytes;
mod delimited;
mod discover;
mod entry;
mod fields;
mod format;
mod json;
mod json_columns;
mod json_field;
mod jsonl;
mod marked;
mod parquet;
mod rows;
mod shard;
mod sniff;
mod sources;
mod summary;
mod txt;

pub use discover::{Discovered, FileId, RUN_FILES, discover};
pub use entry::{FormatEntry, Opening};
pub use fields::{DEFAULT_FIELD, Fields};
pub use format::{
    COMPRESSIONS, Compression, CompressionEntry, FOREIGN, Foreign, Kind, endings, tables,
};
pub use rows::{Passed, Position, Rows, Tolerant};
pub use shard::Shard;
pub use sniff::TextHead;
pub use sources::{ReadOptions, Sources, Texts};
pub use summary::{Counts, KindSummary, LeftOutSummary, TextSummary};

entry::formats! {
    #[default]
    Text = txt::TEXT,
    JsonLines = jsonl::JSON_LINES,
    Json = json::JSON,
    Csv = delimited::CSV,
    Tsv = delimited::TSV,
    Parquet = parquet::PARQUET,
}

/// A text longer than this is taken for a broken file.
pub(crate) const LONGEST_TEXT: u64 = 64 << 20;

/// Whether Python's `str.isspace` holds for the text (U+001F counts there, though not in Unicode).
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c == '\x1f')
}

#[cfg(test)]
pub(crate) mod tests;
