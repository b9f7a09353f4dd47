//! HuggingFace's cache on disk: `refs/REVISION` names a commit, `snapshots/COMMIT/FILE` links to
//! `blobs/HASH`.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::HubError;
use super::{Hub, RepoKind};

impl Hub {
    /// The folder of a repository.
    pub(super) fn repo_folder(&self, kind: RepoKind, repo: &str) -> PathBuf {
        let name = format!("{}--{}", kind.plural(), repo.replace('/', "--"));
        self.settings.cache.join(name)
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, kind: RepoKind, repo: &str, commit: &str) -> PathBuf {
        self.repo_folder(kind, repo).join("snapshots").join(commit)
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
        let file = self.repo_folder(kind, repo).join("refs").join(revision);
        let commit = std::fs::read_to_string(file).ok()?.trim().to_owned();
        is_commit(&commit).then_some(commit)
    }

    /// Remembers what commit a revision is.
    pub(super) fn remember_commit(
        &self,
        kind: RepoKind,
        repo: &str,
        revision: &str,
        commit: &str,
    ) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        let file = self.repo_folder(kind, repo).join("refs").join(revision);
        write_whole(&file, |into| {
            into.write_all(commit.as_bytes())
                .map_err(|source| HubError::Cache {
                    path: file.clone(),
                    source,
                })
        })
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
        let blob = self.repo_folder(kind, repo).join("blobs").join(hash);
        write_whole(&blob, fill)?;
        let path = self.snapshot(kind, repo, commit).join(name);
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
