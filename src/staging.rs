//! Folders and files that appear whole or not at all: filled beside their place, moved there last.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Prefix of what is being written; a run removes what a killed one left.
pub const UNFINISHED: &str = ".unfinished-";

/// Puts what `write` writes in the place of the file at `path`; it is on the disk when this returns.
///
/// # Errors
/// Where that cannot be done; what was there stays.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    // An ordinary file's: the crate's default is the owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(parent)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(parent)
}

/// Waits until a file is on the disk.
///
/// # Errors
/// Where it cannot be opened for writing, which some systems want of who syncs, or the disk fails.
pub fn sync_file(path: &Path) -> io::Result<()> {
    File::options().append(true).open(path)?.sync_all()
}

/// Waits until the names in a folder are on the disk; where file systems do that by themselves or cannot be told to,
/// nothing is to be done.
///
/// # Errors
/// Where the disk fails.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(error) if lost(&error) => return Err(error),
        // Network file systems and some of FUSE sync files alone, and refuse folders by one error or another: EINVAL,
        // ENOTSUP, EBADF, EISDIR, EACCES.
        Ok(()) | Err(_) => {}
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Whether an error says that what was to be synced may not reach the disk.
#[cfg(unix)]
fn lost(error: &io::Error) -> bool {
    let disk = rustix::io::Errno::IO.raw_os_error();
    error.raw_os_error() == Some(disk)
        || matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
}

/// Moves the folder `new` to the name `target`. What has that name moves to `aside` first, since a rename replaces no
/// folder that holds files; it moves back if the second step fails.
///
/// # Errors
/// Where that cannot be done. What was there has its name, or that of `aside` where it could not move back, which the
/// error then tells.
pub fn replace_folder(new: &Path, target: &Path, aside: &Path) -> io::Result<()> {
    replace_by(new, target, aside, |from, to| fs::rename(from, to))
}

/// [`replace_folder`] with another rename, for tests.
fn replace_by(
    new: &Path,
    target: &Path,
    aside: &Path,
    rename: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    if !target.exists() {
        return rename(new, target);
    }
    rename(target, aside)?;
    let Err(error) = rename(new, target) else {
        return Ok(());
    };
    match rename(aside, target) {
        Ok(()) => Err(error),
        Err(second) => Err(io::Error::new(
            error.kind(),
            format!(
                "{error}; what was there is in {} now, as it could not be moved back: {second}",
                aside.display()
            ),
        )),
    }
}

/// A file that grows by whole pieces: what a full disk takes only a part of is taken back.
#[derive(Debug)]
pub struct Growing {
    file: File,
    length: u64,
}

impl Growing {
    /// Goes on at the end of `file`, which is open for appending.
    ///
    /// # Errors
    /// Where its length cannot be read.
    pub fn new(file: File) -> io::Result<Growing> {
        let length = file.metadata()?.len();
        Ok(Growing { file, length })
    }

    /// Adds a piece, in one call where the system takes it whole.
    ///
    /// # Errors
    /// Where it cannot be written; the file is as it was.
    pub fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(piece) {
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += piece.len() as u64;
        Ok(())
    }
}

/// A temporary folder in `parent`, with the permissions of an ordinary one.
///
/// # Errors
/// Where it cannot be created.
pub fn temporary_folder(parent: &Path, prefix: &str) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    // Less what the process's mask takes away; the crate's default is the owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent)
}

/// A folder that is being filled; dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct Staging {
    folder: TempDir,
    target: PathBuf,
}

