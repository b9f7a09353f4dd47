//! `mpnet report`: the HTML page of a run.

use crate::output::say;
use crate::report::html;
use crate::staging::replace_file;
use anyhow::{Context, Result};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Arguments of `mpnet report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folder of the run's checkpoints
    #[arg(default_value = "checkpoints")]
    pub folder: PathBuf,
    /// Write the page to this file [default: report.html in the folder]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write it again every so many seconds, until interrupted; the open page follows
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30")]
    pub watch: Option<u64>,
}

/// Writes the page.
///
/// # Errors
/// Where there is no run, or the page cannot be written.
pub fn run(args: &ReportArgs) -> Result<()> {
    let output = match &args.output {
        Some(output) => output.clone(),
        None => args.folder.join("report.html"),
    };
    let refresh = args.watch.map(|seconds| seconds.max(1));
    write(&output, &html(&args.folder, refresh)?)?;
    say!("{}", output.display())?;
    if let Some(seconds) = refresh {
        loop {
            std::thread::sleep(Duration::from_secs(seconds));
            write(&output, &html(&args.folder, refresh)?)?;
        }
    }
    Ok(())
}

/// Whole or not at all: a browser may be reading it.
fn write(path: &Path, page: &str) -> Result<()> {
    replace_file(path, |file| file.write_all(page.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}
