//! Where the data path stands, in a compressed file of its own: the rows of a shuffle buffer are
//! megabytes.

use super::error::CheckpointError;
use super::{DATA_FILE, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Largest position that is read, decompressed.
const MAX_BYTES: u64 = 1 << 30;
const LEVEL: i32 = 3;
/// Largest window of the decompressor, as a power of two: four of what `LEVEL` takes.
const MAX_WINDOW_LOG: u32 = 23;

/// Writes `data` into `folder`.
///
/// # Errors
/// Where it cannot be written.
pub(super) fn write(folder: &Path, data: &Value) -> Result<()> {
    let path = folder.join(DATA_FILE);
    let fail = CheckpointError::io("write", &path);
    let mut file = zstd::Encoder::new(File::create(&path).map_err(&fail)?, LEVEL).map_err(&fail)?;
    serde_json::to_writer(&mut file, data).map_err(|e| CheckpointError::Encode {
        path: path.clone(),
        reason: e.to_string(),
    })?;
    file.finish().map_err(&fail)?;
    Ok(())
}

/// Reads what [`write`] wrote; the file's hash was checked.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn read(folder: &Path) -> Result<Value> {
    let path = folder.join(DATA_FILE);
    let fail = CheckpointError::io("read", &path);
    let mut file = zstd::Decoder::new(File::open(&path).map_err(&fail)?).map_err(&fail)?;
    file.window_log_max(MAX_WINDOW_LOG).map_err(&fail)?;
    serde_json::from_reader(BufReader::new(file.take(MAX_BYTES)))
        .map_err(|e| CheckpointError::damaged(&path, e.to_string()))
}