impl Staging {
    /// Starts the folder that is to become `target`.
    ///
    /// # Errors
    /// Where nothing can be created beside `target`.
    pub fn new(target: &Path) -> io::Result<Staging> {
        let target = match target.canonicalize() {
            Ok(target) => target,
            Err(_) => std::path::absolute(target)?,
        };
        let parent = target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        Ok(Staging {
            folder: temporary_folder(parent, UNFINISHED)?,
            target,
        })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts the folder in the place of `target`, whatever was there.
    ///
    /// # Errors
    /// Where that cannot be done; what was there stays.
    pub fn replace(self) -> io::Result<()> {
        let Staging { folder, target } = self;
        if target.exists() {
            let parent = target.parent().unwrap_or(Path::new("/"));
            let old = temporary_folder(parent, UNFINISHED)?;
            let replaced = old.path().join("replaced");
            if let Err(error) = replace_folder(folder.path(), &target, &replaced) {
                if replaced.exists() {
                    // The user's only copy.
                    let _ = old.keep();
                }
                return Err(error);
            }
        } else {
            fs::rename(folder.path(), &target)?;
        }
        // It has moved: there is nothing left to remove.
        let _ = folder.keep();
        Ok(())
    }

    /// Moves the files into `target`, which keeps what else it holds.
    ///
    /// # Errors
    /// Where one cannot be moved.
    pub fn add(self) -> io::Result<()> {
        if !self.target.exists() {
            return self.replace();
        }
        for entry in fs::read_dir(self.folder.path())? {
            let entry = entry?;
            fs::rename(entry.path(), self.target.join(entry.file_name()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Staging, replace_by, replace_file, sync_file, sync_folder};
    use std::fs;
    use std::io::{Error, ErrorKind, Write};
    use std::path::Path;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_or_adds_and_leaves_nothing_beside() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("a/b");
        for (name, add) in [("one", false), ("two", false), ("three", true)] {
            let staging = Staging::new(&target).unwrap();
            fs::write(staging.path().join(name), "text").unwrap();
            match add {
                true => staging.add().unwrap(),
                false => staging.replace().unwrap(),
            }
        }
        assert_eq!(names(&target), ["three", "two"]);
        assert_eq!(names(&place.path().join("a")), ["b"]);
    }

    #[test]
    fn where_nothing_can_be_renamed_what_was_there_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for name in ["new", "target"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join(name), "text").unwrap();
        }
        // The first rename works, the second fails, and so does the third, or not.
        for (working, left, said) in [(2, "target", false), (1, "aside", true)] {
            let count = std::cell::Cell::new(0);
            let error = replace_by(&at("new"), &at("target"), &at("aside"), |from, to| {
                count.set(count.get() + 1);
                let broken = match working {
                    1 => count.get() > 1,
                    _ => count.get() == 2,
                };
                if broken {
                    Err(Error::other("the disk is gone"))
                } else {
                    fs::rename(from, to)
                }
            })
            .unwrap_err()
            .to_string();
            assert_eq!(names(&at(left)), ["target"]);
            assert_eq!(names(&at("new")), ["new"]);
            assert!(error.contains("the disk is gone"), "{error}");
            let place = at("aside").display().to_string();
            assert_eq!(error.contains(&place), said, "{error}");
        }
    }

    #[test]
    fn files_and_folders_are_synced() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "text").unwrap();
        sync_file(&file).unwrap();
        sync_folder(place.path()).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"text");
        let missing = sync_file(&place.path().join("none")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn unfinished_leaves_what_was_there() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("b");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "text").unwrap();
        let staging = Staging::new(&target).unwrap();
        fs::write(staging.path().join("new"), "text").unwrap();
        drop(staging);
        assert_eq!(names(&target), ["old"]);
        assert_eq!(names(place.path()), ["b"]);
        let Err(below) = Staging::new(&target.join("old/below")) else {
            panic!("a folder below a file");
        };
        assert_eq!(below.kind(), ErrorKind::AlreadyExists);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_cannot_be_synced_is_no_error_and_a_failing_disk_is() {
        use rustix::io::Errno;
        let lost = |errno: Errno| super::lost(&Error::from_raw_os_error(errno.raw_os_error()));
        for refused in [
            Errno::BADF,
            Errno::INVAL,
            Errno::ISDIR,
            Errno::ACCESS,
            Errno::NOTTY,
            Errno::NOSYS,
            Errno::OPNOTSUPP,
        ] {
            assert!(!lost(refused), "{refused}");
        }
        for failing in [Errno::IO, Errno::NOSPC, Errno::DQUOT] {
            assert!(lost(failing), "{failing}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_or_stays() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        replace_file(&path, |file| file.write_all(b"one")).unwrap();
        let failed = replace_file(&path, |file| {
            file.write_all(b"half")?;
            Err(Error::other("the disk is full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "the disk is full");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace_file(&path, |file| file.write_all(b"two")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(place.path()), ["file"]);
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_they_may_read_elsewhere() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let ordinary = place.path().join("ordinary");
        fs::create_dir(&ordinary).unwrap();
        Staging::new(&place.path().join("b"))
            .unwrap()
            .replace()
            .unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ordinary), mode(&place.path().join("b")));
    }
}
