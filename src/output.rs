//! Lines on standard output of commands that print and end: nobody reading them ends the command, quietly.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Standard output cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("writing to standard output")]
pub struct OutputError(#[from] io::Error);

impl OutputError {
    /// Whether its reader has ended, as `head` does after its lines.
    pub fn is_unread(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Prints a line to standard output; `say!` is its short form.
///
/// # Errors
/// Where it cannot be written.
pub fn print_line(line: Arguments) -> Result<(), OutputError> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

/// Prints a line to standard error, whether anybody reads it or not.
pub fn complain(line: &str) {
    // Nobody is left to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

/// [`print_line`] with the arguments of `println!`.
macro_rules! say {
    ($($part:tt)*) => {
        $crate::output::print_line(format_args!($($part)*))
    };
}

pub(crate) use say;
