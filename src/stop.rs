//! Signals that ask a run to save and stop, SIGHUP among them: the terminal was closed. What a console of Windows says
//! instead has the number of the signal that means the same.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// What signals have said to this process, which has one handler for each of them.
static RECEIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Exit codes of runs that saved and stopped: of SIGHUP, SIGINT, SIGTERM and SIGUSR1.
pub const EXIT_CODES: &[i32] = &[
    129,
    130,
    143,
    #[cfg(unix)]
    {
        128 + signal_hook::consts::SIGUSR1
    },
];

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
    /// Listens to SIGINT, SIGTERM, SIGUSR1, which batch systems send before they take a machine away, and to SIGHUP,
    /// unless `nohup` has it ignored; on Windows to Ctrl-C, Ctrl-Break, the closing of the console and the end of the
    /// session.
    ///
    /// # Errors
    /// Where the operating system refuses a handler.
    pub fn listen() -> Result<StopSignal> {
        system::listen()?;
        Ok(StopSignal(Arc::clone(&RECEIVED)))
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

#[cfg(unix)]
mod system {
    use super::{Arc, Context, RECEIVED, Result};
    use mpnet_runtime::signals::is_ignored;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use std::sync::atomic::AtomicBool;

    pub(super) fn listen() -> Result<()> {
        let second = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
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
            signal_hook::flag::register_usize(signal, Arc::clone(&RECEIVED), signal as usize)
                .with_context(context)?;
        }
        if !is_ignored(SIGHUP) {
            // A shell sends it after the system did: a second one means nothing.
            signal_hook::flag::register_usize(SIGHUP, Arc::clone(&RECEIVED), SIGHUP as usize)
                .with_context(|| format!("listening to signal {SIGHUP}"))?;
        }
        Ok(())
    }
}

#[cfg(windows)]
mod system {
    use super::{Context, Ordering, RECEIVED, Result};
    use mpnet_runtime::console::{self, ConsoleEvent};

    /// SIGHUP's number.
    const CLOSED: usize = 1;
    /// SIGINT's.
    const INTERRUPT: usize = 2;
    /// SIGTERM's.
    const TERMINATE: usize = 15;

    pub(super) fn listen() -> Result<()> {
        console::listen(heard).context("listening to the console")
    }

    fn heard(event: ConsoleEvent) {
        let signal = match event {
            ConsoleEvent::Interrupt => INTERRUPT,
            ConsoleEvent::Break | ConsoleEvent::Logoff | ConsoleEvent::Shutdown => TERMINATE,
            ConsoleEvent::Close => CLOSED,
        };
        let before = RECEIVED.swap(signal, Ordering::Relaxed);
        let typed = matches!(event, ConsoleEvent::Interrupt | ConsoleEvent::Break);
        if before != 0 && typed {
            console::end_process(128 + signal as u32);
        }
    }
}
