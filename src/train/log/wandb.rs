//! Weights & Biases, through its own client: `wandb sync` on the TensorBoard files.

use crate::stop;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wandb {
    pub project: String,
    pub name: Option<String>,
    pub id: String,
}

/// Time that the client has to send the rest when a run ends.
const PATIENCE: Duration = Duration::from_secs(45);
/// The same once a signal has asked the run to stop: a machine that is taken away leaves little.
const HURRY: Duration = Duration::from_secs(5);
/// Time in which it must say its version.
const ANSWER: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Until when the client is waited for.
struct Deadline {
    end: Instant,
    stopping: fn() -> bool,
    hurried: bool,
}

impl Deadline {
    fn after(patience: Duration) -> Deadline {
        Deadline {
            end: Instant::now() + patience,
            stopping: || stop::signal().is_some(),
            hurried: false,
        }
    }

    fn is_over(&mut self) -> bool {
        if !self.hurried && (self.stopping)() {
            self.hurried = true;
            self.end = self.end.min(Instant::now() + HURRY);
        }
        Instant::now() >= self.end
    }
}

/// Waits until `child` has ended; when the time is over it is killed, and there is no answer.
fn wait(child: &mut Child, deadline: &mut Deadline) -> Option<io::Result<ExitStatus>> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(Ok(status)),
            Ok(None) if !deadline.is_over() => std::thread::sleep(POLL),
            Ok(None) => {
                // Where it ended just now there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Sends files while a run goes on.
pub struct Sync {
    wandb: Wandb,
    program: PathBuf,
    folder: PathBuf,
    running: Option<Child>,
}

impl Sync {
    /// For the event files in `folder`; says how to get the client where it is not installed.
    pub fn new(wandb: Wandb, folder: &Path) -> Option<Sync> {
        Sync::with(Path::new("wandb"), wandb, folder, ANSWER)
    }

    fn with(program: &Path, wandb: Wandb, folder: &Path, answer: Duration) -> Option<Sync> {
        let found = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let found = found.map(|mut child| wait(&mut child, &mut Deadline::after(answer)));
        if let Ok(None) = found {
            tracing::warn!(
                "--wandb: 'wandb --version' does not return, so nothing is sent. The run goes on; send what it logs \
                 later by 'wandb sync {}'",
                folder.display()
            );
            return None;
        }
        if !found.is_ok_and(|ended| ended.is_some_and(|s| s.is_ok_and(|s| s.success()))) {
            tracing::warn!(
                "--wandb: the client of Weights & Biases is not installed; 'pip install wandb' and \
                 'wandb login' help. The run goes on; what it logs is sent later by 'wandb sync {}'",
                folder.display()
            );
            return None;
        }
        Some(Sync {
            wandb,
            program: program.to_owned(),
            folder: folder.to_owned(),
            running: None,
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Without a terminal it cannot ask, and its own messages go with its errors.
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command.args(["sync", "--sync-tensorboard", "--append"]);
        command.args(["--project", &self.wandb.project, "--id", &self.wandb.id]);
        if let Some(name) = &self.wandb.name {
            command.env("WANDB_NAME", name);
        }
        command.arg(&self.folder).stdout(Stdio::null());
        command
    }

    /// Sends what there is, unless the last sending is still under way.
    pub fn send(&mut self) {
        if let Some(child) = &mut self.running
            && matches!(child.try_wait(), Ok(None))
        {
            return;
        }
        match self.command().spawn() {
            Ok(child) => self.running = Some(child),
            Err(error) => tracing::warn!("running wandb sync: {error}"),
        }
    }

    /// Sends the rest, for which there is less than a minute, and less still after a signal.
    pub fn finish(&mut self) {
        self.finish_by(Deadline::after(PATIENCE));
    }

    fn finish_by(&mut self, mut deadline: Deadline) {
        let later = format!(
            "send the rest with 'wandb sync --sync-tensorboard --append --project {} --id {} {}'",
            self.wandb.project,
            self.wandb.id,
            self.folder.display()
        );
        // How the last sending ends matters no more: all is sent again. It is not cut off while there is time, as
        // two clients at once disturb each other.
        let last = self.running.take();
        if last.is_some_and(|mut child| wait(&mut child, &mut deadline).is_none()) {
            tracing::warn!("wandb sync has not returned and was ended; {later}");
            return;
        }
        let mut child = match self.command().spawn() {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!("running wandb sync: {error}; {later}");
                return;
            }
        };
        match wait(&mut child, &mut deadline) {
            Some(Ok(status)) if status.success() => {}
            Some(Ok(status)) => tracing::warn!("wandb sync ended with {status}; {later}"),
            Some(Err(error)) => tracing::warn!("waiting for wandb sync: {error}; {later}"),
            None => tracing::warn!("wandb sync has not returned and was ended; {later}"),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn wandb() -> Wandb {
        Wandb {
            project: "p".into(),
            name: None,
            id: "i".into(),
        }
    }

    /// A program in `folder` that does this.
    fn client(folder: &Path, script: &str) -> PathBuf {
        let path = folder.join("wandb");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_client_that_never_returns_ends_with_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let program = client(folder.path(), "[ \"$1\" = --version ] || exec sleep 1000");
        let mut sync = Sync::with(&program, wandb(), folder.path(), ANSWER).unwrap();
        sync.send();
        sync.finish_by(Deadline::after(Duration::from_millis(200)));
        sync.finish_by(Deadline::after(Duration::from_millis(200)));
        // A signal shortens the longest patience.
        let mut deadline = Deadline {
            stopping: || true,
            ..Deadline::after(Duration::from_secs(1_000_000))
        };
        assert!(!deadline.is_over());
        assert!(deadline.end <= Instant::now() + HURRY);
        // Not even its version.
        let program = client(folder.path(), "exec sleep 1000");
        let answer = Duration::from_millis(100);
        assert!(Sync::with(&program, wandb(), folder.path(), answer).is_none());
    }

    #[test]
    fn the_client_has_no_terminal_to_ask_at() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let script = format!("cat > {0}; echo \"$@\" >> {0}", out.display());
        let program = client(folder.path(), &script);
        let mut sync = Sync::with(&program, wandb(), folder.path(), ANSWER).unwrap();
        sync.finish_by(Deadline::after(PATIENCE));
        let said = fs::read_to_string(&out).unwrap();
        assert!(said.starts_with("sync --sync-tensorboard"), "{said}");
        let gone = folder.path().join("gone");
        assert!(Sync::with(&gone, wandb(), folder.path(), ANSWER).is_none());
    }
}
