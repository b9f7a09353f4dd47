//! What the ranks but the first say: kept off the terminal, in a file of each.
//!
//! Standard output and error themselves are redirected, so that what libraries say is there too. Until the run may
//! write anything, what is said waits in a file without a name.

use super::{Launch, Launcher};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The folder of these files, among a run's checkpoints.
pub const LOGS: &str = "logs";

/// The file of rank `rank` of the run whose checkpoints are in `checkpoints`.
pub fn log_file(checkpoints: &Path, rank: usize) -> PathBuf {
    checkpoints.join(LOGS).join(format!("rank-{rank}.log"))
}

/// A rank's output, off the terminal.
pub struct Aside {
    /// Standard error as it was.
    terminal: Box<dyn Write + Send>,
    /// What was said so far; none where whoever started the rank keeps it.
    said: Option<File>,
}

impl Aside {
    /// Takes the output of a rank that is not the first off the terminal. None for the first rank.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn new(launch: &Launch) -> io::Result<Option<Aside>> {
        if launch.writes() {
            return Ok(None);
        }
        let said = (launch.by != Launcher::Devices)
            .then(tempfile::tempfile)
            .transpose()?;
        let terminal = original()?;
        if let Some(said) = &said {
            redirect(said)?;
        }
        Ok(Some(Aside { terminal, said }))
    }

    /// From here on writes to the end of `path`, which is created, as its folder is; what was said before stands
    /// there too.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep_in(&mut self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = File::options().create(true).append(true).open(path)?;
        redirect(&file)?;
        if let Some(mut said) = self.said.take() {
            let mut before = Vec::new();
            said.rewind()?;
            said.read_to_end(&mut before)?;
            file.write_all(&before)?;
        }
        Ok(())
    }

    /// A line for the terminal, in one piece: other ranks write there too.
    pub fn complain(&mut self, line: &str) {
        // Nobody is left to tell.
        let _ = self.terminal.write_all(format!("{line}\n").as_bytes());
    }
}

#[cfg(unix)]
fn original() -> io::Result<Box<dyn Write + Send>> {
    use std::os::fd::AsFd;
    let copy = io::stderr().as_fd().try_clone_to_owned()?;
    Ok(Box::new(File::from(copy)))
}

#[cfg(unix)]
fn redirect(file: &File) -> io::Result<()> {
    io::stdout().flush()?;
    rustix::stdio::dup2_stdout(file)?;
    rustix::stdio::dup2_stderr(file)?;
    Ok(())
}

/// Elsewhere a rank keeps the terminal.
#[cfg(not(unix))]
fn original() -> io::Result<Box<dyn Write + Send>> {
    Ok(Box::new(io::stderr()))
}

#[cfg(not(unix))]
fn redirect(_file: &File) -> io::Result<()> {
    Ok(())
}
