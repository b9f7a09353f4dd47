//! `metrics.jsonl` beside the checkpoints: every record of a run, one a line, from its first update on.

use super::record::Record;
use crate::data::source::RUN_FILES;
use crate::staging::{Growing, replace_file};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Name of the file.
pub const METRICS_FILE: &str = RUN_FILES[1];

/// Longest line that is read: a record is a few kilobytes.
const LONGEST_LINE: usize = 1 << 20;

/// The records in `dir`. A line that is none, as a killed run leaves, is left out.
///
/// # Errors
/// Where the file cannot be read.
pub fn read(dir: &Path) -> io::Result<Vec<Record>> {
    let lines = BufReader::new(File::open(dir.join(METRICS_FILE))?).split(b'\n');
    let mut records = Vec::new();
    for line in lines {
        let line = line?;
        if line.len() <= LONGEST_LINE
            && let Ok(record) = serde_json::from_slice(&line)
        {
            records.push(record);
        }
    }
    Ok(records)
}

/// Appends to the file.
pub struct Metrics {
    path: PathBuf,
    file: Option<Growing>,
}

impl Metrics {
    /// A run that begins or goes on after update `step`: what an interrupted one told of later
    /// updates goes, as they are made again.
    pub fn new(dir: &Path, step: u64, fresh: bool) -> Metrics {
        let path = dir.join(METRICS_FILE);
        let kept = match fresh {
            true => Vec::new(),
            false => read(dir).unwrap_or_default(),
        };
        let rewrite = || -> io::Result<Growing> {
            replace_file(&path, |file| {
                let mut file = BufWriter::new(file);
                for record in kept.iter().filter(|r| r.step() <= step) {
                    serde_json::to_writer(&mut file, record)?;
                    writeln!(file)?;
                }
                file.flush()
            })?;
            Growing::new(File::options().append(true).open(&path)?)
        };
        let file = match rewrite() {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(
                    "{} cannot be written, the run goes on without it: {error}",
                    path.display()
                );
                None
            }
        };
        Metrics { path, file }
    }

    /// For a rank that leaves the file to another.
    pub fn none() -> Metrics {
        Metrics {
            path: PathBuf::new(),
            file: None,
        }
    }

    /// Adds a line. A disk that refuses it does not end the run.
    pub fn write(&mut self, record: &Record) {
        let Some(file) = &mut self.file else { return };
        let written = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                file.append(&line)
            });
        if let Err(error) = written {
            tracing::warn!("a line of {} is lost: {error}", self.path.display());
        }
    }
}
