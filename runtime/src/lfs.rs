//! Git LFS pointers: the few lines that stand in the place of a file which `git lfs` has not fetched.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a pointer begins with; the second is of Git LFS before its first release.
const FIRST_LINES: [&str; 2] = [
    "version https://git-lfs.github.com/spec/v1",
    "version https://hawser.github.com/spec/v1",
];
/// Pointers are shorter than this, by Git LFS's specification.
const MOST_BYTES: u64 = 1024;

/// A file that is a pointer and should be what it points to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} is a Git LFS pointer, not the file itself, which has {size} bytes: run 'git lfs pull' in its repository",
    path.display()
)]
pub struct LfsPointer {
    /// The pointer.
    pub path: PathBuf,
    /// Bytes of the file that it stands for.
    pub size: u64,
}

/// The size in bytes that the pointer `text` names; `None` where it is no pointer.
pub fn pointed_size(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let mut lines = text.lines();
    if !FIRST_LINES.contains(&lines.next()?.trim_end()) {
        return None;
    }
    lines.find_map(|line| line.strip_prefix("size ")?.trim().parse().ok())
}

/// Refuses a pointer at `path`. A file that cannot be read is none: its reader says why.
///
/// # Errors
/// Where the file is a pointer.
pub fn refuse_pointer(path: &Path) -> Result<(), LfsPointer> {
    let mut text = Vec::new();
    // One byte more than a pointer can have tells a longer file from it.
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut text));
    match read.ok().and_then(|_| pointed_size(&text)) {
        Some(size) if text.len() as u64 <= MOST_BYTES => Err(LfsPointer {
            path: path.to_owned(),
            size,
        }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";

    #[test]
    fn a_pointer_is_told_from_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        for first in FIRST_LINES {
            for end in ["\n", "\r\n"] {
                let text = format!("{first}{end}oid sha256:{HASH}{end}size 12345{end}");
                std::fs::write(&path, text).unwrap();
                let said = refuse_pointer(&path).unwrap_err();
                assert_eq!(said.size, 12345);
                let said = said.to_string();
                assert!(
                    said.contains("model.safetensors") && said.contains("git lfs pull"),
                    "{said}"
                );
            }
        }
        let first = FIRST_LINES[0];
        for other in [
            String::new(),
            "{}".into(),
            first.into(),
            format!("about {first}\nsize 1\n"),
            format!("{first}\nsize 1\n{}", "x".repeat(2000)),
        ] {
            std::fs::write(&path, &other).unwrap();
            assert_eq!(refuse_pointer(&path), Ok(()), "{other}");
        }
        assert_eq!(refuse_pointer(&folder.path().join("nothing")), Ok(()));
        assert_eq!(refuse_pointer(folder.path()), Ok(()));
    }
}
