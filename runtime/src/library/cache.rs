//! The folder in which fetched builds are kept, and the manifest that each of them has.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use directories::ProjectDirs;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::digest;
use super::error::{LibraryError, Result, io};
use super::pinned::pinned_as;
use crate::scratch::Scratch;

/// Overrides the platform's cache folder.
const CACHE_VARIABLE: &str = "MPNET_CACHE";
const MANIFEST: &str = "build.json";
/// Folders that an installation fills before it gives them their name.
const UNFINISHED: &str = ".unfinished-";
const LOCK: &str = ".lock";

/// The folder of builds below `MPNET_CACHE`, or below the platform's folder for caches.
///
/// # Errors
/// [`LibraryError::NoCacheFolder`] where there is neither.
pub fn cache_folder() -> Result<PathBuf> {
    Ok(root()?.join("onnxruntime"))
}

/// The folder of libraries that join ranks, beside that of builds.
///
/// # Errors
/// [`LibraryError::NoCacheFolder`] where there is none.
pub fn library_folder() -> Result<PathBuf> {
    Ok(root()?.join("libraries"))
}

/// The folder of plug-ins, beside that of builds.
///
/// # Errors
/// [`LibraryError::NoCacheFolder`] where there is none.
pub fn plugin_folder() -> Result<PathBuf> {
    Ok(root()?.join("plugins"))
}

/// The folder of compiled kernels, beside that of builds.
///
/// # Errors
/// [`LibraryError::NoCacheFolder`] where there is none.
pub(crate) fn kernel_folder() -> Result<PathBuf> {
    Ok(root()?.join("kernels"))
}

fn root() -> Result<PathBuf> {
    Ok(
        match std::env::var_os(CACHE_VARIABLE).filter(|value| !value.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => ProjectDirs::from("", "", "mpnet")
                .ok_or(LibraryError::NoCacheFolder)?
                .cache_dir()
                .to_owned(),
        },
    )
}

/// A folder of this process's own, removed by a later one once this has ended.
fn own_cache() -> Result<PathBuf> {
    static OWN: OnceLock<Scratch> = OnceLock::new();
    let own = match OWN.get() {
        Some(own) => own,
        None => {
            let made = Scratch::new().map_err(io("create a folder in", std::env::temp_dir()))?;
            OWN.get_or_init(|| made)
        }
    };
    Ok(own.path().to_owned())
}

/// A folder of this user, or where there is no home for one a folder of this process's own.
pub(super) fn or_own(folder: Result<PathBuf>) -> Result<PathBuf> {
    match folder {
        Err(LibraryError::NoCacheFolder) => own_cache(),
        found => found,
    }
}

/// What a folder of the cache holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Package, or file name of a wheel that the user gave.
    pub name: String,
    /// Version of the package; empty for a wheel that the user gave.
    pub version: String,
    /// How it came: "pip", "uv" or "wheel".
    pub source: String,
    /// SHA-256 of the wheel, if it was seen.
    pub wheel_sha256: Option<String>,
    /// Path of the library in the folder.
    pub library: PathBuf,
    /// Length of the library in bytes.
    pub library_bytes: u64,
}

/// A build in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What it is.
    pub manifest: Manifest,
    /// Its folder.
    pub folder: PathBuf,
}

impl Installed {
    /// The library file.
    pub fn library(&self) -> PathBuf {
        self.folder.join(&self.manifest.library)
    }

    /// Checks every file of a pinned build against its hash; of another, that it is whole.
    ///
    /// # Errors
    /// A file is missing, cut short or changed.
    pub fn verify(&self) -> Result<()> {
        let key = self.folder.file_name().unwrap_or_default();
        match pinned_as(key) {
            Some(wheel) => wheel
                .files()
                .try_for_each(|file| digest::check(&self.folder.join(file.path), file)),
            None => {
                let library = self.library();
                let found = library.metadata().map_err(io("read", &library))?.len();
                let expected = self.manifest.library_bytes;
                if found == expected {
                    Ok(())
                } else {
                    Err(LibraryError::Truncated {
                        path: library,
                        expected,
                        found,
                    })
                }
            }
        }
    }
}

