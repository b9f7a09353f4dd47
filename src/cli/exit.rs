//! Exit codes, and how an error is shown.

use crate::output::{OutputError, complain};
use std::env::VarError;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Everything was done.
pub const DONE: u8 = 0;
/// Something failed.
pub const FAILED: u8 = 1;
/// The command line makes no sense.
pub const USAGE: u8 = 2;
/// Nobody read what was printed, as a shell says it of programs that the system ends for that.
pub const UNREAD: u8 = 128 + 13;

/// A command line that makes no sense, beyond what its parser sees.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Sets up logging to standard error: `warn`, or `debug` where asked for, or what `RUST_LOG` says.
///
/// # Errors
/// Where `RUST_LOG` says what is no filter.
pub fn init_logging(debug: bool) -> Result<(), UsageError> {
    let default = if debug { "debug" } else { "warn" };
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(asked) if !asked.is_empty() => EnvFilter::try_new(&asked).map_err(|e| {
            UsageError(format!(
                "RUST_LOG={asked} is no filter of log messages, such as warn or mpnet=debug: {e}"
            ))
        })?,
        Ok(_) | Err(VarError::NotPresent) => EnvFilter::new(default),
        Err(error @ VarError::NotUnicode(_)) => {
            return Err(UsageError(format!("RUST_LOG: {error}")));
        }
    };
    // A second call, as tests make, keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // No escape codes in files.
        .with_ansi(
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        )
        // It would be told to standard error too, where that is what fails: a panic.
        .log_internal_errors(false)
        .without_time()
        .try_init();
    Ok(())
}

/// The exit code of `result`; an error is printed with its whole chain.
pub fn code(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if unread(&error) => ExitCode::from(UNREAD),
        Err(error) => {
            complain(&format!("error: {error:#}"));
            let usage = error.downcast_ref::<UsageError>().is_some();
            ExitCode::from(if usage { USAGE } else { FAILED })
        }
    }
}

fn unread(error: &anyhow::Error) -> bool {
    let output = error.downcast_ref::<OutputError>();
    output.is_some_and(OutputError::is_unread)
}
