//! `mpnet completions` and `mpnet man`: what shells and `man` know of the three programs, from the flags' declarations.

use super::convert::ConvertArgs;
use super::pretrain::PretrainArgs;
use crate::output::say;
use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

/// Flags of `mpnet completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
    #[command(flatten)]
    into: FolderArgs,
}

/// Flags of `mpnet man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    #[command(flatten)]
    into: FolderArgs,
}

#[derive(Debug, Args)]
struct FolderArgs {
    /// Folder to write to, one file a program or command
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
}

impl FolderArgs {
    fn create(&self) -> Result<&PathBuf> {
        std::fs::create_dir_all(&self.output)
            .with_context(|| format!("creating {}", self.output.display()))?;
        Ok(&self.output)
    }
}

/// All programs, of which `mpnet` is given.
fn programs(mpnet: Command) -> [Command; 3] {
    [PretrainArgs::command(), ConvertArgs::command(), mpnet]
}

/// Writes what completes the programs' flags in a shell.
///
/// # Errors
/// Where a file cannot be written.
pub fn completions(arguments: &CompletionsArgs, mpnet: Command) -> Result<()> {
    let folder = arguments.into.create()?;
    for mut program in programs(mpnet) {
        let name = program.get_name().to_owned();
        let file = clap_complete::generate_to(arguments.shell, &mut program, &name, folder);
        let file = file.with_context(|| format!("writing to {}", folder.display()))?;
        say!("{}", file.display())?;
    }
    Ok(())
}

/// Writes pages for `man`.
///
/// # Errors
/// Where a file cannot be written.
pub fn man(arguments: &ManArgs, mpnet: Command) -> Result<()> {
    let folder = arguments.into.create()?;
    for program in programs(mpnet) {
        clap_mangen::generate_to(program, folder)
            .with_context(|| format!("writing to {}", folder.display()))?;
    }
    say!("{}", folder.display())?;
    Ok(())
}
