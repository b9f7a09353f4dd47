//! Signals that ask a run to save and stop, SIGHUP among them: the terminal was closed.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// What signals have said to this process, which has one handler for each of them.
static RECEIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// The number of the first signal that asked this process to stop, where it listens to them.
pub fn signal() -> Option<i32> {
    number(&RECEIVED)
}

fn number(received: &AtomicUsize) -> Option<i32> {
    match received.load(Ordering::Relaxed) {
        0 => None,
        signal => i32::try_from(signal).ok(),
    }
}

/// The first signal that came, if one did. A second one ends the process at once.
#[derive(Debug, Clone)]
pub struct StopSignal(Arc<AtomicUsize>);

impl StopSignal {
    /// Listens to SIGINT and SIGTERM and, where there are such, to SIGUSR1, which batch systems send
    /// before they take a machine away, and to SIGHUP, unless `nohup` has it ignored.
    ///
    /// # Errors
    /// Where the operating system refuses a handler.
    pub fn listen() -> Result<StopSignal> {
        let received = Arc::clone(&RECEIVED);
        let second = Arc::new(AtomicBool::new(false));
        let mut signals = vec![SIGINT, SIGTERM];
        #[cfg(unix)]
        signals.push(signal_hook::consts::SIGUSR1);
        for signal in signals {
            let context = || format!("listening to signal {signal}");
            // In this order: at the first signal nothing is pending yet, so only the second one ends
            // the process.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(&second),
            )
            .with_context(context)?;
            signal_hook::flag::register(signal, Arc::clone(&second)).with_context(context)?;
            signal_hook::flag::register_usize(signal, Arc::clone(&received), signal as usize)
                .with_context(context)?;
        }
        #[cfg(target_os = "linux")]
        if !ignored(signal_hook::consts::SIGHUP) {
            let signal = signal_hook::consts::SIGHUP;
            // A shell sends it after the system did: a second one means nothing.
            signal_hook::flag::register_usize(signal, Arc::clone(&received), signal as usize)
                .with_context(|| format!("listening to signal {signal}"))?;
        }
        Ok(StopSignal(received))
    }

    /// One that no signal reaches: they end the process as usual.
    pub fn unheard() -> StopSignal {
        StopSignal(Arc::default())
    }

    /// As if `signal` had come.
    #[cfg(test)]
    pub fn raise(&self, signal: i32) {
        self.0.store(signal as usize, Ordering::Relaxed);
    }

    /// The signal's number.
    pub fn received(&self) -> Option<i32> {
        number(&self.0)
    }
}

/// Whether this process was started with `signal` ignored.
#[cfg(target_os = "linux")]
fn ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> (signal - 1) & 1 == 1)
}
