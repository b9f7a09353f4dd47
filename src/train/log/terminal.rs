//! Lines for whoever watches. A terminal that was closed, a pipe whose reader ended or a log file on a
//! full disk does not end the run.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether it was said that standard output is lost.
static LOST: AtomicBool = AtomicBool::new(false);

/// Prints a line to standard output.
pub fn print(line: &str) {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    if let Err(error) = written
        && !LOST.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(
            "standard output cannot be written to ({error}): the run goes on, and metrics.jsonl beside \
             the checkpoints has every line"
        );
    }
}
