//! Finds, fetches and loads a build of ONNX Runtime: a plain library or a training wheel, with no Python in the process.
//!
//! ```no_run
//! use mpnet_runtime::library::{self, LocateOptions};
//!
//! let build = library::locate(&LocateOptions::for_user(None)?)?;
//! let loaded = library::load(&build)?;
//! println!("ONNX Runtime {}", loaded.version);
//! # Ok::<(), library::LibraryError>(())
//! ```

mod cache;
mod client;
#[cfg(target_os = "linux")]
mod cuda;
mod digest;
#[cfg(target_os = "linux")]
mod elf;
mod error;
mod files;
mod install;
mod load;
mod locate;
mod pinned;
mod pinned_elsewhere;
mod pinned_libraries;
mod pinned_plugins;
mod pinned_wheel;
#[cfg(target_os = "linux")]
mod python_symbols;
mod wheel;

use std::path::{Path, PathBuf};

pub(crate) use cache::kernel_folder;
pub use cache::{Installed, Manifest, cache_folder, library_folder, plugin_folder};
pub use client::ClientKind;
pub use error::{LibraryError, Result};
pub use install::{InstallOptions, install};
pub(crate) use load::ApiBase;
pub use load::Loaded;
pub use locate::{
    Build, LocateOptions, Origin, has_training_build, installed_plugin, locate, locate_plugin,
};
pub use pinned::{
    default_wheel, libraries_here, library_of, plugin_of, plugins_here, wheel_of, wheels_here,
};
pub use pinned_wheel::{PinnedFile, PinnedWheel};

/// Loads what the CUDA provider of the build `library` needs, from the system or from Python wheels.
///
/// # Errors
/// Something is nowhere.
pub(crate) fn preload_cuda(library: &Path) -> Result<()> {
    #[cfg(target_os = "linux")]
    cuda::preload(library)?;
    #[cfg(not(target_os = "linux"))]
    let _ = library;
    Ok(())
}

/// The folders of NVIDIA's libraries in every Python installation that can be guessed.
pub(crate) fn nvidia_folders() -> Vec<PathBuf> {
    #[cfg(target_os = "linux")]
    return cuda::wheel_folders(None);
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// The file of a pinned library that joins ranks, if it was fetched.
pub(crate) fn installed_library(wheel: &PinnedWheel) -> Option<PathBuf> {
    let cache = cache::Cache::at(library_folder().ok()?);
    Some(cache.find(&wheel.key())?.library())
}

/// Loads `build` into this process. Only one build can ever be loaded; asking for it again returns it.
///
/// # Errors
/// The file is no usable ONNX Runtime, or another one is loaded already.
pub fn load(build: &Build) -> Result<Loaded> {
    load::load_file(&build.path)
}

/// The builds in the cache folder given, damaged ones too, which [`Installed::verify`] tells.
///
/// # Errors
/// The folder cannot be read.
pub fn list(cache: &Path) -> Result<Vec<Installed>> {
    cache::Cache::at(cache.to_owned()).list()
}

/// The programs by which [`install`] can fetch, as they would be run.
pub fn clients(options: &InstallOptions) -> Vec<String> {
    client::find(options.search_path.as_deref(), options.client)
        .iter()
        .map(ToString::to_string)
        .collect()
}
