//! One run a folder: a lock that ends with the process that holds it, however it ends.

use super::error::CheckpointError;
use mpnet_runtime::scratch::is_named;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Name of the locked file.
pub const LOCK_FILE: &str = ".lock";

/// The right to write to a checkpoint folder; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock of the folder `dir`, which exists. Where the file system has no locks, a warning says that
    /// nothing keeps other runs out.
    ///
    /// # Errors
    /// Where another run holds it, or the folder cannot be written to.
    pub fn acquire(dir: &Path) -> Result<Lock, CheckpointError> {
        Lock::acquire_by(dir, File::try_lock)
    }

    /// [`Lock::acquire`] with another way to lock a file, for tests.
    fn acquire_by(
        dir: &Path,
        try_lock: impl Fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Lock, CheckpointError> {
        let path = dir.join(LOCK_FILE);
        let failed = |source| CheckpointError::NotWritable {
            path: dir.to_owned(),
            source,
        };
        loop {
            let mut file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(failed)?;
            match try_lock(&file) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    // Windows lets nobody read a locked file.
                    let holder = std::fs::read_to_string(&path).unwrap_or_default();
                    let holder = holder.trim();
                    return Err(CheckpointError::Locked {
                        path: dir.to_owned(),
                        holder: if holder.is_empty() {
                            String::new()
                        } else {
                            format!(" ({holder})")
                        },
                    });
                }
                // The file could be opened for writing: what fails is the locking alone.
                Err(TryLockError::Error(error)) => tracing::warn!(
                    "{} is on a file system without locks ({error}): start no second run on this folder while this \
                     one goes on, as nothing would stop it",
                    dir.display()
                ),
            }
            // Its former holder removes it: a lock on a file without a name keeps nobody out.
            if is_named(&file, &path) {
                file.set_len(0)
                    .and_then(|()| writeln!(file, "process {}", std::process::id()))
                    .map_err(failed)?;
                return Ok(Lock { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A file that stays is no harm: the lock is not the file.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::{LOCK_FILE, Lock};
    use std::fs::TryLockError;
    use std::io;

    #[cfg(target_os = "linux")]
    #[test]
    fn file_systems_without_locks_are_written_to() {
        let folder = tempfile::tempdir().unwrap();
        // ENOSYS, ENOLCK, EOPNOTSUPP.
        for number in [38, 37, 95] {
            let error = || TryLockError::Error(io::Error::from_raw_os_error(number));
            let lock = Lock::acquire_by(folder.path(), |_| Err(error())).unwrap();
            assert!(folder.path().join(LOCK_FILE).exists());
            drop(lock);
        }
        let held = Lock::acquire_by(folder.path(), |_| Err(TryLockError::WouldBlock));
        assert!(held.is_err());
    }

    #[test]
    fn keeps_others_out_until_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lock::acquire(folder.path()).unwrap();
        let said = Lock::acquire(folder.path()).unwrap_err().to_string();
        assert!(said.contains("another run"), "{said}");
        let says_who = said.contains(&std::process::id().to_string());
        assert_eq!(says_who, cfg!(unix), "{said}");
        drop(held);
        assert!(!folder.path().join(LOCK_FILE).exists());
        // What a killed run leaves.
        std::fs::write(folder.path().join(LOCK_FILE), "process 1\n").unwrap();
        Lock::acquire(folder.path()).unwrap();
    }
}
