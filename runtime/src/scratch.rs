//! Temporary folders that go with their process: what a killed one leaves, the next one removes.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use same_file::Handle;
use tempfile::{Builder, NamedTempFile, TempDir};

/// How the folders' names start.
const PREFIX: &str = "mpnet-scratch-";
/// The same where nothing can be locked, so that no process takes them for left ones.
const UNLOCKED_PREFIX: &str = "mpnet-unlocked-";
/// How the name of a folder's lock ends, which lies beside it: Windows locks no folders.
const LOCK: &str = ".lock";

/// A folder in the system's temporary folder, removed when dropped.
///
/// Its process holds a lock on a file beside it, which ends with the process however that ends.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    /// None where the file system has no locks: there nobody removes what another process left. Dropped after the
    /// folder, so that one without a lock is nobody's.
    _lock: Option<NamedTempFile>,
}

impl Scratch {
    /// An empty folder. The first call of a process removes the folders of processes that are gone.
    ///
    /// # Errors
    /// Where none can be created.
    pub fn new() -> io::Result<Scratch> {
        static SWEEP: Once = Once::new();
        let parent = std::env::temp_dir();
        SWEEP.call_once(|| sweep(&parent));
        Scratch::new_in(&parent)
    }

    fn new_in(parent: &Path) -> io::Result<Scratch> {
        Scratch::new_by(parent, File::try_lock)
    }

    /// The same with another way to lock a file, for tests.
    fn new_by(
        parent: &Path,
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> io::Result<Scratch> {
        loop {
            let lock = Builder::new()
                .prefix(PREFIX)
                .suffix(LOCK)
                .tempfile_in(parent)?;
            match try_lock(lock.as_file()) {
                // Before it was locked, another process may have taken it for one that was left, and removed it.
                Ok(()) if is_named(lock.as_file(), lock.path()) => {
                    let name = lock.path().with_extension("");
                    let name = name.file_name().unwrap_or_default();
                    let folder = Builder::new().prefix(name).rand_bytes(0).tempdir_in(parent);
                    return Ok(Scratch {
                        folder: folder?,
                        _lock: Some(lock),
                    });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(_)) => {
                    return Ok(Scratch {
                        folder: TempDir::with_prefix_in(UNLOCKED_PREFIX, parent)?,
                        _lock: None,
                    });
                }
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file of it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// Whether `path` names the open `file`, and not another one or none, as after somebody removed it.
pub fn is_named(file: &File, path: &Path) -> bool {
    let open = file.try_clone().and_then(Handle::from_file);
    open.is_ok_and(|open| Handle::from_path(path).is_ok_and(|named| open == named))
}

/// Removes the folders in `parent` that no process holds, with their locks, as far as this user may.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(LOCK);
        if !entry.file_name().to_str().is_some_and(ours)
            || !entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            continue;
        }
        let path = entry.path();
        if let Ok(lock) = File::options().append(true).open(&path)
            && lock.try_lock().is_ok()
        {
            let folder = path.with_extension("");
            let removed = match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => fs::remove_file(&path),
            };
            if let Err(error) = removed {
                tracing::debug!("{} stays: {error}", folder.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_without_a_process_go_and_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        let live = Scratch::new_in(parent.path()).unwrap();
        fs::write(live.file("a"), "a").unwrap();
        // As a killed process leaves it: there, and not locked.
        let left = parent.path().join(format!("{PREFIX}left"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("b"), "b").unwrap();
        fs::write(parent.path().join(format!("{PREFIX}left{LOCK}")), "").unwrap();
        let other = parent.path().join("somebody-elses");
        fs::create_dir(&other).unwrap();
        sweep(parent.path());
        assert!(!left.exists());
        assert!(live.file("a").exists() && other.exists());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }

    /// As where one machine has no locks on a folder that another one with locks sweeps.
    #[test]
    fn without_locks_nobody_takes_a_folder_for_left() {
        let parent = tempfile::tempdir().unwrap();
        let refused = |_: &File| Err(TryLockError::Error(io::ErrorKind::Unsupported.into()));
        let scratch = Scratch::new_by(parent.path(), refused).unwrap();
        fs::write(scratch.file("a"), "a").unwrap();
        sweep(parent.path());
        assert!(scratch.file("a").exists());
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_at_once_and_a_sweep_disturb_nobody() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let scratch = Scratch::new_in(parent.path()).unwrap();
                        fs::write(scratch.file("a"), "a").unwrap();
                        sweep(parent.path());
                        assert!(scratch.file("a").exists());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
