//! Where in a folder the library or the wheel is.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether the file's name is a wheel's.
pub(super) fn is_wheel(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("whl"))
}

/// The library in a folder: a plain build if there is one, else a Python extension.
pub(super) fn library_in(folder: &Path) -> Option<PathBuf> {
    let files = files_below(folder);
    let named = |wanted: fn(&str) -> bool| {
        files
            .iter()
            .find(|file| {
                file.file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(wanted)
            })
            .cloned()
    };
    named(is_plain_library).or_else(|| named(is_extension))
}

fn is_plain_library(name: &str) -> bool {
    name == "libonnxruntime.so"
        || name.starts_with("libonnxruntime.so.")
        || name == "onnxruntime.dll"
        || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
}

fn is_extension(name: &str) -> bool {
    name.starts_with("onnxruntime_pybind11_state") && name.ends_with(".so")
}

/// Files of a folder and of the folders down to five levels below, nearest first, in the order of their names.
pub(super) fn files_below(folder: &Path) -> Vec<PathBuf> {
    /// `lib/python3.11/site-packages/onnxruntime/capi` below a virtual environment.
    const DEPTH: usize = 5;
    let mut files = Vec::new();
    let mut level = vec![folder.to_owned()];
    for _ in 0..=DEPTH {
        let mut next = Vec::new();
        for folder in level {
            let mut entries: Vec<PathBuf> = fs::read_dir(&folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            entries.sort();
            for entry in entries {
                // Links to folders are not followed, so that a loop of them cannot catch the search.
                if entry.is_dir() && !entry.is_symlink() {
                    next.push(entry);
                } else if entry.is_file() {
                    files.push(entry);
                }
            }
        }
        level = next;
    }
    files
}

#[cfg(test)]
mod tests {
    use super::library_in;
    use std::fs;

    #[test]
    fn the_library_of_a_virtual_environment_is_found() {
        let place = tempfile::tempdir().unwrap();
        let capi = place
            .path()
            .join("lib/python3.11/site-packages/onnxruntime/capi");
        fs::create_dir_all(&capi).unwrap();
        fs::write(capi.join("onnxruntime_pybind11_state.cpython-311.so"), "").unwrap();
        let extension = library_in(place.path()).unwrap();
        assert_eq!(extension.parent(), Some(capi.as_path()));
        let plain = capi.join("libonnxruntime.so.1.32.0");
        fs::write(&plain, "").unwrap();
        assert_eq!(library_in(place.path()), Some(plain));
        fs::create_dir(capi.join("deeper")).unwrap();
        assert_eq!(library_in(&capi.join("deeper")), None);
    }
}
