//! What a console of Windows tells its processes, where other systems send signals.

use std::io;
use std::sync::OnceLock;

use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_CLOSE_EVENT, CTRL_LOGOFF_EVENT, CTRL_SHUTDOWN_EVENT,
    SetConsoleCtrlHandler,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, TerminateProcess};
use windows_sys::core::BOOL;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleEvent {
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Break, which other processes can send, too.
    Break,
    /// The console's window was closed. The system ends the process a few seconds later (five, unless set otherwise).
    Close,
    /// The user logs off; the same happens then.
    Logoff,
    /// The machine is shut down; the same happens then.
    Shutdown,
}

static HANDLER: OnceLock<fn(ConsoleEvent)> = OnceLock::new();

/// Has `handler` called, on a thread of its own, at each event, which then does not end the process by itself. The
/// first handler stays.
///
/// # Errors
/// The system refuses.
pub fn listen(handler: fn(ConsoleEvent)) -> io::Result<()> {
    if HANDLER.set(handler).is_err() {
        return Ok(());
    }
    // SAFETY: `on_event` has the signature that the call wants and lives as long as the process.
    match unsafe { SetConsoleCtrlHandler(Some(on_event), 1) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Called by the system, on a thread that it makes.
unsafe extern "system" fn on_event(kind: u32) -> BOOL {
    let (event, ends) = match kind {
        CTRL_C_EVENT => (ConsoleEvent::Interrupt, false),
        CTRL_BREAK_EVENT => (ConsoleEvent::Break, false),
        CTRL_CLOSE_EVENT => (ConsoleEvent::Close, true),
        CTRL_LOGOFF_EVENT => (ConsoleEvent::Logoff, true),
        CTRL_SHUTDOWN_EVENT => (ConsoleEvent::Shutdown, true),
        _ => return 0,
    };
    if let Some(handler) = HANDLER.get() {
        handler(event);
    }
    // As soon as this returns, the system ends the process: what time it has is for saving.
    while ends {
        std::thread::park();
    }
    1
}

/// Ends this process at once, without anything that waits for other threads.
pub fn end_process(code: u32) -> ! {
    // SAFETY: the pseudo-handle of this process is always valid.
    unsafe {
        TerminateProcess(GetCurrentProcess(), code);
    }
    // Not reached: the call ends the process that makes it.
    std::process::abort()
}
