//! Weights & Biases, through its own client: `wandb sync` on the TensorBoard files.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wandb {
    pub project: String,
    pub name: Option<String>,
    pub id: String,
}

/// Sends files while a run goes on.
pub struct Sync {
    wandb: Wandb,
    folder: PathBuf,
    running: Option<Child>,
}

impl Sync {
    /// For the event files in `folder`; says how to get the client where it is not installed.
    pub fn new(wandb: Wandb, folder: &Path) -> Option<Sync> {
        let found = Command::new("wandb")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            tracing::warn!(
                "--wandb: the client of Weights & Biases is not installed; 'pip install wandb' and \
                 'wandb login' help. The run goes on; what it logs is sent later by 'wandb sync {}'",
                folder.display()
            );
            return None;
        }
        Some(Sync {
            wandb,
            folder: folder.to_owned(),
            running: None,
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("wandb");
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
        match self.command().stderr(Stdio::null()).spawn() {
            Ok(child) => self.running = Some(child),
            Err(error) => tracing::warn!("running wandb sync: {error}"),
        }
    }

    /// Sends the rest and waits for it.
    pub fn finish(&mut self) {
        if let Some(mut child) = self.running.take() {
            // How it ended matters no more: all is sent again.
            let _ = child.wait();
        }
        match self.command().status() {
            Ok(status) if status.success() => {}
            Ok(status) => tracing::warn!(
                "wandb sync ended with {status}; send again with 'wandb sync {}'",
                self.folder.display()
            ),
            Err(error) => tracing::warn!("running wandb sync: {error}"),
        }
    }
}
