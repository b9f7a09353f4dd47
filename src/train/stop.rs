//! Signals that ask a run to save and stop.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The first signal that came, if one did. A second one ends the process at once.
#[derive(Debug, Clone)]
pub struct StopSignal(Arc<AtomicUsize>);

impl StopSignal {
    /// Listens to SIGINT and SIGTERM.
    ///
    /// # Errors
    /// Where the operating system refuses a handler.
    pub fn listen() -> Result<StopSignal> {
        let received = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM] {
            let context = || format!("listening to signal {signal}");
            // In this order: at the first signal nothing is pending yet, so only the second one ends
            // the process.
            let second = Arc::new(std::sync::atomic::AtomicBool::new(false));
            signal_hook::flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(&second),
            )
            .with_context(context)?;
            signal_hook::flag::register(signal, second).with_context(context)?;
            signal_hook::flag::register_usize(signal, Arc::clone(&received), signal as usize)
                .with_context(context)?;
        }
        Ok(StopSignal(received))
    }

    /// The signal's number.
    pub fn received(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }
}
