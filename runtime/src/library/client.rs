//! The user's own package clients, pip and uv: found on the search path, run on one package.
//!
//! No registry is named anywhere, so that the user's mirrors, proxies and certificates apply.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::error::{Result, io};
use super::pinned_wheel::PinnedWheel;

/// Which kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    /// Downloads the wheel as it is.
    Pip,
    /// Unpacks the wheel itself.
    Uv,
}

impl fmt::Display for ClientKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pip => "pip",
            Self::Uv => "uv",
        })
    }
}

/// A client that answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub kind: ClientKind,
    program: PathBuf,
    /// What comes before the client's own arguments ("-m pip").
    prefix: &'static [&'static str],
}

/// What a client left in the folder given.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The wheel file.
    Wheel(PathBuf),
    /// The folder with the wheel's contents.
    Unpacked(PathBuf),
}

/// The variables by which programs find the folder for temporary files: of Unix, and of Windows.
const TEMPORARY_VARIABLES: [&str; 3] = ["TMPDIR", "TMP", "TEMP"];

const CANDIDATES: &[(ClientKind, &str, &[&str])] = &[
    (ClientKind::Pip, "pip", &[]),
    (ClientKind::Pip, "pip3", &[]),
    (ClientKind::Pip, "python3", &["-m", "pip"]),
    (ClientKind::Pip, "python", &["-m", "pip"]),
    // Windows' launcher, which its installer puts on the search path where Python itself is not.
    (ClientKind::Pip, "py", &["-m", "pip"]),
    (ClientKind::Uv, "uv", &[]),
];

/// The clients on the search path, at most one of a kind, in the order in which to try them.
///
/// pip comes first: it hands out the wheel itself, whose hash can be checked before anything is unpacked.
pub(super) fn find(search_path: Option<&OsStr>, only: Option<ClientKind>) -> Vec<Client> {
    let mut found: Vec<Client> = Vec::new();
    for &(kind, name, prefix) in CANDIDATES {
        if only.is_some_and(|only| only != kind) || found.iter().any(|client| client.kind == kind) {
            continue;
        }
        let Some(program) = which::which_in_global(name, search_path)
            .ok()
            .and_then(|mut programs| programs.next())
        else {
            continue;
        };
        let client = Client {
            kind,
            program,
            prefix,
        };
        if client.answers() {
            found.push(client);
        }
    }
    found
}

impl Client {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.prefix).stdin(Stdio::null());
        command
    }

    /// A shim without a program behind it, or a Python without pip, does not.
    fn answers(&self) -> bool {
        let mut command = self.command();
        command
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Fetches the wheel's package into the empty `folder`; the answer is the client's complaint if it fails.
    pub(super) fn fetch(
        &self,
        wheel: &PinnedWheel,
        folder: &Path,
    ) -> Result<Result<Fetched, String>> {
        let target = folder.join("fetched");
        let temporary = folder.join("temporary");
        for path in [&target, &temporary] {
            fs::create_dir(path).map_err(io("create the folder", path))?;
        }
        let mut command = self.command();
        command.args(self.arguments(wheel, &target));
        // pip downloads into its temporary folder, where the progress can be seen and the disk is the cache's.
        for variable in TEMPORARY_VARIABLES {
            command.env(variable, &temporary);
        }
        let log = folder.join("log");
        let log_file = File::create(&log).map_err(io("create", &log))?;
        let error_file = log_file.try_clone().map_err(io("create", &log))?;
        command.stdout(log_file).stderr(error_file);
        tracing::info!(
            "fetching {} ({:.1} MB) with {self}",
            wheel.requirement(),
            wheel.wheel.bytes as f64 / 1e6
        );
        let mut child = command.spawn().map_err(io("run", &self.program))?;
        let bar = progress_bar(self.kind, wheel);
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io("wait for", &self.program))? {
                break status;
            }
            bar.set_position(folder_size(folder));
            std::thread::sleep(Duration::from_millis(100));
        };
        bar.finish_and_clear();
        if !status.success() {
            return Ok(Err(format!(
                "{self} said: {}",
                complaint(&log, &status.to_string())
            )));
        }
        Ok(match self.kind {
            ClientKind::Uv => Ok(Fetched::Unpacked(target)),
            ClientKind::Pip => match wheel_in(&target) {
                Some(file) => Ok(Fetched::Wheel(file)),
                None => Err(format!("{self} succeeded but left no wheel")),
            },
        })
    }

    fn arguments(&self, wheel: &PinnedWheel, target: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |argument: &str| arguments.push(argument.into());
        match self.kind {
            ClientKind::Pip => {
                const FIXED: [&str; 5] = [
                    "download",
                    "--no-deps",
                    "--only-binary=:all:",
                    "--implementation=cp",
                    "--progress-bar=off",
                ];
                FIXED.into_iter().for_each(&mut add);
                add(&format!("--python-version={}", wheel.python));
                add(&format!("--abi={}", wheel.abi));
                for platform in wheel.pip_platforms {
                    add(&format!("--platform={platform}"));
                }
                add("--dest");
            }
            ClientKind::Uv => {
                const FIXED: [&str; 6] = [
                    "pip",
                    "install",
                    "--no-deps",
                    "--only-binary=:all:",
                    "--link-mode=copy",
                    "--no-progress",
                ];
                FIXED.into_iter().for_each(&mut add);
                add(&format!("--python-version={}", wheel.python));
                add(&format!("--python-platform={}", wheel.uv_platform));
                add("--target");
            }
        }
        arguments.push(target.into());
        arguments.push(wheel.requirement().into());
        arguments
    }
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.program.display())?;
        self.prefix
            .iter()
            .try_for_each(|argument| write!(formatter, " {argument}"))
    }
}

/// uv keeps its downloads to itself, so only pip's can be measured.
fn progress_bar(kind: ClientKind, wheel: &PinnedWheel) -> ProgressBar {
    let (bar, template) = match kind {
        ClientKind::Pip => (
            ProgressBar::new(wheel.wheel.bytes),
            "{msg} [{bar:30}] {bytes}/{total_bytes} {elapsed}",
        ),
        ClientKind::Uv => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
    };
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.with_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
    .with_message(wheel.requirement())
}

fn folder_size(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => folder_size(&entry.path()),
            Ok(_) => entry.metadata().map_or(0, |metadata| metadata.len()),
            // A file that the client has just removed.
            Err(_) => 0,
        })
        .sum()
}

fn wheel_in(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

/// The last lines that a client wrote, on one line.
fn complaint(log: &Path, status: &str) -> String {
    const LINES: usize = 4;
    let text = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return format!("nothing ({status})");
    }
    lines[lines.len().saturating_sub(LINES)..].join(" / ")
}
