//! The files that a folder, a file's name or a pattern stands for.

use std::path::{Path, PathBuf};

use super::Kind;
use crate::data::error::{DataError, Result};

/// The text files of a folder, sub-folders included, or that a pattern matches, or the one file; sorted
/// by path.
///
/// A folder's are those with a known ending; where there is none, every file that is not hidden, as
/// annotated-mpnet takes them.
///
/// # Errors
/// When there is none, or a folder can't be read.
pub fn training_files(path: &Path) -> Result<Vec<PathBuf>> {
    let fail = |problem: String| DataError::TrainingFolder {
        path: path.to_owned(),
        problem,
    };
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if path.is_dir() {
        return of_folder(path);
    }
    let text = path.to_string_lossy();
    if !text.contains(['*', '?', '[']) {
        return Err(fail("there is no such file or folder".into()));
    }
    let options = glob::MatchOptions {
        require_literal_separator: true,
        require_literal_leading_dot: true,
        ..glob::MatchOptions::default()
    };
    let matched =
        glob::glob_with(&text, options).map_err(|e| fail(format!("it is no pattern: {e}")))?;
    let mut files = Vec::new();
    for entry in matched {
        let entry = entry.map_err(|e| fail(format!("can't list {e}")))?;
        if entry.is_file() {
            files.push(entry);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(fail("no file matches it".into()));
    }
    Ok(files)
}

fn of_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |problem: String| DataError::TrainingFolder {
        path: folder.to_owned(),
        problem,
    };
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        let unreadable = |e: std::io::Error| fail(format!("can't list {}: {e}", current.display()));
        for entry in std::fs::read_dir(&current).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            // Links to files are followed; links to folders are not, so that no loop is.
            if entry.file_type().map_err(unreadable)?.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    if files.iter().any(|file| Kind::of(file).is_some()) {
        let all = files.len();
        files.retain(|file| Kind::of(file).is_some());
        if files.len() < all {
            tracing::warn!(
                "{}: reading its {} text files, leaving {} of other kinds alone",
                folder.display(),
                files.len(),
                all - files.len()
            );
        }
    }
    if files.is_empty() {
        return Err(fail("it holds no text file".into()));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let files = training_files(path).unwrap();
        let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
        files.iter().map(name).collect()
    }

    #[test]
    fn folders_mix_formats_and_patterns_choose() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        for name in [
            "b.txt",
            "a.parquet",
            "c.json",
            "README.md",
            ".hidden.txt",
            "sub/d.jsonl.gz",
        ] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(
            names(folder.path()),
            ["a.parquet", "b.txt", "c.json", "d.jsonl.gz"]
        );
        assert_eq!(names(&folder.path().join("*.txt")), ["b.txt"]);
        assert_eq!(names(&folder.path().join("**/*.gz")), ["d.jsonl.gz"]);
        assert_eq!(names(&folder.path().join("README.md")), ["README.md"]);
    }

    #[test]
    fn without_known_endings_every_file_is_text() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("part-1"), "x").unwrap();
        std::fs::write(folder.path().join(".part-2"), "x").unwrap();
        assert_eq!(names(folder.path()), ["part-1"]);
    }

    #[test]
    fn nothing_to_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| training_files(path).unwrap_err().to_string();
        assert!(said(folder.path()).contains("no text file"));
        assert!(said(&folder.path().join("nowhere")).contains("no such file or folder"));
        assert!(said(&folder.path().join("*.txt")).contains("no file matches"));
    }
}