/// The cache folder, whether it exists or not.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The build of that key, if it is whole.
    pub(super) fn find(&self, key: &str) -> Option<Installed> {
        let installed = self.read(key)?;
        let length = installed.library().metadata().ok()?.len();
        (length == installed.manifest.library_bytes).then_some(installed)
    }

    /// The build of that key, whole or not.
    fn read(&self, key: &str) -> Option<Installed> {
        let folder = self.root.join(key);
        let manifest = fs::read(folder.join(MANIFEST)).ok()?;
        let manifest = serde_json::from_slice(&manifest).ok()?;
        Some(Installed { manifest, folder })
    }

    /// Every build, damaged ones too, by name.
    pub(super) fn list(&self) -> Result<Vec<Installed>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("read the folder", &self.root)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io("read the folder", &self.root))?;
            found.extend(entry.file_name().to_str().and_then(|key| self.read(key)));
        }
        found.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(found)
    }

    /// This cache, locked; a folder that goes with the process, locked, where this one cannot be written to.
    pub(super) fn writable(self) -> Result<(Self, CacheLock)> {
        match self.lock() {
            Ok(lock) => Ok((self, lock)),
            Err(error) => {
                let own = Self::at(own_cache()?);
                tracing::warn!(
                    "{error}: {}; what is fetched now is kept until this process ends. MPNET_CACHE names another \
                     folder",
                    std::error::Error::source(&error).map_or(String::new(), ToString::to_string)
                );
                let lock = own.lock()?;
                Ok((own, lock))
            }
        }
    }

    /// Waits until no other process installs, and keeps others from it until the result is dropped.
    pub(super) fn lock(&self) -> Result<CacheLock> {
        fs::create_dir_all(&self.root).map_err(io(
            "make the cache (the variable MPNET_CACHE names another place)",
            &self.root,
        ))?;
        let path = self.root.join(LOCK);
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(io("create the lock", &path))?;
        let held = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                tracing::info!("another process is installing; waiting for it");
                file.lock().map_err(io("lock", &path))?;
                true
            }
            // A file system without locks: renaming still keeps every build whole.
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, path = %path.display(), "this file system has no locks");
                false
            }
        };
        if held {
            self.remove_unfinished();
        }
        Ok(CacheLock { _file: file })
    }

    /// Removes what installations that were killed have left. Only for the holder of the lock.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED)
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(%error, path = %entry.path().display(), "an unfinished installation cannot be removed");
            }
        }
    }

    /// A new folder on the cache's file system, removed when dropped.
    pub(super) fn unfinished(&self) -> Result<TempDir> {
        tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempdir_in(&self.root)
            .map_err(io("create a folder in", &self.root))
    }

    /// Removes the build of that key, if there is one.
    pub(super) fn remove(&self, key: &str) -> Result<()> {
        let folder = self.root.join(key);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io("remove the folder", folder)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Gives `folder` its name in the cache, in one step. If another process was faster, its build is taken.
    pub(super) fn adopt(&self, key: &str, folder: &Path, manifest: &Manifest) -> Result<Installed> {
        let text = serde_json::to_vec_pretty(manifest).map_err(std::io::Error::other);
        let path = folder.join(MANIFEST);
        text.and_then(|text| fs::write(&path, text))
            .map_err(io("write", &path))?;
        let target = self.root.join(key);
        if let Some(present) = self.find(key) {
            return Ok(present);
        }
        if target.exists() {
            // Not whole, or it would have been found.
            fs::remove_dir_all(&target).map_err(io("remove the damaged build", &target))?;
        }
        match fs::rename(folder, &target) {
            Ok(()) => Ok(Installed {
                manifest: manifest.clone(),
                folder: target,
            }),
            Err(error) => self
                .find(key)
                .ok_or_else(|| io("give the build its name", &target)(error)),
        }
    }
}

/// Held while a process installs.
#[derive(Debug)]
pub(super) struct CacheLock {
    _file: File,
}
