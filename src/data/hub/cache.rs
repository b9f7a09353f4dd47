//! HuggingFace's cache on disk: `refs/REVISION` names a commit, `snapshots/COMMIT/FILE` links to
//! `blobs/HASH`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use mpnet_runtime::scratch::Scratch;

use super::error::HubError;
use super::{Hub, RepoKind};

impl Hub {
    /// The folder of a repository; none without a cache.
    pub(super) fn repo_folder(&self, kind: RepoKind, repo: &str) -> Option<PathBuf> {
        let name = format!("{}--{}", kind.plural(), repo.replace('/', "--"));
        Some(self.settings.cache.as_ref()?.join(name))
    }

    /// The folder of a commit's files; none without a cache.
    pub(super) fn snapshot(&self, kind: RepoKind, repo: &str, commit: &str) -> Option<PathBuf> {
        Some(self.repo_folder(kind, repo)?.join("snapshots").join(commit))
    }

    /// This client, with another cache where there is none or it cannot be written to: a folder that goes with the
    /// process.
    ///
    /// # Errors
    /// Where no folder can be created at all.
    pub(super) fn with_writable_cache(&self) -> Result<Hub, HubError> {
        static OWN: OnceLock<Scratch> = OnceLock::new();
        let problem = match &self.settings.cache {
            Some(cache) => match writable(cache) {
                Ok(()) => return Ok(self.clone()),
                Err(error) => format!("{} cannot be written to ({error})", cache.display()),
            },
            None => "there is no home folder".to_owned(),
        };
        let own = match OWN.get() {
            Some(own) => own,
            None => {
                let scratch = Scratch::new().map_err(|_| HubError::NoCache)?;
                tracing::warn!(
                    "the Hub's cache: {problem}; what is fetched is kept until this process ends. HF_HOME names \
                     another folder"
                );
                OWN.get_or_init(|| scratch)
            }
        };
        let mut hub = self.clone();
        hub.settings.cache = Some(own.path().to_owned());
        Ok(hub)
    }

    /// The commit that a revision was when it was last seen.
    pub(super) fn cached_commit(
        &self,
        kind: RepoKind,
        repo: &str,
        revision: &str,
    ) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let file = self.repo_folder(kind, repo)?.join("refs").join(revision);
        let commit = std::fs::read_to_string(file).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    /// Remembers what commit a revision is, where the cache can be written to; it is needed only offline.
    pub(super) fn remember_commit(&self, kind: RepoKind, repo: &str, revision: &str, commit: &str) {
        let known = self.cached_commit(kind, repo, revision);
        if known.is_some_and(|known| known == commit) || is_commit(revision) {
            return;
        }
        let Some(folder) = self.repo_folder(kind, repo) else {
            return;
        };
        let file = folder.join("refs").join(revision);
        let written = write_whole(&file, |into| {
            into.write_all(commit.as_bytes())
                .map_err(|source| HubError::Cache {
                    path: file.clone(),
                    source,
                })
        });
        if let Err(error) = written {
            tracing::debug!("{}: {error}", file.display());
        }
    }

    /// Puts a file into the cache, with the bytes that `fill` writes: under their hash, and a link
    /// under its name.
    pub(super) fn store(
        &self,
        kind: RepoKind,
        repo: &str,
        commit: &str,
        name: &str,
        hash: &str,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), HubError>,
    ) -> Result<PathBuf, HubError> {
        let (folder, snapshot) = self
            .repo_folder(kind, repo)
            .zip(self.snapshot(kind, repo, commit))
            .ok_or(HubError::NoCache)?;
        let blob = folder.join("blobs").join(hash);
        write_whole(&blob, fill)?;
        let path = snapshot.join(name);
        let fail = |source| HubError::Cache {
            path: path.clone(),
            source,
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(fail)?;
        let up = "../".repeat(2 + name.matches('/').count());
        match link(Path::new(&format!("{up}blobs/{hash}")), &path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            // Where there are no links, a copy does.
            Err(_) => write_whole(&path, |into| {
                let mut from = std::fs::File::open(&blob).map_err(fail)?;
                std::io::copy(&mut from, into).map(drop).map_err(fail)
            })?,
        }
        Ok(path)
    }
}

/// Whether files can be created in a folder, which is created where it is missing.
fn writable(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    tempfile::tempfile_in(folder).map(drop)
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Whether a revision is a commit's full name.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Has `fill` write a file beside its name and moves it there.
fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), HubError>,
) -> Result<(), HubError> {
    let fail = |source| HubError::Cache {
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).map_err(fail)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    fill(&mut file)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}
