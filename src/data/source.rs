//! Text files as rows: one text per line that is not blank, read in any order, never held whole.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::error::{DataError, Result};

/// The characters at which Python's `str.splitlines` ends a line, so that rows equal annotated-mpnet's.
fn ends_line(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Whether Python's `str.isspace` holds for the line (U+001F counts there, though not in Unicode).
fn is_blank(line: &str) -> bool {
    line.chars().all(|c| c.is_whitespace() || c == '\x1f')
}

/// The text files of a training folder, sorted by path, sub-folders included.
///
/// Those are its `.txt` files; where there is none, every file that is not hidden, as annotated-mpnet
/// takes them.
///
/// # Errors
/// When the folder is missing, can't be read or holds no file.
pub fn training_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |problem: String| DataError::TrainingFolder {
        path: folder.to_owned(),
        problem,
    };
    if !folder.exists() {
        return Err(fail("there is no such folder".into()));
    }
    if !folder.is_dir() {
        return Err(fail("it is not a folder".into()));
    }
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
    let is_text = |path: &PathBuf| {
        path.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("txt"))
    };
    if files.iter().any(is_text) {
        let all = files.len();
        files.retain(is_text);
        if files.len() < all {
            tracing::warn!(
                "{}: reading its {} .txt files, leaving {} others alone",
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

/// One text file and where its rows are: 16 bytes of memory a row.
#[derive(Debug)]
pub struct TextFile {
    path: PathBuf,
    file: File,
    /// Byte offset and length of each row.
    rows: Vec<(u64, u64)>,
    bytes: Vec<u8>,
}

impl TextFile {
    /// Reads the file through once to find its rows and to check that all of it is UTF-8.
    ///
    /// # Errors
    /// When it can't be read or is not UTF-8; a file without text gives no rows, not an error.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |source| DataError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(fail)?;
        if file.metadata().map_err(fail)?.is_dir() {
            return Err(fail(std::io::ErrorKind::IsADirectory.into()));
        }
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let mut rows = Vec::new();
        let mut bytes = Vec::new();
        let (mut offset, mut line_number) = (0u64, 0u64);
        loop {
            bytes.clear();
            let read = reader.read_until(b'\n', &mut bytes).map_err(fail)?;
            if read == 0 {
                break;
            }
            line_number += 1;
            let text = std::str::from_utf8(&bytes).map_err(|e| DataError::NotUtf8 {
                path: path.to_owned(),
                line: line_number,
                offset: offset + e.valid_up_to() as u64,
            })?;
            for line in text.split(ends_line).filter(|line| !is_blank(line)) {
                let start = line.as_ptr() as usize - text.as_ptr() as usize;
                rows.push((offset + start as u64, line.len() as u64));
            }
            offset += read as u64;
        }
        if u32::try_from(rows.len()).is_err() {
            return Err(DataError::TooManyLines {
                path: path.to_owned(),
                lines: rows.len() as u64,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file: reader.into_inner(),
            rows,
            bytes: Vec::new(),
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Text of row `index`, which must be below [`rows`](Self::rows).
    ///
    /// # Errors
    /// When the file can't be read, or is no longer what it was when it was opened.
    pub fn row(&mut self, index: usize) -> Result<String> {
        let (offset, length) = self.rows[index];
        self.bytes.resize(length as usize, 0);
        let read = self
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(&mut self.bytes));
        match read {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(self.changed("it is shorter than it was"));
            }
            Err(source) => {
                return Err(DataError::Read {
                    path: self.path.clone(),
                    source,
                });
            }
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.changed("its lines are elsewhere now")),
        }
    }

    fn changed(&self, problem: &str) -> DataError {
        DataError::FileChanged {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(content: &[u8]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, content).unwrap();
        let mut file = TextFile::open(&path)?;
        (0..file.rows()).map(|i| file.row(i)).collect()
    }

    #[test]
    fn splits_and_drops_as_python_does() {
        // What `[l for l in open(p, encoding="utf-8").read().splitlines() if l and not l.isspace()]` gives.
        let text = "one\n\n  \t\ntwo\r\nthree\rfour\x0bfive\x0csix\x1cseven\u{85}eight\u{2028}nine\n\x1f\n last ";
        let expected = [
            "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", " last ",
        ];
        assert_eq!(rows_of(text.as_bytes()).unwrap(), expected);
        assert!(rows_of(b"").unwrap().is_empty());
        assert_eq!(
            rows_of("Ä\nß".as_bytes()).unwrap(),
            ["Ä", "ß"],
            "offsets are in bytes"
        );
    }

    #[test]
    fn names_line_and_byte_that_are_not_utf8() {
        let error = rows_of(b"good\nalso good\nba\xffd\n").unwrap_err();
        match &error {
            DataError::NotUtf8 { line, offset, .. } => assert_eq!((*line, *offset), (3, 17)),
            other => panic!("{other:?}"),
        }
        let text = error.to_string();
        assert!(
            text.contains("a.txt") && text.contains("line 3") && text.contains("17"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, "first\nsecond\n").unwrap();
        let mut file = TextFile::open(&path).unwrap();
        std::fs::write(&path, "f\n").unwrap();
        assert!(matches!(file.row(1), Err(DataError::FileChanged { .. })));
    }

    #[test]
    fn finds_text_files_sorted_and_in_sub_folders() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for name in ["c.txt", "b/x.TXT", "a.txt", "notes.md", ".hidden.txt"] {
            std::fs::write(folder.path().join(name), "text").unwrap();
        }
        let names = |files: Vec<PathBuf>| -> Vec<String> {
            files
                .iter()
                .map(|f| {
                    let relative = f.strip_prefix(folder.path()).unwrap();
                    relative.to_string_lossy().replace('\\', "/")
                })
                .collect()
        };
        assert_eq!(
            names(training_files(folder.path()).unwrap()),
            ["a.txt", "b/x.TXT", "c.txt"]
        );
        for name in ["c.txt", "b/x.TXT", "a.txt"] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        assert_eq!(names(training_files(folder.path()).unwrap()), ["notes.md"]);
    }

    #[test]
    fn missing_empty_and_wrong_folders_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let cases = [
            (folder.path().join("none"), "no such folder"),
            (folder.path().to_owned(), "no text file"),
            (file.clone(), "not a folder"),
        ];
        for (path, expected) in cases {
            if path == file {
                std::fs::write(&file, "text").unwrap();
            }
            let text = training_files(&path).unwrap_err().to_string();
            assert!(
                text.contains(expected) && text.contains(&path.display().to_string()),
                "{text}"
            );
        }
    }
}
