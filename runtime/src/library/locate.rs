//! Finds the build to use: the one asked for, the environment's, the cache's, or one fetched now.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::Cache;
use super::error::{LibraryError, Result};
use super::install::{self, InstallOptions};
use super::pinned::{PinnedWheel, default_wheel, wheel_of};
use crate::provider::Provider;

/// Where to look for a build.
#[derive(Debug, Clone)]
pub struct LocateOptions {
    /// `--ort`: a library, a wheel, or a folder holding one.
    pub requested: Option<PathBuf>,
    /// The variable `ORT_DYLIB_PATH`, read in the same way.
    pub environment: Option<PathBuf>,
    /// The build to take from the cache or to fetch; the default one for this machine if absent.
    pub wheel: Option<&'static PinnedWheel>,
    /// Fetch a build if none is found.
    pub download: bool,
    /// The cache, and how to fetch.
    pub install: InstallOptions,
}

impl LocateOptions {
    /// The user's environment and cache, with downloads.
    ///
    /// # Errors
    /// [`LibraryError::NoCacheFolder`].
    pub fn for_user(requested: Option<PathBuf>) -> Result<Self> {
        Ok(Self {
            requested,
            environment: std::env::var_os("ORT_DYLIB_PATH")
                .filter(|value| !value.is_empty())
                .map(PathBuf::from),
            wheel: None,
            download: true,
            install: InstallOptions::for_user()?,
        })
    }

    /// The same for a build that has `provider`, with the training API or without.
    ///
    /// # Errors
    /// [`LibraryError::NoCacheFolder`].
    pub fn for_provider(
        requested: Option<PathBuf>,
        provider: Provider,
        training_api: bool,
    ) -> Result<Self> {
        let entry = provider.entry();
        let package = match training_api {
            true => entry.training_package,
            false => None,
        };
        Ok(Self {
            wheel: wheel_of(package.unwrap_or(entry.package)),
            ..Self::for_user(requested)?
        })
    }
}

/// How a build was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `--ort`.
    Requested,
    /// `ORT_DYLIB_PATH`.
    Environment,
    /// The cache, from an earlier installation or from one made now.
    Cache,
}

/// A build of ONNX Runtime on this machine, not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The library file or the training wheel's extension.
    pub path: PathBuf,
    /// How it was found.
    pub origin: Origin,
}

/// Finds a build, fetching one if there is none and `download` is set.
///
/// # Errors
/// The path asked for holds no build, or none can be fetched.
pub fn locate(options: &LocateOptions) -> Result<Build> {
    let cache = || options.install.cache.clone();
    if let Some(path) = &options.requested {
        return Ok(Build {
            path: resolve("--ort", path, cache())?,
            origin: Origin::Requested,
        });
    }
    if let Some(path) = &options.environment {
        return Ok(Build {
            path: resolve("ORT_DYLIB_PATH", path, cache())?,
            origin: Origin::Environment,
        });
    }
    let installed = if options.download {
        install::install(options.wheel, &options.install)?
    } else {
        options
            .wheel
            .or_else(default_wheel)
            .and_then(|wheel| Cache::at(cache()).find(&wheel.key()))
            .ok_or_else(|| LibraryError::NotInstalled { cache: cache() })?
    };
    Ok(Build {
        path: installed.library(),
        origin: Origin::Cache,
    })
}

/// The library that a path of the user's stands for.
fn resolve(origin: &'static str, path: &Path, cache: PathBuf) -> Result<PathBuf> {
    let Ok(metadata) = fs::metadata(path) else {
        return Err(LibraryError::Missing {
            origin,
            path: path.to_owned(),
        });
    };
    if metadata.is_file() {
        return if is_wheel(path) {
            Ok(install::install_wheel(path, cache)?.library())
        } else {
            Ok(path.to_owned())
        };
    }
    if let Some(library) = library_in(path) {
        return Ok(library);
    }
    match files_below(path).into_iter().find(|file| is_wheel(file)) {
        Some(wheel) => Ok(install::install_wheel(&wheel, cache)?.library()),
        None => Err(LibraryError::EmptyFolder {
            origin,
            path: path.to_owned(),
        }),
    }
}

fn is_wheel(path: &Path) -> bool {
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

/// Files of a folder and of the folders a few levels below, nearest first, in the order of their names.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    /// `site-packages/onnxruntime/capi` below a virtual environment's `lib/python3.11`.
    const DEPTH: usize = 5;
    let mut files = Vec::new();
    let mut level = vec![folder.to_owned()];
    for _ in 0..DEPTH {
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
